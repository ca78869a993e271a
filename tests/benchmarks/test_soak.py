"""The bookkeeping of a soak finds each way to break a promise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import soak
from benchmarks.procfs import Usage
from benchmarks.soak import LEVEL_SAMPLES, growth, logged_errors
from benchmarks.soakload import KINDS, Ledger, Shared, Tally, Versions, foreign_marks


def versions(*attempted: str, acknowledged: int) -> Versions:
    return Versions(list(attempted), acknowledged)


def ledger() -> Ledger:
    return Ledger(
        "anna1",
        memories={
            "kept": versions("a", acknowledged=0),
            "edited": versions("b", "c", acknowledged=1),
            "cut": versions("d", "e", acknowledged=0),
            "gone": versions("f", acknowledged=0),
            "going": versions("g", acknowledged=0),
        },
        unsure={"h"},
        leaving={"gone", "going"},
        deleted={"gone"},
    )


WHOLE = {"kept": "a", "edited": "c", "cut": "d", "going": "g"}


def test_a_memory_that_is_as_it_was_acknowledged_is_no_problem():
    assert ledger().wrong_memories(WHOLE) == []
    assert ledger().doubled_memories(WHOLE) == []


def test_what_was_cut_short_may_have_been_done_or_not():
    done = {**WHOLE, "cut": "e", "new": "h"}
    del done["going"]
    assert ledger().wrong_memories(done) == []
    assert ledger().doubled_memories(done) == []


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ({"kept": None}, "memory kept was acknowledged and is lost"),
        ({"kept": "z"}, "memory kept has lost an edit"),
        ({"edited": "b"}, "memory edited has lost an edit"),
        ({"gone": "f"}, "memory gone was deleted and is there"),
    ],
)
def test_each_broken_promise_about_a_memory_is_found(found, problem):
    there = {key: text for key, text in {**WHOLE, **found}.items() if text is not None}
    (said,) = ledger().wrong_memories(there)
    assert problem in said


def test_a_second_copy_and_a_memory_that_nobody_stored_are_found():
    assert ledger().doubled_memories({**WHOLE, "strange": "nobody's"}) == [
        "memory strange was never acknowledged"
    ]
    # One that was never acknowledged is allowed, but not beside the one that was.
    twice = ledger().doubled_memories({**WHOLE, "one": "h", "two": "h"})
    assert twice == ["1 texts are there twice"]


def test_a_message_is_lost_only_in_its_own_conversation():
    book = Ledger("anna1", messages={"one": {"m1", "m2"}, "two": {"m3"}})
    assert book.lost_messages("one", ["m2", "m1", "m9"]) == []
    assert book.lost_messages("one", ["m1", "m3"]) == ["message m2 of one is lost"]
    assert book.lost_messages("three", []) == []


def test_a_block_may_have_the_acknowledged_value_or_one_that_was_asked_for_later():
    book = Ledger("anna1", blocks={"main": versions("a", "b", "c", acknowledged=1)})
    assert book.wrong_block("main", "b") == []
    assert book.wrong_block("main", "c") == []
    assert len(book.wrong_block("main", "a")) == 1
    assert len(book.wrong_block("main", "")) == 1
    assert book.wrong_block("other", "anything") == []


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=8))
def test_what_is_acknowledged_last_is_always_allowed(edits):
    book = Versions()
    last = None
    for value, taken in edits:
        book.attempt(value)
        if taken:
            book.acknowledge()
            last = value
        assert book.allows(value)
    assert last is None or book.allows(last)


def test_marks_of_others_are_found_in_any_case_and_ones_own_is_not():
    marks = ["anna1", "bela2"]
    assert foreign_marks('{"text": "BELA2 writes"}', "anna1", marks) == ["bela2"]
    assert foreign_marks("anna1 writes", "anna1", marks) == []


def test_growth_compares_the_end_with_what_came_after_the_warming_up():
    times = [20.0 * number for number in range(1, 14)]
    values = [100.0, 100.0, *[200.0] * 4, *[900.0] * 3, *[210.0] * 4]
    assert growth(times, values, after_seconds=60) == pytest.approx(1.05)


def test_growth_of_a_run_that_was_too_short_is_not_known():
    times = [60.0 + number for number in range(2 * LEVEL_SAMPLES)]
    assert growth(times, [1.0] * len(times), after_seconds=60) == 1
    assert growth(times, [1.0] * len(times), after_seconds=61) is None


def test_an_error_in_a_log_is_found_with_its_traceback():
    log = (
        "2026-11-21 mcp-memory WARNING mcp_memory.tiers.engine: late\n"
        "mcp-memory listens on http://127.0.0.1:1/mcp\n"
        "2026-11-21 mcp-memory ERROR mcp_memory.server.app: tool raised\n"
        "Traceback (most recent call last):\n"
        "ValueError: no\n"
        "2026-11-21 mcp-memory INFO mcp_memory.tiers.engine: fine\n"
        "more of that\n"
    )
    (error,) = logged_errors(log)
    assert error.endswith("tool raised\nTraceback (most recent call last):\nValueError: no")
    assert logged_errors("") == []


def soaked(**tallies: Tally) -> soak.Soak:
    samples = [
        soak.Sample(at, "http", True, Usage(300_000 + 30 * at, 0, 20), (Usage(12_000, 0, 6),), 0)
        for at in range(20, 620, 20)
    ]
    kinds = {kind: Tally(seconds=[0.01]) for kind in KINDS}
    shared = Shared({"anna": Ledger("anna1"), "bela": Ledger("bela2")})
    return soak.Soak(shared, {**kinds, **tallies}, samples, kills=30)


def test_the_verdicts_of_a_good_run_are_all_met():
    assert all(line.endswith(" met") for line in soak.verdicts(soaked()))


def test_each_thing_that_goes_wrong_misses_a_verdict():
    def missed(run: soak.Soak) -> list[str]:
        return [line for line in soak.verdicts(run) if line.endswith("MISSED")]

    lossy = soaked()
    lossy.problems.append("memory kept was acknowledged and is lost")
    assert missed(lossy)[0].startswith("kept")

    leaky = soaked()
    leaky.shared.look("anna1's secret", "bela", "a test")
    assert leaky.shared.leaks == ["bela saw anna1 in a test"]
    assert missed(leaky)[0].startswith("isolated")

    broken = soaked()
    broken.errors.append("ERROR")
    assert "logs: 1" in missed(broken)[0]

    assert "started again: 1" in missed(soaked(sse=Tally([0.1], lost_clients=1)))[0]
    assert "any answer" in missed(soaked(sse=Tally([0.1], unanswered=1)))[0]
    assert "without an answer: sse" in missed(soaked(sse=Tally()))[0]

    growing = soaked()
    growing.samples = [
        soak.Sample(at, "sse", True, Usage(300_000 + 1_000 * at, 0, 20 + at // 100), (), 1)
        for at in range(20, 620, 20)
    ]
    memory, descriptors, dead = missed(growing)
    assert memory.startswith("owner, resident")
    assert descriptors.startswith("owner, descriptors")
    assert dead == "dead owners that were not reaped: 1: MISSED"


def test_only_owners_that_listen_and_have_their_model_are_compared():
    run = soaked()
    small = Usage(100_000, 0, 10)
    for at, listening, ready in ((61, None, True), (62, "http", False)):
        run.samples.append(soak.Sample(at, listening, ready, small, (), 0))
    run.samples.sort(key=lambda sample: sample.at_seconds)
    assert soak.verdicts(run) == soak.verdicts(soaked())


def test_calls_with_a_hostile_client_are_compared_with_those_without():
    def run(hostile: float) -> str:
        tally = Tally([0.01], by_phase={"calm": [0.01] * 20, "hostile": [hostile] * 20})
        (line,) = [line for line in soak.verdicts(soaked(sse=tally)) if "hostile" in line]
        return line

    assert run(0.02).endswith("2.00, goal 3: met")
    assert run(0.04).endswith("MISSED")
