"""Pack arrays into few bytes: most numbers of an index differ little from the one before.

An array is cut into blocks. Each block becomes the differences of its numbers, with the
first bytes of all numbers together, then the second and so on, compressed with zlib.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Description = list[tuple[str, str, int, list[int]]]
"""Name, type, length and sizes of the packed blocks of each array."""

BLOCK_BYTES: Final = 1 << 22
"""Size of a block, 4 MB; by judgement."""

_LEVEL: Final = 1
"""The fastest level of zlib."""


class Packer:
    """Packs arrays with one dimension. `description` is complete after the last block."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._arrays = arrays
        self.description: Description = []

    def blocks(self) -> Iterator[bytes]:
        """Yield the packed blocks."""
        for name, values in self._arrays.items():
            sizes: list[int] = []
            self.description.append((name, values.dtype.str, len(values), sizes))
            step = BLOCK_BYTES // values.dtype.itemsize
            for first in range(0, len(values), step):
                packed = _pack(values[first : first + step])
                sizes.append(len(packed))
                yield packed


def unpack(description: Description, packed: bytes) -> dict[str, Array]:
    """Return the arrays of a description from their packed blocks.

    Raises:
        ValueError: The bytes don't match the description.
    """
    arrays: dict[str, Array] = {}
    view = memoryview(packed)
    for name, kind, length, sizes in description:
        values = np.empty(length, dtype=kind)
        step = BLOCK_BYTES // values.dtype.itemsize
        for first, size in zip(range(0, length, step), sizes, strict=True):
            _unpack(view[:size], values[first : first + step])
            view = view[size:]
        arrays[name] = values
    if len(view):
        raise ValueError(f"{len(view)} bytes more than the description has")
    return arrays


def _pack(values: Array) -> bytes:
    if values.dtype.kind in "iu" and values.dtype.itemsize > 1:
        values = np.concatenate([values[:1], values[1:] - values[:-1]])
    planes = values.view(np.uint8).reshape(len(values), -1).T
    # A copy by numpy lets other threads run; `tobytes` alone would block them.
    return zlib.compress(np.ascontiguousarray(planes).tobytes(), _LEVEL)


def _unpack(packed: memoryview, into: Array) -> None:
    """Fill an array from its packed bytes.

    Raises:
        ValueError: The bytes are damaged.
    """
    try:
        raw = np.frombuffer(zlib.decompress(packed), dtype=np.uint8)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    into.view(np.uint8).reshape(len(into), -1)[:] = raw.reshape(-1, len(into)).T
    if into.dtype.kind in "iu" and into.dtype.itemsize > 1:
        np.cumsum(into, dtype=into.dtype, out=into)
