"""Does paging do exactly what its rules say, at any window and after any number of messages?

LoCoMo's dialogues are appended turn by turn to a real server on stdio: each to a
conversation of its own, then all, with calls of tools among them, to a single one. The
server's figures are compared with tiktoken's, and its flushes with arithmetic of the
benchmark's own (`Arithmetic`), made from the rules as they are written down.

The server has no embedding model here: embedding costs the same for every message, and
would only hide how the rest grows.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import tiktoken
from py_rust_stemmers import SnowballStemmer

from benchmarks import BenchmarkFault, harness, loaders, texts
from benchmarks.client import Clients, RawClient
from benchmarks.harness import err
from benchmarks.loaders import Talk
from benchmarks.metrics import plain, ratio_of_medians
from benchmarks.procfs import cpu_seconds

WINDOWS: Final = (4_096, 8_192, 32_768)
MAX_GROWTH: Final = 1.2
MIN_RATIO: Final = 1.3
"""Both set by judgement: an append must not slow down, and a summary must earn its tokens."""

AT_ONCE: Final = 2
"""Servers at once, where nothing is timed."""

ENCODING: Final = "o200k_base"
SAMPLE: Final = 1_000
"""Appends that count as the first, and as the last, of a conversation."""

LOOK_EVERY: Final = 1_000
"""Appends after which the whole window is read and counted, as after every flush."""

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

KEEP_LAST: Final = 3
SUMMARY_FRAC: Final = 0.1
MIN_SUMMARY_TOKENS: Final = 200
MAX_SUMMARY_TOKENS: Final = 2_000

CALL_EVERY: Final = 20
"""Turns between calls of a tool: conversations with agents have calls, LoCoMo has none."""

_CALL_SEED: Final = 20
_LINE: Final = re.compile(r"^\[(\d+)\] \d{4}-\d\d-\d\d \d\d:\d\d ", re.MULTILINE)
_BLOCK: Final = re.compile(r'<block label="([^"]*)" .*?\n</block>', re.DOTALL)


class Range(NamedTuple):
    """Messages `first` to `last` of a conversation, both included."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Said:
    """A message as it is appended; `gold` is one that answers a question."""

    role: str
    content: str
    created_at: datetime
    name: str | None = None
    gold: bool = False

    def argument(self) -> dict[str, str]:
        """Return the argument for `conversation_append`."""
        given = {"role": self.role, "content": self.content}
        if self.name is not None:
            given["name"] = self.name
        return given | {"created_at": self.created_at.isoformat()}

    def rendered(self) -> str:
        """Return it as the window shows it."""
        who = f"{self.role} ({self.name})" if self.name else self.role
        return f"{who}: {self.content}\n"


def turns_of(talk: Talk) -> list[Said]:
    """Return the turns of a dialogue as messages."""
    gold = frozenset[str]().union(*(question.gold for question in talk.questions))
    return [
        Said(turn.role, turn.content, turn.created_at, turn.name, turn.place in gold)
        for turn in talk.turns
    ]


def with_calls(said: Sequence[Said]) -> list[Said]:
    """Return the messages with calls of tools among them, each with one to four results."""
    rng = random.Random(_CALL_SEED)
    done: list[Said] = []
    for number, message in enumerate(said, start=1):
        done.append(message)
        if number % CALL_EVERY == 0:
            question = texts.query(rng)
            done.append(Said("assistant", f"lookup({question!r})", message.created_at))
            done += [
                Said(
                    "tool",
                    " ".join(texts.memory(rng) for _ in range(rng.randint(1, 3))),
                    message.created_at,
                    "lookup",
                )
                for _ in range(rng.randint(1, 4))
            ]
    return done


@dataclass
class Arithmetic:
    """A queue that is moved by the rules alone.

    Args:
        window_tokens: The size of the window.
        fixed_tokens: What is in it beside the queue and the summary.
        flush_at: The fraction at which the oldest leave.
        keep_after_flush: The fraction that is used afterwards, at most.
    """

    window_tokens: int
    fixed_tokens: int
    flush_at: float = 1.0
    keep_after_flush: float = 0.5
    summary_tokens: int = 0
    """Of the summary that there is; to be set after each flush."""

    first: int = 0
    _roles: list[str] = field(default_factory=list)
    _tokens: list[int] = field(default_factory=list)

    @property
    def used_tokens(self) -> int:
        """All that is in use."""
        return self.fixed_tokens + self.summary_tokens + sum(self._tokens[self.first :])

    def append(self, role: str, tokens: int) -> Range | None:
        """Take a message, and return which ones leave for it."""
        self._roles.append(role)
        self._tokens.append(tokens)
        if self.used_tokens < self.flush_at * self.window_tokens:
            return None
        summary = int(SUMMARY_FRAC * self.window_tokens)
        summary = min(max(summary, MIN_SUMMARY_TOKENS), MAX_SUMMARY_TOKENS)
        first, cut = self.first, self._cut(self.fixed_tokens + summary)
        self.first = cut
        return Range(first, cut - 1) if cut > first else None

    def _cut(self, beside_tokens: int) -> int:
        """Return the first message that stays, with `beside_tokens` in use beside the queue."""
        end = len(self._roles)

        def used(cut: int) -> int:
            return beside_tokens + sum(self._tokens[cut:])

        cut = self.first
        while used(cut) > int(self.keep_after_flush * self.window_tokens) and end - cut > KEEP_LAST:
            cut += 1
        if cut == self.first or self._roles[cut] != "tool":
            return cut
        behind = call = cut
        while behind < end and self._roles[behind] == "tool":
            behind += 1
        while call > self.first and self._roles[call] == "tool":
            call -= 1
        takes_of_the_last = end - behind < KEEP_LAST
        fits = used(call) < int(self.flush_at * self.window_tokens)
        return call if takes_of_the_last and fits else behind


def lines_of(recent: str) -> Iterator[tuple[int, str]]:
    """Yield the index and the text of each message that the resource `recent` shows."""
    heads = list(_LINE.finditer(recent))
    ends = [head.start() for head in heads[1:]] + [len(recent) + 1]
    for head, end in zip(heads, ends, strict=False):
        first, *further = recent[head.end() : end - 1].splitlines(keepends=True) or [""]
        # The view marks the further lines of a message.
        yield int(head[1]), "".join([first, *(line.removeprefix("| ") for line in further)]) + "\n"


def blocks_of(compiled: str) -> tuple[str, str]:
    """Return the compiled blocks without `working`, and `working` alone."""
    core = [found[0] for found in _BLOCK.finditer(compiled) if found[1] != "working"]
    working = [found[0] for found in _BLOCK.finditer(compiled) if found[1] == "working"]
    return "\n".join(core), "\n".join(working)


@dataclass(frozen=True, slots=True)
class Survival:
    """The mean share, 0 to 1, of evicted evidence's words in the summary and two baselines."""

    turns: int
    summary: float
    first_words: float
    random_sentences: float

    @property
    def ratio(self) -> float:
        """The summary's share as a multiple of the better baseline's."""
        best = max(self.first_words, self.random_sentences)
        return self.summary / best if best else float("inf")


def mean_survival(parts: Sequence[Survival]) -> Survival | None:
    """Return the mean over conversations, each weighed by its evidence; None for none."""
    turns = sum(part.turns for part in parts)
    if not turns:
        return None

    def mean(share: Callable[[Survival], float]) -> float:
        return sum(part.turns * share(part) for part in parts) / turns

    return Survival(
        turns,
        mean(lambda part: part.summary),
        mean(lambda part: part.first_words),
        mean(lambda part: part.random_sentences),
    )


_STOP_WORDS: Final = frozenset(
    re.findall(
        r"\w+",
        """
    i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she
    her hers herself it its itself they them their theirs themselves what which who whom this that
    these those am is are was were be been being have has had having do does did doing a an the and
    but if or because as until while of at by for with about against between into through during
    before after above below to from up down in out on off over under again further then once here
    there when where why how all any both each few more most other some such no nor not only own
    same so than too very s t can will just don should now d ll m o re ve y
    """,
    )
)
_WORD: Final = re.compile(r"[^\W_]+")
_NO_SPACES: Final = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+")
_SENTENCE_END: Final = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])|\n+")
_stemmer: Final = SnowballStemmer("english")


def content_words(text: str) -> frozenset[str]:
    """Return the stems of a text without stop words; pairs of characters where no spaces are."""
    found: set[str] = set()
    for word in _WORD.findall(text.casefold().replace("’", "'")):
        runs = _NO_SPACES.findall(word)
        for run in runs:
            found.update(run[at : at + 2] for at in range(max(len(run) - 1, 1)))
        if not runs and word not in _STOP_WORDS:
            found.add(_stem(word))
    return frozenset(found)


def survival(evidence_texts: Sequence[str], summary: str) -> float:
    """Return the share, 0 to 1, of the texts' content words that the summary contains.

    A word counts once in each text that has it.
    """
    kept = content_words(summary)
    words = [content_words(text) for text in evidence_texts]
    total = sum(map(len, words))
    return sum(len(one & kept) for one in words) / total if total else 0.0


def first_words(evicted: Sequence[Said], tokens: int, count: Callable[[str], int]) -> str:
    """Return the beginning of what has left, as many words as fit."""
    return _filled((message.content for message in evicted), tokens, count)


def random_sentences(
    evicted: Sequence[Said], tokens: int, count: Callable[[str], int], seed: int
) -> str:
    """Return sentences of what has left in a random order, as many words as fit."""
    sentences = [
        part.strip()
        for message in evicted
        for part in _SENTENCE_END.split(message.content)
        if part and part.strip()
    ]
    random.Random(seed).shuffle(sentences)
    return _filled(sentences, tokens, count)


def _filled(parts: Iterable[str], tokens: int, count: Callable[[str], int]) -> str:
    """Return the texts one after another, the last cut between two words, within `tokens`."""
    chosen = ""
    for text in parts:
        longer = f"{chosen}\n{text}" if chosen else text
        if count(longer) <= tokens:
            chosen = longer
            continue
        words = longer.split(" ")
        low, high = chosen.count(" "), len(words)
        while low < high:
            middle = (low + high + 1) // 2
            if count(" ".join(words[:middle])) <= tokens:
                low = middle
            else:
                high = middle - 1
        cut = " ".join(words[:low])
        return cut if len(cut) > len(chosen) else chosen
    return chosen


@lru_cache(maxsize=65_536)
def _stem(word: str) -> str:
    return _stemmer.stem_word(word) if word.isascii() and word.isalpha() else word


@dataclass
class Replay:
    """What was seen of a conversation at one window, or of several together."""

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
    """The server's processor time before, and after, each append."""

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
        """Return the figures for the JSON, by name."""
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
            "append_p50_ms": 1_000 * statistics.median(self.seconds) if self.seconds else None,
            "growth": self.growth,
            "growth_in_time": self.growth_in_time,
            "growth_of_cpu": self.growth_of_cpu,
            "survival": left and {**plain(left), "ratio": left.ratio},
        }


class Counter:
    """Counts as tiktoken does, with the ranks that a server has unpacked for itself."""

    def __init__(self, cache_dir: Path) -> None:
        # tiktoken reads the folder only from there; otherwise it would fetch the ranks.
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
        """Return the summary as the window shows it."""
        shown = self.client.read(f"memory://conversations/{conversation}/summary")
        return shown.partition("\n")[2]  # The first line says which summary it is.


@contextmanager
def started(window_tokens: int, python: str) -> Iterator[Server]:
    """Give a server with a core memory, an empty recall memory and no embedding model."""
    with harness.temporary() as folder, Clients(LIMIT_SECONDS) as clients:
        cache = folder / "cache"
        command = harness.server(
            folder / "memory.duckdb",
            python,
            owner="off",
            context_window=window_tokens,
            max_reply_tokens=_REPLY_TOKENS,
            cache_dir=cache,
            offline=1,
        )
        client = clients.start(command)
        # The instructions contain core memory, which is counted as a part of its own.
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
    # The view doesn't show line breaks at the end of a message.
    queue = [(at, said[at].rendered().rstrip("\n")) for at in range(rules.first, len(said))]
    place = f"after message {len(said) - 1}"
    if [(at, text.rstrip("\n")) for at, text in recent] != queue:
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
    tokens, gold = server.count(summary), [one.content for one in evicted if one.gold]
    at_random = [
        survival(gold, random_sentences(evicted, tokens, server.count, seed)) for seed in _SEEDS
    ]
    return Survival(
        len(gold),
        survival(gold, summary),
        survival(gold, first_words(evicted, tokens, server.count)),
        statistics.mean(at_random),
    )


def apart(talks: Sequence[Talk], python: str, window_tokens: int) -> Replay:
    """Replay each dialogue as a conversation of its own, all on one server."""
    together = Replay("apart", window_tokens)
    with started(window_tokens, python) as server:
        for talk in talks:
            err.print(f"{window_tokens}: {talk.name}, {len(talk.turns)} turns")
            together.add(replay(server, talk.name, turns_of(talk)))
    return together


def joined(talks: Sequence[Talk], python: str, window_tokens: int) -> Replay:
    """Replay all dialogues as one conversation, with calls of tools among the turns."""
    said = with_calls([turn for talk in talks for turn in turns_of(talk)])
    err.print(f"{window_tokens}: all as one, {len(said)} messages")
    with started(window_tokens, python) as server, started(window_tokens, python) as young:
        return replay(server, "joined", said, young)


def measure(talks: Sequence[Talk], windows: Sequence[int], python: str) -> list[Replay]:
    """Replay the dialogues at each window; only those whose time counts have the machine alone."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        replays = list(threads.map(partial(apart, talks, python), windows))
    return replays + [joined(talks, python, window_tokens) for window_tokens in windows]


def verdicts(replays: Sequence[Replay]) -> list[str]:
    """Return a line for each goal."""
    lines: list[str] = []
    for shown in replays:
        where = f"{shown.name}, {shown.window_tokens}"
        lines.append(
            harness.verdict(
                f"{where}: window, flushes, recall and tokens",
                f"{len(shown.problems)} problems",
                "0",
                met=not shown.problems,
            )
        )
        if (ratio := shown.growth) is not None:
            label = f"{where}: last / first {SAMPLE} appends"
            lines.append(
                harness.verdict(label, f"{ratio:.2f}", f"{MAX_GROWTH}", met=ratio <= MAX_GROWTH)
            )
        if (left := shown.survival) is not None:
            label = f"{where}: evidence in the summary / the better baseline"
            met = left.ratio >= MIN_RATIO
            lines.append(harness.verdict(label, f"{left.ratio:.2f}", f"{MIN_RATIO}", met=met))
    return lines


def show(replays: Sequence[Replay]) -> None:
    """Print tables of what was counted and timed and of evidence, and the problems."""
    rows = [(shown, plain(shown.as_dict())) for shown in replays]
    for title, headings, keys, timed in (
        (
            "Paging, as counted",
            ("appended", "recalled", "flushes", "by the rules", "most used"),
            ("appended", "recalled", "flushes", "flushes_expected", "most_used_tokens"),
            False,
        ),
        (
            f"Appends, the last {SAMPLE} by the first",
            ("p50, ms", "made in turn", "minutes apart", "processor"),
            ("append_p50_ms", "growth", "growth_in_time", "growth_of_cpu"),
            True,
        ),
    ):
        harness.table(
            title,
            ("replay", "window", *headings),
            [
                (shown.name, shown.window_tokens, *(row[key] for key in keys))
                for shown, row in rows
                if shown.young_seconds or not timed
            ],
        )
    harness.table(
        "Words of evicted evidence that are left, percent",
        ("replay", "window", "turns", "summary", "first words", "random sentences"),
        [
            (
                shown.name,
                shown.window_tokens,
                left.turns,
                *(
                    f"{100 * share:.1f}"
                    for share in (left.summary, left.first_words, left.random_sentences)
                ),
            )
            for shown in replays
            if (left := shown.survival) is not None
        ],
    )
    for shown in replays:
        for problem in shown.problems[:PROBLEMS_SHOWN]:
            harness.out.print(f"{shown.name}, {shown.window_tokens}: {problem}", markup=False)


def _windows(text: str) -> tuple[int, ...]:
    """Return sizes such as 4k (4,096) or 5000."""
    parts = text.lower().split(",")
    if not all(part.removesuffix("k").isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: give sizes such as 4k,8k,32k")
    return tuple(int(p.removesuffix("k")) * (1_024 if p.endswith("k") else 1) for p in parts)


def _benchmark(talks: Sequence[Talk], options: argparse.Namespace) -> None:
    began = time.perf_counter()
    replays = measure(talks, options.windows, options.python)
    show(replays)
    report = {
        "conversations": len(talks),
        "duration_seconds": time.perf_counter() - began,
        "replays": [shown.as_dict() for shown in replays],
    }
    harness.finish("paging", options, report, verdicts(replays))
    if any(shown.problems for shown in replays):
        raise BenchmarkFault("the server and the rules do not agree")


def main(argv: Sequence[str]) -> int:
    """Run the benchmark; return its exit status."""
    parser = harness.parser("paging", __doc__)
    loaders.add_options(parser)
    parser.add_argument("--windows", type=_windows, default=WINDOWS, help="default: 4k,8k,32k")
    parser.add_argument("--python", default=sys.executable, help=harness.PYTHON_HELP)
    options = parser.parse_args(argv)
    return harness.run(partial(_benchmark, loaders.chosen(parser, options), options))
