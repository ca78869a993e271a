"""Plays the conversation to a real server over stdio, then asks questions about it.

The assistant's side is scripted (script.py). Every reply that is shown came over the wire.
An answer counts as found by the id that the server assigned to the message.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
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
# Two lines of a terminal; by judgement.
QUOTED_CHARS = 150
PROGRAM = "mcp-memory"


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


def _day(message: Mapping[str, Any], *, year: bool = False) -> str:
    moment = _at(message)
    return f"{moment.day} {moment:%b}" + (f" {moment.year}" if year else "")


async def play(show: Show, window_tokens: int) -> bool:
    """Play the whole demo on a temporary database.

    Returns:
        Whether every question was answered among the first hits.

    Raises:
        MemoryFault: If the server does not start, stops, or refuses a call.
    """
    async with temporary_server(window_tokens) as wire:
        return await Demo(wire, show, load_conversation()).run()


@dataclass(slots=True)
class Demo:
    """One run.

    Attributes:
        messages: The conversation, oldest first.
        ids: The ids that the server assigned to the messages, in their order.
        due: The calls that the assistant still has to make.
        saved: The ids of stored memories, by the name of the save.
        windows: After each flush, the index of the oldest message in the window.
        warned: Whether the server has warned yet.
        told: The tools whose use was shown: once is enough.
    """

    wire: Wire
    show: Show
    messages: Sequence[Mapping[str, Any]]
    ids: list[str] = field(default_factory=list)
    due: list[Save] = field(default_factory=lambda: list(SAVES))
    saved: dict[str, list[str]] = field(default_factory=dict)
    windows: list[int] = field(default_factory=list)
    warned: bool = False
    told: set[str] = field(default_factory=set)

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
        asked += [await self._recollect(recollection) for recollection in RECOLLECTIONS]
        await self._sum_up(asked)
        return all(asked)

    async def rest(self) -> None:
        """Pause so that a person can read the last paragraph."""
        await anyio.sleep(self.show.pause_seconds)

    async def _open(self) -> None:
        show, messages = self.show, self.messages
        show.heading("Why a memory")
        show.say(
            "An assistant sees only its context window. What no longer fits is forgotten: it will"
            " ask you again, or guess. With mcp-memory it can look it up."
        )
        show.say(
            f"Here Hanna and her assistant exchange {len(messages)} messages in half a year, far"
            " more than its window holds. The assistant is scripted. The memory is real: a server,"
            " its database and its search, on this machine. Your own data is not touched."
        )
        await self.rest()
        show.heading("1. Hanna talks, and the window fills up")
        for message in (messages[0], messages[38]):
            show.told(f"{_day(message)}", f'"{clip(message["content"], QUOTED_CHARS)}"')
        await self.rest()

    async def _feed(self) -> None:
        for indexes in batches(self.messages):
            messages = [self.messages[index] for index in indexes]
            reply = await self.wire.call(
                "conversation_append", {"conversation": CONVERSATION, "messages": messages}
            )
            self.ids += reply["ids"]
            flushed, alert = reply.get("flushed"), reply.get("alert")
            if flushed or (alert and not self.warned):
                self.show.filled(_day(messages[-1]), reply["pressure"], reply["level"])
            if flushed:
                await self._show_flush(flushed)
            if alert:
                await self._save()

    async def _save(self) -> None:
        """Make the scripted calls that are due."""
        if not self.warned:
            self.warned = True
            self.show.say(
                "The server warns: soon the oldest messages will have to leave. So the assistant"
                " writes down what matters:",
                indent=9,
            )
            await self.rest()
        while self.due and self.due[0].places[-1][0] < len(self.ids):
            save = self.due.pop(0)
            reply = await self.wire.call(save.tool, self._arguments(save))
            if save.name:
                self.saved[save.name] = reply["ids"] if "ids" in reply else [reply["id"]]
            if save.told and save.tool not in self.told:
                self.told.add(save.tool)
                self.show.told("  it", clip(save.told, QUOTED_CHARS), "dim")
                await self.rest()

    def _arguments(self, save: Save) -> dict[str, Any]:
        arguments = dict(save.arguments)
        if save.of:
            arguments = {"id": self.saved[save.of][0]} | arguments
        return arguments

    async def _show_flush(self, flush: Mapping[str, Any]) -> None:
        """Say how many messages left; the first time also what that means."""
        self.windows.append(len(self.ids) - flush["kept"])
        left = f"It was full: the {flush['evicted']} oldest messages have left the window"
        if len(self.windows) > 1:
            self.show.say(f"{left}.", indent=9)
        else:
            self.show.say(
                f"{left}. Without a memory, they would be forgotten now. Here a summary takes"
                " their place, and each of them can still be found.",
                indent=9,
            )
        await self.rest()

    async def _close(self) -> None:
        """Let the assistant save the rest and flush once, with a summary of its own."""
        await self._save()
        flush = await self.wire.call(
            "conversation_flush", {"conversation": CONVERSATION, "summary": SUMMARY}
        )
        self.windows.append(len(self.ids) - flush["kept"])

    async def _wait_for_model(self) -> None:
        messages, first = self.messages, self.windows[-1]
        self.show.heading("2. Half a year later")
        self.show.say(
            f"It is {_day(messages[-1], year=True)}. Of {len(messages)} messages the assistant"
            f" still sees the last {len(messages) - first}. All others have left its window."
        )
        state = await self._embedding()
        if state in {"downloading", "loading"}:
            reason = " (34 MB are fetched, once)" if state == "downloading" else ""
            with self.show.waiting(f"The model that searches by meaning is {state}{reason} ..."):
                for _ in range(int(MODEL_SECONDS / POLL_SECONDS)):
                    await anyio.sleep(POLL_SECONDS)
                    if (state := await self._embedding()) not in {"downloading", "loading"}:
                        break
        if state != "ready":
            self.show.say(
                f"The model that searches by meaning is {state}, so only words are compared, and a"
                " question in other words than the answer will miss it. `mcp-memory models fetch`"
                " fetches it.",
                style="yellow",
            )
        await self.rest()
        self.show.heading("3. Can it still answer?")

    async def _embedding(self) -> str:
        """Return the model's state; `loading` while texts wait for their vectors."""
        embedding = json.loads(await self.wire.read("memory://status"))["embedding"]
        state = str(embedding["state"])
        waiting = embedding["pending"] + embedding["windows_pending"]
        return "loading" if state == "ready" and waiting else state

    async def _hits(self, tool: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the first hits of a search, from several pages if needed."""
        reply = await self.wire.call(tool, arguments)
        hits = list(reply["results"])
        while len(hits) < FIRST_HITS and (cursor := reply.get("next_cursor")):
            reply = await self.wire.call(tool, {**arguments, "cursor": cursor})
            hits += reply["results"]
        return hits[:FIRST_HITS]

    async def _ask(self, question: Question) -> bool:
        arguments = {"query": question.text, "limit": FIRST_HITS}
        hits = {hit["id"]: hit for hit in await self._hits("conversation_search", arguments)}
        self._question(question.text)
        found = [hits.get(self.ids[index]) for index, _ in question.answers]
        for hit, (index, words) in zip(found, question.answers, strict=True):
            said = _day(self.messages[index], year=True)
            if hit is None:
                self.show.told("not found", f"{said}: {words}", "red")
            elif self.show.can_show(words):
                self.show.told("found", f'{said}: "{around(hit["text"], words)}"', "green")
            else:
                self.show.told("found", f"{said}: what she said in Chinese", "green")
        if len(found) > 1 and None not in found:
            self.show.say("Both are found, with their dates: the later one is true.", indent=13)
        elif question.kind == "other words" and None not in found:
            self.show.say("It shares no word of meaning with the question.", indent=13, style="dim")
        await self.rest()
        return None not in found

    def _question(self, text: str) -> None:
        self.show.say()
        self.show.told("Hanna", text if self.show.can_show(text) else "(a question in Chinese)")

    async def _recollect(self, recollection: Recollection) -> bool:
        arguments = {"query": recollection.text, "top_k": FIRST_HITS}
        hits = await self._hits("archival_memory_search", arguments)
        wanted, must_say = self.saved[recollection.name], recollection.must_say
        hit = next((hit for hit in hits if hit["id"] in wanted and must_say in hit["text"]), None)
        stale = recollection.must_not_say
        self._question(recollection.text)
        if hit is None:
            self.show.told("not found", must_say, "red")
            return False
        text = around(hit["text"].splitlines()[0], must_say)
        self.show.told("found", f'it wrote down: "{text}"', "green")
        await self.rest()
        return not stale or not any(stale in hit["text"] for hit in hits)

    async def _sum_up(self, asked: Sequence[bool]) -> None:
        show, seen = self.show, self.windows[-1]
        places = [index for question in QUESTIONS for index, _ in question.answers[:1]]
        gone = sum(index < seen for index in places)
        budget = await self.wire.call("context_budget", {"conversation": CONVERSATION})
        show.heading("That is the point")
        show.say(
            f"{sum(asked)} of {len(asked)} questions were answered from memory. For {gone} of the"
            f" {len(places)} about the conversation, the answer had left the window: without a"
            " memory the assistant could only have guessed. All"
            f" {budget['counts']['recall_messages']} messages can still be found, word for word."
        )
        show.say(
            "(The questions were written for this conversation: they show how it works, and"
            " measure nothing.)",
            style="dim",
        )
        await self.rest()
        program = _program()
        show.heading("Give it to your assistant")
        show.say("Claude Code:")
        show.copied(f"claude mcp add memory -s user -- {program}")
        show.say("Claude Desktop, Cursor and most others, in their file of MCP servers:")
        show.copied(json.dumps({"mcpServers": {"memory": {"command": program}}}))
        show.say(
            'Then say "remember that I ..." and ask in another chat. The README has more clients.'
        )


def _program() -> str:
    """Return the path that a client can start this program by."""
    beside = Path(sys.executable).with_name(PROGRAM)
    return str(beside) if beside.exists() else shutil.which(PROGRAM) or PROGRAM
