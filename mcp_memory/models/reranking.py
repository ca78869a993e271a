"""Reading a question and a text together, to order the first hits anew: a cross-encoder.

Optional: it runs only where a model is set, and only from files that are there. Nothing is
fetched but by `fetch_reranker`. If it fails or takes too long, the order stays as it was.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from pathlib import Path
from typing import Any, Final

from mcp_memory.values.errors import ModelUnavailable

logger = logging.getLogger(__name__)

RERANKED: Final = 20
"""So many of the first hits are ordered anew."""

MAX_CHARS: Final = 2_000
"""So much of a text is read."""

_BATCH_TEXTS: Final = 4
"""Between batches it is looked whether anybody still waits."""

_MODEL_FILES: Final = ("onnx/model.onnx", "model.onnx", "onnx/model_int8.onnx")
_FOLDER: Final = "rerankers"
_SETTING: Final = "MCP_MEMORY_RERANKER"

# As for the embedding model: onnxruntime is not to write to its maker.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"


class Reranker:
    """A cross-encoder that loads in the background; may be asked from several threads.

    Args:
        name: A model that fastembed knows, or a folder with its files.
        cache_dir: Where `fetch_reranker` puts models; fastembed's own cache is looked at too.
        seconds: How long a search waits for it.
        threads: Of onnxruntime; None for its own choice.
    """

    def __init__(
        self, name: str, cache_dir: Path, *, seconds: float = 2.0, threads: int | None = None
    ) -> None:
        self._name = name
        self._cache_dir = cache_dir
        self._seconds = seconds
        self._threads = threads
        self._model: Any = None
        self._why_not = "the model is being loaded"
        self._warned = False
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="reranker")

    def start(self) -> Future[None]:
        """Begin to load the model."""
        return self._pool.submit(self._load)

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def scores(self, query: str, texts: Sequence[str]) -> list[float] | str:
        """Return how well each text answers, 0 to 1; or in a sentence why nobody knows."""
        if self._model is None:
            return f"not reranked: {self._why_not}"
        given_up = threading.Event()
        asked = self._pool.submit(self._ask, query, texts, given_up)
        try:
            return asked.result(self._seconds)
        except TookTooLong:
            given_up.set()
            asked.cancel()
            return self._failed(f"it took more than {self._seconds:g} s")
        except Exception as error:  # onnxruntime's errors have no common class but this
            return self._failed(str(error) or type(error).__name__)

    def _ask(self, query: str, texts: Sequence[str], given_up: threading.Event) -> list[float]:
        found: list[float] = []
        for first in range(0, len(texts), _BATCH_TEXTS):
            if given_up.is_set():
                break
            batch = [text[:MAX_CHARS] for text in texts[first : first + _BATCH_TEXTS]]
            found += map(float, self._model.rerank(query, batch, batch_size=_BATCH_TEXTS))
        if not all(map(math.isfinite, found)):
            raise ValueError("the model gives no numbers")
        return [1 / (1 + math.exp(-max(min(score, 30.0), -30.0))) for score in found]

    def _failed(self, why: str) -> str:
        if not self._warned:
            self._warned = True
            logger.warning("the reranker %s: %s; the order stays as it was", self._name, why)
        return f"not reranked: {why}"

    def _load(self) -> None:
        try:
            self._model = load_reranker(self._name, self._cache_dir, self._threads)
        except ModelUnavailable as fault:
            self._why_not = str(fault)
            self._failed(str(fault))
        except Exception as error:
            logger.exception("the reranker %s", self._name)
            self._why_not = str(error)


def load_reranker(name: str, cache_dir: Path, threads: int | None = None) -> Any:
    """Return fastembed's model of a name or folder, from local files alone.

    Raises:
        ModelUnavailable: The files are not there or can't be loaded.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _loaded(_registered(folder), threads, specific_model_path=str(folder))
    if not _is_known(name):
        raise ModelUnavailable(
            f"no reranker {name!r} is known, and it is no folder",
            hint=f"Set {_SETTING} to a folder with an ONNX cross-encoder, or to one of"
            f" {', '.join(supported_rerankers())}",
        )
    fault: ModelUnavailable | None = None
    for cache in (str(cache_dir / _FOLDER), None):
        if cache is None or Path(cache).is_dir():
            try:
                return _loaded(name, threads, cache_dir=cache, local_files_only=True)
            except ModelUnavailable as error:
                fault = error
    raise ModelUnavailable(
        f"the files of the reranker {name} are not there",
        hint=f"Run `mcp-memory models fetch --reranker {name}`, or set {_SETTING} to their folder",
    ) from fault


def fetch_reranker(name: str, cache_dir: Path, *, offline: bool) -> Path:
    """Fetch the files of a reranker from the hub, and return the folder of them all.

    Raises:
        ModelUnavailable: They can't be had.
    """
    if not _is_known(name):
        raise ModelUnavailable(
            f"no reranker {name!r} is known", hint=f"There are {', '.join(supported_rerankers())}"
        )
    cache = cache_dir / _FOLDER
    try:
        load_reranker(name, cache_dir)
    except ModelUnavailable:
        if offline:
            raise ModelUnavailable(
                f"the files of the reranker {name} are not there, and the setting is offline",
                hint="Unset MCP_MEMORY_OFFLINE",
            ) from None
        _loaded(name, None, cache_dir=str(cache))
    return cache


def supported_rerankers() -> list[str]:
    """Return the names that fastembed knows."""
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    return [
        entry["model"]
        for entry in TextCrossEncoder.list_supported_models()
        if not entry["model"].startswith("local/")
    ]


def _is_known(name: str) -> bool:
    return name.lower() in {known.lower() for known in supported_rerankers()}


def _registered(folder: Path) -> str:
    """Make fastembed know the model in a folder, and return its name there."""
    from fastembed.common.model_description import ModelSource
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    file = next((name for name in _MODEL_FILES if (folder / name).is_file()), None)
    if file is None:
        raise ModelUnavailable(
            f"the folder {folder} has no {_MODEL_FILES[0]}",
            hint="It needs that, tokenizer.json, tokenizer_config.json and config.json",
        )
    name = f"local/{folder.resolve()}:{file}"
    known = {entry["model"].lower() for entry in TextCrossEncoder.list_supported_models()}
    if name.lower() not in known:
        # It insists on a source, and never asks it: the files are given when it is loaded.
        TextCrossEncoder.add_custom_model(name, sources=ModelSource(hf=name), model_file=file)
    return name


def _loaded(name: str, threads: int | None, **where: Any) -> Any:
    try:
        from fastembed.rerank.cross_encoder import TextCrossEncoder

        model = TextCrossEncoder(name, threads=threads, **where)
        list(model.rerank("a question", ["a text"]))
    except Exception as error:  # onnxruntime's errors have no common class but this
        raise ModelUnavailable(
            f"the reranker {name} can't be loaded: {error}", hint=f"Set another {_SETTING}"
        ) from error
    return model
