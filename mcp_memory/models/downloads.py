"""Bringing one file over HTTP: resumed, watched for stalls, and given up when told to.

Knows nothing of models. Whether the bytes are the right ones is for the caller
to check; nothing is printed.
"""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import httpx

STALL_SECONDS: Final = 10.0
"""So long may a source send nothing before it is given up."""

_CONNECT_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.1
_BLOCK_BYTES: Final = 256 * 1024
_MAX_ATTEMPTS: Final = 5
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the fetching of a model has come; `str` says it in one line."""

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
Cancelled = Callable[[], bool]


class DownloadFailed(Exception):
    """One source did not deliver; the message is the reason, without the source's name.

    Args:
        final: Another source would fail the same way: there is no room, or no right to write.
        status: The HTTP status of the answer, if that is what was wrong.
    """

    def __init__(self, reason: str, *, final: bool = False, status: int | None = None) -> None:
        super().__init__(reason)
        self.final = final
        self.status = status


class DownloadCancelled(Exception):
    """The caller asked to stop; what had arrived is kept to be resumed."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Translate what goes wrong while `path` is written.

    Raises:
        DownloadFailed: There is no room for it, or no right to write there.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            # Half a file in the way of everything else helps nobody.
            with contextlib.suppress(OSError):
                path.unlink()
            raise DownloadFailed(f"no space left for {path}", final=True) from error
        detail = error.strerror or str(error)
        raise DownloadFailed(f"{path} can't be written: {detail}", final=True) from error


def download(
    url: str,
    path: Path,
    *,
    headers: dict[str, str] | None = None,
    report: Callable[[int, int | None], None] | None = None,
    cancelled: Cancelled | None = None,
) -> None:
    """Bring a file to `path`, going on from what is already there.

    A connection that breaks is taken up again as long as each attempt brings
    something. A source that sends nothing for `STALL_SECONDS` is given up,
    wherever it hangs: looking up the name, connecting, or in the middle.

    Args:
        report: Called now and then with the bytes that are there and the bytes there will be.
        cancelled: Asked ten times a second.

    Raises:
        DownloadFailed: It can't be had from there.
        DownloadCancelled: `cancelled` said so.
    """
    for attempt in range(_MAX_ATTEMPTS):
        transfer = _Transfer(url, path, headers or {})
        try:
            transfer.follow(report, cancelled)
            return
        except DownloadFailed as failure:
            last = attempt == _MAX_ATTEMPTS - 1
            if failure.final or not transfer.received_bytes or last:
                raise


class _Transfer:
    """One request, made in a thread of its own so that no hanging call holds up the caller."""

    def __init__(self, url: str, path: Path, headers: dict[str, str]) -> None:
        self.received_bytes = 0
        self._url = url
        self._path = path
        self._headers = headers
        self._start_bytes = 0
        self._total_bytes: int | None = None
        self._failure: BaseException | None = None
        self._finished = threading.Event()
        self._abandoned = threading.Event()

    def follow(
        self, report: Callable[[int, int | None], None] | None, cancelled: Cancelled | None
    ) -> None:
        worker = threading.Thread(target=self._run, name="model-download", daemon=True)
        worker.start()
        seen, seen_at = 0, time.monotonic()
        try:
            while not self._finished.wait(_POLL_SECONDS):
                if cancelled is not None and cancelled():
                    raise DownloadCancelled
                if self.received_bytes > seen:
                    seen, seen_at = self.received_bytes, time.monotonic()
                    self._tell(report)
                elif time.monotonic() - seen_at > STALL_SECONDS:
                    raise DownloadFailed(f"no answer for {STALL_SECONDS:.0f} seconds")
        finally:
            # From here on it writes nothing more, even if its call comes back one day.
            self._abandoned.set()
        if self._failure is not None:
            raise self._failure
        self._tell(report)

    def _tell(self, report: Callable[[int, int | None], None] | None) -> None:
        if report is not None:
            report(self._start_bytes + self.received_bytes, self._total_bytes)

    def _run(self) -> None:
        try:
            self._receive()
        except BaseException as error:
            self._failure = error
        finally:
            self._finished.set()

    def _receive(self) -> None:
        import httpx

        timeout = httpx.Timeout(STALL_SECONDS, connect=_CONNECT_SECONDS)
        try:
            with httpx.Client(timeout=timeout, follow_redirects=True) as client:
                self._request(client)
        except httpx.TimeoutException as error:
            raise DownloadFailed("timed out") from error
        except httpx.HTTPError as error:
            raise DownloadFailed(_describe(error)) from error

    def _request(self, client: httpx.Client) -> None:
        with writing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            have = self._path.stat().st_size if self._path.exists() else 0
        headers = {**self._headers, "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        with client.stream("GET", self._url, headers=headers) as response:
            if have and response.status_code == 416:
                # What is there is no beginning of that file.
                with writing(self._path):
                    self._path.unlink()
                return self._request(client)
            if response.status_code not in {200, 206}:
                status = response.status_code
                raise DownloadFailed(f"HTTP status {status} for {self._url}", status=status)
            resumed = response.status_code == 206
            if resumed and not response.headers.get("Content-Range", "").startswith(
                f"bytes {have}-"
            ):
                raise DownloadFailed("it sent another part of the file than was asked for")
            self._start_bytes = have if resumed else 0
            length = response.headers.get("Content-Length", "")
            self._total_bytes = self._start_bytes + int(length) if length.isdigit() else None
            self._store(response, "ab" if resumed else "wb")
        return None

    def _store(self, response: httpx.Response, mode: str) -> None:
        # Opening and writing are told apart from reading: only they are about the disk.
        with writing(self._path):
            file = self._path.open(mode)
        with contextlib.ExitStack() as stack:
            stack.callback(file.close)
            for block in response.iter_bytes(_BLOCK_BYTES):
                if self._abandoned.is_set():
                    return
                with writing(self._path):
                    file.write(block)
                    file.flush()
                self.received_bytes += len(block)


def _describe(error: httpx.HTTPError) -> str:
    kind = type(error).__name__
    text = str(error)
    return f"{kind}: {text}" if text else kind
