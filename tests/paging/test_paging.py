"""Paging through the façade: pressure, alerts, flushes and the recursive summary."""

import itertools

import pytest
from fakes import HashEmbedder, memory_of
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mcp_memory.settings import load_settings
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.errors import InvalidInput, NotFound, OverLimit
from mcp_memory.values.records import ROLES, Kind, NewMessage, StoreChunk, Surface

WINDOW = 2_000
SUMMARY_LIMIT = 200
FILLER_TOKENS = 100


def filler(number, tokens=FILLER_TOKENS):
    """Give a message that counts `tokens` as it stands in context."""
    return NewMessage("user", f"fact{number:04}" + " tea" * (tokens - 6))


def fill(memory, count, conversation="main", start=0):
    """Append messages one by one and return what came of each."""
    return [
        memory.conversations.append([filler(number)], conversation)
        for number in range(start, start + count)
    ]


def fill_to(memory, level, conversation="main"):
    """Append messages until the level is reached, and return what came of the last."""
    for number in range(100):
        appended = memory.conversations.append([filler(number)], conversation)
        if appended.level == level:
            return appended
    raise AssertionError(f"level {level!r} was never reached")


def indexes(memory, conversation="main"):
    return [message.index for message in memory.conversations.recent(conversation)]


def kinds(memory):
    return [event.kind for event in memory.events(100)][::-1]


@pytest.fixture
def small(open_memory):
    return open_memory(context_window=WINDOW, rethink_every=0)


def test_pressure_is_what_is_used_of_the_window(small):
    assert small.conversations.summary_limit == SUMMARY_LIMIT
    empty = small.conversations.budget()
    fill(small, 5)
    budget = small.conversations.budget()
    queue = sum(message.tokens for message in small.conversations.recent())
    assert budget.parts.queue == queue
    assert budget.used_tokens == empty.used_tokens + queue
    assert budget.pressure == pytest.approx(budget.used_tokens / WINDOW, abs=1e-4)
    assert (budget.window_tokens, budget.level) == (WINDOW, "ok")
    assert budget.free_tokens == WINDOW - budget.used_tokens


def test_core_memory_and_the_surface_are_part_of_what_is_used(settings):
    surface = Surface(instructions="Keep what matters.", tools="a tool " * 50)
    changed = settings.model_copy(update={"context_window": 500})
    memory = memory_of(Engine(changed, embedder=HashEmbedder()), surface=surface)
    before = memory.conversations.budget()
    assert before.window_tokens == 500
    assert before.parts.instructions == memory.count_tokens(surface.instructions)
    assert before.parts.tools == memory.count_tokens(surface.tools)
    memory.core.append("human", "Name: Ana, lives in Porto")
    memory.core.append("working", "Plan the trip to Lisbon in May")
    after = memory.conversations.budget()
    assert after.parts.core > before.parts.core
    assert after.parts.working > before.parts.working
    other = memory.conversations.budget("other")
    assert (other.parts.core, other.parts.working) == (after.parts.core, before.parts.working)
    blocks = memory.core.compiled()
    assert abs(after.parts.core + after.parts.working - memory.count_tokens(blocks)) <= 2
    memory.close()


def test_a_warning_comes_once_a_period(small):
    came = []
    for number in range(60):
        appended = small.conversations.append([filler(number)])
        came.append((appended.level, appended.alert is not None))
    # The same period of the curve again and again: ok, one alert, quiet, a flush.
    periods = [list(group) for _, group in itertools.groupby(came, key=lambda c: c[0])]
    warnings = [group for group in periods if group[0][0] == "warning"]
    flushes = [group for group in periods if group[0][0] == "flush"]
    assert len(warnings) >= 3
    assert len(flushes) >= 2
    for group in warnings:
        assert [alert for _, alert in group] == [True] + [False] * (len(group) - 1)
    assert all(alert for group in flushes for _, alert in group)
    assert not any(alert for level, alert in came if level == "ok")
    assert kinds(small)[:3] == ["pressure_warning", "flushed", "pressure_warning"]


def test_a_warning_names_the_messages_that_will_leave_first(small):
    warned = fill_to(small, "warning")
    assert warned.alert is not None
    evicted = fill_to(small, "flush").flush
    assert evicted is not None
    assert "messages 0 to 6 will be evicted next" in warned.alert
    assert small.events(10)[-1].data == {"pressure": warned.budget.pressure, "first": 0, "last": 6}


def test_a_warning_is_not_repeated_after_opening_again(open_memory):
    options = {"context_window": WINDOW, "rethink_every": 0}
    first = open_memory(**options)
    assert fill_to(first, "warning").alert is not None
    first.close()
    second = open_memory(**options)
    appended = second.conversations.append([filler(99, tokens=20)])
    assert (appended.level, appended.alert) == ("warning", None)
    second.conversations.flush()
    assert fill_to(second, "warning").alert is not None


def test_each_conversation_has_a_window_and_a_warning_of_its_own(small):
    fill_to(small, "warning")
    assert fill(small, 1, "work")[0].level == "ok"
    assert fill_to(small, "warning", "work").alert is not None
    assert small.conversations.summary("work") is None


def test_a_full_window_is_flushed_at_once(small):
    appended = fill_to(small, "flush")
    flush = appended.flush
    assert flush is not None
    assert flush.summary is not None
    assert appended.alert is not None
    recent = small.conversations.recent()
    assert (flush.evicted, flush.kept) == (recent[0].index, len(recent))
    assert (flush.summary.first, flush.summary.last) == (0, flush.evicted - 1)
    assert (flush.summary.parent, flush.summary.author) == (None, "extractive")
    assert small.conversations.summary() == flush.summary
    assert appended.budget == small.conversations.budget()
    assert appended.budget.level == "ok"
    assert appended.budget.used_tokens <= WINDOW // 2
    assert small.events(1)[0].data == {
        "evicted": flush.evicted,
        "summary": flush.summary.id,
        "author": "extractive",
    }


def test_no_more_leaves_than_has_to(small):
    appended = fill_to(small, "flush")
    summary_room = SUMMARY_LIMIT + FILLER_TOKENS
    assert appended.budget.used_tokens > WINDOW // 2 - summary_room


def test_what_has_left_stays_in_recall_memory_word_for_word(small):
    fill_to(small, "flush")
    assert 0 not in indexes(small)
    found = small.conversations.search("fact0000")
    assert found.items[0].message.index == 0
    assert found.items[0].message.content == filler(0).content
    assert small.conversations.search().total == small.overview().messages


@pytest.mark.parametrize("size", [700, 1_500, 5_000])
def test_the_last_three_stay_however_large_they_are(small, size):
    fill(small, 3)
    for number in range(3):
        small.conversations.append([filler(10 + number, tokens=size)])
        recent = indexes(small)
        assert recent == list(range(recent[0], 4 + number))
        assert len(recent) >= 3


def test_a_message_larger_than_the_window_ends_in_no_loop_and_is_kept_whole(small):
    fill(small, 4)
    giant = "start " + "tea " * 3 * WINDOW + "the kettle costs 30 euros"
    appended = small.conversations.append([NewMessage("tool", giant, "web_fetch")])
    assert len(indexes(small)) == 3
    found = small.conversations.search("kettle").items
    (hit,) = [hit for hit in found if hit.message.content == giant]
    assert "30 euros" in hit.passage.text
    assert appended.budget.pressure == 1.0
    after = fill(small, 3)
    assert len(indexes(small)) == 3
    assert after[-1].budget.pressure < 1


def test_a_message_larger_than_the_window_is_clipped_in_the_queue(small):
    small.conversations.append([filler(0, tokens=3 * WINDOW)])
    assert small.conversations.budget().parts.queue <= WINDOW


def test_a_flush_that_evicts_nothing_is_not_reported_as_one(small):
    small.conversations.append([filler(0, tokens=3 * WINDOW)])
    appended = small.conversations.append([filler(1)])
    assert appended.flush is None or appended.flush.evicted > 0
    assert kinds(small).count("flushed") == 0


def test_a_tool_result_leaves_with_its_call(small):
    for number in range(12):
        small.conversations.append(
            [
                NewMessage("assistant", f"call {number}" + " tea" * 40),
                NewMessage("tool", "a" + " tea" * 60, "web_search"),
                NewMessage("tool", "b" + " tea" * 60, "web_search"),
            ]
        )
        assert small.conversations.recent()[0].role != "tool"
    assert small.conversations.summary() is not None


def test_a_call_stays_with_results_that_are_among_the_last_three(small):
    fill(small, 12)
    call = [NewMessage("assistant", "call" + " tea" * 100)]
    results = [NewMessage("tool", f"result {n}" + " tea" * 150, "web_search") for n in range(5)]
    assert small.conversations.append(call + results).flush is not None
    recent = small.conversations.recent()
    assert [message.role for message in recent] == ["assistant"] + ["tool"] * 5
    assert WINDOW // 2 < small.conversations.budget().used_tokens < WINDOW
    # Too many to stay with it: they leave with their call rather than overflow.
    small.conversations.append(call + results * 3)
    assert small.conversations.budget().used_tokens < WINDOW


def test_summaries_are_recursive_and_cover_everything_that_left(small):
    written = []
    for number in range(60):
        appended = small.conversations.append([filler(number)])
        if appended.flush is not None:
            written.append(appended.flush.summary)
    assert len(written) >= 3
    assert written[0].parent is None
    for before, after in itertools.pairwise(written):
        assert (after.parent, after.first) == (before.id, before.last + 1)
        assert after.last >= after.first
    assert small.conversations.recent()[0].index == written[-1].last + 1
    assert all(summary.tokens <= SUMMARY_LIMIT for summary in written)
    assert all(summary.tokens == small.count_tokens(summary.content) for summary in written)


def test_what_is_telling_survives_several_summaries(small):
    small.conversations.append([NewMessage("user", "I am allergic to peanuts, remember that.")])
    for number in range(60):
        small.conversations.append([filler(number)])
    summary = small.conversations.summary()
    assert summary is not None
    assert summary.parent is not None
    assert "allergic to peanuts" in summary.content


def test_a_flush_of_an_empty_conversation_does_nothing(small):
    for summary in (None, "Nothing was said."):
        flush = small.conversations.flush(summary=summary)
        assert (flush.evicted, flush.kept, flush.summary) == (0, 0, None)
    assert small.conversations.overflow().evicted == ()
    assert small.events() == ()


def test_a_flush_of_three_messages_does_nothing(small):
    fill(small, 3)
    flush = small.conversations.flush()
    assert (flush.evicted, flush.kept, flush.summary) == (0, 3, None)


def test_a_flush_that_is_asked_for_makes_room_though_there_is_some(small):
    fill(small, 8)
    flush = small.conversations.flush()
    assert (flush.evicted, flush.kept) == (4, 4)
    assert small.conversations.budget().parts.queue == 4 * FILLER_TOKENS


def test_repeated_flushes_come_to_an_end(small):
    fill(small, 12)
    for _ in range(20):
        if small.conversations.flush().evicted == 0:
            break
    assert len(indexes(small)) == 3


def test_a_client_writes_the_summary_of_exactly_what_it_was_shown(small):
    fill(small, 12)
    shown = small.conversations.overflow()
    assert shown.evicted
    assert shown.parent is None
    assert shown.evicted_tokens == sum(message.tokens for message in shown.evicted)
    fill(small, 2, start=12)
    flush = small.conversations.flush(summary="Ana talked about tea.")
    assert flush.evicted == len(shown.evicted)
    assert flush.summary is not None
    assert (flush.summary.content, flush.summary.author) == ("Ana talked about tea.", "client")
    assert (flush.summary.first, flush.summary.last) == (0, shown.evicted[-1].index)
    assert indexes(small) == list(range(flush.evicted, 14))
    following = small.conversations.overflow()
    assert following.parent == flush.summary
    assert following.evicted[0].index == flush.evicted


def test_showing_the_overflow_changes_nothing(small):
    fill(small, 12)
    before = small.conversations.recent(), small.conversations.budget()
    assert small.conversations.overflow() == small.conversations.overflow()
    assert (small.conversations.recent(), small.conversations.budget()) == before


def test_a_client_that_was_shown_nothing_evicts_what_the_server_would(small):
    fill(small, 12)
    flush = small.conversations.flush(summary="Ana talked about tea.")
    assert flush.evicted > 0
    assert flush.summary is not None
    assert flush.summary.author == "client"


@pytest.mark.parametrize("shown", [True, False])
def test_a_summary_that_is_too_long_is_refused_with_nothing_changed(small, shown):
    fill(small, 12)
    if shown:
        small.conversations.overflow()
    before = small.conversations.recent(), small.conversations.budget(), small.events()
    text = "tea" + " tea" * (SUMMARY_LIMIT + 4)
    with pytest.raises(OverLimit) as fault:
        small.conversations.flush(summary=text)
    assert (fault.value.used, fault.value.limit) == (SUMMARY_LIMIT + 5, SUMMARY_LIMIT)
    assert fault.value.field == "summary"
    after = small.conversations.recent(), small.conversations.budget(), small.events()
    assert after == before
    assert small.conversations.summary() is None
    fits = "tea" + " tea" * (SUMMARY_LIMIT - 1)
    assert small.conversations.flush(summary=fits).evicted > 0


@pytest.mark.parametrize("summary", ["", " \n", "a\x00b", "\ud800"])
def test_a_summary_that_cannot_be_kept_is_refused_with_nothing_changed(small, summary):
    fill(small, 12)
    with pytest.raises(InvalidInput) as fault:
        small.conversations.flush(summary=summary)
    assert fault.value.field == "summary"
    assert len(indexes(small)) == 12


def test_a_summary_that_comes_after_an_automatic_flush_evicts_nothing_unseen(small):
    fill_to(small, "warning")
    shown = small.conversations.overflow().evicted
    fill_to(small, "flush")
    window = indexes(small)
    assert window[0] > shown[-1].index
    small.conversations.flush(summary="Ana talked about tea.")
    assert indexes(small) == window


def test_a_summary_that_comes_late_replaces_the_one_the_server_wrote_of_the_same(settings):
    changed = settings.model_copy(update={"context_window": WINDOW})
    engine = Engine(changed, embedder=HashEmbedder())
    slow, quick = memory_of(engine, "ana"), memory_of(engine, "ana")
    fill(slow, 12)
    shown = slow.conversations.overflow().evicted
    written = quick.conversations.flush().summary
    assert written is not None
    window = indexes(slow)
    late = slow.conversations.flush(summary="Ana talked about tea.")
    assert (late.evicted, late.kept) == (0, len(window))
    for memory in (slow, quick):
        assert indexes(memory) == window
        summary = memory.conversations.summary()
        assert summary is not None
        assert summary.content == "Ana talked about tea."
        assert (summary.first, summary.last, summary.parent) == (0, shown[-1].index, None)
    engine.close()


def test_a_summary_that_comes_late_does_not_stand_for_what_it_was_not_shown(settings):
    changed = settings.model_copy(update={"context_window": WINDOW})
    engine = Engine(changed, embedder=HashEmbedder())
    slow, quick = memory_of(engine, "ana"), memory_of(engine, "ana")
    fill(slow, 12)
    shown = slow.conversations.overflow().evicted
    secret = NewMessage("user", "My allergy is peanuts, ERR_NUT_4031.")
    quick.conversations.append([secret])
    fill(quick, 12, start=20)
    while indexes(quick)[0] <= 12:
        quick.conversations.flush()
    assert shown[-1].index < 12
    slow.conversations.flush(summary="Ana talked about tea.")
    summary = slow.conversations.summary()
    assert summary is not None
    assert "ERR_NUT_4031" in summary.content or summary.last < 12
    engine.close()


def test_ranges_are_stored_verbatim_under_their_context(small):
    said = [
        NewMessage("user", "Which kettle?", "Ana"),
        NewMessage("assistant", "The red <one>,\nfor 30 euros."),
        NewMessage("tool", "stock: 3", "shop"),
        NewMessage("user", "Buy it."),
    ]
    small.conversations.append(said)
    (kept,) = small.conversations.store([StoreChunk(0, 2, " Ana chose a kettle. ")])
    assert kept.created
    assert kept.memory.content == (
        "Ana chose a kettle.\n\n"
        "user (Ana): Which kettle?\n"
        "assistant: The red <one>,\n| for 30 euros.\n"
        "tool (shop): stock: 3"
    )
    assert kept.memory.kind is Kind.EPISODE
    assert kept.memory.happened_at == small.conversations.recent()[0].created_at
    assert small.archive.search("kettle").items[0].memory == kept.memory


def test_storing_the_same_ranges_again_keeps_them_once(small):
    fill(small, 6)
    chunks = [StoreChunk(0, 1, "First."), StoreChunk(2, 5, "Rest.", Kind.PROJECT)]
    first = small.conversations.store(chunks)
    again = small.conversations.store([*chunks, chunks[0]])
    assert [kept.created for kept in first] == [True, True]
    assert [kept.created for kept in again] == [False, False, False]
    assert [kept.memory.id for kept in again] == [
        first[0].memory.id,
        first[1].memory.id,
        first[0].memory.id,
    ]
    assert [kept.memory.kind for kept in first] == [Kind.EPISODE, Kind.PROJECT]
    assert small.archive.count() == 2
    twice = small.conversations.store([StoreChunk(0, 0, "One."), StoreChunk(0, 0, "One.")])
    assert [kept.created for kept in twice] == [True, False]


def test_what_has_left_the_window_can_still_be_stored(small):
    fill_to(small, "flush")
    assert 0 not in indexes(small)
    (kept,) = small.conversations.store([StoreChunk(0, 0, "The first.")])
    assert "fact0000" in kept.memory.content


@pytest.mark.parametrize(("first", "last"), [(0, 3), (-1, 0), (2, 1), (3, 3), (7, 9)])
def test_a_range_that_is_not_there_is_refused_and_nothing_kept(small, first, last):
    fill(small, 3)
    with pytest.raises(NotFound) as fault:
        small.conversations.store([StoreChunk(0, 0, "Good."), StoreChunk(first, last, "Bad.")])
    assert fault.value.key == "main"
    assert small.archive.count() == 0


def test_a_range_of_another_conversation_is_not_there(small):
    fill(small, 3, "work")
    with pytest.raises(NotFound):
        small.conversations.store([StoreChunk(0, 0, "Context.")])
    assert small.conversations.store([StoreChunk(0, 0, "Context.")], "work")[0].created


@pytest.mark.parametrize("context", ["", " ", "a\x00"])
def test_a_range_needs_its_context(small, context):
    fill(small, 3)
    with pytest.raises(InvalidInput) as fault:
        small.conversations.store([StoreChunk(0, 0, "Good."), StoreChunk(1, 1, context)])
    assert fault.value.field == "chunks[1].context"
    assert small.archive.count() == 0


@pytest.mark.parametrize("count", [0, 101])
def test_no_ranges_and_too_many_are_refused(small, count):
    fill(small, 1)
    with pytest.raises(InvalidInput) as fault:
        small.conversations.store([StoreChunk(0, 0, "Context.")] * count)
    assert fault.value.field == "chunks"


def test_after_so_many_turns_of_the_user_a_reminder_comes(open_memory):
    memory = open_memory(rethink_every=3)

    def turn():
        memory.conversations.append([NewMessage("user", "hi"), NewMessage("assistant", "hello")])
        return kinds(memory).count("rethink_reminder")

    assert [turn() for _ in range(7)] == [0, 0, 1, 1, 1, 2, 2]
    memory.core.finish_rethinking()
    assert [turn() for _ in range(3)] == [2, 2, 3]


def test_turns_are_counted_on_after_opening_again(open_memory):
    for count in (0, 0, 1):
        memory = open_memory(rethink_every=3)
        memory.conversations.append([NewMessage("user", "hi")])
        assert kinds(memory).count("rethink_reminder") == count
        memory.close()


def test_listeners_are_told_of_messages_summaries_and_events(small):
    told: list[frozenset[str]] = []
    small.listen(told.append)
    fill(small, 1, "work")
    assert told[0] == frozenset({"messages/work"})
    told.clear()
    fill_to(small, "warning", "work")
    assert frozenset().union(*told) >= {"messages/work", "events"}
    told.clear()
    small.conversations.flush("work")
    assert frozenset().union(*told) == {"summary/work", "events"}


def test_agents_have_windows_of_their_own(settings):
    changed = settings.model_copy(update={"context_window": WINDOW})
    engine = Engine(changed, embedder=HashEmbedder())
    ana, ben = memory_of(engine, "ana"), memory_of(engine, "ben")
    fill_to(ana, "flush")
    assert ben.conversations.budget().parts.queue == 0
    assert ben.conversations.summary() is None
    assert ben.events() == ()
    with pytest.raises(NotFound):
        ben.conversations.store([StoreChunk(0, 0, "Context.")])
    engine.close()


@pytest.fixture(scope="module")
def engine(tmp_path_factory, cache_dir):
    settings = load_settings(
        db=tmp_path_factory.mktemp("paging") / "memory.duckdb",
        cache_dir=cache_dir,
        offline=True,
        embedding_model="fake/hash",
        context_window=1_000,
        rethink_every=0,
    )
    engine = Engine(settings, embedder=HashEmbedder())
    yield engine
    engine.close()


numbers = itertools.count()
turns = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.sampled_from(ROLES), st.integers(1, 600)),
        st.tuples(st.sampled_from(["flush", "show", "summarize"])),
    ),
    max_size=15,
)


@hypothesis_settings(deadline=None, max_examples=30)
@given(turns)
def test_whatever_happens_the_window_and_its_summary_are_the_whole_conversation(engine, steps):
    memory = memory_of(engine, "default")
    conversation = f"conversation {next(numbers)}"
    said = 0
    for step in steps:
        if step[0] == "say":
            _, role, size = step
            memory.conversations.append(
                [NewMessage(role, f"number {said}" + " tea" * size)], conversation
            )
            said += 1
        elif step[0] == "show":
            memory.conversations.overflow(conversation)
        else:
            memory.conversations.flush(
                conversation, "What was said." if step[0] == "summarize" else None
            )
        recent = indexes(memory, conversation)
        summary = memory.conversations.summary(conversation)
        left = 0 if summary is None else summary.last + 1
        assert recent == list(range(left, said))
        assert summary is None or summary.tokens <= memory.conversations.summary_limit
        budget = memory.conversations.budget(conversation)
        assert budget.level != "flush" or len(recent) <= 3
