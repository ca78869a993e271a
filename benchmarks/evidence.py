"""How much of what was said survives in a summary that is written without a model?

LoCoMo's dialogues are replayed through the façade at several windows. At the end
the content words of the gold evidence turns that have left the window are looked
for in the summary, and in two texts of as many tokens: the first words of what
has left, and random sentences of it. A dialogue is shorter than a window of 32k
tokens: there, and to see what many flushes leave, all are one conversation.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from py_rust_stemmers import SnowballStemmer
from rich.table import Table

from benchmarks.harness import EXIT_USAGE, err, machine, out, run_blocking, write_json
from benchmarks.locomo import DataFault, DiaId, Dialogue, load
from mcp_memory.agent import Memories
from mcp_memory.server.app import tools_text
from mcp_memory.server.prompts import HABIT
from mcp_memory.settings import load_settings
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.records import Message, NewMessage, Role, Surface

Count = Callable[[str], int]

WINDOWS: Final = (4_000, 8_000, 32_000)
SEEDS: Final = 5
NEEDED_RATIO: Final = 1.3

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
    """Return which share of the texts' content words, 0 to 1, stands in the summary.

    A word counts once in each text that has it.
    """
    kept = content_words(summary)
    words = [content_words(text) for text in evidence_texts]
    total = sum(map(len, words))
    return sum(len(one & kept) for one in words) / total if total else 0.0


def distinct_survival(evidence_texts: Sequence[str], summary: str) -> float:
    """Return the same with each word counted once in all: the rare ones count as the common."""
    words = frozenset[str]().union(*map(content_words, evidence_texts))
    return len(words & content_words(summary)) / len(words) if words else 0.0


def first_words(evicted: Sequence[Message], tokens: int, count: Count) -> str:
    """Return the beginning of what has left, as many words as fit."""
    return _filled((message.content for message in evicted), tokens, count)


def random_sentences(evicted: Sequence[Message], tokens: int, count: Count, seed: int) -> str:
    """Return sentences of what has left in a random order, as many words as fit."""
    sentences = [
        part.strip()
        for message in evicted
        for part in _SENTENCE_END.split(message.content)
        if part and part.strip()
    ]
    random.Random(seed).shuffle(sentences)
    return _filled(sentences, tokens, count)


def _filled(texts: Iterable[str], tokens: int, count: Count) -> str:
    """Return the texts one after another, the last cut between two words, within `tokens`."""
    chosen = ""
    for text in texts:
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


@dataclass(frozen=True, slots=True)
class Scored:
    """Shares of one conversation, 0 to 1, and what they are of."""

    turns: int
    evicted: int
    flushes: int
    tokens: int
    summary: float
    first_words: float
    random_sentences: float
    distinct: float
    distinct_random: float


def replay(dialogues: Sequence[Dialogue], window_tokens: int) -> Scored | None:
    """Append the dialogues to one conversation; return what has survived, None if all is there."""
    with tempfile.TemporaryDirectory(prefix="mcp-memory-evidence-") as folder:
        settings = load_settings(
            db=Path(folder) / "memory.duckdb",
            context_window=window_tokens,
            offline=True,
            rethink_every=0,
        )
        memories = Memories(Engine(settings, check_model=False))
        try:
            # No model is loaded: the summary needs none.
            memory = memories.open("evidence", surface=Surface(HABIT, tools_text()))
            said: list[tuple[str, DiaId]] = []
            flushes = 0
            for dialogue in dialogues:
                for turn in dialogue.turns:
                    role: Role = "user" if turn.role == "user" else "assistant"
                    message = NewMessage(role, turn.content, turn.speaker, turn.created_at)
                    flushes += memory.conversations.append([message]).flush is not None
                    said.append((dialogue.name, turn.dia_id))
            summary = memory.conversations.summary()
            if summary is None:
                return None
            engine = memories.engine
            with engine.lock:
                evicted = engine.recall.messages("evidence", "main", 0, summary.last + 1)
        finally:
            memories.close()
        gold = {(d.name, place) for d in dialogues for q in d.questions for place in q.gold}
        evidence = [message.content for message in evicted if said[message.index] in gold]
        count = engine.tokenizer.count
        return _scored(summary.content, evidence, evicted, flushes, count) if evidence else None


def _scored(
    summary: str, evidence: Sequence[str], evicted: Sequence[Message], flushes: int, count: Count
) -> Scored:
    tokens = count(summary)
    at_random = [random_sentences(evicted, tokens, count, seed) for seed in range(SEEDS)]
    return Scored(
        turns=len(evidence),
        evicted=len(evicted),
        flushes=flushes,
        tokens=tokens,
        summary=survival(evidence, summary),
        first_words=survival(evidence, first_words(evicted, tokens, count)),
        random_sentences=statistics.mean(survival(evidence, text) for text in at_random),
        distinct=distinct_survival(evidence, summary),
        distinct_random=statistics.mean(distinct_survival(evidence, text) for text in at_random),
    )


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="locomo10.json")
    parser.add_argument("--windows", type=int, nargs="+", default=list(WINDOWS), metavar="TOKENS")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON")
    return parser.parse_args(argv)


def measure(dialogues: Sequence[Dialogue], windows: Sequence[int]) -> dict[str, list[Scored]]:
    """Replay each dialogue alone, and all as one conversation; return the scores by case."""
    cases: dict[str, list[Scored]] = {}
    for window in windows:
        for name, groups in (("each", [[one] for one in dialogues]), ("all", [list(dialogues)])):
            err.print(f"{window} tokens, {name}")
            scored = [one for one in (replay(group, window) for group in groups) if one]
            if scored:
                cases[f"{window} {name}"] = scored
    return cases


def ratio(scored: Sequence[Scored]) -> float:
    """Return the mean share of the summaries, as a multiple of the better baseline's."""
    better = max(
        statistics.mean(one.first_words for one in scored),
        statistics.mean(one.random_sentences for one in scored),
    )
    return statistics.mean(one.summary for one in scored) / better


def show(cases: dict[str, list[Scored]]) -> None:
    """Print the table."""
    columns = ("tokens", "summary", "first words", "random", "ratio", "distinct", "its random")
    table = Table("window", *columns, title="Words of evicted evidence that survive, percent")
    for name, scored in cases.items():
        fields = ("summary", "first_words", "random_sentences", "distinct", "distinct_random")
        mean = {f: statistics.mean(getattr(one, f) for one in scored) for f in fields}
        table.add_row(
            name,
            f"{statistics.mean(one.tokens for one in scored):.0f}",
            *(f"{100 * mean[field]:.1f}" for field in fields[:3]),
            f"{ratio(scored):.2f}{'' if ratio(scored) >= NEEDED_RATIO else ' (low)'}",
            *(f"{100 * mean[field]:.1f}" for field in fields[3:]),
        )
    out.print(table)


def main(argv: Sequence[str]) -> int:
    """Run the benchmark and return its exit status."""
    arguments = parse_arguments(argv)
    try:
        dialogues = load(arguments.data)
    except DataFault as fault:
        err.print(f"error: {fault}", markup=False)
        return EXIT_USAGE

    def benchmark() -> None:
        cases = measure(dialogues, arguments.windows)
        show(cases)
        report = {name: [asdict(one) for one in scored] for name, scored in cases.items()}
        write_json(arguments.out, {**machine(), "cases": report})

    return run_blocking(benchmark)
