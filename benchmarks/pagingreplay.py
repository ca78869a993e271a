"""One server, one window: messages go in, and all that follows is compared with the rules.

Through a client of the benchmark's own, so that the tool definitions are counted as they
stand on the wire, and so that little but the server is timed.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import tiktoken

from benchmarks.client import Clients, Command, RawClient
from benchmarks.evidence import first_words, random_sentences, survival
from benchmarks.harness import SERVER, BenchmarkFault, environment
from benchmarks.pagingrules import (
    Arithmetic,
    Range,
    Said,
    Survival,
    blocks_of,
    lines_of,
    mean_survival,
    ratio_of_medians,
)
from benchmarks.procfs import cpu_seconds
from mcp_memory.values.records import Message

ENCODING: Final = "o200k_base"
SAMPLE: Final = 1_000
"""So many appends are the first, and the last, of a conversation."""

LOOK_EVERY: Final = 1_000
"""After every flush, and after so many appends, the whole window is read and counted."""

LIMIT_SECONDS: Final = 1_800.0
"""No replay at one window takes longer."""

CORE: Final = {
    "persona": "Listens, and asks what came of things.",
    "human": "Two friends who write to each other for months.",
    "working": "Goals: remember what matters to both.",
}
"""What core memory has: an empty one would be counted too easily."""

_REPLY_TOKENS: Final = 100_000
"""The largest that can be set, so that a resource shows the whole queue."""

_CORE: Final = re.compile(r"(?<=<core_memory>\n).*(?=\n</core_memory>)", re.DOTALL)
_SUMMARY_HEAD: Final = re.compile(r"\A\[summary [^\]]*\]\n")
_LISTED: Final = 50
_SEEDS: Final = range(5)
PROBLEMS_SHOWN: Final = 5


@dataclass
class Replay:
    """What a conversation at one window has shown, or several taken together."""

    name: str
    window_tokens: int
    appended: int = 0
    most_used_tokens: int = 0
    flushes: list[Range] = field(default_factory=list)
    expected: list[Range] = field(default_factory=list)
    looks: int = 0
    recalled: int = 0
    problems: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    young_seconds: list[float] = field(default_factory=list)
    """Of the first appends to another, empty server, each made after one of the last here."""

    cpu_seconds: list[float] = field(default_factory=list)
    """What the server had taken of the processor before, and after, each append."""

    survivals: list[Survival] = field(default_factory=list)

    @property
    def growth(self) -> float | None:
        """The time of the last appends by that of the first ones, made at the same time."""
        return ratio_of_medians(self.seconds[-len(self.young_seconds) :], self.young_seconds)

    @property
    def growth_in_time(self) -> float | None:
        """The same with the first ones of this server, made minutes before."""
        sample = len(self.young_seconds)
        return ratio_of_medians(self.seconds[-sample:], self.seconds[:sample]) if sample else None

    @property
    def growth_of_cpu(self) -> float | None:
        """The processor's time for the last appends by that for the first ones."""
        sample, spent = len(self.young_seconds), self.cpu_seconds
        if not sample or not spent or not spent[sample] - spent[0]:
            return None
        return (spent[-1] - spent[-1 - sample]) / (spent[sample] - spent[0])

    @property
    def survival(self) -> Survival | None:
        """How much of the evidence that was evicted the summaries have at the end."""
        return mean_survival(self.survivals)

    def add(self, other: Replay) -> None:
        """Take what another conversation has shown; times are of one conversation alone."""
        self.appended += other.appended
        self.most_used_tokens = max(self.most_used_tokens, other.most_used_tokens)
        self.flushes += other.flushes
        self.expected += other.expected
        self.looks += other.looks
        self.recalled += other.recalled
        self.problems += [f"{other.name}: {problem}" for problem in other.problems]
        self.survivals += other.survivals

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name, as they stand in the JSON."""
        left = self.survival
        return {
            "replay": self.name,
            "window_tokens": self.window_tokens,
            "appended": self.appended,
            "recalled": self.recalled,
            "most_used_tokens": self.most_used_tokens,
            "flushes": len(self.flushes),
            "flushes_expected": len(self.expected),
            "evicted": sum(last - first + 1 for first, last in self.flushes),
            "windows_counted": self.looks,
            "problems": self.problems,
            "append_p50_ms": round(statistics.median(self.seconds) * 1_000, 3)
            if self.seconds
            else None,
            "growth": _rounded(self.growth),
            "growth_in_time": _rounded(self.growth_in_time),
            "growth_of_cpu": _rounded(self.growth_of_cpu),
            "survival": left
            and {
                "evidence_turns": left.turns,
                "summary": round(left.summary, 4),
                "first_words": round(left.first_words, 4),
                "random_sentences": round(left.random_sentences, 4),
                "ratio": _rounded(left.ratio),
            },
        }


class Counter:
    """Counts as tiktoken does, with the ranks that a server has unpacked for itself."""

    def __init__(self, cache_dir: Path) -> None:
        # tiktoken takes the folder from nowhere else; elsewhere it would fetch the ranks.
        os.environ["TIKTOKEN_CACHE_DIR"] = str(cache_dir / "tiktoken")
        self._encoding = tiktoken.get_encoding(ENCODING)

    def __call__(self, text: str) -> int:
        """Return the number of tokens of a text."""
        return len(self._encoding.encode_ordinary(text))


@dataclass(frozen=True)
class Server:
    """A server that runs, with what it puts into every window."""

    client: RawClient
    window_tokens: int
    count: Counter
    instructions_tokens: int
    tools_tokens: int

    def blocks(self, conversation: str) -> tuple[str, str]:
        """Return the compiled core memory of a conversation, and its working memory."""
        shown = self.client.ask(
            "tools/call",
            {"name": "core_memory_view", "arguments": {"conversation": conversation}},
        )
        return blocks_of(shown["content"][0]["text"])

    def summary(self, conversation: str) -> str:
        """Return the summary as it stands in the window."""
        shown = self.client.read(f"memory://conversations/{conversation}/summary")
        return shown.partition("\n")[2]  # The first line says which summary it is.


@contextmanager
def started(folder: Path, window_tokens: int) -> Iterator[Server]:
    """Give a server with a core memory, an empty recall memory and no embedding model."""
    db, cache = folder / "memory.duckdb", folder / "cache"
    settings = environment(
        db,
        owner="off",
        context_window=window_tokens,
        max_reply_tokens=_REPLY_TOKENS,
        cache_dir=cache,
        offline=1,
    )
    with Clients(LIMIT_SECONDS) as clients:
        client = clients.start(Command(SERVER, settings, folder))
        # Core memory, which stands in the instructions, is a part of its own.
        habit = _CORE.sub("", client.initialize()["instructions"])
        tools = client.ask("tools/list", {})["tools"]
        for label, content in CORE.items():
            client.tool("core_memory_append", {"label": label, "content": content})
        count = Counter(cache)
        as_sent = json.dumps(tools, ensure_ascii=False, separators=(",", ":"))
        yield Server(client, window_tokens, count, count(habit), count(as_sent))
        client.close()


def replay(server: Server, name: str, said: Sequence[Said], young: Server | None = None) -> Replay:
    """Append messages one by one to a conversation of that name, and check all that follows.

    Args:
        young: An empty server. The first messages go to it in turn with the last ones,
            so that both meet the same load.
    """
    shown = Replay(name, server.window_tokens)
    budget = server.client.tool("context_budget", {"conversation": name})
    blocks = map(server.count, server.blocks(name))
    rules = Arithmetic(
        server.window_tokens,
        fixed_tokens=server.instructions_tokens + server.tools_tokens + sum(blocks),
        flush_at=budget["thresholds"]["flush_at"],
        keep_after_flush=budget["thresholds"]["keep_after_flush"],
    )
    look(server, shown, rules, ())
    shown.cpu_seconds += cpu_seconds(server.client.pid)
    for number, message in enumerate(said, start=1):
        in_turn = young is not None and 2 * SAMPLE <= len(said) < number + SAMPLE
        # Whichever comes second meets what the other does after its reply.
        if young is not None and in_turn and number % 2:
            _append_first(young, shown, said)
        reply = append(server, shown, message)
        if young is not None and in_turn and not number % 2:
            _append_first(young, shown, said)
        flushed = check(server, shown, rules, message, reply)
        if flushed or number % LOOK_EVERY == 0 or number == len(said):
            look(server, shown, rules, said[:number])
    recall(server, shown, said)
    if rules.first:
        shown.survivals.append(score(server, name, said[: rules.first]))
    return shown


def append(server: Server, shown: Replay, message: Said) -> dict[str, Any]:
    """Append a message, and return the reply."""
    seconds, reply = _timed(server, shown.name, message)
    shown.seconds.append(seconds)
    shown.appended += 1
    shown.cpu_seconds += cpu_seconds(server.client.pid)
    return reply


def _append_first(young: Server, shown: Replay, said: Sequence[Said]) -> None:
    first = said[len(shown.young_seconds)]
    shown.young_seconds.append(_timed(young, shown.name, first)[0])


def _timed(server: Server, conversation: str, message: Said) -> tuple[float, dict[str, Any]]:
    given = {"messages": [message.argument()], "conversation": conversation}
    began = time.perf_counter()
    reply = server.client.tool("conversation_append", given)
    return time.perf_counter() - began, reply


def check(
    server: Server, shown: Replay, rules: Arithmetic, message: Said, reply: dict[str, Any]
) -> bool:
    """Compare what came of an append with the rules; say if any messages have left for it."""
    gone = shown.flushes[-1].last + 1 if shown.flushes else 0
    if "flushed" in reply:
        shown.flushes.append(Range(gone, gone + reply["flushed"]["evicted"] - 1))
    expected = rules.append(message.role, server.count(message.rendered()))
    if expected is not None:
        shown.expected.append(expected)
    place = f"after message {shown.appended - 1}"
    if shown.flushes != shown.expected:
        raise BenchmarkFault(
            f"{shown.name} at {server.window_tokens}, {place}: flushes {shown.flushes[-2:]},"
            f" the rules say {shown.expected[-2:]}; {shown.problems[:PROBLEMS_SHOWN]}"
        )
    if expected is not None:
        summary = server.summary(shown.name)
        rules.summary_tokens = server.count(summary)
    used = reply["used_tokens"]
    shown.most_used_tokens = max(shown.most_used_tokens, used)
    if used > server.window_tokens:
        shown.problems.append(f"{place}: {used} tokens are in use")
    if used != rules.used_tokens:
        shown.problems.append(f"{place}: {used} tokens by the server, {rules.used_tokens} counted")
    return expected is not None


def look(server: Server, shown: Replay, rules: Arithmetic, said: Sequence[Said]) -> None:
    """Read all that is in the window, count it, and compare it with the budget."""
    shown.looks += 1
    name, count = shown.name, server.count
    budget = server.client.tool("context_budget", {"conversation": name})
    recent = list(lines_of(server.client.read(f"memory://conversations/{name}/recent")))
    queue = [(at, said[at].rendered()) for at in range(rules.first, len(said))]
    place = f"after message {len(said) - 1}"
    if recent != queue:
        shown.problems.append(f"{place}: the queue shows other messages than it should have")
    core, working = server.blocks(name)
    parts = {
        "instructions": server.instructions_tokens,
        "tools": server.tools_tokens,
        "core": count(core),
        "working": count(working),
        "summary": count(server.summary(name)),
        "queue": sum(count(text) for _, text in recent),
    }
    for part, tokens in parts.items():
        if budget["parts"][part] != tokens:
            shown.problems.append(
                f"{place}: {part} is {budget['parts'][part]} tokens by the server, {tokens} counted"
            )
    if budget["used_tokens"] != sum(parts.values()):
        shown.problems.append(f"{place}: {budget['used_tokens']} tokens are no sum of the parts")


def recall(server: Server, shown: Replay, said: Sequence[Said]) -> None:
    """List the whole conversation, and compare it with what was said."""
    listing: dict[str, Any] = {"conversation": shown.name, "limit": _LISTED}
    found: list[tuple[int, str, str, str | None]] = []
    while True:
        page = server.client.tool("conversation_search", listing)
        found += [
            (hit["index"], hit["role"], hit["text"], hit.get("name")) for hit in page["results"]
        ]
        if "next_cursor" not in page:
            break
        listing["cursor"] = page["next_cursor"]
    wanted = [(at, turn.role, turn.content, turn.name) for at, turn in enumerate(said)]
    shown.recalled = len(set(found) & set(wanted))
    if sorted(found) != wanted:
        shown.problems.append(f"recall memory lists {len(found)} messages, not the {len(said)}")


def score(server: Server, name: str, evicted: Sequence[Said]) -> Survival:
    """Return how much of the evidence is left in the summary, and in texts of its length."""
    summary = server.summary(name)
    tokens, gold = server.count(summary), [said.content for said in evicted if said.gold]
    messages = [
        Message(
            f"{at}",
            name,
            at,
            said.role,  # type: ignore[arg-type]  # one of the roles
            said.content,
            server.count(said.rendered()),
            said.created_at,
            said.created_at,
            said.name,
        )
        for at, said in enumerate(evicted)
    ]
    at_random = [
        survival(gold, random_sentences(messages, tokens, server.count, seed)) for seed in _SEEDS
    ]
    return Survival(
        len(gold),
        survival(gold, summary),
        survival(gold, first_words(messages, tokens, server.count)),
        statistics.mean(at_random),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
