"""What a window counts: the text that it really shows, and what a client reports."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from fakes import HashEmbedder, memory_of
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from stores import database_of

from mcp_memory.agent import Memories
from mcp_memory.models.tokenizer import Tokenizer
from mcp_memory.store.duckdb.database import Database
from mcp_memory.tiers.engine import Engine
from mcp_memory.tiers.queues import clip_message
from mcp_memory.values.errors import InvalidInput, OverLimit
from mcp_memory.values.records import Message, NewMessage, Surface
from mcp_memory.values.render import counted_message

NOW = datetime(2026, 11, 21, tzinfo=UTC)
SURFACE = Surface("Keep what matters.\n", '[{"name":"a tool"}]' * 20)
GIANT = "start 咖啡 " + "tea and kettles, " * 3_000 + "the kettle costs 30 euros"


def say(memory, *texts, role="user", conversation="main", **more):
    return memory.conversations.append(
        [NewMessage(role, text) for text in texts], conversation, **more
    )


def counted(memory, conversation="main"):
    """Count the rendered parts of a window, one by one."""
    window, count = memory.conversations.window(conversation), memory.count_tokens
    return {
        "instructions": count(window.instructions),
        "tools": count(window.tools),
        "core": count(window.core),
        "working": count(window.working),
        "summary": count(window.summary),
        "queue": sum(map(count, window.messages)),
    }


def check_counts(memory, conversation="main"):
    budget = memory.conversations.budget(conversation)
    shown = counted(memory, conversation)
    assert {name: getattr(budget.parts, name) for name in shown} == shown
    assert budget.parts.counted == sum(shown.values())
    assert budget.used_tokens == budget.parts.counted + budget.parts.other


@pytest.fixture
def memories(settings) -> Iterator[Memories]:
    changed = settings.model_copy(update={"rethink_every": 0})
    memories = Memories(Engine(changed, embedder=HashEmbedder()))
    yield memories
    memories.close()


@contextmanager
def connected(memories, **changes):
    """Give a connection with settings of its own."""
    settings = memories.engine.settings.model_copy(update=changes)
    memory = memories.open("ana", settings, SURFACE)
    yield memory
    memory.close()


def test_what_is_used_is_the_sum_of_the_rendered_parts(memories):
    with connected(memories, context_window=3_000) as memory:
        memory.core.append("human", "Name: Ana <of Porto>")
        memory.core.append("working", "Plan the trip")
        for number in range(40):
            content = f"\nnumber {number}: 咖啡 \U0001f375 " + "kettles & tea " * number + "\n\n"
            memory.conversations.append([NewMessage("user", content, "Ana")])
            check_counts(memory)
        assert memory.conversations.summary() is not None
        say(memory, GIANT)
        check_counts(memory)
        check_counts(memory, "other")


@pytest.mark.parametrize("window", [1_000, 4_000, 32_000])
def test_a_message_larger_than_the_window_is_shown_by_its_beginning_and_found_by_its_end(
    memories, window
):
    with connected(memories, context_window=window) as memory:
        say(memory, "before")
        say(memory, GIANT * 5, role="tool")
        giant = memory.conversations.recent()[-1]
        assert giant.content.startswith("start 咖啡 tea")
        assert f"id {giant.id}" in giant.content
        assert window * 0.9 < giant.tokens <= window
        check_counts(memory)
        hit = memory.conversations.search("kettle costs euros").items[0]
        assert hit.message.content == GIANT * 5
        assert "30 euros" in hit.passage.text


@pytest.fixture(scope="module")
def tokenizer(cache_dir):
    return Tokenizer(cache_dir=cache_dir)


@hypothesis_settings(deadline=None, max_examples=40)
@given(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=60),
    st.integers(1, 300),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=40),
    st.integers(400, 3_000),
)
@example("咖啡", 1_000, "", 400)
def test_a_clipped_message_counts_what_is_shown_of_it(tokenizer, text, times, name, window):
    plain = Message("0123456789", "main", 7, "user", text * times, 0, NOW, NOW, name or None)
    tokens = tokenizer.count(counted_message(plain))
    whole = Message("0123456789", "main", 7, "user", text * times, tokens, NOW, NOW, name or None)
    shown = clip_message(whole, window, tokenizer)
    assert shown.tokens == tokenizer.count(counted_message(shown)) <= window
    assert (shown == whole) is (tokens <= window)
    assert shown == clip_message(shown, window, tokenizer)


def test_a_message_counts_for_each_window_as_that_one_shows_it(memories):
    with (
        connected(memories, context_window=4_000) as small,
        connected(memories, context_window=32_000) as large,
    ):
        say(small, GIANT)
        whole = large.conversations.recent()[0]
        clipped = small.conversations.recent()[0]
        assert whole.content == GIANT
        assert whole.tokens == large.count_tokens(counted_message(whole)) > 4_000
        assert clipped.tokens <= 4_000
        for memory in (small, large):
            check_counts(memory)


def test_the_queue_of_a_conversation_fits_the_smallest_window_that_uses_it(memories):
    line = "tea and kettles " * 30
    with connected(memories, context_window=32_000) as large:
        for _ in range(60):
            assert say(large, line).flush is None
        with connected(memories, context_window=4_000) as small:
            assert small.conversations.budget().level == "flush"
            for number in range(40):
                writer = (large, small)[number % 2]
                say(writer, line)
                for memory in (small, large):
                    budget = memory.conversations.budget()
                    assert budget.used_tokens <= memory.settings.context_window
                    check_counts(memory)
        # With the small window gone, the large one has its room again.
        assert all(say(large, line).flush is None for _ in range(60))


def test_a_large_window_is_told_of_a_flush_for_the_sake_of_a_small_one(memories):
    with (
        connected(memories, context_window=32_000) as large,
        connected(memories, context_window=4_000) as small,
    ):
        say(small, "hello")
        done = say(large, *["tea and kettles " * 30] * 60)
        assert (done.level, done.flush is not None) == ("flush", True)
        assert done.alert is not None
        assert done.budget.window_tokens == 32_000


@pytest.mark.parametrize("count", [1, 3])
def test_newest_messages_that_fill_the_window_alone_end_in_no_loop(memories, count):
    with connected(memories, context_window=2_000) as memory:
        say(memory, *["hello"] * 5)
        done = [say(memory, GIANT) for _ in range(count)]
        assert all(one.level == "flush" for one in done)
        recent = memory.conversations.recent()
        assert [message.index for message in recent][-3:] == list(range(2 + count, 5 + count))
        check_counts(memory)
        again = say(memory, "next")
        assert again.flush is None or again.flush.evicted >= 1
        for _ in range(3):
            again = say(memory, "small talk")
        assert again.budget.used_tokens <= 2_000


def test_core_memory_that_exceeds_the_window_by_itself_ends_in_no_loop(memories):
    with connected(memories, context_window=1_000) as memory:
        memory.core.define("human", "tea " * 1_500)
        for number in range(12):
            done = say(memory, f"message {number}")
            assert done.level == "flush"
            assert len(memory.conversations.recent()) <= 3
            check_counts(memory)
        assert "Core memory" in memory.conversations.budget().advice
        ranges = [(s.first, s.last) for s in memory.conversations.summaries()]
        assert [first for first, _ in ranges] == [0, *(last + 1 for _, last in ranges[:-1])]
        found = memory.conversations.search("message", limit=50)
        assert found.total == 12
        memory.core.define("human", "short")
        assert say(memory, "more").level == "ok"


def test_a_reported_figure_is_used_where_it_is_more(memories):
    with connected(memories, context_window=10_000) as memory:
        first = say(memory, "hello " * 100, context_tokens=5_000).budget
        assert (first.used_tokens, first.reported_tokens) == (5_000, 5_000)
        assert first.source == "reported"
        assert first.parts.other == 5_000 - first.parts.counted
        check_counts(memory)
        # What comes after a report is counted on top of it.
        second = say(memory, "hello " * 100).budget
        message = memory.conversations.recent()[-1]
        assert second.used_tokens == 5_000 + message.tokens
        less = memory.conversations.budget(context_tokens=10)
        assert (less.used_tokens, less.reported_tokens) == (less.parts.counted, 10)
        assert (less.source, less.parts.other) == ("counted", 0)
        check_counts(memory)


def test_a_report_is_of_one_conversation_of_one_connection(memories):
    with connected(memories) as one, connected(memories) as other:
        one.conversations.budget(context_tokens=50_000)
        assert one.conversations.budget().used_tokens == 50_000
        assert one.conversations.budget("side").reported_tokens is None
        assert other.conversations.budget().reported_tokens is None


def test_after_a_flush_a_reported_figure_falls_by_what_left_less_what_the_summary_grew(memories):
    with connected(memories, context_window=10_000) as memory:
        say(memory, *["I fly TP-532 on Friday. " * 10] * 20)
        before = memory.conversations.budget(context_tokens=9_000)
        evicted = memory.conversations.overflow().evicted_tokens
        memory.conversations.flush()
        after = memory.conversations.budget()
        grown = after.parts.summary - before.parts.summary
        assert grown > 0
        assert after.reported_tokens == after.used_tokens == 9_000 - evicted + grown


def test_a_reported_figure_warns_and_flushes(memories):
    with connected(memories, context_window=10_000) as memory:
        say(memory, *["tea and kettles"] * 20)
        warned = say(memory, "hello", context_tokens=8_000)
        assert (warned.level, warned.flush) == ("warning", None)
        assert warned.alert is not None
        flushed = say(memory, "hello", context_tokens=10_500)
        assert flushed.flush is not None
        assert len(memory.conversations.recent()) == 3  # The rest is not the server's to evict.


@pytest.mark.parametrize("figure", [-1, 100_001])
def test_a_figure_that_cannot_be_is_refused_with_nothing_recorded(memories, figure):
    with connected(memories, context_window=10_000) as memory:
        for call in (
            lambda: say(memory, "hello", context_tokens=figure),
            lambda: memory.conversations.budget(context_tokens=figure),
        ):
            with pytest.raises(InvalidInput) as fault:
                call()
            assert fault.value.field == "context_tokens"
        assert memory.overview().messages == 0
        assert memory.conversations.budget().reported_tokens is None


def test_counts_cost_the_same_however_long_the_conversation_is(memories, monkeypatch):
    """For an append, a budget, a warning and a flush the database is not read at all."""
    asked: list[str] = []
    read = Database.read

    def counting(self: Database, sql: str, *values: object) -> object:
        asked.append(sql)
        return read(self, sql, *values)

    monkeypatch.setattr(Database, "read", counting)
    with connected(memories, context_window=2_000) as memory:
        with database_of(memories.engine.store).transaction() as tx:
            tx.run(
                "INSERT INTO messages (agent, conversation, position, id, role, content, tokens,"
                " searchable, created_at, recorded_at, seq)"
                " SELECT 'ana', 'long', n, printf('%010d', n), 'user',"
                " 'said ' || n, 6, false, now(), now(), 1 FROM range(100000) AS r(n)"
            )
            tx.run(
                "INSERT INTO summaries (agent, conversation, id, first_position, last_position,"
                " content, tokens, author, created_at, seq) VALUES"
                " ('ana', 'long', '000000000s', 0, 99995, 'Talk.', 2, 'client', now(), 1)"
            )
        costs = []
        for conversation in ("short", "long"):
            flushes = 0
            while not flushes:  # The first one reads what was said before.
                flushes += say(memory, "kettle " * 50, conversation=conversation).flush is not None
            asked.clear()
            for _ in range(60):
                flushes += say(memory, "kettle " * 50, conversation=conversation).flush is not None
                memory.conversations.budget(conversation)
            assert flushes > 1
            costs.append(list(asked))
        assert memory.conversations.budget("long").counts["conversation_messages"] > 100_060
    assert costs == [[], []]


def test_a_summary_can_be_rewritten_only_while_it_is_the_newest(memories):
    with connected(memories, context_window=4_000) as memory:
        say(memory, *["I fly TP-532 on Friday."] * 10)
        first = memory.conversations.flush().summary
        assert first is not None
        better = memory.conversations.rewrite_summary(
            "main", "Flight TP-532.", "endpoint", first.id
        )
        assert better is not None
        assert (better.first, better.last, better.parent) == (first.first, first.last, None)
        assert (better.version, better.author, better.tokens) == (2, "endpoint", 5)
        late = memory.conversations.rewrite_summary("main", "Too late.", "sampling", first.id)
        assert late is None
        assert memory.conversations.summary() == better
        check_counts(memory)
        say(memory, *["Then the train."] * 10)
        second = memory.conversations.flush().summary
        assert second is not None
        assert (second.parent, second.first, second.version) == (better.id, better.last + 1, 1)
        with pytest.raises(OverLimit):
            memory.conversations.rewrite_summary("main", "tea " * 500, "endpoint", second.id)
        assert memory.conversations.summaries() == (first, better, second)


def test_versions_and_chain_are_the_same_after_opening_again(open_memory):
    options = {"context_window": 1_000, "rethink_every": 0}
    memory = open_memory(**options)
    for _ in range(3):
        say(memory, *["I fly TP-532 on Friday."] * 8)
        flush = memory.conversations.flush()
        assert flush.summary is not None
        memory.conversations.rewrite_summary("main", "A flight.", "endpoint", flush.summary.id)
    every, newest = memory.conversations.summaries(), memory.conversations.summary()
    memory.close()
    again = open_memory(**options)
    assert (again.conversations.summaries(), again.conversations.summary()) == (every, newest)
    assert [summary.version for summary in every] == [1, 2] * 3
    for before, after in itertools.pairwise(every[1::2]):
        assert after.parent == before.id


def test_a_flush_is_told_after_its_commit_and_survives_whoever_takes_it_up(memories):
    told = []

    def on_flushed(agent, conversation, summary, limit):
        told.append((agent, conversation, summary, limit))
        raise RuntimeError("not taken up")

    memories.engine.on_flushed = on_flushed
    with connected(memories, context_window=4_000) as memory:
        say(memory, *["tea and kettles"] * 10)
        flush = memory.conversations.flush()
        assert told == [("ana", "main", flush.summary, 400)]
        assert memory.conversations.summary() == flush.summary


def test_a_summarizer_that_fails_or_writes_too_much_stops_no_flush(memories):
    class Broken:
        def summarize(self, parent, evicted, *, max_tokens):
            if parent is None:
                return "tea " * 10_000
            raise RuntimeError("broken")

    memories.engine.summarizer = Broken()
    with connected(memories, context_window=4_000) as memory:
        for _ in range(2):
            say(memory, *["tea and kettles"] * 10)
            flush = memory.conversations.flush()
            assert flush.evicted
            assert flush.summary is not None
            assert 0 < flush.summary.tokens <= memory.conversations.summary_limit


def test_a_summary_of_before_several_flushes_does_not_lose_what_left_since(settings):
    changed = settings.model_copy(update={"context_window": 2_000, "rethink_every": 0})
    engine = Engine(changed, embedder=HashEmbedder())
    slow, quick = memory_of(engine, "ana"), memory_of(engine, "ana")
    say(slow, *["tea and kettles"] * 10)
    assert slow.conversations.overflow().evicted
    say(quick, "My allergy is peanuts, ERR_NUT_4031.")
    for number in range(4):
        say(quick, *[f"round {number} of tea"] * 12)
        quick.conversations.flush()
    given = []
    summarizer = engine.summarizer

    class Recording:
        def summarize(self, parent, evicted, *, max_tokens):
            given.append((parent is not None, len(evicted)))
            return summarizer.summarize(parent, evicted, max_tokens=max_tokens)

    engine.summarizer = Recording()
    slow.conversations.flush(summary="Ana talked about tea.")
    # All that has left since may be any number of messages: their summary stands for them.
    assert given == [(True, 0)]
    summary = slow.conversations.summary()
    assert summary is not None
    assert summary.content.startswith("Ana talked about tea.\n")
    assert "ERR_NUT_4031" in summary.content
    engine.close()
