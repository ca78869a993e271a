"""What `mcp-memory search` and `mcp-memory explain` ask of an owner."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from mcp_memory.search.language.analysis import matches, query_terms
from mcp_memory.search.snippets import snippet
from mcp_memory.server.servers import Servers
from mcp_memory.values.records import Kind, MemoryHit, MessageHit, Page

if TYPE_CHECKING:
    from mcp_memory.agent import AgentMemory
    from mcp_memory.agent.explaining import Explanation

Params = dict[str, Any]

CONVERSATION: Final = "conversation"
ARCHIVAL: Final = "archival"

_SNIPPET_CHARS: Final = 320
_LOADING_SECONDS: Final = 30.0


def search(servers: Servers, params: Params) -> Params:
    """Return the hits of each tier that is asked for: `{tier: {total, search, note, results}}`.

    A result is `{id, score, why, at, text, matches}`, with `role, name, conversation,
    index` of a message and `kind, tags` of a memory. `matches` are ranges of characters.

    Raises:
        InvalidInput: The query or a filter can't be taken.
    """
    query, limit = params["query"], params["limit"]
    start, end = params.get("from"), params.get("to")
    found: Params = {}
    with _memory(servers, params) as memory:
        if CONVERSATION in params["tiers"]:
            page = memory.conversations.search(
                query,
                roles=params.get("roles", ()),
                start_date=start,
                end_date=end,
                conversation=params.get("conversation"),
                limit=limit,
            )
            results = [_message(hit) | _shown(hit, query) for hit in page.items]
            found[CONVERSATION] = _figures(page) | {"results": results}
        if ARCHIVAL in params["tiers"]:
            kinds = [Kind(kind) for kind in params.get("kinds", ())]
            kept = memory.archive.search(
                query,
                tags=params.get("tags", ()),
                kinds=kinds,
                start_date=start,
                end_date=end,
                limit=limit,
            )
            results = [_kept(hit) | _shown(hit, query) for hit in kept.items]
            found[ARCHIVAL] = _figures(kept) | {"results": results}
    return found


def explain(servers: Servers, params: Params) -> Params:
    """Return how each tier's first hits came to their ranks; see `Explanation`.

    `{tier: {terms, speakers, times, total, search, model, hits}}`; `model` is the state
    of the embedding model.

    Raises:
        InvalidInput: The query can't be taken.
    """
    with _memory(servers, params) as memory:
        return {
            tier: _account(
                memory.explanations.explain(params["query"], tier, limit=params["limit"]),
                params["query"],
            )
            | {"model": memory.embedding_state().state}
            for tier in params["tiers"]
        }


@contextmanager
def _memory(servers: Servers, params: Params) -> Iterator[AgentMemory]:
    """Open the memory of the agent that is named, as soon as it is known if there is a model."""
    memories = servers.memories()
    deadline = time.monotonic() + _LOADING_SECONDS
    while memories.engine.embedding == "loading" and time.monotonic() < deadline:
        time.sleep(0.02)
    settings = servers.settings.model_copy(update={"timezone": params["timezone"]})
    memory = memories.open(params["agent"], settings)
    try:
        yield memory
    finally:
        memory.close()


def _figures(page: Page[Any]) -> Params:
    return {"total": page.total, "search": page.search, "note": page.note}


def _shown(hit: MessageHit | MemoryHit, query: str) -> Params:
    return {"score": round(hit.score, 3), "why": list(hit.why), **_cut(hit.passage.text, query)}


def _cut(text: str, query: str) -> Params:
    """Return the part of a text that answers best, and where the words of the query stand in it."""
    shown = snippet(text, query, lambda part: len(part) <= _SNIPPET_CHARS)
    return {"text": shown, "matches": matches(shown, frozenset(query_terms(query)))}


def _message(hit: MessageHit) -> Params:
    message = hit.message
    return {
        "id": message.id,
        "at": message.created_at.isoformat(timespec="seconds"),
        "role": message.role,
        "name": message.name,
        "conversation": message.conversation,
        "index": message.index,
    }


def _kept(hit: MemoryHit) -> Params:
    memory = hit.memory
    return {
        "id": memory.id,
        "at": memory.happened_at.isoformat(timespec="seconds"),
        "kind": memory.kind.value,
        "tags": list(memory.tags),
    }


def _account(done: Explanation, query: str) -> Params:
    return {
        "terms": {term: None if idf is None else round(idf, 3) for term, idf in done.terms.items()},
        "speakers": list(done.speakers),
        "times": [
            {"text": named.text, "from": named.start.isoformat(), "to": named.end.isoformat()}
            for named in done.times
        ],
        "total": done.total,
        "search": done.search,
        "hits": [
            {
                "id": hit.id,
                "score": round(hit.score, 3),
                "why": list(hit.why),
                "signals": {
                    signal.name: {
                        "standing": round(signal.standing, 3),
                        "weight": round(signal.weight, 3),
                        "adds": round(signal.standing * signal.weight, 3),
                        "own": signal.own,
                    }
                    for signal in hit.signals
                },
                "by_words": hit.by_words,
                "by_meaning": hit.by_meaning,
                "faded": round(hit.faded, 3),
                "crowded": round(hit.crowded, 3),
                **_cut(hit.passage.text, query),
            }
            for hit in done.hits
        ],
    }


SEARCH_OPS: Final[dict[str, Callable[[Servers, Params], Params]]] = {
    "search": search,
    "explain": explain,
}
