"""Postings: which rows have a term and how often. New ones are in lists, the others in arrays.

Folding moves the new ones into arrays. These need five bytes a posting and no Python
object for a term. They never change, so that they can be written to disk while rows are
added. Folding takes a moment; it happens when there are many new rows, or after a bulk.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mcp_memory.search.arrays import Rows, Scores

Posting = tuple[Rows, Scores]
"""The rows that have a term, and how often each has it."""

FOLD_ROWS: Final = 16_384
FOLD_PART: Final = 2
"""New rows are folded when there are more than 16,384, and more than half as many as folded ones;
by judgement. Calling `adopt` with a folded copy from time to time avoids the pause."""

BULK_TERMS: Final = 1 << 21
"""Terms of a bulk that are folded at once, which takes some 75 MB; by judgement."""

_READ_TERMS: Final = 1 << 19
"""Terms of a long text that are folded at once, which takes some 20 MB; by judgement."""

MOST: Final = 255
"""Counts of this or more don't fit a byte and are stored elsewhere."""

_BLOCK_TERMS: Final = 1 << 16
"""Terms that are joined at a time, to limit memory; by judgement."""

_POSTING_BYTES: Final = 12
_TERM_BYTES: Final = 400
"""Memory of a new posting, and of a term with its lists, about."""


@dataclass(frozen=True, slots=True)
class Folded:
    """Postings of all terms, one term after the other, in order of the terms' hashes.

    Attributes:
        hashes: (terms,) uint64. Two terms with the same hash count as one: among two million
            terms the probability of any such pair is one in ten million.
        firsts: (terms + 1,) int64: where the postings of each term begin, and the end.
        rows: (postings,) int32, ascending for each term.
        counts: (postings,) uint8.
        large: (n,) int64: the postings whose count is in `large_counts` instead, ascending.
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
        """Return an empty one."""
        return _folded(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int32), [])

    @property
    def nbytes(self) -> int:
        """Size of the arrays."""
        return sum(
            part.nbytes
            for part in (self.hashes, self.firsts, self.rows, self.counts, self.large_counts)
        )

    def slice_of(self, term: str) -> slice | None:
        """Return where a term's postings are, or None."""
        hashed = np.uint64(hash_of(term))
        at = int(self.hashes.searchsorted(hashed))
        if at == len(self.hashes) or self.hashes[at] != hashed:
            return None
        return slice(int(self.firsts[at]), int(self.firsts[at + 1]))

    def posting(self, where: slice) -> Posting:
        """Return the rows and counts of some postings."""
        counts = self.counts[where].astype(np.float32)
        if len(self.large):
            first, end = self.large.searchsorted((where.start, where.stop))
            counts[self.large[first:end] - where.start] = self.large_counts[first:end]
        return self.rows[where], counts

    def joined(self, newer: Folded) -> Folded:
        """Return these postings joined with those of newer rows."""
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
            # In blocks: the place that a posting goes to takes more memory than the posting.
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

    def behind(self, rows: int) -> Folded:
        """Return the postings with all row numbers raised by `rows`."""
        return replace(self, rows=self.rows + np.int32(rows)) if rows else self

    def renumbered(self, numbers: Rows) -> Folded:
        """Return the postings with other row numbers.

        Args:
            numbers: By row: its new number, or below 0 to leave it out (rows,).
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
        remaining = numbers[numbers >= 0]
        if (np.diff(remaining) < 0).any():
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
    """A copy of postings: the folded ones, and the new ones still to fold."""

    folded: Folded
    terms: list[str]
    numbers: Rows
    """The terms of the new rows, one row after the other, as places in `terms`."""
    first: int
    """The first of the new rows."""

    def fold(self, lengths: NDArray[Any]) -> Folded:
        """Return all postings folded.

        Args:
            lengths: How many terms each row has, folded or not.
        """
        return self.folded.joined(_fold(self.terms, self.numbers, self.first, lengths))


class _Numbers(dict[str, int]):
    """Terms, numbered in the order they are looked up."""

    def __missing__(self, term: str) -> int:
        number = self[term] = len(self)
        return number


class Reading:
    """Folds the rows of one long text, a part of them at a time, without any index."""

    def __init__(self) -> None:
        self._folded = Folded.empty()
        self._numbers = _Numbers()
        self._new = array("i")
        self._lengths = array("f")
        self._folded_rows = 0

    def add(self, terms: Sequence[str]) -> None:
        """Add the next row by its terms."""
        self._new.extend(map(self._numbers.__getitem__, terms))
        self._lengths.append(len(terms))
        if len(self._new) >= _READ_TERMS:
            self._fold()

    def rows(self) -> tuple[Folded, Scores]:
        """Return the postings of the rows, numbered from 0, and the number of terms of each."""
        self._fold()
        return self._folded, np.array(self._lengths, dtype=np.float32)

    def whole(self, repeated: Sequence[str]) -> tuple[Folded, Scores]:
        """Return the postings of a single row of all terms of all rows; call `rows` first.

        Args:
            repeated: Terms that are in every row, and count once here.
        """
        folded = self._folded
        counts = np.add.reduceat(_counts(folded), folded.firsts[:-1])
        for term, count in Counter(repeated).items():
            place = folded.hashes.searchsorted(np.uint64(hash_of(term)))
            counts[place] -= count * (len(self._lengths) - 1)
        rows = np.zeros(len(counts), dtype=np.int32)
        whole = _folded(folded.hashes, np.ones(len(counts), dtype=np.int64), rows, counts)
        return whole, np.array([counts.sum()], dtype=np.float32)

    def _fold(self) -> None:
        if self._new:
            numbers = np.array(self._new, dtype=np.int32)
            lengths = np.array(self._lengths, dtype=np.float32)
            newer = _fold(list(self._numbers), numbers, self._folded_rows, lengths)
            self._folded = self._folded.joined(newer)
            self._numbers, self._new = _Numbers(), array("i")
        self._folded_rows = len(self._lengths)


class Postings:
    """The postings of rows that are only ever added. Not thread-safe."""

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
        """Add a row with a higher number than all others.

        Args:
            row: Its number.
            terms: Its terms, with repetitions.
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

    def add_folded(self, folded: Folded, lengths: NDArray[Any], rows: int) -> None:
        """Add rows that are folded already, quickly if few others are not.

        Args:
            folded: Their postings, numbered from 0.
            lengths: How many terms each row has, these included.
            rows: How many these are.
        """
        before = len(lengths) - rows
        self.fold(lengths[:before])
        self._replace(self._folded.joined(folded.behind(before)), len(lengths))

    @contextmanager
    def bulk(self, lengths: NDArray[Any]) -> Iterator[None]:
        """Add many rows in a `with`. Call `fold` after it; don't search before."""
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
        """Return a term's postings, ascending, in parts."""
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
        """Move new postings into the arrays."""
        self._replace(self.copy().fold(lengths) if self._new else self._folded, len(lengths))

    def _replace(self, folded: Folded, rows: int) -> None:
        self._folded, self._folded_rows = folded, rows
        if self._new:
            self._numbers, self._new = _Numbers(), array("i")
            self._rows, self._counts = [], []

    def adopt(self, folded: Folded, rows: int, lengths: NDArray[Any]) -> None:
        """Use the folded postings of a copy; rows added since then stay new.

        Args:
            folded: The postings of the first rows.
            rows: How many rows these are.
            lengths: How many terms each row has, new ones included.
        """
        if rows < self._folded_rows:
            return
        terms = list(self._numbers)
        new = self._new[int(lengths[self._folded_rows : rows].sum()) :]
        self._replace(folded, rows)
        end = 0
        for row, count in enumerate(lengths[rows:].astype(int).tolist(), rows):
            self.add(row, [terms[number] for number in new[end : end + count]], lengths[: row + 1])
            end += count

    def copy(self) -> Unfolded:
        """Return a copy, quickly: it shares the folded postings."""
        new = np.array(self._new, dtype=np.int32)
        return Unfolded(self._folded, list(self._numbers), new, self._folded_rows)


def hash_of(term: str) -> int:
    """Return a hash of 64 bits, the same on every machine and in every run."""
    encoded = term.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(encoded, digest_size=8).digest(), "little")


def _fold(terms: list[str], numbers: Rows, first: int, lengths: NDArray[Any]) -> Folded:
    """Return the postings of the rows from `first` on.

    Args:
        terms: The terms, each once.
        numbers: The terms of these rows, one row after the other, as places in `terms`.
        first: The first of these rows.
        lengths: How many terms each row has, including rows before `first`.
    """
    hashes = np.fromiter(map(hash_of, terms), np.uint64, len(terms))
    order = np.argsort(hashes)
    places = np.empty(len(terms), dtype=np.int64)
    places[order] = np.arange(len(terms))
    own = lengths[first:].astype(np.int64)
    rows = np.repeat(np.arange(first, first + len(own)), own)
    # Sorted by term and row; a term that a row has several times is there several times.
    keys = places[numbers] << 32 | rows
    keys.sort()
    at = np.flatnonzero(np.diff(keys, prepend=-1))
    counts = np.diff(at, append=len(keys))
    keys = keys[at]
    sizes = np.bincount(keys >> 32, minlength=len(terms))
    return _folded(hashes[order], sizes, (keys & 0xFFFFFFFF).astype(np.int32), counts)


def _counts(folded: Folded) -> NDArray[np.int64]:
    """Return how often each posting's row has the term (postings,)."""
    counts = folded.counts.astype(np.int64)
    counts[folded.large] = folded.large_counts
    return counts


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
