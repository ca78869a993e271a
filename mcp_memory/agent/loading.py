"""Bulk loading: many texts at once are stored now and embedded in the background.

Nothing is stored twice: a memory is recognized by its text, a message by its id, which
the caller derives from its content and place. So an interrupted load can be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TypeVar

from mcp_memory.agent.base import Part, check_conversation
from mcp_memory.settings import DEFAULT_CONVERSATION
from mcp_memory.tiers.recall import Draft
from mcp_memory.values.dates import parse_moment
from mcp_memory.values.errors import InvalidInput
from mcp_memory.values.ids import read_id
from mcp_memory.values.messages import read_message
from mcp_memory.values.records import Kind, Memory
from mcp_memory.values.text import check_tags, content_hash, shorten

LoadEntry = Mapping[str, object]
T = TypeVar("T")


@dataclass(slots=True)
class Loaded:
    """The result of a batch; `refused` has the position of each invalid entry, and why."""

    added: int = 0
    known: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)


class Loader(Part):
    """Loads batches of texts, each entry a JSON object.

    With `skip_bad` an invalid entry is skipped; without it, the entries before the first
    invalid one are loaded, and none after it.
    """

    def memories(self, entries: Sequence[LoadEntry], *, skip_bad: bool = False) -> Loaded:
        """Store memories `{content, tags?, kind?, happened_at?}`, in one transaction.

        Raises:
            StorageFault: Nothing of the batch is stored.
        """
        self._engine.check()
        loaded = Loaded()
        archival = self._engine.archival
        drafts = self._checked(self._draft, entries, loaded, skip_bad=skip_bad)
        new: dict[str, Memory] = {}
        merged: dict[str, Memory] = {}
        with self._view():
            for draft in drafts:
                digest = content_hash(draft.content)
                known = new.get(digest) or merged.get(digest) or archival.same(self._agent, draft)
                if known is None:
                    new[digest] = draft
                    loaded.added += 1
                    continue
                loaded.known += 1
                tags = tuple(dict.fromkeys((*known.tags, *draft.tags)))
                if tags != known.tags and digest in new:
                    new[digest] = replace(known, tags=tags)
                elif tags != known.tags:
                    # A text that comes twice in one batch still gets only one version.
                    base = archival.get(self._agent, known.id)
                    merged[digest] = archival.revise(base, tags=tags)
            if new or merged:
                with self._engine.transaction() as unit:
                    archival.insert(unit, self._agent, [*new.values(), *merged.values()])
        self._engine.wake()
        return loaded

    def messages(self, entries: Sequence[LoadEntry], *, skip_bad: bool = False) -> Loaded:
        """Record messages `{id, message, conversation?}` as if just said.

        `message` has any form that `read_message` reads.

        Consecutive messages of one conversation are one transaction. A message is
        recognized by its `id`.

        Raises:
            StorageFault: What comes earlier in the batch is stored.
        """
        self._engine.check()
        loaded = Loaded()
        prepared = self._checked(self._message, entries, loaded, skip_bad=skip_bad)
        recall = self._engine.recall
        for conversation, group in groupby(prepared, key=lambda item: item[0]):
            said = [draft for _, draft in group]
            with self._view():
                present = recall.get_many(self._agent, [draft.id for draft in said])
                fresh = [draft for draft in said if draft.id not in present]
                if fresh:
                    moment = self._engine.clock()
                    built = recall.build(self._agent, conversation, fresh, moment)
                    self._pager.append(conversation, built)
            loaded.added += len(fresh)
            loaded.known += len(said) - len(fresh)
        self._engine.wake()
        return loaded

    def _checked(
        self,
        make: Callable[[LoadEntry], T],
        entries: Sequence[LoadEntry],
        loaded: Loaded,
        *,
        skip_bad: bool,
    ) -> list[T]:
        made: list[T] = []
        for place, entry in enumerate(entries):
            try:
                made.append(make(entry))
            except InvalidInput as fault:
                loaded.refused.append((place, str(fault)))
                if not skip_bad:
                    break
        return made

    def _draft(self, entry: LoadEntry) -> Memory:
        kind, happened = entry.get("kind"), entry.get("happened_at")
        if kind is not None and kind not in tuple(Kind):
            raise InvalidInput(
                f"kind {shorten(str(kind), 40)!r} is unknown",
                field="kind",
                hint=f"Use {', '.join(Kind)}",
            )
        moment = None
        if happened is not None:
            moment = parse_moment(str(happened), zone=self._settings.zone, field="happened_at")
        tags = check_tags(entry.get("tags") or ())
        return self._engine.archival.draft(
            _text(entry, "content"), tags, Kind(str(kind or Kind.FACT)), moment
        )

    def _message(self, entry: LoadEntry) -> tuple[str, Draft]:
        conversation = check_conversation(str(entry.get("conversation") or DEFAULT_CONVERSATION))
        message_id = read_id(_text(entry, "id"))
        if message_id is None:
            raise InvalidInput("the message has no id", field="id")
        new = read_message(entry["message"], zone=self._settings.zone)
        draft = self._engine.recall.draft([new])[0]
        return conversation, replace(draft, id=message_id)


def _text(entry: LoadEntry, field_name: str) -> str:
    value = entry.get(field_name)
    if not isinstance(value, str):
        raise InvalidInput(f"{field_name} is not a text", field=field_name)
    return value
