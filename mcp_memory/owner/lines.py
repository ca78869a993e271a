"""Lines out of a stream of bytes, for a client's process and for the owner alike."""

from __future__ import annotations

_KEPT_BYTES = 4_000
"""Of each end of a line that is too long: by judgement more than what stands around the text."""


class TooLong:
    """Stands for a line that was longer than the limit; `ends` are its first and last bytes."""

    def __init__(self, ends: bytes) -> None:
        self.ends = ends


class Lines:
    """Splits a stream into lines; one that is too long takes no memory.

    Args:
        max_bytes: The longest line that is given whole; without it there is no limit.
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        self.max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._size = 0
        self._head: bytes | None = None

    @property
    def held_bytes(self) -> int:
        """How much is held of a line that has no end yet; 0 if it is too long."""
        return self._size if self._head is None else 0

    def feed(self, chunk: bytes) -> list[bytes | TooLong]:
        """Return the lines that end in the next bytes of the stream, with their ends."""
        *pieces, rest = chunk.split(b"\n")
        lines: list[bytes | TooLong] = []
        for piece in pieces:
            self._add(piece + b"\n")
            lines.append(self._take())
        if rest:
            self._add(rest)
        return lines

    def rest(self) -> bytes:
        """Return what came after the last end of a line."""
        rest = self._take()
        return rest if isinstance(rest, bytes) else b""

    def _add(self, piece: bytes) -> None:
        self._parts.append(piece)
        self._size += len(piece)
        if self._head is not None:
            self._parts = [b"".join(self._parts)[-_KEPT_BYTES:]]
        elif self.max_bytes is not None and self._size > self.max_bytes:
            whole = b"".join(self._parts)
            self._head, self._parts = whole[:_KEPT_BYTES], [whole[_KEPT_BYTES:][-_KEPT_BYTES:]]

    def _take(self) -> bytes | TooLong:
        line = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        head, self._head = self._head, None
        self._parts, self._size = [], 0
        return line if head is None else TooLong(head + line)
