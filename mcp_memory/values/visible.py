"""What a person reads on a terminal: text in which nothing is hidden and nothing acts.

Stored text may have characters that move the cursor, change colours, reverse the order of
what follows, or are not seen at all. Here they become their escapes, such as `\\x1b`.
Nothing is imported: the process that a client starts uses this too.
"""

from __future__ import annotations

_SPACES = frozenset(map(chr, (0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000)))
"""Spaces of a width; Python counts them as not printable."""

_UNSEEN = frozenset(
    map(
        chr,
        (
            *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x3164),
            *(0xFFA0, *range(0xFE00, 0xFE0E), *range(0xE0100, 0xE01F0)),
        ),
    )
)
"""Letters and marks that show nothing.

Source: Unicode, DerivedCoreProperties, Default_Ignorable_Code_Point, without the format characters,
which Python counts as not printable, and without the two that choose text or emoji."""


class _Escapes(dict[int, str]):
    """What each character is shown as, by its number."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        seen = (char.isprintable() or char in _SPACES) and char not in _UNSEEN
        self[code] = char if seen else char.encode("unicode_escape").decode()
        return self[code]


_ONE_LINE = _Escapes()
_LINES = _Escapes({ord("\n"): "\n", ord("\t"): "\t"})


def visible(text: str, *, lines: bool = False) -> str:
    """Return a text with an escape for each character that is not seen or that acts.

    Args:
        text: Any text.
        lines: Whether line feeds and tabs stay as they are.
    """
    if text.isascii() and text.isprintable():
        return text
    return text.translate(_LINES if lines else _ONE_LINE)
