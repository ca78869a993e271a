"""Short ids that a model can read and repeat."""

from __future__ import annotations

import re
import secrets
from typing import Final

ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32 in lower case: without i, l, o and u, which are easy to misread."""

LENGTH: Final = 10
"""By judgement: short enough for a model to repeat; among a million ids the
probability of a collision is 0.04 %."""

_SHAPE: Final = re.compile(rf"[{ALPHABET}]{{{LENGTH}}}")
_MISREAD: Final = str.maketrans({"i": "1", "l": "1", "o": "0"})


def new_id() -> str:
    """Return a new id of 10 characters, which are 50 random bits."""
    return _spelled(secrets.randbits(5 * LENGTH))


def id_of(digest: bytes) -> str:
    """Return the id for a digest of at least 7 bytes; equal digests have equal ids."""
    return _spelled(int.from_bytes(digest[:7], "big"))


def _spelled(bits: int) -> str:
    return "".join(ALPHABET[bits >> shift & 31] for shift in range(0, 5 * LENGTH, 5))


def read_id(text: str) -> str | None:
    """Return the id that `text` means, or None if it does not have the form of one.

    Upper case and the usual misreadings (I and L for 1, O for 0) are accepted.

    Source: Crockford, "Base 32 Encoding", decoding.
    """
    candidate = text.strip().lower().translate(_MISREAD)
    return candidate if _SHAPE.fullmatch(candidate) else None
