"""Plays the conversation to a real server over stdio, then asks questions about it.

The agent's side is scripted (script.py). Every reply that is shown came over the wire.
An answer counts as found by the id that the server assigned to the message.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import anyio

from mcp_memory.cli.demo.script import (
    QUESTIONS,
    RECOLLECTIONS,
    SAVES,
    SUMMARY,
    Question,
    Recollection,
    Save,
    load_conversation,
)
from mcp_memory.cli.demo.show import Show, around, clip
from mcp_memory.cli.demo.wire import Wire, temporary_server
from mcp_memory.models.tokenizer import Tokenizer
from mcp_memory.settings import load_settings

CONVERSATION = "main"
# What a model reads without asking for a second page.
FIRST_HITS = 5
# Downloading 34 MB and computing all vectors takes this long at most; by judgement.
MODEL_SECONDS = 300.0
POLL_SECONDS = 0.5
# Small enough that the window fills up in several steps.
BATCH_MESSAGES = 8
# Messages further apart than this belong to two visits of the user; the search uses the same.
VISIT_GAP = timedelta(hours=6)


def batches(messages: Sequence[Mapping[str, Any]]) -> Iterator[range]:
    """Yield the indexes of whole visits, several together until they fill a batch."""
    start = 0
    for index in range(1, len(messages)):
        gap = _at(messages[index]) - _at(messages[index - 1])
        if gap > VISIT_GAP and index - start >= BATCH_MESSAGES:
            yield range(start, index)
            start = index
    yield range(start, len(messages))


def _at(message: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(message["created_at"])


def _span(indexes: range) -> str:
    return f"#{indexes[0]}-{indexes[-1]}"


async def play(show: Show, window_tokens: int) -> bool:
    """Play the whole demo on a temporary database.

    Returns:
        Whether every question was answered among the first hits.

    Raises:
        MemoryFault: If the server does not start, stops, or refuses a call.
        SettingsFault: If a setting has a wrong value.
    """
    messages = load_conversation()
    tokenizer = Tokenizer(cache_dir=load_settings().cache_dir)
    tokens = sum(tokenizer.count(message["content"]) for message in messages)
    async with temporary_server(window_tokens) as wire:
        return await Demo(wire, show, messages, tokens).run()


@dataclass(slots=True)
class Demo:
    """One run.

    Attributes:
        messages: The conversation, oldest first.
        tokens: The tokens of all texts.
        ids: The ids that the server assigned to the messages, in their order.
        due: The calls that the agent still has to make.
        saved: The ids of stored memories, by the name of the save.
        evicted: How many messages were evicted, by the author of their summary.
        windows: After each flush, the index of the oldest message in the window.
        alerts: The levels of the alerts that the server sent.
        budget: The server's budget before the first message.
        rows: The questions with the ranks of their answers.
    """

    wire: Wire
    show: Show
    messages: Sequence[Mapping[str, Any]]
    tokens: int
    ids: list[str] = field(default_factory=list)
    due: list[Save] = field(default_factory=lambda: list(SAVES))
    saved: dict[str, list[str]] = field(default_factory=dict)
    evicted: Counter[str] = field(default_factory=Counter)
    windows: list[int] = field(default_factory=list)
    alerts: set[str] = field(default_factory=set)
    budget: dict[str, Any] = field(default_factory=dict)
    rows: list[tuple[str, str, str]] = field(default_factory=list)

    async def run(self) -> bool:
        """Play all parts.

        Returns:
            Whether every question was answered among the first hits.
        """
        await self._open()
        await self._feed()
        await self._close()
        await self._wait_for_model()
        asked = [await self._ask(question) for question in QUESTIONS]
        self.show.heading("Questions about what the agent stored (archival_memory_search)")
        asked += [await self._recollect(recollection) for recollection in RECOLLECTIONS]
        await self._sum_up(asked)
        return all(asked)

    async def rest(self) -> None:
        """Pause so that a person can read the last line."""
        await anyio.sleep(self.show.pause_seconds)

    async def _open(self) -> None:
        show, messages = self.show, self.messages
        self.budget = await self.wire.call("context_budget", {"conversation": CONVERSATION})
        limits, parts = self.budget["thresholds"], self.budget["parts"]
        used = ", ".join(f"{name} {tokens:,}" for name, tokens in parts.items() if tokens)
        show.heading("A long conversation, a limited window")
        first, last = messages[0]["created_at"][:10], messages[-1]["created_at"][:10]
        show.say(
            "The agent's side is scripted; every result came over the wire, from a real server."
        )
        show.say(
            f"The conversation has {len(messages)} messages of {self.tokens:,} tokens, {first} to "
            f"{last}."
        )
        show.say(
            f"The window has {self.budget['window_tokens']:,} tokens. In use before the first "
            f"message: {used}."
        )
        show.say(
            f"At {limits['warn_at']:.0%} the server warns (| in the bar). At "
            f"{limits['flush_at']:.0%} the oldest messages leave until "
            f"{limits['keep_after_flush']:.0%} is used: a summary replaces them, and search still "
            "finds them. #7 is the message with index 7."
        )
        show.heading("The conversation comes in (conversation_append)")

    async def _feed(self) -> None:
        for indexes in batches(self.messages):
            messages = [self.messages[index] for index in indexes]
            reply = await self.wire.call(
                "conversation_append", {"conversation": CONVERSATION, "messages": messages}
            )
            self.ids += reply["ids"]
            dates = f"{messages[0]['created_at'][5:10]} to {messages[-1]['created_at'][5:10]}"
            warn_at = self.budget["thresholds"]["warn_at"]
            self.show.append(reply, _span(indexes), dates, warn_at)
            await self.rest()
            if flushed := reply.get("flushed"):
                await self._show_flush("the window was full", flushed)
                await self._explain(reply)
            if alert := reply.get("alert"):
                self._show_alert(alert, reply["level"])
                await self._save()

    def _show_alert(self, alert: str, level: str) -> None:
        """Show the first alert of each level in full, and later ones as one line."""
        if level in self.alerts:
            self.show.line(f"alert: {clip(alert, 200)}")
        else:
            self.show.quote("the server's alert", alert)
        if not self.alerts:
            self.show.say("  So the agent saves what matters (this is scripted):")
        self.alerts.add(level)

    async def _save(self) -> None:
        """Make the scripted calls that are due."""
        while self.due and self.due[0].places[-1][0] < len(self.ids):
            save = self.due.pop(0)
            reply = await self._shown(save.tool, self._arguments(save))
            chunks = save.arguments.get("chunks", ())
            if self.windows and any(chunk["start_index"] < self.windows[-1] for chunk in chunks):
                self.show.line(
                    "  (these had left the window already; recall memory still has them)"
                )
            if save.name:
                self.saved[save.name] = reply["ids"] if "ids" in reply else [reply["id"]]
            await self.rest()

    def _arguments(self, save: Save) -> dict[str, Any]:
        arguments = dict(save.arguments)
        if save.of:
            arguments = {"id": self.saved[save.of][0]} | arguments
        return arguments

    async def _shown(self, tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        self.show.call(tool, arguments)
        reply = await self.wire.call(tool, arguments)
        self.show.reply(_in_short(reply))
        return reply

    async def _show_flush(self, why: str, flush: Mapping[str, Any]) -> None:
        """Show what left and the summary: mostly in full if its author is new, else one line."""
        author = flush["author"]
        known = author in self.evicted
        self.evicted[author] += flush["evicted"]
        self.windows.append(len(self.ids) - flush["kept"])
        self.show.line(
            f"flush {len(self.windows)}, {why}: {flush['evicted']} messages leave, "
            f"{flush['kept']} stay (#{self.windows[-1]} to #{len(self.ids) - 1})",
            style="bold",
        )
        summary = await self.wire.read(f"memory://conversations/{CONVERSATION}/summary")
        title = f"summary {flush['summary_id']}, written by: {author}"
        if known:
            self.show.line(f"{title}: {clip(summary, 200)}")
        else:
            self.show.quote(title, clip(summary, 600))
        await self.rest()

    async def _explain(self, reply: Mapping[str, Any]) -> None:
        """Say once why a small window remains fuller than its target."""
        target = self.budget["thresholds"]["keep_after_flush"]
        if reply["pressure"] <= target or len(self.windows) > 1:
            return
        budget = await self.wire.call("context_budget", {"conversation": CONVERSATION})
        fixed = budget["used_tokens"] - budget["parts"]["queue"]
        self.show.line(
            f"still over {target:.0%}: tools, core and summary alone use {fixed:,} tokens"
        )

    async def _close(self) -> None:
        """Let the agent save the rest and flush once, with a summary of its own."""
        self.show.heading("The conversation pauses: the agent makes room (conversation_flush)")
        await self._save()
        flush = await self._shown(
            "conversation_flush", {"conversation": CONVERSATION, "summary": SUMMARY}
        )
        await self._show_flush("by the agent, with its own summary", flush)

    async def _wait_for_model(self) -> None:
        self.show.heading("Questions about the whole history (conversation_search)")
        state = await self._embedding()
        if state in {"downloading", "loading"}:
            with self.show.wait(f"The embedding model is {state}; waiting for it …"):
                for _ in range(int(MODEL_SECONDS / POLL_SECONDS)):
                    await anyio.sleep(POLL_SECONDS)
                    if (state := await self._embedding()) not in {"downloading", "loading"}:
                        break
        if state != "ready":
            self.show.say(
                f"The embedding model is {state}, so search is lexical: a question in other words "
                "than the answer is likely to miss. `mcp-memory models fetch` gets the model."
            )

    async def _embedding(self) -> str:
        """Return the model's state; `loading` while texts wait for their vectors."""
        embedding = json.loads(await self.wire.read("memory://status"))["embedding"]
        state = str(embedding["state"])
        waiting = embedding["pending"] + embedding["windows_pending"]
        return "loading" if state == "ready" and waiting else state

    async def _hits(self, tool: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the first hits of a search, from several pages if needed."""
        self.show.call(tool, arguments)
        reply = await self.wire.call(tool, arguments)
        hits = list(reply["results"])
        while len(hits) < FIRST_HITS and (cursor := reply.get("next_cursor")):
            reply = await self.wire.call(tool, {**arguments, "cursor": cursor})
            hits += reply["results"]
        hits = hits[:FIRST_HITS]
        self.show.reply(f"{len(hits)} hits of {reply['total']}, {reply['search']} search")
        return hits

    async def _ask(self, question: Question) -> bool:
        self.show.say(f"\n{question.text}  ({question.kind})")
        arguments = {"query": question.text, "limit": FIRST_HITS}
        hits = await self._hits("conversation_search", arguments)
        ranks = {hit["id"]: rank for rank, hit in enumerate(hits, start=1)}
        found: list[int | None] = []
        for index, words in question.answers:
            rank = ranks.get(self.ids[index])
            found.append(rank)
            if rank is None:
                where = f"#{index}, {self.messages[index]['created_at'][:10]}"
                self.show.found(None, where, f"it would have been: {words}")
                continue
            hit = hits[rank - 1]
            where = f"#{hit['index']}, {hit['at'][:10]}, {self._left(hit['index'])}"
            self.show.found(rank, where, around(hit["text"], words, self._columns()))
        if len(found) > 1 and None not in found:
            self.show.line("  both are found with their dates: the later one is true")
        self._note(question.text, question.kind, found)
        await self.rest()
        return None not in found

    def _columns(self) -> int:
        return self.show.console.width - 8

    def _left(self, index: int) -> str:
        """Say in which flush a message left the window."""
        for number, oldest in enumerate(self.windows, start=1):
            if index < oldest:
                return f"out of the window since flush {number} of {len(self.windows)}"
        return "still in the window"

    async def _recollect(self, recollection: Recollection) -> bool:
        self.show.say(f"\n{recollection.text}")
        arguments = {"query": recollection.text, "top_k": FIRST_HITS}
        hits = await self._hits("archival_memory_search", arguments)
        wanted, must_say = self.saved[recollection.name], recollection.must_say
        rank = next(
            (
                rank
                for rank, hit in enumerate(hits, start=1)
                if hit["id"] in wanted and must_say in hit["text"]
            ),
            None,
        )
        self._note(recollection.text, "archival", [rank])
        if rank is None:
            self.show.found(None, ", ".join(wanted), must_say)
            return False
        hit = hits[rank - 1]
        text = around(hit["text"], must_say, self._columns())
        self.show.found(rank, f"{hit['id']}, {hit['kind']}, {hit['at'][:10]}", text)
        await self.rest()
        return self._is_current(recollection, hits)

    def _is_current(self, recollection: Recollection, hits: Sequence[Mapping[str, Any]]) -> bool:
        stale = recollection.must_not_say
        if not stale:
            return True
        good = not any(stale in hit["text"] for hit in hits)
        self.show.line(
            f"  {stale!r}, which archival_memory_update replaced, is "
            + ("out of search" if good else "still found")
        )
        return good

    def _note(self, text: str, kind: str, ranks: Sequence[int | None]) -> None:
        shown = " and ".join("-" if rank is None else str(rank) for rank in ranks)
        self.rows.append((text, kind, shown))

    async def _sum_up(self, asked: Sequence[bool]) -> None:
        columns = ("question", "kind", f"rank in the first {FIRST_HITS}")
        self.show.table("Found", self.rows, columns)
        by = ", ".join(f"{count} by {author}" for author, count in self.evicted.items())
        budget = await self.wire.call("context_budget", {"conversation": CONVERSATION})
        counts, window = budget["counts"], budget["window_tokens"]
        rows = (
            ("messages received", f"{len(self.ids)}"),
            ("tokens of their text", f"{self.tokens:,}"),
            ("tokens of the window", f"{window:,}"),
            ("tokens in use now", f"{budget['used_tokens']:,}, {budget['pressure']:.0%}"),
            ("messages evicted", f"{self.evicted.total()}; into a summary: {by}"),
            ("messages in the window", f"{counts['queue_messages']}"),
            ("messages that search finds", f"{counts['recall_messages']}"),
            ("questions answered", f"{sum(asked)}/{len(asked)}"),
        )
        self.show.table("In numbers", rows)
        self.show.say(
            "The questions were written for this conversation: they show how search works, not how "
            "well it works in general."
        )


def _in_short(reply: Mapping[str, Any]) -> str:
    """Return the part of a reply that says what happened, in a line."""
    if "evicted" in reply:
        return f"evicted {reply['evicted']}, kept {reply['kept']}, {reply['pressure']:.0%} in use"
    if "ids" in reply:
        return f"stored {', '.join(reply['ids'])}"
    if "changed" in reply:
        return f"changed: {', '.join(block['label'] for block in reply['changed']) or 'nothing'}"
    if "label" in reply:
        return f"block {reply['label']!r}: {reply['tokens']} of {reply['limit']} tokens"
    known = ("id", "created", "version", "tokens", "embedding")
    return ", ".join(f"{name} {reply[name]}" for name in known if name in reply)
