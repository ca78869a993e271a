"""Pressure and eviction: arithmetic alone."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_memory.paging.budget import KEEP_LAST, check_report, evict, flush_target, level_of, measure
from mcp_memory.values.errors import InvalidInput
from mcp_memory.values.records import ROLES, Message, Parts, Thresholds

MOMENT = datetime(2026, 11, 21, tzinfo=UTC)
THRESHOLDS = Thresholds(warn_at=0.70, flush_at=1.0, keep_after_flush=0.5)


def message(index, role="user", tokens=10):
    return Message(
        id=f"{index:010d}",
        conversation="main",
        index=index,
        role=role,
        content="text",
        tokens=tokens,
        created_at=MOMENT,
        recorded_at=MOMENT,
    )


def parts(queue=0, *, core=0, summary=0):
    return Parts(instructions=0, tools=0, core=core, working=0, summary=summary, queue=queue)


@st.composite
def queues(draw):
    turns = draw(st.lists(st.tuples(st.sampled_from(ROLES), st.integers(1, 500)), max_size=25))
    return [message(index, role, tokens) for index, (role, tokens) in enumerate(turns)]


@st.composite
def overflows(draw):
    """Give a queue, all tokens in use, and what may be in use."""
    queue = draw(queues())
    fixed = draw(st.integers(0, 1_000))
    used = fixed + sum(message.tokens for message in queue)
    return queue, used, draw(st.integers(0, used + 100))


@given(overflows())
def test_what_leaves_followed_by_what_stays_is_the_queue(overflow):
    queue, used, target = overflow
    split = evict(queue, used_tokens=used, target_tokens=target)
    assert [*split.evicted, *split.kept] == queue


@given(overflows())
def test_evicting_what_was_kept_evicts_nothing_more(overflow):
    queue, used, target = overflow
    split = evict(queue, used_tokens=used, target_tokens=target)
    left = used - sum(message.tokens for message in split.evicted)
    again = evict(split.kept, used_tokens=left, target_tokens=target)
    assert again.evicted == ()
    assert again.kept == split.kept


@given(overflows())
def test_no_tool_result_stays_whose_call_has_left(overflow):
    queue, used, target = overflow
    split = evict(queue, used_tokens=used, target_tokens=target)
    if split.evicted and split.kept:
        assert split.kept[0].role != "tool"


@given(overflows())
def test_the_last_three_stay_unless_they_are_results_of_a_call_that_left(overflow):
    queue, used, target = overflow
    split = evict(queue, used_tokens=used, target_tokens=target)
    gone_with_their_call = queue[max(len(queue) - KEEP_LAST, 0) : len(split.evicted)]
    assert all(message.role == "tool" for message in gone_with_their_call)


@given(overflows())
def test_a_flush_reaches_its_target_or_leaves_no_more_than_the_last_three(overflow):
    queue, used, target = overflow
    split = evict(queue, used_tokens=used, target_tokens=target)
    left = used - sum(message.tokens for message in split.evicted)
    assert left <= target or len(split.kept) <= KEEP_LAST


@given(overflows())
def test_no_message_leaves_that_did_not_have_to(overflow):
    queue, used, target = overflow
    split = evict(queue, used_tokens=used, target_tokens=target)
    # Without the last one, and the results that went with it, there was too much.
    needed = list(split.evicted)
    while needed and needed[-1].role == "tool" and len(needed) > 1:
        needed.pop()
    without_last = used - sum(message.tokens for message in needed[:-1])
    assert not split.evicted or without_last > target


def test_a_queue_that_fits_is_left_alone_even_if_it_begins_with_a_tool_result():
    queue = [message(0, "tool"), message(1), message(2), message(3)]
    assert evict(queue, used_tokens=40, target_tokens=40).evicted == ()


def test_the_results_of_several_calls_leave_with_their_call():
    queue = [
        message(0, "assistant"),
        message(1, "tool"),
        message(2, "tool"),
        message(3),
        message(4),
        message(5),
    ]
    split = evict(queue, used_tokens=60, target_tokens=50)
    assert [message.index for message in split.kept] == [3, 4, 5]


def test_results_leave_with_their_call_even_if_fewer_than_three_messages_stay():
    queue = [message(0, "assistant", 100), message(1, "tool"), message(2, "tool"), message(3)]
    split = evict(queue, used_tokens=130, target_tokens=50)
    assert [message.index for message in split.kept] == [3]


@pytest.mark.parametrize(
    ("pressure", "level"),
    [
        (0.0, "ok"),
        (0.6999, "ok"),
        (0.70, "warning"),
        (0.9999, "warning"),
        (1.0, "flush"),
        (1.7, "flush"),
    ],
)
def test_a_level_begins_at_its_threshold_exactly(pressure, level):
    assert level_of(pressure, THRESHOLDS) == level


@pytest.mark.parametrize(
    ("used", "level"), [(699, "ok"), (700, "warning"), (999, "warning"), (1_000, "flush")]
)
def test_the_level_of_a_budget_is_that_of_its_tokens(used, level):
    budget = measure(parts(used), window_tokens=1_000, thresholds=THRESHOLDS, counts={})
    assert (budget.level, budget.pressure) == (level, used / 1_000)


def test_one_token_below_a_threshold_is_below_it_however_large_the_window():
    budget = measure(parts(699_999), window_tokens=1_000_000, thresholds=THRESHOLDS, counts={})
    assert budget.level == "ok"


def test_pressure_is_at_most_one_and_free_tokens_never_negative():
    budget = measure(parts(3_000), window_tokens=1_000, thresholds=THRESHOLDS, counts={})
    assert (budget.pressure, budget.free_tokens, budget.used_tokens) == (1.0, 0, 3_000)
    assert budget.level == "flush"


@given(st.integers(0, 5_000), st.integers(0, 5_000), st.integers(1, 10_000))
def test_used_and_free_tokens_add_up_to_the_window(queue, core, window):
    budget = measure(
        parts(queue, core=core), window_tokens=window, thresholds=THRESHOLDS, counts={}
    )
    assert budget.used_tokens == queue + core
    assert budget.free_tokens == max(window - queue - core, 0)
    assert 0 <= budget.pressure <= 1


def test_the_advice_changes_when_core_memory_alone_fills_the_window():
    full = measure(parts(100, core=600), window_tokens=1_000, thresholds=THRESHOLDS, counts={})
    busy = measure(parts(700), window_tokens=1_000, thresholds=THRESHOLDS, counts={})
    calm = measure(parts(100), window_tokens=1_000, thresholds=THRESHOLDS, counts={})
    assert len({full.advice, busy.advice, calm.advice}) == 3


def test_a_flush_aims_at_what_is_kept_of_the_window():
    assert flush_target(parts(1_000), window_tokens=1_000, thresholds=THRESHOLDS) == 500


def test_a_flush_that_was_asked_for_makes_room_even_below_its_target():
    half_empty = parts(300, core=100)
    asked = flush_target(half_empty, window_tokens=1_000, thresholds=THRESHOLDS, asked=True)
    assert asked == 100 + 150
    assert flush_target(half_empty, window_tokens=1_000, thresholds=THRESHOLDS) == 500


@given(st.integers(0, 2_000), st.integers(0, 2_000), st.integers(1, 2_000))
def test_a_flush_that_was_asked_for_leaves_no_more_than_one_that_was_not(queue, core, window):
    used = parts(queue, core=core)
    asked = flush_target(used, window_tokens=window, thresholds=THRESHOLDS, asked=True)
    assert asked <= flush_target(used, window_tokens=window, thresholds=THRESHOLDS)
    assert asked < used.total or queue <= 1


@given(overflows(), st.integers(0, 3_000))
def test_with_a_limit_calls_stay_with_their_results_wherever_that_fits(overflow, limit):
    queue, used, target = overflow
    split = evict(queue, used_tokens=used, target_tokens=target, limit_tokens=limit)
    assert [*split.evicted, *split.kept] == queue
    if split.evicted and split.kept:
        assert split.kept[0].role != "tool"
    left = used - sum(message.tokens for message in split.evicted)
    again = evict(split.kept, used_tokens=left, target_tokens=target, limit_tokens=limit)
    assert again.evicted == ()
    # Fewer than the last three are kept only where they are results that don't fit.
    if len(split.kept) < min(KEEP_LAST, len(queue)):
        results = queue[len(queue) - KEEP_LAST : len(split.evicted)]
        assert all(message.role == "tool" for message in results)
        plain = evict(queue, used_tokens=used, target_tokens=target)
        assert split == plain


def test_a_call_whose_results_are_among_the_last_three_stays_with_them_if_it_fits():
    queue = [
        message(0),
        message(1, "assistant", 100),
        message(2, "tool"),
        message(3, "tool"),
        message(4, "tool"),
        message(5),
    ]
    kept = evict(queue, used_tokens=150, target_tokens=50, limit_tokens=140).kept
    assert [message.index for message in kept] == [1, 2, 3, 4, 5]
    kept = evict(queue, used_tokens=150, target_tokens=50, limit_tokens=139).kept
    assert [message.index for message in kept] == [5]


def test_a_report_that_is_more_than_was_counted_is_what_is_used():
    held = Parts(instructions=10, tools=20, core=30, working=0, summary=0, queue=340, other=500)
    budget = measure(
        held, window_tokens=1_000, thresholds=THRESHOLDS, counts={}, reported_tokens=900
    )
    assert (budget.used_tokens, budget.parts.counted, budget.source) == (900, 400, "reported")
    assert budget.level == "warning"


@pytest.mark.parametrize("figure", [-1, 10_001])
def test_a_report_that_cannot_be_is_refused(figure):
    check_report(0, 1_000)
    check_report(10_000, 1_000)
    with pytest.raises(InvalidInput) as fault:
        check_report(figure, 1_000)
    assert fault.value.field == "context_tokens"


def test_the_advice_does_not_ask_for_a_flush_that_could_move_nothing():
    full = [
        measure(
            parts(1_000),
            window_tokens=1_000,
            thresholds=THRESHOLDS,
            counts={"queue_messages": count},
        ).advice
        for count in (KEEP_LAST, KEEP_LAST + 1)
    ]
    assert ["conversation_flush" in advice for advice in full] == [False, True]
