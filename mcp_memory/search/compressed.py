"""Vectors by the million: one bit a dimension to find the near ones, 16 bits to compare them.

The first pass goes over all rows and keeps far more than are wanted; those are
compared again, by vectors of 16 bits a dimension. The single bits are in memory.
The others are in temporary files without a name, which the system keeps in
memory as long as there is room, or in memory if they can't be written.

It is a cache: nothing in the files outlives the process.

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

_Rows16 = NDArray[np.int16]

PIECE_ROWS: Final = 16_384
"""Vectors are kept in pieces of so many rows, so that growing never copies any."""

FEW_ROWS: Final = 8_192
"""Up to so many rows are compared without a first pass."""

LEAST_COMPARED: Final = 400
USUALLY_COMPARED: Final = 1_500
COMPARED_EACH: Final = 8
COMPARED_PART: Final = 250
"""The first pass keeps the most of: 400 rows, one of 25 up to 1,500, 8 for each that is
wanted, one of 250.

400 of 10,000 rows have 99.9 % of the nearest ten and 98.7 % of the nearest fifty, 1,500 of
100,000 have 99.4 % of these (benchmarks/RESULTS.md, scale)."""

# A component of a unit vector as a whole number. Half-precision floats are as exact, but
# turning them into floats takes eight times as long.
_SCALE: Final = np.float32(32_767)
_QUERY_BITS: Final = 4
_MOSTLY_FRAC: Final = 0.75
_BLOCK_ROWS: Final = 512


@cache
def faiss() -> ModuleType | None:
    """Return the library of the first pass, None where it can't be loaded."""
    try:
        import faiss as library
    except ImportError as error:
        logger.warning("large memories take more room and time: %s", error)
        return None
    module: ModuleType = library
    return module


class CompressedVectors:
    """Unit vectors, numbered from 0, in a tenth of the memory.

    Args:
        sample: Some vectors (n, dim) like those to come: their mean is the origin.
        folder: Where the temporary files are made; None to keep all in memory.
    """

    def __init__(self, sample: Vectors, folder: Path | None = None) -> None:
        library = faiss()
        if library is None:
            raise RuntimeError("faiss is missing")
        self._faiss = library
        self._rows = WordRows(sample.shape[1], folder)
        # Both hold the same bits: the one is twice as fast, the other takes a filter.
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
        """Memory in use; without what is mapped from files."""
        bits = self._all.code_size + self._some.code_size
        return int(len(self) * bits) + self._rows.nbytes

    @property
    def mapped_bytes(self) -> int:
        """What stands in files; the system gives their memory to others when it is short."""
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
            query: The vector that is looked for.
            limit: How many at most.
            allowed: Which rows count (rows,); None for all.
            compared: How many are compared; None for as many as have nearly all of the nearest.
        """
        candidates = self._candidates(query, compared or self._compared(limit), allowed)
        scores = self._rows.scores(query, candidates)
        chosen = best(scores, limit)
        return candidates[chosen], scores[chosen]

    def take(self, rows: NDArray[np.intp]) -> Vectors:
        """Return rows, given ascending, as they are compared: (n, dim) float32."""
        return self._rows.take(rows)

    def compare(self, query: Vectors, rows: NDArray[np.intp]) -> Vectors:
        """Return the cosines of rows, each given once and ascending, with a query (n,)."""
        return self._rows.scores(query, rows)

    def scores(self, query: Vectors) -> Vectors:
        """Return the cosine of every row with a query, without a first pass."""
        return self._rows.scores(query, np.arange(len(self)))

    def _compared(self, limit: int) -> int:
        total = len(self)
        usual = min(USUALLY_COMPARED, total // 25)
        return max(LEAST_COMPARED, usual, COMPARED_EACH * limit, total // COMPARED_PART)

    def _candidates(self, query: Vectors, wanted: int, allowed: Mask | None) -> NDArray[np.intp]:
        """Return so many rows to be compared, ascending."""
        total = len(self)
        count = total if allowed is None else int(np.count_nonzero(allowed))
        if count <= max(FEW_ROWS, wanted):
            return np.arange(total) if allowed is None else np.flatnonzero(allowed)
        asked = np.ascontiguousarray(query, dtype=np.float32)[np.newaxis]
        if allowed is None:
            return np.sort(self._all.search(asked, wanted)[1][0])
        if count >= _MOSTLY_FRAC * total:
            # Some more than are left over on average, so that rarely too few of them pass.
            asked_for = min(total, wanted * total * 5 // (count * 4))
            found = self._all.search(asked, asked_for)[1][0]
            found = found[found >= 0]
            found = found[allowed[found]]
            if len(found) >= wanted // 2:
                return np.sort(found)
        selector = self._faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        parameters = self._faiss.RaBitQSearchParameters(sel=selector, qb=_QUERY_BITS)
        return np.sort(self._some.search(asked, wanted, params=parameters)[1][0])


class WordRows:
    """Rows of 16 bits a dimension in pieces, each in a temporary file or in memory."""

    def __init__(self, dimension: int, folder: Path | None) -> None:
        self._dimension = dimension
        self._folder = folder
        self._pieces: list[_Rows16] = []
        self._used = 0
        self.mapped_bytes = 0

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._used

    @property
    def nbytes(self) -> int:
        """What is in memory and not in files."""
        return sum(piece.nbytes for piece in self._pieces) - self.mapped_bytes

    def add(self, vectors: Vectors) -> None:
        """Add rows (n, dim)."""
        done = 0
        while done < len(vectors):
            place = self._used % PIECE_ROWS
            if self._used == PIECE_ROWS * len(self._pieces):
                self._pieces.append(self._piece())
            count = min(PIECE_ROWS - place, len(vectors) - done)
            words = np.clip(vectors[done : done + count] * _SCALE, -_SCALE, _SCALE)
            self._pieces[-1][place : place + count] = np.rint(words)
            self._used += count
            done += count

    def take(self, rows: NDArray[np.intp]) -> Vectors:
        """Return rows, given ascending: (n, dim) float32."""
        taken = np.empty((len(rows), self._dimension), dtype=np.float32)
        cuts = np.searchsorted(rows, PIECE_ROWS * np.arange(len(self._pieces) + 1))
        for number, piece in enumerate(self._pieces):
            first, end = cuts[number], cuts[number + 1]
            if first < end:
                taken[first:end] = piece[rows[first:end] - number * PIECE_ROWS]
        taken /= _SCALE
        return taken

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

    def _blocks(self, rows: NDArray[np.intp]) -> Iterator[tuple[slice, _Rows16]]:
        """Give rows block by block, so that what is unpacked stays in the processor's cache."""
        cuts = np.searchsorted(rows, PIECE_ROWS * np.arange(len(self._pieces) + 1))
        for number, piece in enumerate(self._pieces):
            for first in range(cuts[number], cuts[number + 1], _BLOCK_ROWS):
                end = min(first + _BLOCK_ROWS, int(cuts[number + 1]))
                wanted = rows[first:end] - number * PIECE_ROWS
                low, high = int(wanted[0]), int(wanted[-1]) + 1
                # Without a gap they need not be copied.
                whole = high - low == len(wanted)
                yield slice(first, end), piece[low:high] if whole else piece[wanted]

    def _piece(self) -> _Rows16:
        shape = (PIECE_ROWS, self._dimension)
        if self._folder is not None:
            try:
                mapped = _mapped(self._folder, 2 * PIECE_ROWS * self._dimension)
            except OSError as error:
                logger.warning("vectors stay in memory: %s", error)
                self._folder = None
            else:
                self.mapped_bytes += len(mapped)
                return np.frombuffer(mapped, dtype=np.int16).reshape(shape)
        return np.empty(shape, dtype=np.int16)


def _mapped(folder: Path, size_bytes: int) -> mmap.mmap:
    """Return a mapped file that vanishes with its last user.

    Raises:
        OSError: There is no room, or nothing can be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        # Written out, not only made longer: a full disk would else end the process later.
        file.write(bytes(size_bytes))
        file.flush()
        return mmap.mmap(file.fileno(), size_bytes)
