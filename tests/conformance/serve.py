"""The product's own server over streamable HTTP, with the conformance suite's fixtures mounted.

A script: the settings come from the environment as ever, the port is a free
one, and the first line of stdout is the URL.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio
from conformance_tools import (
    PNG,
    TOOLS,
    Answer,
    Context,
    ask,
    content_of,
    elicit,
    embedded,
    image,
    text_of,
)
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.subscriptions import PromptsListChanged, ServerEvent, ToolsListChanged
from mcp_types import (
    BlobResourceContents,
    CallToolRequestParams,
    CallToolResult,
    ContentBlock,
    EmptyResult,
    GetPromptRequestParams,
    GetPromptResult,
    InputRequiredResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    Prompt,
    PromptArgument,
    PromptMessage,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextResourceContents,
    Tool,
    ToolAnnotations,
)

from mcp_memory.http.listen import listen
from mcp_memory.http.options import HttpOptions
from mcp_memory.server.arguments import Arguments
from mcp_memory.server.replies import Reply
from mcp_memory.server.servers import Servers
from mcp_memory.server.tools import ToolSpec
from mcp_memory.settings import load_settings

if TYPE_CHECKING:
    from mcp_memory.server.app import MemoryServer

RESOURCES: Final = (
    Resource(uri="test://static-text", name="static-text", description="Text"),
    Resource(uri="test://static-binary", name="static-binary", description="An image"),
    Resource(uri="test://watched-resource", name="watched-resource", description="Watched"),
)
TEMPLATE: Final = ResourceTemplate(
    uri_template="test://template/{id}/data", name="template", description="Data of an id"
)


def _argument(name: str) -> PromptArgument:
    return PromptArgument(name=name, description=name, required=True)


PROMPTS: Final = (
    Prompt(name="test_simple_prompt", description="Simple"),
    Prompt(
        name="test_prompt_with_arguments",
        description="With arguments",
        arguments=[_argument("arg1"), _argument("arg2")],
    ),
    Prompt(
        name="test_prompt_with_embedded_resource",
        description="With a resource",
        arguments=[_argument("resourceUri")],
    ),
    Prompt(name="test_prompt_with_image", description="With an image"),
    Prompt(name="test_input_required_result_prompt", description="Asks first"),
)
CHANGES: Final[dict[str, ServerEvent]] = {
    "test_trigger_tool_change": ToolsListChanged(),
    "test_trigger_prompt_change": PromptsListChanged(),
}


class FixtureServers(Servers):
    """The product's servers, each with the fixtures."""

    def server(self, *args: Any, **kwargs: Any) -> MemoryServer:
        return mount(super().server(*args, **kwargs))


def mount(server: MemoryServer) -> MemoryServer:
    """Mount the fixtures; whatever is not one of them goes on to the product's own handlers."""
    server.tools = {**server.tools, **_specs()}
    # The product asks its clients nothing, so it has no state to seal.
    server.middleware.append(
        RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=server.name)
    )
    _mount_tools(server)
    _mount_resources(server)
    _mount_prompts(server)

    async def set_level(ctx: Context, params: SetLevelRequestParams) -> EmptyResult:
        return EmptyResult()

    server.add_request_handler("logging/setLevel", SetLevelRequestParams, set_level)
    return server


def _specs() -> dict[str, ToolSpec]:
    """Return the fixtures that the product's own way of making a tool can be."""

    def answer(memory: Any, fitter: Any, given: Any) -> Reply:
        return Reply({"text": "This is a simple text response for testing."})

    def fail(memory: Any, fitter: Any, given: Any) -> Reply:
        raise RuntimeError("This tool intentionally returns an error for testing")

    return {
        name: ToolSpec(name, f"A fixture: {name}.", Arguments, ToolAnnotations(), handler)
        for name, handler in (("test_simple_text", answer), ("test_error_handling", fail))
    }


def _own(server: MemoryServer, method: str) -> Any:
    entry = server.get_request_handler(method)
    assert entry is not None
    return entry.handler


def _mount_tools(server: MemoryServer) -> None:
    own_list, own_call = _own(server, "tools/list"), _own(server, "tools/call")
    schema = {"type": "object", "properties": {}}
    triggers = [Tool(name=name, description=name, input_schema=schema) for name in CHANGES]
    tools = [*triggers, *(tool for tool, _ in TOOLS.values())]

    async def list_tools(ctx: Context, params: PaginatedRequestParams) -> ListToolsResult:
        own: ListToolsResult = await own_list(ctx, params)
        return own.model_copy(update={"tools": [*own.tools, *tools]})

    async def call(ctx: Context, params: CallToolRequestParams) -> Answer:
        if params.name in CHANGES:
            await server.subscriptions.bus.publish(CHANGES[params.name])
            return CallToolResult(content=[text_of("changed")])
        if params.name in TOOLS:
            return await TOOLS[params.name][1](ctx, params)
        done: Answer = await own_call(ctx, params)
        return done

    server.add_request_handler("tools/list", PaginatedRequestParams, list_tools)
    server.add_request_handler("tools/call", CallToolRequestParams, call)


def _mount_resources(server: MemoryServer) -> None:
    own_list, own_read = _own(server, "resources/list"), _own(server, "resources/read")
    own_templates = _own(server, "resources/templates/list")

    async def list_all(ctx: Context, params: PaginatedRequestParams) -> ListResourcesResult:
        own: ListResourcesResult = await own_list(ctx, params)
        return own.model_copy(update={"resources": [*own.resources, *RESOURCES]})

    async def templates(
        ctx: Context, params: PaginatedRequestParams
    ) -> ListResourceTemplatesResult:
        own: ListResourceTemplatesResult = await own_templates(ctx, params)
        listed = [*own.resource_templates, TEMPLATE]
        return own.model_copy(update={"resource_templates": listed})

    async def read(ctx: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
        uri = str(params.uri)
        content: TextResourceContents | BlobResourceContents
        if uri == "test://static-binary":
            content = BlobResourceContents(uri=uri, blob=PNG, mime_type="image/png")
        elif uri in {"test://static-text", "test://watched-resource"}:
            content = TextResourceContents(uri=uri, text="Static text.", mime_type="text/plain")
        elif uri.startswith("test://template/"):
            text = json.dumps({"id": uri.split("/")[3]})
            content = TextResourceContents(uri=uri, text=text, mime_type="application/json")
        else:
            done: ReadResourceResult = await own_read(ctx, params)
            return done
        return ReadResourceResult(contents=[content])

    async def subscribe(ctx: Context, params: SubscribeRequestParams) -> EmptyResult:
        if str(params.uri) in {resource.uri for resource in RESOURCES}:
            return await server.subscriptions.subscribe(ctx, params, ())
        return await ours(ctx, params)

    ours = _own(server, "resources/subscribe")
    server.add_request_handler("resources/subscribe", SubscribeRequestParams, subscribe)
    server.add_request_handler("resources/list", PaginatedRequestParams, list_all)
    server.add_request_handler("resources/templates/list", PaginatedRequestParams, templates)
    server.add_request_handler("resources/read", ReadResourceRequestParams, read)


def _mount_prompts(server: MemoryServer) -> None:
    own_list, own_get = _own(server, "prompts/list"), _own(server, "prompts/get")

    async def list_all(ctx: Context, params: PaginatedRequestParams) -> ListPromptsResult:
        own: ListPromptsResult = await own_list(ctx, params)
        return own.model_copy(update={"prompts": [*own.prompts, *PROMPTS]})

    async def get(
        ctx: Context, params: GetPromptRequestParams
    ) -> GetPromptResult | InputRequiredResult:
        if params.name not in {prompt.name for prompt in PROMPTS}:
            done: GetPromptResult = await own_get(ctx, params)
            return done
        given = params.arguments or {}
        content: ContentBlock = text_of(f"{params.name}: {json.dumps(given)}")
        if params.name == "test_input_required_result_prompt":
            context = content_of(params, "user_context")
            if not context:
                return ask(user_context=elicit("Which context?", {"context": {"type": "string"}}))
            content = text_of(f"Use this context: {context['context']}")
        elif params.name == "test_prompt_with_embedded_resource":
            content = embedded(given["resourceUri"], "An embedded resource.")
        elif params.name == "test_prompt_with_image":
            content = image()
        return GetPromptResult(messages=[PromptMessage(role="user", content=content)])

    server.add_request_handler("prompts/list", PaginatedRequestParams, list_all)
    server.add_request_handler("prompts/get", GetPromptRequestParams, get)


async def serve() -> None:
    """Listen as the product does until the process is killed."""
    servers = FixtureServers(load_settings())
    never = anyio.Event()
    async with anyio.create_task_group() as group:
        url = await group.start(
            partial(listen, servers, HttpOptions(port=0, no_auth=True), stop=never)
        )
        print(url, flush=True)


if __name__ == "__main__":
    anyio.run(serve)
