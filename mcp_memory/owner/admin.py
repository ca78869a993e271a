"""What commands ask of a database beyond MCP: for its owner, not for a model.

Each operation takes and returns JSON. The owner does it for a command that asks over
its socket; without an owner, the command's own process does it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from mcp_memory import __version__
from mcp_memory.owner.places import Places
from mcp_memory.settings import EXTRACTIVE, Settings
from mcp_memory.values.dates import now, show
from mcp_memory.values.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    # `mcp-memory status` uses this module and need not wait for the SDK.
    from zoneinfo import ZoneInfo

    from mcp_memory.agent import AccessToken, AgentMemory
    from mcp_memory.agent.explaining import Explanation
    from mcp_memory.server.servers import ConnectionInfo, Servers
    from mcp_memory.values.records import Revision

Params = dict[str, Any]
Operation = Callable[["Servers", Params], Params]

EXCERPT_CHARS: Final = 320
"""How much of a hit's text a person is shown, by judgement: four lines of a terminal."""


# The owner and its database


def status(servers: Servers, params: Params) -> Params:
    """Return `{owner, clients, database, embedding, tokenizer, summarizer}`.

    A database that no call has needed yet is not opened: its `schema`, `agents`, `rows`
    and `dead_frac`, and the model's `pending`, are None then.
    """
    settings = servers.settings
    report: Params = {
        "owner": {
            "pid": os.getpid(),
            "version": __version__,
            "idle_seconds": settings.owner_idle_seconds,
            "heartbeats": 0,
        },
        "clients": [_connection(connection) for connection in list(servers.connections)],
        **offline_status(settings),
    }
    memories = servers.opened
    if memories is None:
        report["embedding"]["state"] = "loading"
        return report
    found = memories.status()
    report["owner"]["heartbeats"] = memories.heartbeats
    report["database"] |= {
        "schema": found.schema,
        "agents": found.agents,
        "rows": found.rows,
        "dead_frac": round(found.dead_frac, 3),
    }
    report["embedding"] |= {
        "state": found.embedding.state,
        "detail": found.embedding.detail,
        "pending": found.embedding.pending,
    }
    report["summarizer"] = memories.summarizer_status() or report["summarizer"]
    return report


def offline_status(settings: Settings) -> Params:
    """Return `{database, embedding, tokenizer, summarizer}` without opening the database.

    The database's `bytes` is None if there is no file.
    """
    summarizer: Params = {"kind": EXTRACTIVE}
    if settings.summarizer != EXTRACTIVE:
        host = urlsplit(settings.summarizer).hostname
        summarizer = {"kind": "endpoint", "host": host, "model": settings.summarizer_model}
    return {
        "database": {
            "path": str(settings.db),
            "bytes": _file_bytes(settings.db),
            "wal_bytes": _file_bytes(settings.db.with_name(f"{settings.db.name}.wal")) or 0,
            "schema": None,
            "agents": None,
            "rows": None,
            "dead_frac": None,
        },
        "embedding": {
            "model": settings.embedding_model,
            "state": None,
            "detail": None,
            "pending": None,
        },
        "tokenizer": settings.tokenizer,
        "summarizer": summarizer,
    }


def agents(servers: Servers, params: Params) -> Params:
    """Return `{agents}`: the names of those with anything in the database."""
    return {"agents": servers.memories().agents()}


def check(servers: Servers, params: Params) -> Params:
    """Return `{findings: [{level, text, hint}], embedding}` of the database.

    Raises:
        MemoryFault: It can't be opened.
    """
    memories = servers.memories()
    return {
        "findings": [asdict(finding) for finding in memories.check()],
        "embedding": asdict(memories.embedding_state()),
    }


def compact(servers: Servers, params: Params) -> Params:
    """Rewrite the file without the space of deleted rows: `{before_bytes, after_bytes}`.

    Raises:
        StorageFault: It can't be done; nothing was changed.
    """
    done = servers.memories().compact()
    return {} if done is None else asdict(done)


def model(servers: Servers, params: Params) -> Params:
    """Return `{state, detail, pending}`: the model, and the texts that wait for vectors."""
    found = servers.memories(params["agent"]).embedding_state()
    return {"state": found.state, "detail": found.detail, "pending": found.pending}


def _connection(connection: ConnectionInfo) -> Params:
    return {
        "agent": connection.agent,
        "client": connection.client,
        "version": connection.version,
        "since": connection.since.isoformat(),
    }


def _file_bytes(path: Path) -> int | None:
    # Only the metadata is read: opening the file would drop the driver's lock.
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return None


# Access tokens


def token_create(servers: Servers, params: Params) -> Params:
    """Create a token: `{agent, scope, name?, expires?}` gives its row with the secret `token`.

    Raises:
        InvalidInput: One of them is not valid.
    """
    from mcp_memory.agent.access_tokens import read_expiry, read_scope

    expires = params.get("expires")
    zone = servers.settings.zone
    token, text = servers.memories().tokens.create(
        str(params["agent"]),
        read_scope(str(params.get("scope") or "write")),
        name=str(params.get("name") or ""),
        expires_at=read_expiry(str(expires), zone=zone) if expires else None,
    )
    return {**_token(token, zone), "token": text}


def token_list(servers: Servers, params: Params) -> Params:
    """Return `{tokens}`, oldest first; only those of `agent` if it is given."""
    agent = params.get("agent")
    tokens = servers.memories().tokens.all()
    zone = servers.settings.zone
    return {"tokens": [_token(token, zone) for token in tokens if agent in {None, token.agent}]}


def token_revoke(servers: Servers, params: Params) -> Params:
    """Revoke the token `id`, also for its open sessions; return its row.

    Raises:
        NotFound: There is no such token.
    """
    token = servers.memories().tokens.revoke(str(params["id"]))
    return _token(token, servers.settings.zone)


def _token(token: AccessToken, zone: ZoneInfo) -> Params:
    def shown(moment: datetime | None) -> str | None:
        return None if moment is None else show(moment, zone)

    return {
        "id": token.id,
        "name": token.name,
        "agent": token.agent,
        "scope": token.scope.value,
        "state": token.state(now()),
        "created_at": shown(token.created_at),
        "expires_at": shown(token.expires_at),
        "revoked_at": shown(token.revoked_at),
        "last_used_at": shown(token.last_used_at),
    }


# One agent's memory


@contextlib.contextmanager
def _memory(servers: Servers, params: Params) -> Iterator[AgentMemory]:
    """Open the memory of `agent`, with what `settings` changes for this operation."""
    settings = servers.settings.model_copy(
        update={
            **params.get("settings", {}),
            "shared_blocks": tuple(params.get("shared_blocks", ())),
        }
    )
    memory = servers.memories().open(params["agent"], settings)
    try:
        yield memory
    finally:
        memory.close()


def block_set(servers: Servers, params: Params) -> Params:
    """Set a block, read-only or not: `{label, tokens, limit, read_only}`."""
    with _memory(servers, params) as memory:
        done = memory.core.define(
            params["label"],
            params["value"],
            description=params.get("description"),
            limit=params.get("limit"),
            read_only=params.get("read_only"),
        )
    return {
        "label": done.label,
        "tokens": done.tokens,
        "limit": done.limit,
        "read_only": done.read_only,
    }


def block_history(servers: Servers, params: Params) -> Params:
    """Return the newest versions of a block, or one with its value: `{revisions}`.

    Raises:
        NotFound: There is no such block or version.
    """
    wanted = params.get("version")
    limit = params["limit"] if wanted is None else None
    with _memory(servers, params) as memory:
        found = memory.core.history(params["label"], params["conversation"], limit)
    if wanted is None:
        return {"revisions": [_revision(item) for item in found]}
    for item in found:
        if item.block.version == wanted:
            return {"revisions": [_revision(item) | {"value": item.block.value}]}
    raise NotFound(
        f"block {params['label']!r} has no version {wanted}",
        key=params["label"],
        hint="The history without --version lists the versions",
    )


def _revision(item: Revision) -> Params:
    block, unit = item.block, item.consolidation
    return {
        "version": block.version,
        "at": block.changed_at.isoformat(timespec="seconds"),
        "by": block.editor,
        "tokens": block.tokens,
        "consolidation": None if unit is None else unit.id,
        "author": None if unit is None else unit.author,
        "reason": None if unit is None else unit.reason,
    }


def summary_rebuild(servers: Servers, params: Params) -> Params:
    """Rewrite the newest summary of a conversation from its messages: `{rebuilt}`.

    Raises:
        EndpointFault: The endpoint was to write it, and has not.
        MemoryFault: Messages left the window meanwhile.
    """
    from mcp_memory.agent.rebuilding import rebuild_summary

    done = rebuild_summary(
        servers.memories(),
        params["agent"],
        params["conversation"],
        window_tokens=params["window"],
        by_endpoint=params["by_endpoint"],
    )
    return {"rebuilt": done is not None}


def load(servers: Servers, params: Params) -> Params:
    """Store the entries of a file in the owner's folder: `{added, known, refused}`.

    They come in a file because a batch may be longer than the line of an operation.
    `what` is `memories` or `messages`; `refused` are pairs of a place and a reason.
    """
    what = params["what"]
    if what not in {"memories", "messages"}:
        raise InvalidInput(
            f"{what!r} can't be loaded", field="what", hint="Load memories or messages"
        )
    folder = Path(Places(str(servers.settings.db)).folder)
    entries = json.loads((folder / os.path.basename(str(params["file"]))).read_text("utf-8"))
    with _memory(servers, params) as memory:
        store = memory.loader.memories if what == "memories" else memory.loader.messages
        loaded = store(entries, skip_bad=params["skip_bad"])
    return {"added": loaded.added, "known": loaded.known, "refused": loaded.refused}


def explain(servers: Servers, params: Params) -> Params:
    """Return how the first hits of each tier of `tiers` got their ranks.

    `{tier: {terms, speakers, times, total, search, model, hits}}`; `model` is the state
    of the embedding model.

    Raises:
        InvalidInput: The query is not valid.
    """
    query = params["query"]
    with _memory(servers, params) as memory:
        return {
            tier: _explanation(
                memory.explanations.explain(query, tier, limit=params["limit"]), query
            )
            | {"model": memory.embedding_state().state}
            for tier in params["tiers"]
        }


def _explanation(done: Explanation, query: str) -> Params:
    from mcp_memory.agent.excerpts import excerpt

    hits: list[Params] = []
    for hit in done.hits:
        text, matches = excerpt(hit.passage.text, query, EXCERPT_CHARS)
        signals = {
            signal.name: {
                "standing": round(signal.standing, 3),
                "weight": round(signal.weight, 3),
                "adds": round(signal.standing * signal.weight, 3),
                "own": signal.own,
            }
            for signal in hit.signals
        }
        hits.append(
            {
                "id": hit.id,
                "score": round(hit.score, 3),
                "why": list(hit.why),
                "signals": signals,
                "by_words": hit.by_words,
                "by_meaning": hit.by_meaning,
                "faded": round(hit.faded, 3),
                "crowded": round(hit.crowded, 3),
                "text": text,
                "matches": matches,
            }
        )
    return {
        "terms": {term: None if idf is None else round(idf, 3) for term, idf in done.terms.items()},
        "speakers": list(done.speakers),
        "times": [
            {"text": named.text, "from": named.start.isoformat(), "to": named.end.isoformat()}
            for named in done.times
        ],
        "total": done.total,
        "search": done.search,
        "hits": hits,
    }


OPERATIONS: Final[dict[str, Operation]] = {
    "agents": agents,
    "block.history": block_history,
    "block.set": block_set,
    "check": check,
    "compact": compact,
    "explain": explain,
    "load": load,
    "model": model,
    "status": status,
    "summary.rebuild": summary_rebuild,
    "token.create": token_create,
    "token.list": token_list,
    "token.revoke": token_revoke,
}
