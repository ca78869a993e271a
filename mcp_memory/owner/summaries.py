"""What `mcp-memory summarize` asks of an owner: the summary, and to write it anew in steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from mcp_memory.server.servers import Servers
from mcp_memory.values.errors import EndpointFault

if TYPE_CHECKING:
    from mcp_memory.values.records import Summary

Params = dict[str, Any]


def show(servers: Servers, params: Params) -> Params:
    """Return `{summary, ranges, limit}` of a conversation; a summary of None if there is none.

    `limit` is the most tokens that a summary may have in the `window` that is given.
    """
    from mcp_memory.agent.rebuilding import newest, ranges

    agent, conversation = params["agent"], params["conversation"]
    memories = servers.memories()
    settings = servers.settings.model_copy(update={"context_window": params["window"]})
    memory = memories.open(agent, settings)
    try:
        limit = memory.conversations.summary_limit
    finally:
        memory.close()
    return {
        "summary": _payload(newest(memories.engine, agent, conversation)),
        "ranges": ranges(memories.engine, agent, conversation),
        "limit": limit,
    }


def step(servers: Servers, params: Params) -> Params:
    """Return `{text}`: the summary of `parent` and of messages `first` to `last`; stores nothing.

    Raises:
        EndpointFault: The endpoint was to write it, and has not.
    """
    from mcp_memory.agent.rebuilding import step as write

    engine, rewriter = servers.memories().engine, servers.rewriter
    if params["by_endpoint"] and (rewriter is None or rewriter.endpoint is None):
        raise EndpointFault("none is set", hint="MCP_MEMORY_SUMMARIZER sets it")
    text = write(
        engine,
        params["agent"],
        params["conversation"],
        (params["first"], params["last"]),
        params["parent"],
        limit_tokens=params["limit"],
        rewriter=rewriter if params["by_endpoint"] else None,
    )
    return {"text": text}


def put(servers: Servers, params: Params) -> Params:
    """Put a text in the place of the summary `of`: `{summary}`, None if that is no longer it.

    Raises:
        InvalidInput, OverLimit: The text can't be taken.
    """
    memory = servers.memories().open(params["agent"])
    try:
        written = memory.conversations.rewrite_summary(
            params["conversation"], params["text"], params["author"], params["of"], params["limit"]
        )
    finally:
        memory.close()
    return {"summary": _payload(written)}


def _payload(summary: Summary | None) -> Params | None:
    if summary is None:
        return None
    return {
        "id": summary.id,
        "parent": summary.parent,
        "first": summary.first,
        "last": summary.last,
        "author": summary.author,
        "version": summary.version,
        "tokens": summary.tokens,
        "created_at": summary.created_at.isoformat(),
        "content": summary.content,
    }


SUMMARY_OPS: Final[dict[str, Callable[[Servers, Params], Params]]] = {
    "summary.show": show,
    "summary.step": step,
    "summary.put": put,
}
