"""Summaries written by the client's own model: MCP sampling.

Only over a connection of the older protocol era, where a server may ask at any time.
In 2026-07-28 it may ask only as the answer to a call, which the client then repeats,
and a flush must not make a caller wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import anyio.to_thread
from mcp.server.context import ServerRequestContext
from mcp.server.session import ServerSession
from mcp.shared.exceptions import MCPError, NoBackChannelError
from mcp_types import (
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    SamplingMessage,
    TextContent,
)
from pydantic import ValidationError

from mcp_memory.values.errors import EndpointFault, MemoryFault

if TYPE_CHECKING:
    from mcp_memory.agent.rewriter import Flushed, Rewriter

logger = logging.getLogger(__name__)

T = TypeVar("T")
Context = ServerRequestContext[Any, Any]

_HANDSHAKE_ERA: Final = "2025-11-25"
"""The last protocol version in which a server may send a request at any time."""


class Sampler:
    """Asks the clients of one connection in the background, one request at a time.

    Args:
        rewriter: Returns the rewriter, which writes the request and stores the answer;
            None while the database is closed.
        window_tokens: The context window of the client's model.
        timeout_seconds: How long to wait for an answer; the client may ask its user first.
    """

    def __init__(
        self,
        rewriter: Callable[[], Rewriter | None],
        *,
        window_tokens: int,
        timeout_seconds: float,
    ) -> None:
        self._rewriter = rewriter
        self._window_tokens = window_tokens
        self._timeout_seconds = timeout_seconds
        self._task: asyncio.Task[None] | None = None

    def watch(self, ctx: Context, loop: asyncio.AbstractEventLoop, work: Callable[[], T]) -> T:
        """Run `work` in a worker thread, then ask the client to summarize what it flushed."""
        from mcp_memory.agent.rewriter import noting_flushes

        with noting_flushes() as flushed:
            done = work()
        if flushed and _may_sample(ctx):
            with suppress(RuntimeError):  # The loop has ended, and the client with it.
                loop.call_soon_threadsafe(self._begin, ctx.session, flushed[-1])
        return done

    def close(self) -> None:
        """Cancel the request that is waiting for an answer."""
        if self._task is not None:
            self._task.cancel()

    def _begin(self, session: ServerSession, flushed: Flushed) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._ask(session, flushed))

    async def _ask(self, session: ServerSession, flushed: Flushed) -> None:
        rewriter = self._rewriter()
        if rewriter is None:
            return
        try:
            request = await anyio.to_thread.run_sync(rewriter.request, flushed, self._window_tokens)
            content = TextContent(type="text", text=request.user)
            with anyio.fail_after(self._timeout_seconds):
                # ServerSession.create_message warns: sampling is deprecated since 2026-07-28.
                answer = await session.send_request(
                    CreateMessageRequest(
                        params=CreateMessageRequestParams(
                            messages=[SamplingMessage(role="user", content=content)],
                            max_tokens=request.max_tokens,
                            system_prompt=request.system,
                        )
                    ),
                    CreateMessageResult,
                )
            text = getattr(answer.content, "text", None)
            await anyio.to_thread.run_sync(rewriter.take, flushed, text, "sampling")
        except TimeoutError:
            rewriter.tell(EndpointFault(f"the client: no answer in {self._timeout_seconds:g} s"))
        except (MCPError, NoBackChannelError) as error:
            rewriter.tell(EndpointFault(f"the client: {type(error).__name__}"))
        except ValidationError:
            rewriter.tell(EndpointFault("the client: its answer violates the protocol"))
        except MemoryFault as fault:
            rewriter.tell(fault)
        except Exception:
            logger.exception("sampling a summary failed")


def _may_sample(ctx: Context) -> bool:
    capabilities = ctx.session.client_capabilities
    return (
        capabilities is not None
        and capabilities.sampling is not None
        and str(ctx.session.protocol_version or "") <= _HANDSHAKE_ERA
    )
