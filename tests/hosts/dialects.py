"""The four model APIs that the hosts speak: what a request shows, and replies as events to stream.

JSON in and out, no network. Only what a host reads is said; nothing here knows the script.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

Json = dict[str, Any]
Event = tuple[str | None, Json | str]
"""The name of a server-sent event, where the API names them, and its data."""

_numbers: Final = itertools.count(1)


def _new_id(prefix: str) -> str:
    return f"{prefix}_{next(_numbers):06}"


@dataclass(frozen=True)
class Tool:
    """A tool as a host names it; Codex also puts it in a namespace."""

    name: str
    namespace: str | None = None


@dataclass(frozen=True)
class Turn:
    """What a request shows: the tools on offer and the calls that were answered, oldest first."""

    tools: tuple[Tool, ...]
    answers: tuple[tuple[str, str], ...]
    """The name of the tool and all text of its result."""


class Dialect(Protocol):
    """A model API."""

    def speaks(self, path: str) -> bool:
        """Return whether a POST to this path asks the model for its next turn."""

    def turn(self, body: Json) -> Turn:
        """Return what the request shows."""

    def call(self, tool: Tool, arguments: Json) -> list[Event]:
        """Return the stream of a model that calls a tool."""

    def say(self, text: str) -> list[Event]:
        """Return the stream of a model that says something and is done."""


class AnthropicMessages:
    """Claude Code."""

    def speaks(self, path: str) -> bool:
        return path == "/v1/messages"

    def turn(self, body: Json) -> Turn:
        names: dict[str, str] = {}
        answers = []
        for block in _blocks(body["messages"]):
            if block["type"] == "tool_use":
                names[block["id"]] = block["name"]
            elif block["type"] == "tool_result":
                answers.append((names[block["tool_use_id"]], _text(block.get("content", ""))))
        tools = tuple(Tool(tool["name"]) for tool in body.get("tools", []))
        return Turn(tools, tuple(answers))

    def call(self, tool: Tool, arguments: Json) -> list[Event]:
        block = {"type": "tool_use", "id": _new_id("toolu"), "name": tool.name, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(arguments)}
        return self._message(block, delta, "tool_use")

    def say(self, text: str) -> list[Event]:
        delta = {"type": "text_delta", "text": text}
        return self._message({"type": "text", "text": ""}, delta, "end_turn")

    def _message(self, block: Json, delta: Json, reason: str) -> list[Event]:
        usage = {"input_tokens": 1, "output_tokens": 1}
        message: Json = {
            "id": _new_id("msg"),
            "type": "message",
            "role": "assistant",
            "model": "scripted",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        stop = {"stop_reason": reason, "stop_sequence": None}
        events: list[Json] = [
            {"type": "message_start", "message": message},
            {"type": "content_block_start", "index": 0, "content_block": block},
            {"type": "content_block_delta", "index": 0, "delta": delta},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": stop, "usage": usage},
            {"type": "message_stop"},
        ]
        return [(event["type"], event) for event in events]


class OpenAIResponses:
    """Codex."""

    def speaks(self, path: str) -> bool:
        return path == "/v1/responses"

    def turn(self, body: Json) -> Turn:
        names: dict[str, str] = {}
        answers = []
        for item in body["input"]:
            if item["type"] == "function_call":
                names[item["call_id"]] = item["name"]
            elif item["type"] == "function_call_output":
                answers.append((names[item["call_id"]], _text(item["output"])))
        return Turn(tuple(self._tools(body.get("tools", []))), tuple(answers))

    def call(self, tool: Tool, arguments: Json) -> list[Event]:
        item = {
            "type": "function_call",
            "id": _new_id("fc"),
            "call_id": _new_id("call"),
            "name": tool.name,
            "arguments": json.dumps(arguments),
            "status": "completed",
        }
        if tool.namespace:
            item["namespace"] = tool.namespace
        return self._response(item)

    def say(self, text: str) -> list[Event]:
        content = [{"type": "output_text", "text": text, "annotations": []}]
        return self._response(
            {"type": "message", "id": _new_id("msg"), "role": "assistant", "content": content}
        )

    def _tools(self, offered: list[Json]) -> Iterator[Tool]:
        for tool in offered:
            if tool["type"] == "namespace":
                yield from (Tool(inner["name"], tool["name"]) for inner in tool["tools"])
            elif "name" in tool:
                yield Tool(tool["name"])

    def _response(self, item: Json) -> list[Event]:
        response = {"id": _new_id("resp"), "object": "response", "model": "scripted"}
        usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
        done = response | {"status": "completed", "output": [item], "usage": usage}
        events: list[Json] = [
            {"type": "response.created", "response": response | {"status": "in_progress"}},
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": "response.completed", "response": done},
        ]
        return [(event["type"], event) for event in events]


class GeminiContents:
    """Gemini CLI."""

    def speaks(self, path: str) -> bool:
        return path.endswith((":streamGenerateContent", ":generateContent"))

    def turn(self, body: Json) -> Turn:
        answers = [
            (part["functionResponse"]["name"], _text(part["functionResponse"]["response"]))
            for content in body["contents"]
            for part in content["parts"]
            if "functionResponse" in part
        ]
        tools = [
            Tool(declared["name"])
            for tool in body.get("tools", [])
            for declared in tool.get("functionDeclarations", [])
        ]
        return Turn(tuple(tools), tuple(answers))

    def call(self, tool: Tool, arguments: Json) -> list[Event]:
        return self._candidate({"functionCall": {"name": tool.name, "args": arguments}})

    def say(self, text: str) -> list[Event]:
        return self._candidate({"text": text})

    def _candidate(self, part: Json) -> list[Event]:
        content = {"role": "model", "parts": [part]}
        chunk = {
            "candidates": [{"content": content, "finishReason": "STOP", "index": 0}],
            "usageMetadata": {"promptTokenCount": 1, "totalTokenCount": 2},
        }
        return [(None, chunk)]


class OpenAIChat:
    """opencode."""

    def speaks(self, path: str) -> bool:
        return path == "/v1/chat/completions"

    def turn(self, body: Json) -> Turn:
        names: dict[str, str] = {}
        answers = []
        for message in body["messages"]:
            for call in message.get("tool_calls") or []:
                names[call["id"]] = call["function"]["name"]
            if message["role"] == "tool":
                answers.append((names[message["tool_call_id"]], _text(message["content"])))
        tools = tuple(Tool(tool["function"]["name"]) for tool in body.get("tools", []))
        return Turn(tools, tuple(answers))

    def call(self, tool: Tool, arguments: Json) -> list[Event]:
        function = {"name": tool.name, "arguments": json.dumps(arguments)}
        call = {"index": 0, "id": _new_id("call"), "type": "function", "function": function}
        return self._chunks({"tool_calls": [call]}, "tool_calls")

    def say(self, text: str) -> list[Event]:
        return self._chunks({"content": text}, "stop")

    def _chunks(self, delta: Json, reason: str) -> list[Event]:
        chunk = {"id": _new_id("chatcmpl"), "object": "chat.completion.chunk", "created": 1}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        said = {"index": 0, "delta": {"role": "assistant"} | delta, "finish_reason": None}
        last = {"index": 0, "delta": {}, "finish_reason": reason}
        return [
            (None, chunk | {"model": "scripted", "choices": [said]}),
            (None, chunk | {"model": "scripted", "choices": [last], "usage": usage}),
            (None, "[DONE]"),
        ]


def _blocks(messages: list[Json]) -> Iterator[Json]:
    """Give the content blocks of all messages; a content that is a string has none."""
    for message in messages:
        if isinstance(message["content"], list):
            yield from message["content"]


def _text(content: Any) -> str:
    """Return a tool's result as text, whether it came as text, as blocks or as an object."""
    if isinstance(content, str):
        return content
    return json.dumps(content, ensure_ascii=False)
