"""The rules that paging is checked by, and a small conversation through all of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from benchmarks import BenchmarkFault, paging
from benchmarks.paging import (
    Arithmetic,
    Range,
    Replay,
    Said,
    Server,
    Survival,
    blocks_of,
    lines_of,
    mean_survival,
    replay,
    started,
    with_calls,
)

BEGINNING = datetime(2026, 3, 1, 9, tzinfo=UTC)
WINDOW = 4_096


def talk(count: int) -> list[Said]:
    """Return a conversation in which every tenth turn answers a question."""
    return [
        Said(
            ("user", "assistant")[number % 2],
            f"On day {number} the kettle ERR-{number} was moved to shelf {number * 7}.\n"
            + "Then it whistled again, and nobody knew why. " * (number % 5),
            BEGINNING + timedelta(hours=number),
            ("Ana", "Ben")[number % 2],
            gold=number % 10 == 0,
        )
        for number in range(count)
    ]


def ranges(rules: Arithmetic, *tokens: int, roles: str = "") -> list[Range | None]:
    """Return what leaves for messages of these sizes; `t` marks a tool's result."""
    kinds = roles.ljust(len(tokens), "u")
    return [
        rules.append("tool" if kind == "t" else "user", size)
        for kind, size in zip(kinds, tokens, strict=True)
    ]


def test_the_oldest_leave_when_the_window_is_full_until_half_of_it_is_used():
    # Beside 100 and the longest summary, 200, half of the window has room for 200.
    rules = Arithmetic(1_000, 100)
    assert ranges(rules, *[100] * 8, 50, 10, 10, 10) == [None] * 12
    assert rules.used_tokens == 980
    assert ranges(rules, 20) == [Range(0, 6)]
    assert rules.used_tokens == 300


def test_the_last_three_stay_whatever_their_size():
    rules = Arithmetic(1_000, 100)
    assert ranges(rules, 300, 300, 300) == [None] * 3
    assert ranges(rules, 300) == [Range(0, 0)]


def test_results_leave_with_their_call_and_keep_it_if_they_are_the_last():
    rules = Arithmetic(1_000, 100)
    assert ranges(rules, 400, 300, 100, 20, 20, 20, 20, 10, 10, roles="uutt")[-1] == Range(0, 3)
    rules = Arithmetic(2_000, 100)
    assert ranges(rules, 900, 600, 30, 30, 400, roles="uutt")[-1] == Range(0, 0)
    # Where the call itself has no room, they go with it.
    rules = Arithmetic(2_000, 100)
    assert ranges(rules, 10, 1_700, 30, 30, 200, roles="uutt")[-1] == Range(0, 3)


def test_calls_are_put_among_the_turns_always_in_the_same_way():
    said = with_calls(talk(60))
    assert said == with_calls(talk(60))
    assert [turn for turn in said if turn.name != "lookup" and "lookup(" not in turn.content] == [
        *talk(60)
    ]
    for before, message in pairwise(said):
        if message.role == "tool":
            assert before.role == "tool" or before.content.startswith("lookup(")


def test_messages_and_blocks_are_read_from_what_is_shown():
    shown = "[7] 2026-03-01 09:00 user (Ana): one\ntwo\n[8] 2026-03-01 10:00 tool: three"
    assert list(lines_of(shown)) == [(7, "user (Ana): one\ntwo\n"), (8, "tool: three\n")]
    assert list(lines_of("")) == []
    blocks = [
        f'<block label="{name}" limit="9">\n{name}\n</block>'
        for name in ("persona", "working", "human")
    ]
    assert blocks_of("\n".join(blocks)) == (f"{blocks[0]}\n{blocks[2]}", blocks[1])


def test_a_mean_weighs_each_conversation_by_its_evidence():
    mean = mean_survival([Survival(1, 0.2, 0.1, 0.1), Survival(3, 0.6, 0.3, 0.5)])
    assert mean is not None
    assert mean.turns == 4
    shares = (mean.summary, mean.first_words, mean.random_sentences)
    assert shares == pytest.approx((0.5, 0.25, 0.4))
    assert mean.ratio == pytest.approx(1.25)
    assert mean_survival([]) is None


def test_the_verdicts_say_what_was_exact_and_what_missed_its_goal():
    shown = Replay("joined", 4_096, seconds=[1.0, 1.0, 3.0, 3.0], young_seconds=[2.0, 2.0])
    shown.survivals = [Survival(5, 0.4, 0.2, 0.3)]
    assert shown.growth == 1.5
    assert shown.growth_in_time == 3.0
    shown.cpu_seconds = [1.0, 1.1, 2.0, 2.5, 3.5]
    assert shown.growth_of_cpu == 1.5
    exact, growth, evidence = paging.verdicts([shown])
    assert exact.endswith("0 problems, goal 0: met")
    assert growth.endswith("1.50, goal 1.2: MISSED")
    assert evidence.endswith("1.33, goal 1.3: met")
    wrong = replace(shown, problems=["one"], young_seconds=[], survivals=[])
    (line,) = paging.verdicts([wrong])
    assert line.endswith("1 problems, goal 0: MISSED")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with started(WINDOW, sys.executable) as running:
        yield running


@pytest.mark.slow
def test_a_conversation_with_calls_is_paged_exactly_by_the_rules(server: Server):
    said = with_calls(talk(110))
    shown = replay(server, "kettles", said)
    assert shown.problems == []
    assert shown.recalled == shown.appended == len(said)
    assert len(shown.flushes) >= 3
    assert shown.flushes == shown.expected
    assert 3_000 < shown.most_used_tokens <= WINDOW
    assert shown.survival is not None
    assert shown.survival.turns == sum(turn.gold for turn in said[: shown.flushes[-1].last + 1])
    paging.show([shown])


@pytest.mark.slow
def test_a_server_that_counts_otherwise_is_found_out(server: Server):
    # Eleven tokens are in the window that the benchmark does not know of.
    other = replace(server, tools_tokens=server.tools_tokens - 11)
    shown = replay(other, "a few", talk(5))
    assert any("tools is" in problem for problem in shown.problems)
    assert any("tokens by the server" in problem for problem in shown.problems)
    with pytest.raises(BenchmarkFault, match="the rules say"):
        replay(replace(server, window_tokens=WINDOW // 2), "earlier", talk(60))
