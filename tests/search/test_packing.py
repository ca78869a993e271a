"""Arrays come back from their bytes as they were, or not at all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mcp_memory.search import packing
from mcp_memory.search.packing import Packer, unpack

KINDS = ["u1", "i4", "i8", "u8", "f4", "f8"]
some = st.sampled_from(KINDS).flatmap(
    lambda kind: (
        arrays.arrays(kind, st.integers(0, 40), elements={"allow_nan": False})
        if kind[0] == "f"
        else arrays.arrays(kind, st.integers(0, 40))
    )
)


def packed(values):
    packer = Packer(values)
    return b"".join(packer.blocks()), packer.description


@given(st.dictionaries(st.text(max_size=3), some, max_size=3), st.integers(8, 64))
def test_what_was_packed_comes_back(values, block_bytes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "BLOCK_BYTES", block_bytes)
        data, description = packed(values)
        found = unpack(description, data)
    assert list(found) == list(values)
    for name, array in values.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)


def test_numbers_in_order_take_little_room():
    rng = np.random.default_rng(0)
    rows = np.sort(rng.integers(0, 1 << 30, 1 << 20, dtype=np.int32))
    assert len(packed({"rows": rows})[0]) < rows.nbytes / 2


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: b"",
        lambda data: data[:5] + bytes([data[5] ^ 255]) + data[6:],
    ],
)
def test_other_bytes_are_refused(spoilt):
    data, description = packed({"rows": np.arange(5_000, dtype=np.int32)})
    with pytest.raises(ValueError):  # noqa: PT011  its message is zlib's
        unpack(description, spoilt(data))
