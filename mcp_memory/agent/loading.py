"""The façade's way in for many texts at once: stored now, embedded in the background.

Nothing is stored twice: a memory is known by its text, a message by its id, which
whoever loads it makes from its content and place. So a load that was cut short
is simply run again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TypeVar

from mcp_memory.agent.base import Part, check_conversation
from mcp_memory.settings import DEFAULT_CONVERSATION
from mcp_memory.tiers.archival import Draft
from mcp_memory.values.dates import now, parse_moment
from mcp_memory.values.errors import InvalidInput
from mcp_memory.values.ids import read_id
from mcp_memory.values.records import Kind, Message, NewMessage
from mcp_memory.values.text import check_tags, shorten

Entry = Mapping[str, object]
T = TypeVar("T")


@dataclass(slots=True)
class Loaded:
    """What became of a batch; `refused` has the place of an entry in it and why."""

    added: int = 0
    known: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)


class Loader(Part):
    """Takes batches of texts from outside, each entry a JSON object.

    With `skip_bad` an entry that can't be taken is passed over; without, what stands
    before the first such entry is taken and nothing behind it.
    """

    def memories(self, entries: Sequence[Entry], *, skip_bad: bool = False) -> Loaded:
        """Keep memories `{content, tags?, kind?, happened_at?}`, in one transaction.

        Raises:
            StorageFault: Nothing of the batch is kept.
        """
        self._engine.check()
        loaded = Loaded()
        archival = self._engine.archival
        drafts = self._checked(self._draft, entries, loaded, skip_bad=skip_bad)
        new: dict[str, Draft] = {}
        merged: dict[str, Draft] = {}
        with self._engine.lock:
            for draft in drafts:
                digest, tags = draft.content_hash, draft.memory.tags
                held = new.get(digest) or merged.get(digest)
                known = archival.same(self._agent, draft) if held is None else held.memory
                if known is None:
                    new[digest] = draft
                    loaded.added += 1
                    continue
                loaded.known += 1
                both = tuple(dict.fromkeys((*known.tags, *tags)))
                if both != known.tags and digest in new:
                    new[digest] = Draft(replace(known, tags=both), digest)
                elif both != known.tags:
                    # Twice in one batch, it is one version all the same.
                    base = archival.get(self._agent, known.id)
                    merged[digest] = archival.revise(base, tags=both)
            if new or merged:
                with self._engine.database.transaction() as tx:
                    archival.store_new(tx, self._agent, list(new.values()))
                    for draft in merged.values():
                        archival.store(tx, self._agent, draft)
            for draft in (*new.values(), *merged.values()):
                archival.stored(self._agent, draft)
        self._engine.wake()
        return loaded

    def messages(self, entries: Sequence[Entry], *, skip_bad: bool = False) -> Loaded:
        """Record messages `{id, role, content, name?, created_at?, conversation?}` as if just said.

        Those of a conversation that follow each other are one transaction. A message
        is known by its `id`.

        Raises:
            StorageFault: What stands before in the batch is kept.
        """
        self._engine.check()
        loaded = Loaded()
        prepared = self._checked(self._message, entries, loaded, skip_bad=skip_bad)
        for conversation, group in groupby(prepared, key=lambda message: message.conversation):
            said = list(group)
            with self._engine.lock:
                there = self._engine.recall.get_many(self._agent, [item.id for item in said])
                fresh = [message for message in said if message.id not in there]
                news = False
                if fresh:
                    numbered = self._engine.recall.number(self._agent, fresh)
                    news = self._pager.append(conversation, numbered).news
            loaded.added += len(fresh)
            loaded.known += len(said) - len(fresh)
            self._notify(f"budget/{conversation}", *(["events"] if news else []))
        self._engine.wake()
        return loaded

    def _checked(
        self,
        make: Callable[[Entry], T],
        entries: Sequence[Entry],
        loaded: Loaded,
        *,
        skip_bad: bool,
    ) -> list[T]:
        made: list[T] = []
        for place, entry in enumerate(entries):
            try:
                made.append(make(entry))
            except InvalidInput as fault:
                # The number in a list that only this module makes says nothing to the reader.
                loaded.refused.append((place, str(fault).replace("messages[0].", "")))
                if not skip_bad:
                    break
        return made

    def _draft(self, entry: Entry) -> Draft:
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

    def _message(self, entry: Entry) -> Message:
        conversation = check_conversation(str(entry.get("conversation") or DEFAULT_CONVERSATION))
        name, created = entry.get("name"), entry.get("created_at")
        moment = None
        if created is not None:
            moment = parse_moment(str(created), zone=self._settings.zone, field="created_at")
        message_id = read_id(_text(entry, "id"))
        if message_id is None:
            raise InvalidInput("the message has no id", field="id")
        new = NewMessage(
            role=_text(entry, "role"),  # type: ignore[arg-type]  # checked by `prepare`
            content=_text(entry, "content"),
            name=None if name is None else str(name),
            created_at=moment,
        )
        message = self._engine.recall.prepare([new], conversation, now())[0]
        return replace(message, id=message_id)


def _text(entry: Entry, field_name: str) -> str:
    value = entry.get(field_name)
    if not isinstance(value, str):
        raise InvalidInput(f"{field_name} is no text", field=field_name)
    return value
