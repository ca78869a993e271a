"""Which rows have a term and how often: what is new in lists, all the rest in plain arrays.

Folding moves the new into the arrays. These hold no Python object for a term, take
five bytes for a posting, and never change, so that they can be written while others
add. Folding is a pause; it comes when the new have become many, or after a bulk.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mcp_memory.search.arrays import Rows, Scores

Posting = tuple[Rows, Scores]
"""The rows that have a term, and how often each has it."""

FOLD_ROWS: Final = 16_384
FOLD_PART: Final = 2
"""New rows are folded when they are more than both: so many, and one of so many folded ones.
Whoever folds a copy for `adopt` now and then does it before, and the pause never comes."""

BULK_TERMS: Final = 1 << 23
"""So many terms of a bulk are folded at once: the more, the more memory that takes."""

MOST: Final = 255
"""What a count that takes more than a byte stands as; its value is kept apart."""

_BLOCK_TERMS: Final = 1 << 16
_POSTING_BYTES: Final = 12
_TERM_BYTES: Final = 400


@dataclass(frozen=True, slots=True)
class Folded:
    """Postings of all terms one after the other, by the terms' hashes in ascending order.

    Attributes:
        hashes: (terms,) uint64. Of two terms with one hash only one is found: among two
            million terms that happens once in ten million times.
        firsts: (terms + 1,) int64: where the postings of each term begin, and the end.
        rows: (postings,) int32, ascending for each term.
        counts: (postings,) uint8.
        large: (n,) int64: which postings have a count that is not in `counts`, ascending.
        large_counts: (n,) float32.
    """

    hashes: NDArray[np.uint64]
    firsts: NDArray[np.int64]
    rows: Rows
    counts: NDArray[np.uint8]
    large: NDArray[np.int64]
    large_counts: Scores

    @classmethod
    def empty(cls) -> Folded:
        """Return no postings."""
        return _folded(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int32), [])

    @property
    def nbytes(self) -> int:
        """Size of the arrays."""
        return sum(
            part.nbytes
            for part in (self.hashes, self.firsts, self.rows, self.counts, self.large_counts)
        )

    def slice_of(self, term: str) -> slice | None:
        """Return where a term's postings are, None if it has none."""
        hashed = np.uint64(hash_of(term))
        at = int(self.hashes.searchsorted(hashed))
        if at == len(self.hashes) or self.hashes[at] != hashed:
            return None
        return slice(int(self.firsts[at]), int(self.firsts[at + 1]))

    def posting(self, where: slice) -> Posting:
        """Return some postings of one term."""
        counts = self.counts[where].astype(np.float32)
        if len(self.large):
            first, end = self.large.searchsorted((where.start, where.stop))
            counts[self.large[first:end] - where.start] = self.large_counts[first:end]
        return self.rows[where], counts

    def joined(self, newer: Folded) -> Folded:
        """Return these postings with those of newer rows behind them."""
        if not len(self.rows) or not len(newer.rows):
            return newer if len(newer.rows) else self
        hashes = np.union1d(self.hashes, newer.hashes)
        places = [hashes.searchsorted(part.hashes) for part in (self, newer)]
        sizes = np.zeros(len(hashes), dtype=np.int64)
        for part, place in zip((self, newer), places, strict=True):
            sizes[place] += np.diff(part.firsts)
        firsts = _firsts_of(sizes)
        rows = np.empty(firsts[-1], dtype=np.int32)
        counts = np.empty(firsts[-1], dtype=np.uint8)
        free = firsts[:-1].copy()
        large = []
        for part, place in zip((self, newer), places, strict=True):
            # Block by block: where each posting goes takes more room than the posting.
            for first in range(0, len(place), _BLOCK_TERMS):
                chosen = place[first : first + _BLOCK_TERMS]
                bounds = part.firsts[first : first + len(chosen) + 1]
                own = np.diff(bounds)
                to = np.arange(bounds[0], bounds[-1]) + np.repeat(free[chosen] - bounds[:-1], own)
                rows[to] = part.rows[bounds[0] : bounds[-1]]
                counts[to] = part.counts[bounds[0] : bounds[-1]]
            at = part.firsts.searchsorted(part.large, side="right") - 1
            large.append(part.large - part.firsts[at] + free[place[at]])
            free[place] += np.diff(part.firsts)
        at = np.concatenate(large)
        order = np.argsort(at)
        large_counts = np.concatenate([self.large_counts, newer.large_counts])[order]
        return Folded(hashes, firsts, rows, counts, at[order], large_counts)

    def renumbered(self, numbers: Rows) -> Folded:
        """Return the postings of rows that have another number now.

        Args:
            numbers: By row its new number, below 0 for one that is left out (rows,).
        """
        if not len(self.rows):
            return self
        new = numbers[self.rows]
        there = new >= 0
        sizes = np.add.reduceat(there, self.firsts[:-1], dtype=np.int64)
        some = sizes > 0
        rows, counts = new[there], self.counts[there]
        known = there[self.large]
        large = (np.cumsum(there) - 1)[self.large[known]] if len(self.large) else self.large
        kept = numbers[numbers >= 0]
        if (np.diff(kept) < 0).any():
            order = np.lexsort((rows, np.repeat(np.arange(len(sizes)), sizes)))
            rows, counts = rows[order], counts[order]
            moved = np.empty(len(order), dtype=np.int64)
            moved[order] = np.arange(len(order))
            large = moved[large]
        order = np.argsort(large)
        return Folded(
            self.hashes[some],
            _firsts_of(sizes[some]),
            rows,
            counts,
            large[order],
            self.large_counts[known][order],
        )


@dataclass(frozen=True, slots=True)
class Unfolded:
    """Postings at one moment: what is folded, and a copy of what is new."""

    folded: Folded
    terms: list[str]
    numbers: Rows
    """The terms of the new rows one after the other, by their places in `terms`."""
    first: int
    """The first of the new rows."""

    def fold(self, lengths: NDArray[Any]) -> Folded:
        """Return all of it folded.

        Args:
            lengths: How many terms each row has, the folded ones as well.
        """
        return self.folded.joined(_fold(self.terms, self.numbers, self.first, lengths))


class _Numbers(dict[str, int]):
    """Terms by numbers that count up as they are met."""

    def __missing__(self, term: str) -> int:
        number = self[term] = len(self)
        return number


class Postings:
    """The postings of an index whose rows only count up. Not thread-safe."""

    def __init__(self, folded: Folded | None = None, rows: int = 0) -> None:
        self._folded = folded or Folded.empty()
        self._folded_rows = rows
        self._numbers = _Numbers()
        self._new = array("i")
        self._rows: list[array[int]] = []
        self._counts: list[array[float]] = []
        self._bulk = False

    @property
    def nbytes(self) -> int:
        """Memory in use, about."""
        new = len(self._new) * _POSTING_BYTES + len(self._numbers) * _TERM_BYTES
        return self._folded.nbytes + new

    def add(self, row: int, terms: Sequence[str], lengths: NDArray[Any]) -> None:
        """Add a row, higher than all before.

        Args:
            lengths: How many terms each row has, this one included.
        """
        numbers = list(map(self._numbers.__getitem__, terms))
        self._new.extend(numbers)
        if self._bulk:
            if len(self._new) >= BULK_TERMS:
                self.fold(lengths)
            return
        for number, count in Counter(numbers).items():
            if number == len(self._rows):
                self._rows.append(array("i"))
                self._counts.append(array("f"))
            self._rows[number].append(row)
            self._counts[number].append(count)
        if row + 1 - self._folded_rows > max(FOLD_ROWS, self._folded_rows // FOLD_PART):
            self.fold(lengths)

    @contextmanager
    def bulk(self, lengths: NDArray[Any]) -> Iterator[None]:
        """Add many rows in a `with`; nothing is found before its end, when `fold` is to come."""
        self.fold(lengths)
        self._bulk = True
        try:
            yield
        finally:
            self._bulk = False

    def count(self, term: str) -> int:
        """Return how many rows have a term."""
        where = self._folded.slice_of(term)
        number = self._numbers.get(term)
        folded = 0 if where is None else where.stop - where.start
        return folded + (0 if number is None else len(self._rows[number]))

    def find(self, term: str) -> list[Posting]:
        """Return a term's postings in parts, ascending."""
        found: list[Posting] = []
        where = self._folded.slice_of(term)
        if where is not None:
            found.append(self._folded.posting(where))
        number = self._numbers.get(term)
        if number is not None:
            rows = np.frombuffer(self._rows[number], dtype=np.int32)
            found.append((rows, np.frombuffer(self._counts[number], dtype=np.float32)))
        return found

    def fold(self, lengths: NDArray[Any]) -> None:
        """Move what is new into the arrays."""
        self._take(self.copy().fold(lengths) if self._new else self._folded, len(lengths))

    def _take(self, folded: Folded, rows: int) -> None:
        self._folded, self._folded_rows = folded, rows
        if self._new:
            self._numbers, self._new = _Numbers(), array("i")
            self._rows, self._counts = [], []

    def adopt(self, folded: Folded, rows: int, lengths: NDArray[Any]) -> None:
        """Take what was folded of a copy; what is new since stays so.

        Args:
            folded: The postings of the first rows.
            rows: How many these are.
            lengths: How many terms each row has, also of those that are new.
        """
        if rows < self._folded_rows:
            return
        terms = list(self._numbers)
        new = self._new[int(lengths[self._folded_rows : rows].sum()) :]
        self._take(folded, rows)
        end = 0
        for row, count in enumerate(lengths[rows:].astype(int).tolist(), rows):
            self.add(row, [terms[number] for number in new[end : end + count]], lengths[: row + 1])
            end += count

    def copy(self) -> Unfolded:
        """Return what there is now, in a moment."""
        new = np.array(self._new, dtype=np.int32)
        return Unfolded(self._folded, list(self._numbers), new, self._folded_rows)


def hash_of(term: str) -> int:
    """Return 64 bits that tell terms apart, the same on every machine and in every run."""
    encoded = term.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(encoded, digest_size=8).digest(), "little")


def _fold(terms: list[str], numbers: Rows, first: int, lengths: NDArray[Any]) -> Folded:
    """Return the postings of rows from `first` on.

    Args:
        terms: Each once.
        numbers: The terms of these rows one after the other, by their places in `terms`.
        first: The first of these rows.
        lengths: How many terms each row has, those before as well.
    """
    hashes = np.fromiter(map(hash_of, terms), np.uint64, len(terms))
    order = np.argsort(hashes)
    places = np.empty(len(terms), dtype=np.int64)
    places[order] = np.arange(len(terms))
    own = lengths[first:].astype(np.int64)
    rows = np.repeat(np.arange(first, first + len(own)), own)
    # Sorted by term and row, what occurs several times stands there several times.
    keys = places[numbers] << 32 | rows
    keys.sort()
    at = np.flatnonzero(np.diff(keys, prepend=-1))
    counts = np.diff(at, append=len(keys))
    keys = keys[at]
    sizes = np.bincount(keys >> 32, minlength=len(terms))
    return _folded(hashes[order], sizes, (keys & 0xFFFFFFFF).astype(np.int32), counts)


def _folded(
    hashes: NDArray[np.uint64], sizes: NDArray[np.int64], rows: Rows, counts: Sequence[int] | Any
) -> Folded:
    values = np.asarray(counts, dtype=np.int64)
    large = np.flatnonzero(values >= MOST)
    return Folded(
        hashes,
        _firsts_of(sizes),
        rows,
        np.minimum(values, MOST).astype(np.uint8),
        large,
        values[large].astype(np.float32),
    )


def _firsts_of(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)])
