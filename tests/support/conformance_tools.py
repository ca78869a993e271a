"""Tools that the official conformance suite calls by name, for the SDK's low-level server.

Only what the product itself doesn't use: content other than text, notifications
during a call, and requests to the client as both protocol eras make them.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    AudioContent,
    CallToolRequestParams,
    CallToolResult,
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    EmbeddedResource,
    GetPromptRequestParams,
    ImageContent,
    InputRequiredResult,
    ListRootsRequest,
    SamplingMessage,
    TextContent,
    TextResourceContents,
    Tool,
)

Context = ServerRequestContext[Any, Any]
Answer = CallToolResult | InputRequiredResult
Call = Callable[[Context, CallToolRequestParams], Awaitable[Answer]]

PNG: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)
WAV: Final = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA="
BETWEEN_NOTICES_SECONDS: Final = 0.05
"""The suite expects the notifications of a call apart from each other. By judgement."""

TOOLS: Final[dict[str, tuple[Tool, Call]]] = {}


def tool(
    properties: dict[str, Any] | None = None, **more: Any
) -> Callable[[Callable[[Context, CallToolRequestParams], Awaitable[Any]]], None]:
    """Register a function as a tool under its name; a text it returns becomes the result."""

    def register(body: Callable[[Context, CallToolRequestParams], Awaitable[Any]]) -> None:
        name = body.__name__
        schema = {"type": "object", "properties": properties or {}, **more}

        async def call(ctx: Context, params: CallToolRequestParams) -> Answer:
            done = await body(ctx, params)
            if isinstance(done, InputRequiredResult):
                return done
            content = [text_of(done)] if isinstance(done, str) else done
            return CallToolResult(content=content)

        description = f"A fixture of the conformance suite: {name}."
        TOOLS[name] = (Tool(name=name, description=description, input_schema=schema), call)

    return register


def text_of(text: str) -> TextContent:
    return TextContent(type="text", text=text)


def image() -> ImageContent:
    return ImageContent(type="image", data=PNG, mime_type="image/png")


def embedded(uri: str, text: str, mime_type: str = "text/plain") -> EmbeddedResource:
    resource = TextResourceContents(uri=uri, text=text, mime_type=mime_type)
    return EmbeddedResource(type="resource", resource=resource)


def _mount_contents(name: str, *content: Any) -> None:
    async def body(ctx: Context, params: CallToolRequestParams) -> Any:
        return list(content)

    body.__name__ = name
    tool()(body)


_mount_contents("test_image_content", image())
_mount_contents("test_audio_content", AudioContent(type="audio", data=WAV, mime_type="audio/wav"))
_mount_contents(
    "test_embedded_resource", embedded("test://embedded-resource", "An embedded resource.")
)
_mount_contents(
    "test_multiple_content_types",
    text_of("Multiple content types test:"),
    image(),
    embedded("test://mixed-content-resource", '{"test":"data"}', "application/json"),
)


async def _log(ctx: Context, text: str) -> None:
    await ctx.session.send_log_message("info", text, related_request_id=ctx.request_id)


@tool()
async def test_tool_with_logging(ctx: Context, params: CallToolRequestParams) -> str:
    for text in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await _log(ctx, text)
        await anyio.sleep(BETWEEN_NOTICES_SECONDS)
    return "logged"


@tool()
async def test_logging_tool(ctx: Context, params: CallToolRequestParams) -> str:
    await _log(ctx, "for those who asked for it")
    return "logged"


@tool()
async def test_tool_with_progress(ctx: Context, params: CallToolRequestParams) -> str:
    for done in (0, 50, 100):
        await ctx.session.report_progress(done, 100)
        await anyio.sleep(BETWEEN_NOTICES_SECONDS)
    return "done"


@tool()
async def test_missing_capability(ctx: Context, params: CallToolRequestParams) -> str:
    capabilities = ctx.session.client_capabilities
    if capabilities is None or capabilities.sampling is None:
        raise MCPError(
            code=MISSING_REQUIRED_CLIENT_CAPABILITY,
            message="this tool needs sampling",
            data={"requiredCapabilities": {"sampling": {}}},
        )
    return "the client can sample"


# How the older era asks the client something: with a request of the server.


def _sample(text: str) -> CreateMessageRequest:
    message = SamplingMessage(role="user", content=text_of(text))
    return CreateMessageRequest(
        params=CreateMessageRequestParams(messages=[message], max_tokens=100)
    )


def elicit(message: str, fields: dict[str, Any], *, required: bool = True) -> ElicitRequest:
    schema: dict[str, Any] = {"type": "object", "properties": fields}
    if required:
        schema["required"] = list(fields)
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


async def _elicited(ctx: Context, request: ElicitRequest) -> str:
    about = ServerMessageMetadata(related_request_id=ctx.request_id)
    answer = await ctx.session.send_request(request, ElicitResult, metadata=about)
    return f"action={answer.action}, content={json.dumps(answer.content)}"


@tool({"prompt": {"type": "string"}}, required=["prompt"])
async def test_sampling(ctx: Context, params: CallToolRequestParams) -> str:
    about = ServerMessageMetadata(related_request_id=ctx.request_id)
    request = _sample((params.arguments or {})["prompt"])
    answer = await ctx.session.send_request(request, CreateMessageResult, metadata=about)
    return f"LLM response: {answer.content}"


@tool({"message": {"type": "string"}}, required=["message"])
async def test_elicitation(ctx: Context, params: CallToolRequestParams) -> str:
    message = (params.arguments or {})["message"]
    texts = {"username": {"type": "string"}, "email": {"type": "string"}}
    return await _elicited(ctx, elicit(message, texts))


@tool()
async def test_elicitation_sep1034_defaults(ctx: Context, params: CallToolRequestParams) -> str:
    states = ["active", "inactive", "pending"]
    fields = {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": states, "default": "active"},
        "verified": {"type": "boolean", "default": True},
    }
    return await _elicited(ctx, elicit("Defaults", fields, required=False))


@tool()
async def test_elicitation_sep1330_enums(ctx: Context, params: CallToolRequestParams) -> str:
    values = ["one", "two", "three"]
    titled = [{"const": value, "title": value.title()} for value in values]
    fields = {
        "untitledSingle": {"type": "string", "enum": values},
        "titledSingle": {"type": "string", "oneOf": titled},
        "legacyEnum": {"type": "string", "enum": values, "enumNames": ["One", "Two", "Three"]},
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": values}},
        "titledMulti": {"type": "array", "items": {"anyOf": titled}},
    }
    return await _elicited(ctx, elicit("Enums", fields))


# How 2026-07-28 does it: the result asks, and the client repeats the call with the answers.


def ask(state: str | None = None, **requests: Any) -> InputRequiredResult:
    return InputRequiredResult(input_requests=requests, request_state=state)


def _ask_name(message: str = "What is your name?") -> ElicitRequest:
    return elicit(message, {"name": {"type": "string"}})


def content_of(params: CallToolRequestParams | GetPromptRequestParams, key: str) -> Any:
    answer = (params.input_responses or {}).get(key)
    return answer.content if isinstance(answer, ElicitResult) else None


@tool()
async def test_input_required_result_elicitation(
    ctx: Context, params: CallToolRequestParams
) -> Any:
    content = content_of(params, "user_name")
    return f"Hello, {content['name']}!" if content else ask(user_name=_ask_name())


@tool()
async def test_streaming_elicitation(ctx: Context, params: CallToolRequestParams) -> Any:
    await ctx.session.report_progress(1, 2)
    return ask(user_name=_ask_name())


@tool()
async def test_input_required_result_sampling(ctx: Context, params: CallToolRequestParams) -> Any:
    answer = (params.input_responses or {}).get("capital_question")
    if isinstance(answer, CreateMessageResult):
        return f"The model said: {answer.content}"
    return ask(capital_question=_sample("What is the capital of France?"))


@tool()
async def test_input_required_result_list_roots(ctx: Context, params: CallToolRequestParams) -> Any:
    answer = (params.input_responses or {}).get("client_roots")
    return ask(client_roots=ListRootsRequest()) if answer is None else f"Roots: {answer}"


@tool()
async def test_input_required_result_request_state(
    ctx: Context, params: CallToolRequestParams
) -> Any:
    if params.request_state == "asked" and content_of(params, "confirm"):
        return "state-ok"
    return ask("asked", confirm=elicit("Please confirm", {"ok": {"type": "boolean"}}))


@tool()
async def test_input_required_result_tampered_state(
    ctx: Context, params: CallToolRequestParams
) -> Any:
    if params.request_state is not None:
        return "state-ok"
    return ask("asked", confirm=elicit("Please confirm", {"ok": {"type": "boolean"}}))


@tool()
async def test_input_required_result_multiple_inputs(
    ctx: Context, params: CallToolRequestParams
) -> Any:
    if set(params.input_responses or {}) >= {"user_name", "greeting", "client_roots"}:
        return "all were given"
    greeting = _sample("Generate a greeting")
    return ask("asked", user_name=_ask_name(), greeting=greeting, client_roots=ListRootsRequest())


@tool()
async def test_input_required_result_multi_round(
    ctx: Context, params: CallToolRequestParams
) -> Any:
    if params.request_state == "first" and (content := content_of(params, "step1")):
        color = elicit("Step 2: What is your favorite color?", {"color": {"type": "string"}})
        return ask(f"second {content['name']}", step2=color)
    if (params.request_state or "").startswith("second") and (
        content := content_of(params, "step2")
    ):
        return f"{params.request_state} likes {content['color']}"
    return ask("first", step1=_ask_name("Step 1: What is your name?"))


@tool()
async def test_input_required_result_capabilities(
    ctx: Context, params: CallToolRequestParams
) -> Any:
    can = ctx.session.client_capabilities
    requests: dict[str, Any] = {}
    if can is not None and can.sampling is not None:
        requests["sample"] = _sample("Say hello")
    if can is not None and can.elicitation is not None:
        requests["ask"] = _ask_name()
    return ask(**requests)
