"""Makes an agent's next request from random numbers: tools, resources, prompts, completions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from mcp_memory.server.prompts import PROMPTS
from mcp_memory.server.tools import TOOLS

CONNECTIONS: Final = 2
TEAM: Final = "team"
"""A label that every agent uses: for its own block, or for a shared one if it is granted."""

UNKNOWN_ID: Final = "0000000000"

Draw = Callable[[int], int]
"""Returns a number below its argument."""


@dataclass(frozen=True)
class Own:
    """Placeholder for the n-th id that an agent received; ids differ between runs."""

    number: int


@dataclass(frozen=True)
class Step:
    """One request of an agent on one of its connections; method None means: reconnect."""

    connection: int
    method: str | None
    params: dict[str, Any] = field(default_factory=dict)
    compared: bool = True


@dataclass
class Actor:
    """The state of an agent that its next step depends on."""

    name: str
    """Part of its labels, tags and conversation names; other agents may use it to probe."""

    secret: str
    """Part of its texts, and of no other agent's."""

    ids: list[str] = field(default_factory=list)
    cursors: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    written: int = 0


def budget_uri(conversation: str) -> str:
    return f"memory://context-budget/{conversation}"


def said(role: str, content: str, minute: int) -> dict[str, Any]:
    # With fixed times, so that no text depends on when the test runs.
    at = f"2026-03-{minute // 1440 % 28 + 1:02}T{minute // 60 % 24:02}:{minute % 60:02}:00Z"
    return {"role": role, "content": content, "created_at": at}


class Chooser:
    """Chooses the next step of an agent."""

    def __init__(self, parties: Sequence[Actor]) -> None:
        self._parties = parties

    def step(self, actor: Actor, draw: Draw) -> Step:
        """Return a step; `draw(n)` returns a number below n."""
        connection = draw(CONNECTIONS)
        other = self._parties[(self._parties.index(actor) + 1 + draw(2)) % len(self._parties)]
        name = actor.name if draw(4) else other.name
        kind = draw(24)
        if kind == 0:
            return Step(connection, None)
        if kind < 14:
            return self._tool(actor, other, name, connection, draw)
        if kind < 18:
            return Step(connection, "resources/read", {"uri": self._uri(other, name, draw)})
        if kind < 20:
            return self._prompt(name, connection, draw)
        if kind < 23:
            return self._completion(other, connection, draw)
        method = ("tools/list", "resources/list", "resources/templates/list", "prompts/list")
        return Step(connection, method[draw(4)])

    def _tool(self, actor: Actor, other: Actor, name: str, connection: int, draw: Draw) -> Step:
        tools = [*TOOLS, "no_such_tool"]
        tool = tools[draw(len(tools))]
        if draw(8) == 0 and (cursors := (actor.cursors if draw(2) else other.cursors)):
            # A cursor fixes a moment, which differs between agents: a difference is no leak.
            cursor, call = cursors[draw(len(cursors))]
            arguments = call["arguments"] | {"cursor": cursor}
            return Step(connection, "tools/call", call | {"arguments": arguments}, compared=False)
        arguments = self._arguments(tool, actor, other, name, draw)
        if draw(20) == 0:
            arguments["unknown"] = name
        return Step(connection, "tools/call", {"name": tool, "arguments": arguments})

    def _arguments(
        self, tool: str, actor: Actor, other: Actor, name: str, draw: Draw
    ) -> dict[str, Any]:
        conversation = ("main", f"{name}chat{draw(2)}")[draw(2)]
        text = self._text(actor, draw)
        if tool in {"core_memory_view", "context_budget"}:
            return {"conversation": conversation}
        if tool.startswith("archival_"):
            return self._archival(tool, actor, other, name, text, draw)
        if tool.startswith(("conversation_", "store_")):
            return self._conversational(tool, actor, name, conversation, text, draw)
        return self._core(tool, actor, name, conversation, text, draw)

    def _core(
        self, tool: str, actor: Actor, name: str, conversation: str, text: str, draw: Draw
    ) -> dict[str, Any]:
        label = ("human", "persona", "working", f"{name}block{draw(3)}", TEAM)[draw(5)]
        match tool:
            case "core_memory_append":
                return {"label": label, "content": text, "conversation": conversation}
            case "core_memory_replace":
                new = ("", text)[draw(2)]
                return {"label": label, "old_content": actor.secret, "new_content": new}
            case "rethink_memory":
                about = {"description": f"What {actor.secret} notes"} if draw(3) else {}
                return {"label": label, "new_memory": text, **about}
            case "rethink_user_memory":
                return {"new_memory": text}
            case _:
                return {}

    def _conversational(
        self, tool: str, actor: Actor, name: str, conversation: str, text: str, draw: Draw
    ) -> dict[str, Any]:
        match tool:
            case "conversation_append":
                roles = ("user", "assistant", "tool")
                messages = []
                for number in range(1 + draw(3)):
                    actor.written += 1
                    words = f"{text} {number} " * (1 + draw(30))
                    messages.append(said(roles[draw(3)], words, actor.written))
                return {"messages": messages, "conversation": conversation}
            case "conversation_search":
                query = {"query": ("cat", text, name)[draw(3)]} if draw(3) else {}
                where = {"conversation": conversation} if draw(2) else {}
                return {**query, **where, "limit": 1 + draw(5)}
            case "conversation_flush":
                return {"conversation": conversation} | ({"summary": text} if draw(2) else {})
            case _:
                first = draw(4)
                chunk = {"start_index": first, "end_index": first + draw(3), "context": text}
                return {"chunks": [chunk], "conversation": conversation}

    def _archival(
        self, tool: str, actor: Actor, other: Actor, name: str, text: str, draw: Draw
    ) -> dict[str, Any]:
        match tool:
            case "archival_memory_insert":
                actor.written += 1
                at = said("user", "", actor.written)["created_at"]
                # A text that is too long to embed while the caller waits stays pending.
                content = text if draw(12) else f"{text} " * 600
                return {"content": content, "tags": [f"{name}tag{draw(3)}"], "happened_at": at}
            case "archival_memory_search":
                query = {"query": ("cat", text, name)[draw(3)]} if draw(3) else {}
                tags = {"tags": [f"{name}tag{draw(3)}"]} if draw(3) == 0 else {}
                return {**query, **tags, "top_k": 1 + draw(5)}
            case "archival_memory_update":
                return {"id": self._id(other, draw), "content": text}
            case _:
                return {"id": self._id(other, draw)}

    def _text(self, actor: Actor, draw: Draw) -> str:
        # All agents use the first ones: that another has the same text must not show.
        shared = ("the cat sat on the mat", "tea at five, with milk")
        own = (f"{actor.secret} likes cat {draw(4)}", f"{actor.secret} works in room {draw(9)}")
        return (*shared, *own)[draw(4)]

    def _id(self, other: Actor, draw: Draw) -> Any:
        if draw(3) == 0 and other.ids:
            return other.ids[draw(len(other.ids))]
        return Own(draw(1000)) if draw(6) else UNKNOWN_ID

    def _uri(self, other: Actor, name: str, draw: Draw) -> str:
        conversation = ("main", f"{name}chat{draw(2)}")[draw(2)]
        foreign = other.ids[draw(len(other.ids))] if other.ids else UNKNOWN_ID
        uris = (
            "memory://core",
            "memory://context-budget",
            "memory://events",
            "memory://status",
            f"memory://core/{name}block{draw(3)}",
            budget_uri(conversation),
            f"memory://conversations/{conversation}/recent",
            f"memory://conversations/{conversation}/summary",
            f"memory://archival/{foreign}",
            f"memory://nothing/{name}",
        )
        return uris[draw(len(uris))]

    def _prompt(self, name: str, connection: int, draw: Draw) -> Step:
        prompts = [*PROMPTS, "no_such_prompt"]
        arguments = {"conversation": f"{name}chat{draw(2)}"} if draw(2) else {}
        params = {"name": prompts[draw(len(prompts))], "arguments": arguments}
        return Step(connection, "prompts/get", params)

    def _completion(self, other: Actor, connection: int, draw: Draw) -> Step:
        argument = ("label", "conversation", "id", "nothing")[draw(4)]
        value = ("", other.name, other.name[:1], (other.ids or ["0"])[0][:1])[draw(4)]
        ref = {"type": "ref/resource", "uri": "memory://core/{label}"}
        params = {"ref": ref, "argument": {"name": argument, "value": value}}
        # Ids are random, and so is which of them begin with a character.
        compared = argument != "id" or not value
        return Step(connection, "completion/complete", params, compared)
