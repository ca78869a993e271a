"""The MCP server of one connection; it speaks both protocol eras over any transport.

It answers the handshake at once. The database is opened by the first request that
needs it, or shortly after the handshake.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import anyio.to_thread
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    CompleteRequestParams,
    CompleteResult,
    EmptyResult,
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    SubscribeRequestParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
)
from mcp_types.methods import serialize_server_result
from mcp_types.version import KNOWN_PROTOCOL_VERSIONS, LATEST_HANDSHAKE_VERSION

from mcp_memory import __version__
from mcp_memory.server.arguments import validate
from mcp_memory.server.callers import Callers
from mcp_memory.server.prompts import PROMPTS, get_prompt, instructions
from mcp_memory.server.replies import Fitter, compact, failure
from mcp_memory.server.resources import (
    RESOURCES,
    TEMPLATES,
    complete_resource,
    is_changed,
    read_resource,
    topics_of_uri,
)
from mcp_memory.server.sampling import Sampler
from mcp_memory.server.subscriptions import MAX_URIS, Subscriptions
from mcp_memory.server.tools import TOOLS, ToolSpec
from mcp_memory.values.errors import Conflict, InvalidInput, MemoryFault, NotFound
from mcp_memory.values.records import Surface
from mcp_memory.values.text import shorten

if TYPE_CHECKING:
    from mcp_memory.agent import AgentMemory

logger = logging.getLogger(__name__)

T = TypeVar("T")
Context = ServerRequestContext[Any, Any]
OpenMemory = Callable[[Surface], "AgentMemory"]

SERVER_NAME: Final = "mcp-memory"
_CALLS: Final = ThreadPoolExecutor(40, thread_name_prefix="call")
"""The worker threads of all connections of this process: as many as anyio's own default."""

WARM_UP_AFTER_SECONDS: Final = 0.25
"""When the database is opened after a handshake without a call.

Long enough for the client's first requests, which need no database, to be answered first;
by judgement."""


class MemoryServer(Server[Any]):
    """The server of one agent's memory.

    Args:
        open_memory: Opens the memory. It is called in a worker thread when the memory is
            first needed, and again after a failure.
        core: The compiled core memory that the instructions contain until then.
        max_reply_tokens: The limit of every tool's reply.
        tools: The tools to offer, by name.
        sampler: Asks the client's model for summaries; None never to ask.
    """

    def __init__(
        self,
        open_memory: OpenMemory,
        *,
        core: str | None,
        max_reply_tokens: int,
        tools: Mapping[str, ToolSpec] = TOOLS,
        sampler: Sampler | None = None,
    ) -> None:
        self.tools = tools
        self._sampler = sampler
        self.subscriptions = Subscriptions()
        super().__init__(
            SERVER_NAME,
            version=__version__,
            title="Memory",
            description="Persistent memory for agents: core, recall and archival, with paging.",
            instructions=instructions(core),
            lifespan=self._lifespan,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_templates,
            on_read_resource=self._read_resource,
            on_subscribe_resource=self._subscribe,
            on_unsubscribe_resource=self.subscriptions.unsubscribe,
            on_subscriptions_listen=self._listen,
            on_list_prompts=self._list_prompts,
            on_get_prompt=self._get_prompt,
            on_completion=self._complete,
        )
        self.knows_core = core is not None
        """Whether the instructions contained core memory from the start."""
        self.middleware.append(self._warm_up_after_handshake)
        self._open_memory = open_memory
        self._max_reply_tokens = max_reply_tokens
        self._opening = threading.Lock()
        self._memory: AgentMemory | None = None
        self._surfaces: dict[str, Surface] = {}
        self._callers = Callers()
        self._warm_up: Callable[[], None] | None = None

    def memory(self) -> AgentMemory:
        """Return the memory and open it if needed. Blocks: call it in a worker thread.

        Raises:
            MemoryFault: It can't be opened.
        """
        with self._opening:
            if self._memory is None:
                memory = self._open_memory(self._surface(LATEST_HANDSHAKE_VERSION))
                memory.listen(self._on_change)
                self.instructions = instructions(memory.core.compiled())
                self._memory = memory
            return self._memory

    def _surface(self, version: str) -> Surface:
        """Return what this server adds to the context of a client of a protocol version."""
        if version not in KNOWN_PROTOCOL_VERSIONS:
            version = LATEST_HANDSHAKE_VERSION  # The SDK refuses it or negotiates another.
        if version not in self._surfaces:
            self._surfaces[version] = Surface(instructions(""), tools_text(self.tools, version))
        return self._surfaces[version]

    def close(self) -> None:
        """Close the memory if it was opened."""
        with self._opening:
            if self._memory is not None:
                self._memory.close()
                self._memory = None

    @asynccontextmanager
    async def _lifespan(self, _: Server[Any]) -> AsyncIterator[dict[str, Any]]:
        async with anyio.create_task_group() as group:

            def warm_up() -> None:
                group.start_soon(self._warm_up_soon)

            self._warm_up = warm_up
            group.start_soon(self.subscriptions.publish_changes)
            try:
                yield {}
            finally:
                self._warm_up = None
                if self._sampler is not None:
                    self._sampler.close()
                group.cancel_scope.cancel()

    async def _warm_up_after_handshake(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        result = await call_next(ctx)
        self._callers.observe(ctx, result)
        if self._memory is None and self._warm_up is not None:
            warm_up, self._warm_up = self._warm_up, None
            warm_up()
        return result

    async def _warm_up_soon(self) -> None:
        await anyio.sleep(WARM_UP_AFTER_SECONDS)
        try:
            await anyio.to_thread.run_sync(self.memory, abandon_on_cancel=True)
        except MemoryFault as fault:
            # Every call reports it to the client; this is for the log.
            logger.error("%s", fault)

    def _on_change(self, topics: frozenset[str]) -> None:
        self.subscriptions.changed(topics)
        if self._memory is not None and is_changed(["core/*"], topics):
            self.instructions = instructions(self._memory.core.compiled())

    async def _run(self, ctx: Context, work: Callable[[AgentMemory, Fitter], T]) -> T:
        """Run `work` in a worker thread: the only place where async code calls the façade."""
        caller = self._callers.caller(ctx)
        arrived = 0 if self._memory is None else self._memory.tick

        def in_thread() -> T:
            memory = self.memory().as_reader(caller.key, shown=caller.shown, arrived=arrived)
            memory.shows(self._surface(ctx.protocol_version))
            self._callers.known(caller)
            fitter = Fitter(memory.count_tokens, memory.clip_tokens, self._max_reply_tokens)
            if self._sampler is None:
                return work(memory, fitter)
            return self._sampler.watch(ctx, loop, lambda: work(memory, fitter))

        # anyio.to_thread costs 0.1 ms more a call and waits for cancelled work.
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(_CALLS, in_thread)

    async def _subscribe(self, ctx: Context, params: SubscribeRequestParams) -> EmptyResult:
        uri = str(params.uri)
        topics = await self._answer(
            ctx, lambda memory, _: topics_of_uri(memory, uri), uri, {"uri": uri}
        )
        return await self.subscriptions.subscribe(ctx, params, topics)

    async def _listen(
        self, ctx: Context, params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """Serve a stream; a resource that doesn't exist is an error if it has no other one."""
        uris = list(dict.fromkeys(map(str, params.notifications.resource_subscriptions or ())))

        def work(memory: AgentMemory, fitter: Fitter) -> dict[str, tuple[str, ...]]:
            found: dict[str, tuple[str, ...]] = {}
            for uri in uris[:MAX_URIS]:
                try:
                    found[uri] = topics_of_uri(memory, uri)
                except (NotFound, InvalidInput):
                    if not found and uri == uris[-1]:
                        raise
            return found

        # What is left out is missing from the acknowledgement.
        topics = await self._answer(ctx, work, "subscriptions/listen") if uris else {}
        return await self.subscriptions.listen(ctx, params, topics)

    async def open(self) -> None:
        """Open the memory; if that fails, each call reports it."""
        try:
            await anyio.to_thread.run_sync(self.memory, abandon_on_cancel=True)
        except MemoryFault as fault:
            logger.error("%s", fault)

    async def _list_tools(
        self, ctx: Context, params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        return tool_list(self.tools)

    async def _call_tool(self, ctx: Context, params: CallToolRequestParams) -> CallToolResult:
        spec = self.tools.get(params.name)
        # Refusals are short: counting characters is enough and needs no tokenizer.
        fitter = Fitter(len, lambda text, limit: text[:limit], self._max_reply_tokens)
        try:
            if spec is None:
                raise NotFound(
                    f"unknown tool {shorten(params.name, 80)!r}",
                    key=params.name,
                    hint=f"Available tools: {', '.join(self.tools)}",
                )

            def work(memory: AgentMemory, fitter: Fitter) -> CallToolResult:
                # In the worker thread: long lists may come as text.
                given, note = validate(spec.name, spec.arguments, params.arguments or {})
                try:
                    if note is None:
                        return spec.handler(memory, fitter, given).result()
                    reply = spec.handler(memory, fitter.beside(note), given)
                    return reply.noted(note, fitter).result()
                except Conflict as fault:  # It contains a block, so it needs the tokenizer.
                    logger.info("tool %r: Conflict", params.name)
                    return failure(fault, fitter)

            return await self._run(ctx, work)
        except MemoryFault as fault:
            logger.info("tool %r: %s", params.name, type(fault).__name__)
            return failure(fault, fitter)
        except Exception:
            logger.exception("tool %r raised an unexpected exception", params.name)
            return failure(_unexpected(), fitter)

    async def _list_resources(
        self, ctx: Context, params: PaginatedRequestParams | None
    ) -> ListResourcesResult:
        return ListResourcesResult(resources=list(RESOURCES))

    async def _list_templates(
        self, ctx: Context, params: PaginatedRequestParams | None
    ) -> ListResourceTemplatesResult:
        return ListResourceTemplatesResult(resource_templates=list(TEMPLATES))

    async def _read_resource(
        self, ctx: Context, params: ReadResourceRequestParams
    ) -> ReadResourceResult:
        uri = str(params.uri)
        content = await self._answer(
            ctx, lambda memory, fitter: read_resource(memory, fitter, uri), uri, {"uri": uri}
        )
        return ReadResourceResult(contents=[content])

    async def _list_prompts(
        self, ctx: Context, params: PaginatedRequestParams | None
    ) -> ListPromptsResult:
        return ListPromptsResult(prompts=[spec.prompt for spec in PROMPTS.values()])

    async def _get_prompt(self, ctx: Context, params: GetPromptRequestParams) -> GetPromptResult:
        def work(memory: AgentMemory, fitter: Fitter) -> GetPromptResult:
            return get_prompt(memory, fitter, params.name, params.arguments)

        return await self._answer(ctx, work, params.name)

    async def _complete(self, ctx: Context, params: CompleteRequestParams) -> CompleteResult:
        def work(memory: AgentMemory, fitter: Fitter) -> CompleteResult:
            argument = params.argument
            return CompleteResult(
                completion=complete_resource(memory, argument.name, argument.value)
            )

        return await self._answer(ctx, work, params.argument.name)

    async def _answer(
        self,
        ctx: Context,
        work: Callable[[AgentMemory, Fitter], T],
        what: str,
        refused: dict[str, str] | None = None,
    ) -> T:
        """Run `work`; `refused` is the data of the error if `what` is refused."""
        try:
            return await self._run(ctx, work)
        except (NotFound, InvalidInput) as fault:
            raise MCPError(code=INVALID_PARAMS, message=str(fault), data=refused) from fault
        except MemoryFault as fault:
            raise MCPError(code=INTERNAL_ERROR, message=str(fault)) from fault
        except Exception as error:
            logger.exception("%r raised an unexpected exception", what)
            raise MCPError(code=INTERNAL_ERROR, message=str(_unexpected())) from error


def tool_list(tools: Mapping[str, ToolSpec] = TOOLS) -> ListToolsResult:
    """Return the tools as `tools/list` sends them."""
    return ListToolsResult(tools=[spec.definition() for spec in tools.values()])


def tools_text(
    tools: Mapping[str, ToolSpec] = TOOLS, version: str = LATEST_HANDSHAKE_VERSION
) -> str:
    """Return the tool definitions as they are sent to a client of a protocol version.

    Raises:
        ValueError, KeyError: The version is unknown.
    """
    listed = tool_list(tools).model_dump(by_alias=True, mode="json", exclude_none=True)
    return compact(serialize_server_result("tools/list", version, listed)["tools"])


def _unexpected() -> MemoryFault:
    return MemoryFault(
        "unexpected error in the memory server",
        hint="Its log has the details. You can repeat the call",
    )


__all__ = ["MemoryServer", "OpenMemory", "tool_list", "tools_text"]
