"""Computing the vectors of texts and questions, with fastembed and onnxruntime.

fastembed is imported only when a model is loaded.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from mcp_memory.models.chunking import WHOLE_FRAC, Offsets, chunk_ranges, slices
from mcp_memory.models.files import LOCAL_SOURCE, ModelFiles, ModelSpec
from mcp_memory.values.errors import ModelUnavailable

if TYPE_CHECKING:
    import tokenizers

Vectors = NDArray[np.float32]

# onnxruntime writes a device id and telemetry events to the user's cache unless this is set
# before it is loaded; its own call to turn that off comes too late.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

CHUNK_TOKENS: Final = 256
"""Longest chunk. With chunks of 64, 128, 192, 256, 384 and 510 tokens, the best chunk ranked the
right conversation first for 52.9, 53.9, 53.3, 50.2, 44.0 and 43.4 % of 755 LoCoMo questions: a
vector of much text represents little of it, and half the length doubles the vectors."""

_BATCH_TEXTS: Final = 16
"""By judgement: short texts reach it before `_BATCH_TOKENS`."""

_BATCH_TOKENS: Final = 512
"""Tokens of a batch, padding included. On a CPU larger batches are no faster (texts of 256
tokens: 34 a second one by one, 36 by four, 30 by eight) and take memory: the process peaks at
270 MB with 512, 365 with 1,024, 700 with 4,096."""

_MAX_BATCHES_AT_ONCE: Final = 4
"""By judgement: a memory server should leave processors to the programs it serves."""

_QUIET_SECONDS: Final = 1.0
"""Without a call for this long, work that nobody waits for gets every place; by judgement."""

_PATIENCE_SECONDS: Final = 1.0
"""How long such work waits while calls follow each other without a gap; by judgement."""

_MAX_CHARS_A_TOKEN: Final = 32
"""No token of ordinary text is longer. By judgement."""

_QUESTIONS: Final = (
    "What is my sister's name?",
    "How do I set up the project on a new machine?",
    "Why was the plan changed?",
    "Who asked about the invoice?",
    "How much did it cost?",
    "What happened at the meeting last week?",
    "Which version of the library is in use?",
    "How does the team work together?",
)
"""Questions of any kind, to measure what a prefix does to all of them. Four of these, or
sixteen, give nearly the same shift (cosine 0.98 and more)."""

_register_lock: Final = threading.Lock()


class Embedder(Protocol):
    """Computes vectors; may be called from several threads at once.

    Attributes:
        name: The model's name, as in the setting.
        fingerprint: sha256 of the file that computes the vectors, in hex: vectors of two
            fingerprints can't be compared.
        dimension: Numbers in a vector.
        max_tokens: The model's longest input, special tokens included.
        near_duplicate_at: Cosine from which two passages say the same.
    """

    @property
    def name(self) -> str: ...  # noqa: D102  see Attributes
    @property
    def fingerprint(self) -> str: ...  # noqa: D102  see Attributes
    @property
    def dimension(self) -> int: ...  # noqa: D102  see Attributes
    @property
    def max_tokens(self) -> int: ...  # noqa: D102  see Attributes
    @property
    def near_duplicate_at(self) -> float: ...  # noqa: D102  see Attributes

    def embed_passages(self, texts: Sequence[str], *, urgent: bool = True) -> Vectors:
        """Return the vectors of texts to be found: (n, dimension), unit length, in order.

        What is longer than the model's input is cut there.

        Args:
            urgent: Whether a call waits for them; what is not urgent lets others go first.
        """
        ...

    def embed_query(self, text: str, *, of_facts: bool = False) -> Vectors:
        """Return the vector of a question: (dimension,), unit length.

        Args:
            of_facts: Whether it is asked of facts, which say the same in other words, not of
                a conversation, in which one turn answers another.
        """
        ...

    def chunk(self, text: str, chunk_tokens: int | None = None) -> list[tuple[int, int]]:
        """Return the character ranges of a text to embed, in order.

        They cover all of it, with overlap; a text that fits is one range.

        Args:
            chunk_tokens: Longest chunk, at most the model's input; None for the default.
        """
        ...


class Turns:
    """A limit on threads at work; of those in a hurry the one that has waited longest is next.

    Others go in when none of these waits, or after a second, one at a time. While calls
    come in they leave a place free, so that the next call need not wait for them.

    A semaphore lets the thread in again that has just left, before another has woken:
    during a load of many texts an insert then waits for seconds.

    Args:
        places: How many threads may be at work.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._most_later = max(places - 1, 1)
        self._later_inside = 0
        self._lock = threading.Lock()
        self._urgent: deque[threading.Lock] = deque()
        self._later: deque[tuple[float, threading.Lock]] = deque()
        self._asked_at = -_QUIET_SECONDS

    @property
    def waiting(self) -> int:
        """How many threads wait."""
        return len(self._urgent) + len(self._later)

    def asked(self) -> None:
        """Note that a call needs a processor now."""
        self._asked_at = time.monotonic()

    @contextmanager
    def taken(self, *, urgent: bool = True) -> Iterator[None]:
        """Wait for a place, and have it in a `with`."""
        turn = self._enter(urgent)
        if turn is not None:
            turn.acquire()
        try:
            yield
        finally:
            self._leave(urgent)

    def _enter(self, urgent: bool) -> threading.Lock | None:
        """Take a place; return a lock to wait for if there is none."""
        with self._lock:
            if urgent:
                self.asked()
            if self._free and (urgent or self._admits_later()):
                self._take(urgent)
                return None
            turn = threading.Lock()
            turn.acquire()
            if urgent:
                self._urgent.append(turn)
            else:
                self._later.append((time.monotonic(), turn))
            return turn

    def _leave(self, urgent: bool) -> None:
        """Give the place to the next thread."""
        with self._lock:
            self._free += 1
            self._later_inside -= not urgent
            later_first = bool(self._later) and (
                not self._urgent or time.monotonic() - self._later[0][0] > _PATIENCE_SECONDS
            )
            if later_first and self._admits_later():
                self._take(False)
                self._later.popleft()[1].release()
            elif self._urgent:
                self._take(True)
                self._urgent.popleft().release()

    def _take(self, urgent: bool) -> None:
        self._free -= 1
        self._later_inside += not urgent

    def _admits_later(self) -> bool:
        quiet = time.monotonic() - self._asked_at >= _QUIET_SECONDS
        return quiet or self._later_inside < self._most_later


class FastEmbedder:
    """An `Embedder` on fastembed and onnxruntime, on the CPU.

    One thread computes a batch, and several batches are computed at once: two
    threads in one batch wait for each other, and where another program is busy a
    text of 40 words takes them 16 ms instead of 8. Questions do not wait for
    passages. onnxruntime's memory arena is off: with batches of this size it is no
    faster, and it never frees what the largest batch took. The model quantizes by
    batch, so a text's vectors from two batches have a cosine of 0.994 to 0.998;
    recall is the same.

    The default model's question prefix shifts all questions the same way, towards
    answers and away from paraphrases. A question about facts goes without it and is
    shifted part of that way, which takes a quarter less time; see `files.ARCTIC`.

    `near_duplicate_at` of the default model is 0.95. Measured: the same statement
    in similar words 0.98-0.99 ("lives in Lisbon with two cats", "lives in Lisbon
    and has two cats"), with another value in it 0.91-0.99 ("port 5433", "port
    5432"), a free paraphrase 0.80-0.93, something else 0.63-0.73. So a near
    duplicate may also be the old state of what is new.
    """

    def __init__(
        self,
        files: ModelFiles,
        model: Any,
        tokenizer: tokenizers.Tokenizer,
        batches_at_once: int = 1,
    ) -> None:
        """Wrap a loaded model; see `load`.

        Args:
            model: fastembed's TextEmbedding.
            tokenizer: The model's own, without truncation and padding.
            batches_at_once: Batches of passages that are computed at once.
        """
        spec = files.spec
        self.name = spec.name
        self.fingerprint = files.sha256
        self.dimension = spec.dimension
        self.max_tokens = _max_tokens(files)
        self.near_duplicate_at = spec.near_duplicate_at
        self._spec = spec
        self._model = model
        self._tokenizer = tokenizer
        self._turns = Turns(batches_at_once)
        # Two, so that no urgent batch waits for a thread.
        self._workers = {
            urgent: ThreadPoolExecutor(batches_at_once, thread_name_prefix="embedding")
            for urgent in (True, False)
        }
        prefix_tokens = len(tokenizer.encode(spec.passage_prefix).ids)
        # A chunk may count a few tokens more by itself than it did within its text.
        self._room_tokens = int((self.max_tokens - prefix_tokens) / WHOLE_FRAC)
        self._towards_answers = self._measured_prefix()

    @classmethod
    def load(cls, files: ModelFiles, *, threads: int | None) -> FastEmbedder:
        """Load a model from its files, in about half a second with the imports.

        Args:
            threads: Batches that are computed at once; None for one per processor, at
                most four.

        Raises:
            ModelUnavailable: The files can't be loaded.
        """
        try:
            from fastembed import TextEmbedding

            with _register_lock:
                _register(files.spec)
            model: Any = TextEmbedding(
                files.spec.name,
                cache_dir=str(files.directory),
                specific_model_path=str(files.directory),
                threads=1,
                enable_cpu_mem_arena=False,
            )
            tokenizer = _whole_tokenizer(model.model.tokenizer)
            at_once = threads or min(_processors(), _MAX_BATCHES_AT_ONCE)
            embedder = cls(files, model, tokenizer, at_once)
            found = embedder.embed_query("").shape[0]
        except Exception as error:  # onnxruntime's errors have no common class but this
            raise ModelUnavailable(
                f"the embedding model {files.spec.name} can't be loaded: {error}",
                hint=f"Delete {files.directory} and run `mcp-memory models fetch`",
            ) from error
        if found != files.spec.dimension:
            raise ModelUnavailable(
                f"the embedding model {files.spec.name} gives vectors of {found} numbers "
                f"instead of {files.spec.dimension}",
                hint="Set another MCP_MEMORY_EMBEDDING_MODEL",
            )
        return embedder

    def embed_passages(self, texts: Sequence[str], *, urgent: bool = True) -> Vectors:
        """Return the vectors of texts to be found; see `Embedder`.

        They are embedded in small batches of texts of similar length, to spend
        little on padding and to make no other thread wait long.
        """
        vectors = np.empty((len(texts), self.dimension), np.float32)
        prefixed = [self._clipped(self._spec.passage_prefix + text) for text in texts]

        def embed(numbers: list[int]) -> None:
            batch = [prefixed[number] for number in numbers]
            with self._turns.taken(urgent=urgent):
                found = self._model.passage_embed(batch, batch_size=len(batch))
                vectors[numbers] = _units(found)

        batches = list(self._batches(prefixed))
        if len(batches) == 1:
            embed(batches[0])
        else:
            for _ in self._workers[urgent].map(embed, batches):
                pass
        return vectors

    def embed_query(self, text: str, *, of_facts: bool = False) -> Vectors:
        """Return the vector of a question; see `Embedder`."""
        self._turns.asked()
        if not of_facts or self._towards_answers is None:
            return self._asked(self._spec.query_prefix + text)
        vector: Vectors = _units([self._asked(text) + self._towards_answers])[0]
        return vector

    def chunk(self, text: str, chunk_tokens: int | None = None) -> list[tuple[int, int]]:
        """Return the ranges to embed: `CHUNK_TOKENS` long at most, 15 % of it shared with the next.

        A text up to a quarter longer than that is one range. 10 MB take 5 s.

        Args:
            chunk_tokens: Another longest chunk, at most the model's input.
        """
        longest = min(chunk_tokens or CHUNK_TOKENS, self._room_tokens)
        # Every token of ASCII text has a character or more, but for one in front.
        if text.isascii() and len(text) < int(longest * WHOLE_FRAC):
            return [(0, len(text))]
        return chunk_ranges(text, self._offsets(text), longest)

    def _asked(self, text: str) -> Vectors:
        """Return the vector of a text as a question (dimension,), unit length."""
        vector: Vectors = _units(self._model.query_embed(self._clipped(text)))[0]
        return vector

    def _measured_prefix(self) -> Vectors | None:
        """Return the shift of a question about facts, in place of the prefix (dimension,)."""
        spec = self._spec
        if spec.facts_prefix_frac is None:
            return None
        added = [self._asked(spec.query_prefix + text) - self._asked(text) for text in _QUESTIONS]
        towards: Vectors = np.float32(spec.facts_prefix_frac) * np.mean(added, axis=0)
        return towards

    def _batches(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """Yield the indexes of the texts in batches, those of similar length together."""
        lengths = [
            min(len(encoding.ids), self.max_tokens)
            for encoding in self._tokenizer.encode_batch(list(texts))
        ]
        batch: list[int] = []
        for number in sorted(range(len(texts)), key=lengths.__getitem__):
            # The longest comes last, and all are padded to its length.
            if len(batch) == _BATCH_TEXTS or (len(batch) + 1) * lengths[number] > _BATCH_TOKENS:
                if batch:
                    yield batch
                batch = []
            batch.append(number)
        if batch:
            yield batch

    def _clipped(self, text: str) -> str:
        """Cut off what is certainly beyond the model's input, before it is tokenized."""
        return text[: self.max_tokens * _MAX_CHARS_A_TOKEN]

    def _offsets(self, text: str) -> Iterator[tuple[Offsets, Offsets]]:
        """Yield where in the text each token starts and ends, slice by slice."""
        for start, end in slices(text):
            encoding = self._tokenizer.encode(text[start:end], add_special_tokens=False)
            offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2) + start
            yield offsets[:, 0], offsets[:, 1]


def _register(spec: ModelSpec) -> None:
    """Add a model to fastembed's list if it isn't there."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    known = {entry["model"].lower() for entry in TextEmbedding.list_supported_models()}
    if spec.in_fastembed or spec.name.lower() in known:
        return
    TextEmbedding.add_custom_model(
        spec.name,
        pooling=PoolingType.CLS,
        normalization=True,
        # It requires a source, but does not use it: `load` passes it the folder.
        sources=ModelSource(hf=LOCAL_SOURCE + spec.name.rpartition("/")[2]),
        dim=spec.dimension,
        model_file=spec.model_file,
    )


def _whole_tokenizer(given: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Return a tokenizer without truncation and padding; both share one vocabulary.

    Loaded a second time it would take 13 MB.
    """
    import tokenizers

    whole = tokenizers.Tokenizer(given.model)
    whole.normalizer, whole.pre_tokenizer = given.normalizer, given.pre_tokenizer
    whole.post_processor = given.post_processor
    added = given.get_added_tokens_decoder().values()
    whole.add_special_tokens([token for token in added if token.special])
    whole.add_tokens([token for token in added if not token.special])
    return whole


def _max_tokens(files: ModelFiles) -> int:
    """Return the model's longest input, as its tokenizer's settings give it."""
    try:
        settings = json.loads((files.directory / "tokenizer_config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return files.spec.max_tokens
    found = [settings.get(key) for key in ("model_max_length", "max_length")]
    # Some have 10**30 for no limit.
    valid = [tokens for tokens in found if isinstance(tokens, int) and 0 < tokens < 10**6]
    return min(valid, default=files.spec.max_tokens)


def _units(vectors: Iterable[Vectors]) -> Vectors:
    """Return vectors as rows (n, dimension) of length one."""
    rows: Vectors = np.asarray(list(vectors), np.float32)
    lengths: Vectors = np.linalg.norm(rows, axis=1, keepdims=True)
    np.maximum(lengths, np.finfo(np.float32).tiny, out=lengths)
    units: Vectors = rows / lengths
    return units


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
