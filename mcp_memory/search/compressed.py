"""Compressed vectors, for millions of rows: one bit a dimension to find, 16 bits to compare.

The first pass scans the single bits of all rows and returns many more rows than wanted.
These are compared by vectors with 16 bits a dimension. The single bits are in memory.
The others are in unnamed temporary files, which the operating system caches in memory as
long as there is room; if they can't be written, they are in memory.

It is a cache: the files don't outlive the process.

Source: Gao and Long, "RaBitQ: Quantizing High-Dimensional Vectors with a
Theoretical Error Bound for Approximate Nearest Neighbor Search", SIGMOD 2024.
"""

from __future__ import annotations

import logging
import mmap
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mcp_memory.search.arrays import Mask, Vectors, best

logger = logging.getLogger(__name__)

_Piece = NDArray[np.int16]

PIECE_ROWS: Final = 16_384
"""Vectors are stored in pieces of this size, so that growing copies nothing; by judgement."""

FEW_ROWS: Final = 8_192
"""Up to as many rows are compared without a first pass; by judgement."""

LEAST_COMPARED: Final = 400
USUALLY_COMPARED: Final = 1_500
COMPARED_EACH: Final = 8
COMPARED_PART: Final = 250
"""How many rows are compared after the first pass. The largest of: 400; one of 25, up to 1,500; 8
for each that is wanted; one of 250.

Of 10,000 rows, 400 include 99.9 % of the nearest ten and 98.7 % of the nearest fifty; of 100,000,
1,500 include 99.4 % of the nearest fifty (benchmarks/RESULTS.md, scale)."""

_SCALE: Final = np.float32(32_767)
"""The largest integer of 16 bits: turns a component of a unit vector into one. Floats of 16 bits
are as exact, but converting them takes eight times as long."""

_QUERY_BITS: Final = 4
"""Bits of each component of the query in the first pass; by judgement."""

_MOSTLY_FRAC: Final = 0.75
"""If a filter allows as many rows, the first pass scans all and filters later: scanning without a
filter is twice as fast. By judgement."""

_BLOCK_ROWS: Final = 512
"""Rows that are unpacked at a time, so that they fit the processor's cache; by judgement."""


@cache
def faiss() -> ModuleType | None:
    """Return the library of the first pass, or None if it can't be loaded."""
    try:
        import faiss as library
    except ImportError as error:
        logger.warning("searching many texts takes more memory and time without faiss: %s", error)
        return None
    module: ModuleType = library
    return module


class CompressedVectors:
    """Unit vectors in rows from 0, in a tenth of the memory.

    Args:
        sample: Typical vectors (n, dim); their mean becomes the origin.
        folder: Where to put temporary files; None to use memory alone.
    """

    def __init__(self, sample: Vectors, folder: Path | None = None) -> None:
        library = faiss()
        if library is None:
            raise RuntimeError("faiss is missing")
        self._faiss = library
        self._rows = Int16Rows(sample.shape[1], folder)
        # Both have the same bits: the first is twice as fast, the second takes a filter.
        self._all = library.IndexRaBitQFastScan(sample.shape[1], library.METRIC_INNER_PRODUCT)
        self._some = library.IndexRaBitQ(sample.shape[1], library.METRIC_INNER_PRODUCT)
        for index in (self._all, self._some):
            index.qb = _QUERY_BITS
            index.train(np.ascontiguousarray(sample, dtype=np.float32))

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        """Memory in use, without mapped files."""
        bits = self._all.code_size + self._some.code_size
        return int(len(self) * bits) + self._rows.nbytes

    @property
    def mapped_bytes(self) -> int:
        """The size of the mapped files, whose memory the system can reclaim."""
        return self._rows.mapped_bytes

    def add(self, vectors: Vectors) -> None:
        """Add rows (n, dim) of unit length."""
        if not len(vectors):
            return
        rows = np.ascontiguousarray(vectors, dtype=np.float32)
        self._rows.add(rows)
        self._all.add(rows)
        self._some.add(rows)

    def top(
        self,
        query: Vectors,
        limit: int,
        allowed: Mask | None,
        compared: int | None = None,
    ) -> tuple[NDArray[np.intp], Vectors]:
        """Return the rows nearest to a query among those allowed, nearest first, and cosines.

        Args:
            query: A vector (dim,) of unit length.
            limit: How many at most.
            allowed: Which rows count (rows,); None for all.
            compared: How many to compare; None for enough to find nearly all of the nearest.
        """
        candidates = self._candidates(query, compared or self._compared(limit), allowed)
        scores = self._rows.scores(query, candidates)
        chosen = best(scores, limit)
        return candidates[chosen], scores[chosen]

    def take(self, rows: NDArray[np.intp]) -> Vectors:
        """Return ascending rows as they are compared (n, dim)."""
        return self._rows.take(rows)

    def compare(self, query: Vectors, rows: NDArray[np.intp]) -> Vectors:
        """Return the cosines of ascending rows, each given once, with a query (n,)."""
        return self._rows.scores(query, rows)

    def scores(self, query: Vectors) -> Vectors:
        """Return the cosine of every row with a query, without a first pass."""
        return self._rows.scores(query, np.arange(len(self)))

    def _compared(self, limit: int) -> int:
        total = len(self)
        usual = min(USUALLY_COMPARED, total // 25)
        return max(LEAST_COMPARED, usual, COMPARED_EACH * limit, total // COMPARED_PART)

    def _candidates(self, query: Vectors, wanted: int, allowed: Mask | None) -> NDArray[np.intp]:
        """Return about `wanted` allowed rows to compare, ascending."""
        total = len(self)
        count = total if allowed is None else int(np.count_nonzero(allowed))
        if count <= max(FEW_ROWS, wanted):
            return np.arange(total) if allowed is None else np.flatnonzero(allowed)
        asked = np.ascontiguousarray(query, dtype=np.float32)[np.newaxis]
        if allowed is None:
            return np.sort(self._all.search(asked, wanted)[1][0])
        if count >= _MOSTLY_FRAC * total:
            # A quarter more than needed on average, so that rarely too few pass the filter.
            asked_for = min(total, wanted * total * 5 // (count * 4))
            found = self._all.search(asked, asked_for)[1][0]
            found = found[found >= 0]
            found = found[allowed[found]]
            if len(found) >= wanted // 2:
                return np.sort(found)
        selector = self._faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        parameters = self._faiss.RaBitQSearchParameters(sel=selector, qb=_QUERY_BITS)
        return np.sort(self._some.search(asked, wanted, params=parameters)[1][0])


class Int16Rows:
    """Vectors with 16 bits a dimension, in pieces, each in a temporary file or in memory."""

    def __init__(self, dimension: int, folder: Path | None) -> None:
        self._dimension = dimension
        self._folder = folder
        self._pieces: list[_Piece] = []
        self._used = 0
        self.mapped_bytes = 0

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._used

    @property
    def nbytes(self) -> int:
        """Memory in use, without mapped files."""
        return sum(piece.nbytes for piece in self._pieces) - self.mapped_bytes

    def add(self, vectors: Vectors) -> None:
        """Add rows (n, dim)."""
        done = 0
        while done < len(vectors):
            place = self._used % PIECE_ROWS
            if self._used == PIECE_ROWS * len(self._pieces):
                self._pieces.append(self._piece())
            count = min(PIECE_ROWS - place, len(vectors) - done)
            integers = np.clip(vectors[done : done + count] * _SCALE, -_SCALE, _SCALE)
            self._pieces[-1][place : place + count] = np.rint(integers)
            self._used += count
            done += count

    def take(self, rows: NDArray[np.intp]) -> Vectors:
        """Return ascending rows (n, dim)."""
        vectors = np.empty((len(rows), self._dimension), dtype=np.float32)
        cuts = np.searchsorted(rows, PIECE_ROWS * np.arange(len(self._pieces) + 1))
        for number, piece in enumerate(self._pieces):
            first, end = cuts[number], cuts[number + 1]
            if first < end:
                vectors[first:end] = piece[rows[first:end] - number * PIECE_ROWS]
        vectors /= _SCALE
        return vectors

    def scores(self, query: Vectors, rows: NDArray[np.intp]) -> Vectors:
        """Return the cosines of rows, each given once and ascending, with a query."""
        query = query / _SCALE
        scores = np.empty(len(rows), dtype=np.float32)
        unpacked = np.empty((_BLOCK_ROWS, self._dimension), dtype=np.float32)
        for block, words in self._blocks(rows):
            np.copyto(unpacked[: len(words)], words)
            # Not `@`: the threads of a matrix product cost more than they save here.
            np.vecdot(unpacked[: len(words)], query, out=scores[block])
        return scores

    def _blocks(self, rows: NDArray[np.intp]) -> Iterator[tuple[slice, _Piece]]:
        """Yield rows in blocks that fit the processor's cache when unpacked."""
        cuts = np.searchsorted(rows, PIECE_ROWS * np.arange(len(self._pieces) + 1))
        for number, piece in enumerate(self._pieces):
            for first in range(cuts[number], cuts[number + 1], _BLOCK_ROWS):
                end = min(first + _BLOCK_ROWS, int(cuts[number + 1]))
                wanted = rows[first:end] - number * PIECE_ROWS
                low, high = int(wanted[0]), int(wanted[-1]) + 1
                # Rows without gaps needn't be copied.
                whole = high - low == len(wanted)
                yield slice(first, end), piece[low:high] if whole else piece[wanted]

    def _piece(self) -> _Piece:
        shape = (PIECE_ROWS, self._dimension)
        if self._folder is not None:
            try:
                mapped = _mapped(self._folder, 2 * PIECE_ROWS * self._dimension)
            except OSError as error:
                logger.warning(
                    "vectors stay in memory, a temporary file can't be written: %s", error
                )
                self._folder = None
            else:
                self.mapped_bytes += len(mapped)
                return np.frombuffer(mapped, dtype=np.int16).reshape(shape)
        return np.empty(shape, dtype=np.int16)


def _mapped(folder: Path, size_bytes: int) -> mmap.mmap:
    """Return a mapped file, which the system deletes with its last user.

    Raises:
        OSError: The disk is full, or the folder can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        # Written, not only extended: otherwise a full disk would kill the process later.
        file.write(bytes(size_bytes))
        file.flush()
        return mmap.mmap(file.fileno(), size_bytes)
