"""Short ids that a model can read and repeat."""

from __future__ import annotations

import re
import secrets
from typing import Final

ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32 in lower case: no i, l, o or u to mistake."""

LENGTH: Final = 10
_SHAPE: Final = re.compile(rf"[{ALPHABET}]{{{LENGTH}}}")
_MISREAD: Final = str.maketrans({"i": "1", "l": "1", "o": "0"})


def new_id() -> str:
    """Return a fresh id of 10 characters, 50 random bits."""
    return _spelled(secrets.randbits(5 * LENGTH))


def id_of(digest: bytes) -> str:
    """Return the id of what has this digest: the same for the same, at least 7 bytes of it."""
    return _spelled(int.from_bytes(digest[:7], "big"))


def _spelled(bits: int) -> str:
    return "".join(ALPHABET[bits >> shift & 31] for shift in range(0, 5 * LENGTH, 5))


def read_id(text: str) -> str | None:
    """Return the id that is meant by `text`, or None if it has not the shape of one.

    Upper case and the usual misreadings (I and L for 1, O for 0) are taken.

    Source: Crockford, "Base 32 Encoding", decoding.
    """
    candidate = text.strip().lower().translate(_MISREAD)
    return candidate if _SHAPE.fullmatch(candidate) else None
