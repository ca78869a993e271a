"""The texts that a model and the search index read: pure functions of records."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, datetime
from typing import Final

from mcp_memory.values.kinds import Policy
from mcp_memory.values.records import ROLES, Block, Message, Summary
from mcp_memory.values.text import breaks_form, escape, mark_lines, spelled_out

QUOTE_CHARS: Final = 300
"""The longest quote below a context, where the messages are not stored; by judgement."""

_MONTHS: Final = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_DATE_FIRST: Final = re.compile(
    r"\W*(?:on )?(?:\d{4}-\d\d-\d\d|\d{4}年|\d{1,2}\.? [^\W\d]+,? \d{4}\b"
    r"|[^\W\d]+ \d{1,2},? \d{4}\b)",
    re.IGNORECASE,
)
_PLAIN_NAME: Final = re.compile(rf"(?!(?:{'|'.join(ROLES)})$)\w[^()\[\]:|]*", re.IGNORECASE)
_SEARCH_TOOLS: Final = re.compile(
    r"(?:.*[^a-z])?(?:conversation_search|archival_memory_search|knowledge_search|"
    r"knowledge_read|core_memory_view|context_budget)"
)


def compile_blocks(blocks: Sequence[Block]) -> str:
    """Return the blocks as the model sees them, values escaped."""
    return "\n".join(compile_block(block) for block in blocks)


def compile_block(block: Block) -> str:
    """Return one block as the model sees it, its value escaped."""
    access = ' read_only="true"' if block.read_only else ""
    return (
        f'<block label="{escape(block.label)}" description="{escape(block.description)}"'
        f' tokens="{block.tokens}" limit="{block.limit}"{access}>\n'
        f"{escape(block.value)}\n</block>"
    )


def counted_message(message: Message) -> str:
    """Return the text whose tokens are the message's, as a client's own context has it."""
    return counted_turn(message.role, message.name, message.content)


def counted_turn(role: str, name: str | None, content: str) -> str:
    """Return the text of one turn whose tokens are counted; to show it, use `render_message`."""
    who = f"{role} ({name})" if name else role
    return f"{who}: {content}\n"


def render_message(message: Message) -> str:
    """Return a message as every view shows it: nothing in it can look like another turn.

    Its further lines begin with `| `.
    """
    return f"{speaker(message.role, message.name)}: {mark_lines(message.content)}\n"


def numbered(message: Message) -> str:
    """Return a message as listings show it: index, time, then `render_message`."""
    text = render_message(message).removesuffix("\n")
    return f"[{message.index}] {message.created_at:%Y-%m-%d %H:%M} {text}"


def speaker(role: str, name: str | None) -> str:
    """Return who speaks; a name that could end the form is spelled out."""
    if not name:
        return role
    return f"{role} ({spelled_out(name) if breaks_form(name) else name})"


def short_speaker(role: str, name: str | None) -> str:
    """Return the name of who speaks; with the role where it could be taken for something else."""
    if name and _PLAIN_NAME.fullmatch(name) and not breaks_form(name):
        return name
    return speaker(role, name)


def render_kept(context: str, messages: Sequence[Message], policy: Policy, day: date) -> str:
    """Return the text of a memory that is made from messages, as the policy of its kind says.

    Args:
        context: What the memory says of them.
        messages: Oldest first, one at least.
        day: When it happened.
    """
    head = mark_lines(context.strip())
    if policy.dated and not _DATE_FIRST.match(head):
        head = f"[{day.isoformat()}] {head}"
    if policy.verbatim == "none":
        return head
    whole = "".join(map(render_message, messages)).rstrip()
    return f"{head}\n\n{whole if policy.verbatim == 'whole' else _quote(whole, messages)}"


def _quote(whole: str, messages: Sequence[Message]) -> str:
    """Return short messages whole, and of longer ones the beginning of the user's words."""
    if len(whole) <= QUOTE_CHARS:
        return whole
    users = [message for message in messages if message.role == "user"]
    said = "".join(map(render_message, users or messages)).rstrip()
    if len(said) <= QUOTE_CHARS:
        return said
    cut = said[:QUOTE_CHARS]
    end = max(cut.rfind(" "), cut.rfind("\n"))
    return f"{cut[:end] if end > QUOTE_CHARS // 2 else cut} […]"


def render_summary(summary: Summary) -> str:
    """Return a summary below a line that identifies it; its token count is of this text."""
    after = f" after {summary.parent}," if summary.parent else ""
    return (
        f"[summary {summary.id}, version {summary.version},{after} by {summary.author}: messages"
        f" {summary.first} to {summary.last} and all before have left the window;"
        f" conversation_search finds them word for word]\n{summary.content}"
    )


def speaker_prefix(day: datetime, name: str | None) -> str:
    """Return the prefix of a message when it is embedded: the day, and who said it.

    Queries name people and days: with the name, search by vectors alone found 63.5 %
    instead of 40.4 % of LoCoMo's gold turns in its first ten hits.
    """
    named = f", {name}" if name else ""
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year}{named}: "


def render_window(messages: Sequence[Message], room_chars: int) -> str:
    """Return neighbouring messages as they are embedded together, a line each with its speaker.

    Args:
        messages: Oldest first.
        room_chars: The longest text; each message gets an equal share.
    """
    share = max(room_chars // max(len(messages), 1), 1)
    return "\n".join(
        f"{message.name or message.role}: {message.content[:share]}" for message in messages
    )


def is_searchable(message: Message) -> bool:
    """Return whether a search may find it. The results of memory searches would find themselves.

    Such a result is recognized by the name of its tool or by the beginning of our replies.
    """
    if message.role != "tool":
        return True
    named = _SEARCH_TOOLS.fullmatch((message.name or "").lower())
    return not named and not message.content.startswith('{"total":')
