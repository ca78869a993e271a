"""A text for a model, built from sections, that never exceeds a number of tokens.

Every section has a guaranteed share; tokens that others don't need go to the first
sections. The text says how many items were left out, and which call shows them.
Pure: no clock, no database, no model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from mcp_memory.values.text import fence_for, fence_note

Count = Callable[[str], int]
Clip = Callable[[str, int], str]
Shrink = Callable[[int], str | None]
"""Shortens an item to a number of tokens; None if too little would be left of it."""

Order = Literal["fair", "first", "last"]
"""Which items get room first: all the same, the first ones, or the last ones."""

MIN_ITEM_TOKENS: Final = 24
"""With less room than this an item is left out; by judgement."""

_CHARS_PER_TOKEN: Final = 16
"""Of a text, this many characters for each token of room are counted; by judgement: hardly
any token is longer."""

_TRIES: Final = 6
"""Attempts to fit the sections into the text's tokens; by judgement."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to show; without `shrink` it is cut at the end."""

    text: str
    shrink: Shrink | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the text.

    Attributes:
        title: The line above it.
        items: What it shows, in the order in which it is shown.
        share_frac: The part of the room that is reserved for it.
        order: Which items come first when not all fit.
        where: The call that shows the items that were left out.
        empty: The text shown if there are no items.
        more: How many items there are besides `items`.
    """

    title: str
    items: Sequence[Item]
    share_frac: float
    order: Order
    where: str
    empty: str = "(none)"
    more: int = 0


class Writer:
    """Writes texts from sections, counted with one tokenizer.

    Args:
        count: Counts the tokens of a text.
        clip: Cuts a text to at most a number of tokens.
    """

    def __init__(self, count: Count, clip: Clip) -> None:
        self.count = count
        self._clip = clip

    def clip(self, text: str, max_tokens: int) -> str:
        """Return the beginning of a text that fits, with `…` if it was cut."""
        near = text[: max(max_tokens, 1) * _CHARS_PER_TOKEN]
        clipped = self._clip(near, max_tokens)
        if len(clipped) == len(text):
            return clipped
        return self._clip(near, max(max_tokens - 1, 0)).rstrip() + "…"

    def write(self, head: str, sections: Sequence[Section], max_tokens: int) -> str:
        """Return the head and the sections, most valuable first, between fences.

        It has `max_tokens` at most, whatever the sections contain. No item can contain a fence.
        """
        fence = fence_for(*(item.text for section in sections for item in section.items))
        head = f"{head}\n{fence_note(fence)}"
        frame = self.count(_join(head, [(section.title, "") for section in sections], fence))
        room = max_tokens - frame
        text = ""
        for _ in range(_TRIES):
            text = _join(head, self._filled(sections, max(room, 0)), fence)
            over = self.count(text) - max_tokens
            if over <= 0:
                return text
            room -= over + 4  # Joined parts may have a few more tokens than the parts alone.
        return self.clip(text, max_tokens)

    def _filled(self, sections: Sequence[Section], room: int) -> list[tuple[str, str]]:
        costs = [self._costs(section, room) for section in sections]
        needs = [
            sum(cost) + self.count(_empty(section) or _left_out(section.more, section.where))
            for section, cost in zip(sections, costs, strict=True)
        ]
        grants = [
            min(need, int(section.share_frac * room))
            for section, need in zip(sections, needs, strict=True)
        ]
        left = room - sum(grants)
        for at, need in enumerate(needs):
            extra = min(need - grants[at], left)
            grants[at] += extra
            left -= extra
        return [
            (section.title, self._body(section, cost, grant))
            for section, cost, grant in zip(sections, costs, grants, strict=True)
        ]

    def _costs(self, section: Section, room: int) -> list[int]:
        """Return the tokens of each item with its line break; far too long ones are not counted."""
        most = room * _CHARS_PER_TOKEN
        return [
            room + 1 if len(item.text) > most else self.count(item.text) + 1
            for item in section.items
        ]

    def _body(self, section: Section, costs: list[int], grant: int) -> str:
        if _empty(section):
            return self.clip(section.empty, grant)
        note_tokens = self.count(_left_out(99_999, section.where)) + 2
        if sum(costs) > grant or section.more:
            grant -= note_tokens
        shown: dict[int, str] = {}
        if section.order == "fair":
            shown = self._fair(section, costs, grant)
        else:
            turns = range(len(costs)) if section.order == "first" else reversed(range(len(costs)))
            left = grant
            for at in turns:
                if self._take(section, shown, at, costs[at], left) < costs[at]:
                    break
                left -= costs[at]
        lines = [shown[at] for at in sorted(shown)]
        missing = len(costs) - len(shown) + section.more
        if missing:
            note = _left_out(missing, section.where)
            lines.insert(0 if section.order == "last" else len(lines), note)
        return "\n".join(lines)

    def _fair(self, section: Section, costs: list[int], grant: int) -> dict[int, str]:
        """Show as many items as fit, in their order: no later item in place of an earlier one."""
        tried: list[dict[int, str]] = []
        for served in range(len(costs), 0, -1):
            shown: dict[int, str] = {}
            for at, share in enumerate(fair_shares(costs[:served], grant)):
                self._take(section, shown, at, costs[at], share)
            tried.append(shown)
            if len(shown) == served:
                break
        return max(tried, key=lambda one: [at in one for at in range(len(costs))], default={})

    def _take(self, section: Section, shown: dict[int, str], at: int, cost: int, room: int) -> int:
        """Show an item, or its beginning, if there is room; return the tokens it used."""
        item = section.items[at]
        if cost <= room:
            shown[at] = item.text
            return cost
        if room < MIN_ITEM_TOKENS:
            return 0
        shrunk = item.shrink(room - 1) if item.shrink else self.clip(item.text, room - 1)
        if shrunk is None:
            return 0
        shown[at] = shrunk
        return min(room, cost - 1)


def fair_shares(costs: Sequence[int], room: int) -> list[int]:
    """Return the tokens of each item so that all fit: small ones whole, large ones equal parts.

    If the equal part is too small to be useful, the last items get nothing.
    """
    for served in range(len(costs), 0, -1):
        shares = [0] * len(costs)
        left, waiting = max(room, 0), served
        for at in sorted(range(served), key=costs.__getitem__):
            shares[at] = min(costs[at], left // waiting)
            left -= shares[at]
            waiting -= 1
        if served == 1 or all(
            share >= min(cost, MIN_ITEM_TOKENS)
            for share, cost in zip(shares[:served], costs[:served], strict=True)
        ):
            return shares
    return []


def _join(head: str, parts: Sequence[tuple[str, str]], fence: str) -> str:
    lines = [head]
    for title, body in parts:
        line = f"{fence} {title} {fence}"
        lines.extend((line, body) if body else (line,))
    return "\n".join([*lines, fence])


def _empty(section: Section) -> str:
    return section.empty if not section.items and not section.more else ""


def _left_out(count: int, where: str) -> str:
    return f"({count} more left out: {where})" if count else ""
