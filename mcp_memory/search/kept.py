"""A search index without its vectors as plain arrays, to persist and restore it.

Documents are in the order of the database, without removed ones: a restored index
answers like a rebuilt one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mcp_memory.search.postings import Folded

Array = NDArray[Any]
Arrays = Mapping[str, Array]
Ints = NDArray[np.int32]

_GONE: Final = -1
_PIECE_TEXTS: Final = 10_000
"""Texts that are written as JSON at a time; by judgement."""

_WORDS: Final = (
    "chars",
    "threads",
    "lengths",
    "long",
    "firsts",
    "starts",
    "ends",
    "passage_lengths",
)
_FOLDED: Final = ("hashes", "sizes", "rows", "counts", "large", "large_counts")


@dataclass(frozen=True, slots=True)
class Groups:
    """Named groups of documents: `sizes[i]` of the `numbers` are those of `names[i]`."""

    names: list[str]
    sizes: Ints
    numbers: Ints

    @classmethod
    def of(cls, groups: Mapping[str, Sequence[int]]) -> Groups:
        """Return groups by name."""
        sizes = np.fromiter(map(len, groups.values()), np.int32, len(groups))
        numbers = np.empty(int(sizes.sum()), dtype=np.int32)
        end = 0
        for group in groups.values():
            numbers[end : end + len(group)] = group
            end += len(group)
        return cls(list(groups), sizes, numbers)

    def renumbered(self, numbers: Ints) -> Groups:
        """Return the groups with other document numbers, without empty groups."""
        if not len(self.numbers):
            return self
        new = numbers[self.numbers]
        there = new >= 0
        sizes = np.add.reduceat(there, _starts(self.sizes), dtype=np.int32)
        names = [name for name, size in zip(self.names, sizes.tolist(), strict=True) if size]
        return Groups(names, sizes[sizes > 0], new[there])

    def parts(self) -> dict[str, Ints]:
        """Return the documents of each group."""
        ends = np.cumsum(self.sizes)[:-1]
        return (
            dict(zip(self.names, np.split(self.numbers, ends), strict=True)) if self.names else {}
        )


@dataclass(frozen=True, slots=True)
class KeptWords:
    """The words of documents; see `DocumentWords` and `Neighbours`."""

    chars: Ints
    thread_names: list[str]
    threads: Ints
    whole: Folded
    lengths: NDArray[np.float32]
    long: Ints
    firsts: Ints
    starts: Ints
    ends: Ints
    passages: Folded
    passage_lengths: NDArray[np.float32]

    def renumbered(self, numbers: Ints, old: NDArray[np.intp]) -> KeptWords:
        """Return the words with other document numbers.

        Args:
            numbers: By document: its new number, or below 0 to leave it out.
            old: By new number: the old one.
        """
        moved = numbers[self.long]
        chosen = np.flatnonzero(moved >= 0)
        chosen = chosen[np.argsort(moved[chosen])]
        counts = np.diff(self.firsts, append=len(self.starts))[chosen]
        firsts = _starts(counts)
        within = np.arange(int(counts.sum())) - np.repeat(firsts, counts)
        old_passages = np.repeat(self.firsts[chosen], counts) + within
        passages = np.full(len(self.starts), _GONE, dtype=np.int32)
        passages[old_passages] = np.arange(len(old_passages))
        return KeptWords(
            self.chars[old],
            self.thread_names,
            self.threads[old],
            self.whole.renumbered(numbers),
            self.lengths[old],
            moved[chosen],
            firsts.astype(np.int32),
            self.starts[old_passages],
            self.ends[old_passages],
            self.passages.renumbered(passages),
            self.passage_lengths[old_passages],
        )


@dataclass(frozen=True, slots=True)
class KeptIndex:
    """Documents by number, with key, times in seconds, labels, speaker and words."""

    keys: list[str]
    when: NDArray[np.float64]
    recorded: NDArray[np.float64]
    labels: Groups
    speakers: Groups
    words: KeptWords

    def only(self, keys: Sequence[str]) -> KeptIndex:
        """Return the documents of these keys, in their order.

        Args:
            keys: Each once.

        Raises:
            ValueError: One isn't there.
        """
        places = {key: place for place, key in enumerate(keys)}
        return self._renumbered(
            np.fromiter((places.get(key, _GONE) for key in self.keys), np.int32, len(self.keys)),
            len(keys),
        )

    def without(self, keys: set[str]) -> KeptIndex:
        """Return the documents except those of some keys, which needn't be there."""
        if not keys:
            return self
        there = np.fromiter((key not in keys for key in self.keys), np.bool_, len(self.keys))
        if there.all():
            return self
        numbers = np.where(there, np.cumsum(there, dtype=np.int32) - 1, _GONE).astype(np.int32)
        return self._renumbered(numbers, int(np.count_nonzero(there)))

    def _renumbered(self, numbers: Ints, count: int) -> KeptIndex:
        there = np.flatnonzero(numbers >= 0)
        if len(there) != count:
            raise ValueError(f"only {len(there)} of {count} documents are in the index")
        if np.array_equal(numbers, np.arange(count)):
            return self
        old = np.empty(count, dtype=np.intp)
        old[numbers[there]] = there
        return KeptIndex(
            [self.keys[at] for at in old.tolist()],
            self.when[old],
            self.recorded[old],
            self.labels.renumbered(numbers),
            self.speakers.renumbered(numbers),
            self.words.renumbered(numbers, old),
        )

    def arrays(self) -> dict[str, Array]:
        """Return all of it as arrays by name."""
        words = self.words
        arrays: dict[str, Array] = {
            "keys": _text(self.keys),
            "when": self.when,
            "recorded": self.recorded,
            "thread_names": _text(words.thread_names),
        }
        for name, groups in (("labels", self.labels), ("speakers", self.speakers)):
            arrays[name] = _text(groups.names)
            arrays[f"{name}.sizes"], arrays[f"{name}.numbers"] = groups.sizes, groups.numbers
        arrays |= {name: getattr(words, name) for name in _WORDS}
        for name, folded in (("whole", words.whole), ("passages", words.passages)):
            sizes = np.diff(folded.firsts).astype(np.int32)
            large = (folded.large, folded.large_counts)
            values: tuple[Array, ...] = (folded.hashes, sizes, folded.rows, folded.counts, *large)
            arrays |= {f"{name}.{part}": value for part, value in zip(_FOLDED, values, strict=True)}
        return arrays

    @classmethod
    def of(cls, arrays: Arrays) -> KeptIndex:
        """Return the index that `arrays` returned these of.

        Raises:
            KeyError: An array is missing.
            ValueError: An array can't be read.
        """

        def groups(name: str) -> Groups:
            return Groups(_texts(arrays[name]), arrays[f"{name}.sizes"], arrays[f"{name}.numbers"])

        def folded(name: str) -> Folded:
            hashes, sizes, *rest = (arrays[f"{name}.{part}"] for part in _FOLDED)
            firsts = np.zeros(len(sizes) + 1, dtype=np.int64)
            np.cumsum(sizes, out=firsts[1:])
            return Folded(hashes, firsts, *rest)

        words = KeptWords(
            thread_names=_texts(arrays["thread_names"]),
            whole=folded("whole"),
            passages=folded("passages"),
            **{name: arrays[name] for name in _WORDS},
        )
        return cls(
            _texts(arrays["keys"]),
            arrays["when"],
            arrays["recorded"],
            groups("labels"),
            groups("speakers"),
            words,
        )


@dataclass(frozen=True, slots=True)
class Copied:
    """A copy of an index. `words` and `kept` are slow and need no lock."""

    keys: list[Any]
    alive: NDArray[np.bool_]
    when: NDArray[np.float64]
    recorded: NDArray[np.float64]
    labels: Mapping[str, Sequence[int]]
    speakers: Mapping[str, Sequence[int]]
    words: Callable[[], KeptWords]

    def kept(self, keys: Sequence[str], words: KeptWords) -> KeptIndex:
        """Return the documents of these keys, in their order.

        Args:
            keys: All keys that can be found.
            words: The result of `words`.

        Raises:
            ValueError: Other documents can be found.
        """
        found = np.count_nonzero(self.alive)
        if found != len(keys):
            raise ValueError(f"the index has {found} documents, but {len(keys)} are expected")
        # A replaced document still has its key.
        present = np.where(self.alive, np.array(self.keys, dtype=object), "").tolist()
        index = KeptIndex(
            present,
            self.when,
            self.recorded,
            Groups.of(self.labels),
            Groups.of(self.speakers),
            words,
        )
        return index.only(keys)


def _text(texts: list[str]) -> NDArray[np.uint8]:
    # In pieces: writing JSON blocks all other threads.
    pieces = (
        json.dumps(texts[at : at + _PIECE_TEXTS], ensure_ascii=False)[1:-1]
        for at in range(0, len(texts), _PIECE_TEXTS)
    )
    return np.frombuffer(f"[{','.join(pieces)}]".encode(), dtype=np.uint8)


def _texts(array: Array) -> list[str]:
    texts: list[str] = json.loads(array.tobytes())
    return texts


def _starts(sizes: Array) -> NDArray[np.int64]:
    """Return where parts of these sizes start."""
    return np.cumsum(sizes, dtype=np.int64) - sizes
