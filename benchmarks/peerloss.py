"""Calls of servers that are measured beside ours, and what they lose of what they acknowledged."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from benchmarks import texts
from benchmarks.client import Clients, RawClient
from benchmarks.harness import BenchmarkFault
from benchmarks.peerreport import Loss
from benchmarks.procfs import kill_owner
from benchmarks.servers import Call, Peer

STORES_EACH: Final = 50
AT_ONCE: Final = 20
SEED: Final = 20_231_012
LIMIT_SECONDS: Final = 3 * 3_600.0


class Refused(BenchmarkFault):
    """A server doesn't do what it is asked, and says so."""


def text_of(reply: Mapping[str, object]) -> str:
    """Return all text of a tool's reply."""
    content = reply.get("content")
    parts = content if isinstance(content, list) else []
    return "\n".join(str(part.get("text", "")) for part in parts)


def tell(client: RawClient, call: Call) -> str:
    """Call a tool and return the text of its reply.

    Raises:
        BenchmarkFault: The server has ended.
        Refused: The tool refuses.
    """
    name, arguments = call
    return accepted(name, client.ask("tools/call", {"name": name, "arguments": arguments}))


def accepted(name: str, reply: Mapping[str, object]) -> str:
    """Return the text of a reply that is no refusal.

    Raises:
        Refused: It is one, whether it says so in its flag or in its words.
    """
    text = text_of(reply)
    told = text[:400].lower()
    if reply.get("isError") or told.startswith(("error", "failed")) or "not stored" in told:
        raise Refused(f"{name} was refused: {text[:200]}")
    return text


def connect(clients: Clients, peer: Peer, folder: Path) -> RawClient:
    """Start a server on a folder and let it get ready: its first store and search.

    Raises:
        BenchmarkFault: It doesn't get there.
    """
    client = clients.start(peer.command(folder))
    client.initialize()
    tell(client, peer.store("The first thing that was ever told.", -1))
    tell(client, peer.search("What was told first?"))
    return client


@contextmanager
def place(folder: Path, name: str) -> Iterator[Path]:
    """Give a new folder for a server's data; an owner of ours ends with the block."""
    own = folder / name
    own.mkdir(parents=True)
    try:
        yield own
    finally:
        kill_owner(own / "memory.duckdb")


def time_block(client: RawClient, calls: Sequence[Call], seconds: list[float]) -> list[str]:
    """Time calls one after the other; return their replies."""
    replies: list[str] = []
    for call in calls:
        began = time.perf_counter()
        replies.append(tell(client, call))
        seconds.append(time.perf_counter() - began)
    return replies


def two_clients(peer: Peer, folder: Path) -> Loss:
    """Let two clients store at the same time, and count what a new one finds."""
    with place(folder, "two") as own:
        marked = marks(2 * STORES_EACH)
        pairs = list(enumerate(marked.items()))
        kept: dict[str, str] = {}
        with Clients(LIMIT_SECONDS) as clients, ThreadPoolExecutor(2) as threads:
            connect(clients, peer, own).close()

            def job(client: RawClient, first: int) -> None:
                for number, (mark, text) in pairs[first : first + STORES_EACH]:
                    with suppress(Refused):
                        tell(client, peer.store(text, number))
                        kept[mark] = text

            both = [clients.start(peer.command(own)) for _ in range(2)]
            started: list[RawClient] = []
            for client in both:
                # One that dies beside the other has acknowledged nothing.
                with suppress(BenchmarkFault):
                    client.initialize()
                    started.append(client)
            jobs = [threads.submit(job, one, at * STORES_EACH) for at, one in enumerate(started)]
            for done in jobs:
                # One that dies later has acknowledged what it has answered.
                with suppress(BenchmarkFault):
                    done.result()
        kill_owner(own / "memory.duckdb")
        return Loss(len(marked), len(kept), count_kept(peer, own, kept))


def parallel(peer: Peer, folder: Path) -> Loss:
    """Send stores without waiting for answers, and count what a new client finds."""
    with place(folder, "parallel") as own:
        marked = marks(AT_ONCE)
        with Clients(LIMIT_SECONDS) as clients:
            client = connect(clients, peer, own)
            calls = [peer.store(text, number) for number, text in enumerate(marked.values())]
            replies = client.ask_at_once(
                "tools/call", [{"name": name, "arguments": given} for name, given in calls]
            )
            client.close()
        kill_owner(own / "memory.duckdb")
        acknowledged: dict[str, str] = {}
        for (mark, text), reply in zip(marked.items(), replies, strict=True):
            with suppress(BenchmarkFault):
                accepted("a store", reply or {"isError": True})
                acknowledged[mark] = text
        return Loss(len(marked), len(acknowledged), count_kept(peer, own, acknowledged))


def count_kept(peer: Peer, folder: Path, acknowledged: Mapping[str, str]) -> int:
    """Return how many of the texts a new client finds, each by its own words."""
    with Clients(LIMIT_SECONDS) as clients:
        client = clients.start(peer.command(folder))
        client.initialize()
        return sum(mark in tell(client, peer.search(text)) for mark, text in acknowledged.items())


def marks(count: int) -> dict[str, str]:
    """Return short texts that differ in all their words, each by a mark of its own in it."""
    rng = random.Random(SEED)
    made: dict[str, str] = {}
    while len(made) < count:
        mark = f"K{rng.randrange(10_000):04}"
        words = " ".join(texts.name(rng) for _ in range(5))
        made[mark] = f"{mark} {words}"
    return made
