"""Recall memory through the façade: everything said, in order, found and listed."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from fakes import HashEmbedder, memory_of

from mcp_memory.settings import load_settings
from mcp_memory.tiers.engine import Engine
from mcp_memory.tiers.recall import MAX_BATCH
from mcp_memory.values.errors import InvalidInput, OverLimit
from mcp_memory.values.records import NewMessage

NEW_YEAR = datetime(2026, 1, 1, 12, tzinfo=UTC)


def say(memory, *texts, role="user", name=None, conversation="main", at=None):
    return memory.conversations.append(
        [NewMessage(role, text, name, at) for text in texts], conversation
    ).ids


def contents(page):
    return [hit.message.content for hit in page.items]


def places(page):
    return [(hit.message.conversation, hit.message.index) for hit in page.items]


def test_messages_are_numbered_in_the_order_they_came_in(memory):
    first = say(memory, "one", "two")
    second = say(memory, "three")
    recent = memory.conversations.recent()
    assert [(m.index, m.content) for m in recent] == [(0, "one"), (1, "two"), (2, "three")]
    assert tuple(m.id for m in recent) == first + second
    assert len({m.id for m in recent}) == 3


def test_each_conversation_counts_from_zero(memory):
    say(memory, "one", "two")
    say(memory, "other", conversation="work / plans")
    assert [m.index for m in memory.conversations.recent("work / plans")] == [0]
    assert memory.conversations.names() == ["work / plans", "main"]
    say(memory, "three")
    assert memory.conversations.names() == ["main", "work / plans"]
    assert memory.conversations.recent("never") == ()


def test_a_message_is_kept_as_it_was_said(memory):
    text = "  spaces, \ttabs,\n\nlines, 咖啡, \U0001f375 and <b>marks</b>\n"
    moment = datetime(2025, 12, 24, 18, 30, tzinfo=UTC)
    memory.conversations.append([NewMessage("assistant", text, "helper", moment)])
    (message,) = memory.conversations.recent()
    assert (message.content, message.name, message.role) == (text, "helper", "assistant")
    assert message.created_at == moment
    assert message.recorded_at > moment


def test_the_tokens_of_a_message_are_those_of_how_it_stands_in_context(memory):
    say(memory, "Hello there", name="Ana")
    (message,) = memory.conversations.recent()
    assert message.tokens == memory.count_tokens("user (Ana): Hello there\n")


def test_the_newest_messages_are_given_oldest_first(memory):
    say(memory, *"abcdefghij")
    assert [m.content for m in memory.conversations.recent(count=2)] == ["i", "j"]
    everything = memory.conversations.recent(count=99)
    assert [(m.index, m.content) for m in everything] == list(enumerate("abcdefghij"))


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (NewMessage("user", ""), "messages[1].content"),
        (NewMessage("user", " \n"), "messages[1].content"),
        (NewMessage("user", "a\x00b"), "messages[1].content"),
        (NewMessage("user", "\ud83c"), "messages[1].content"),
        (NewMessage("user", "text", "two\nlines"), "messages[1].name"),
        (NewMessage("robot", "text"), "messages[1]"),  # type: ignore[arg-type]  # that is the test
    ],
)
def test_of_messages_with_a_bad_one_none_is_recorded(memory, bad, field):
    with pytest.raises(InvalidInput) as fault:
        memory.conversations.append([NewMessage("user", "good"), bad, NewMessage("user", "good")])
    assert fault.value.field == field
    assert memory.conversations.recent() == ()
    assert memory.overview().messages == 0


@pytest.mark.parametrize("count", [0, MAX_BATCH + 1])
def test_no_messages_and_too_many_are_refused(memory, count):
    with pytest.raises(InvalidInput) as fault:
        memory.conversations.append([NewMessage("user", "x")] * count)
    assert fault.value.field == "messages"


def test_a_message_is_found_by_its_words_at_once(memory):
    say(memory, "My flight TP-532 leaves on Friday.", "Thanks.", role="user")
    page = memory.conversations.search("flight on friday")
    assert contents(page)[0] == "My flight TP-532 leaves on Friday."
    assert page.search == "hybrid"
    hit = page.items[0]
    assert hit.passage.text == hit.message.content
    assert 0 < hit.score <= 1
    say(memory, "The flight was moved to Sunday.")
    assert "Sunday" in contents(memory.conversations.search("flight sunday"))[0]


@pytest.mark.parametrize("query", ["咖啡", "猫", "コーヒー", "ERR_CONN_4031", "main.py:42"])
def test_what_has_no_spaces_is_found_too(open_memory, query):
    memory = open_memory(has_model=False)
    say(memory, f"我昨天在上海喝{query}了" if not query.isascii() else f"See {query}, please.")
    say(memory, "Something else.")
    assert len(contents(memory.conversations.search(query))) == 1


@pytest.mark.parametrize("has_model", [True, False])
def test_the_speaker_is_found_by_name(open_memory, has_model):
    memory = open_memory(has_model=has_model)
    say(memory, "I moved to Porto.", name="Marta")
    say(memory, "I moved to Lyon.", name="Paul")
    assert contents(memory.conversations.search("marta"))[0] == "I moved to Porto."


def test_search_by_words_alone_says_so_and_finds_only_words(open_memory):
    memory = open_memory(has_model=False)
    say(memory, "green tea", "black coffee")
    page = memory.conversations.search("tea")
    assert (contents(page), page.total, page.search) == (["green tea"], 1, "lexical")


def test_without_a_model_search_goes_by_words_with_a_note(settings):
    memory = memory_of(Engine(settings), "default")
    say(memory, "green tea", "black coffee")
    page = memory.conversations.search("tea")
    assert (contents(page), page.search) == (["green tea"], "lexical")
    assert page.note
    assert memory.embedding_state().pending == 2
    memory.close()


def test_vectors_that_were_pending_are_found_once_the_model_is_there(settings):
    engine = Engine(settings)
    memory = memory_of(engine, "default")
    say(memory, "green tea", "black coffee", name="Ana")
    assert memory.conversations.search("tea").total == 1
    engine.use(HashEmbedder())
    assert engine.fill_pending() == 2
    assert memory.conversations.search("tea").total == 2
    assert memory.embedding_state().pending == 0
    memory.close()


@pytest.fixture(scope="module")
def diary(tmp_path_factory, cache_dir):
    """Give messages of four days, roles and two conversations; to be read alone."""
    settings = load_settings(
        db=tmp_path_factory.mktemp("recall") / "memory.duckdb",
        cache_dir=cache_dir,
        offline=True,
        embedding_model="fake/hash",
    )
    memory = memory_of(Engine(settings, embedder=HashEmbedder()), "default")
    for day, (role, text, conversation) in enumerate(
        [
            ("user", "tea on the first", "main"),
            ("assistant", "tea on the second", "main"),
            ("tool", "tea on the third", "work"),
            ("user", "tea on the fourth", "work"),
        ]
    ):
        say(memory, text, role=role, conversation=conversation, at=NEW_YEAR + timedelta(days=day))
    yield memory
    memory.close()


FILTERS = [
    ({}, {0, 1, 2, 3}),
    ({"roles": ["user"]}, {0, 3}),
    ({"roles": ["user", "tool"]}, {0, 2, 3}),
    ({"roles": ["system"]}, set()),
    ({"conversation": "work"}, {2, 3}),
    ({"conversation": "never"}, set()),
    ({"start_date": "2026-01-02"}, {1, 2, 3}),
    ({"end_date": "2026-01-02"}, {0, 1}),
    ({"start_date": "2026-01-02", "end_date": "2026-01-02"}, {1}),
    ({"start_date": "2026-01-01T12:00:01Z"}, {1, 2, 3}),
    ({"end_date": "2026-01-01T12:00:00Z"}, {0}),
    ({"conversation": "work", "roles": ["user"], "start_date": "2026-01-03"}, {3}),
]


@pytest.mark.parametrize(("filters", "days"), FILTERS)
@pytest.mark.parametrize("query", [None, "tea"])
def test_only_what_passes_the_filters_is_found_and_counted(diary, query, filters, days):
    page = diary.conversations.search(query, **filters)
    assert {(hit.message.created_at - NEW_YEAR).days for hit in page.items} == days
    assert page.total == len(days)


def test_filters_apply_before_the_limit(memory):
    say(memory, *["tea tea tea"] * 60)
    say(memory, "a longer text that has tea in it once", conversation="work")
    page = memory.conversations.search("tea", conversation="work", limit=1)
    assert (len(page.items), page.total) == (1, 1)
    assert memory.conversations.search(None, conversation="work", limit=1).total == 1


def test_a_date_is_the_whole_day_in_the_zone_that_is_set(open_memory):
    memory = open_memory(timezone="Asia/Shanghai")
    late = datetime(2026, 1, 1, 15, 59, tzinfo=UTC)
    say(memory, "before midnight", at=late)
    say(memory, "after midnight", at=late + timedelta(minutes=1))
    first, second = (
        memory.conversations.search(start_date=day, end_date=day)
        for day in ("2026-01-01", "2026-01-02")
    )
    assert (contents(first), contents(second)) == (["before midnight"], ["after midnight"])


def test_without_a_query_the_newest_are_listed_first(diary):
    page = diary.conversations.search(limit=3)
    assert (page.search, page.total) == ("listing", 4)
    assert contents(page) == ["tea on the fourth", "tea on the third", "tea on the second"]
    assert contents(diary.conversations.search(limit=3, offset=3)) == ["tea on the first"]


@pytest.mark.parametrize("query", [None, "tea"])
def test_pages_of_one_result_are_not_shifted_by_what_comes_in_between(memory, query):
    said = [f"tea {number}" for number in range(25)]
    say(memory, *said)
    first = memory.conversations.search(query, limit=10)
    say(memory, *["tea of later"] * 10)
    pages = [
        memory.conversations.search(query, limit=10, offset=offset, as_of=first.as_of)
        for offset in (10, 20)
    ]
    assert [page.total for page in pages] == [25, 25]
    found = [text for page in (first, *pages) for text in contents(page)]
    assert sorted(found) == sorted(said)
    assert memory.conversations.search(query).total == 35


def test_a_whole_history_is_paged_through_once(memory):
    say(memory, *[f"tea number{number} " + "leaf " * (number % 7) for number in range(450)])
    seen = []
    as_of = None
    for offset in range(0, 450, 50):
        page = memory.conversations.search("tea leaf", limit=50, offset=offset, as_of=as_of)
        as_of = page.as_of
        assert page.total == 450
        seen += places(page)
    assert len(set(seen)) == len(seen) == 450


@pytest.mark.parametrize("limit", [0, -1, 51])
def test_a_limit_out_of_bounds_is_refused(memory, limit):
    with pytest.raises(InvalidInput) as fault:
        memory.conversations.search("tea", limit=limit)
    assert fault.value.field == "limit"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"query": " "}, "query"),
        ({"query": "a\x00"}, "query"),
        ({"roles": ["robot"]}, "roles"),
        ({"start_date": "soon"}, "start_date"),
        ({"end_date": "soon"}, "end_date"),
        ({"start_date": "2026-02-01", "end_date": "2026-01-01"}, "end_date"),
        ({"conversation": "a\nb"}, "conversation"),
    ],
)
def test_an_argument_that_cannot_be_taken_is_named(memory, arguments, field):
    with pytest.raises(InvalidInput) as fault:
        memory.conversations.search(**arguments)
    assert fault.value.field == field


def test_a_query_that_is_too_long_says_by_how_much(memory):
    with pytest.raises(OverLimit) as fault:
        memory.conversations.search("a" * 8_001)
    assert fault.value.used - fault.value.limit == 1


@pytest.mark.parametrize(
    "name",
    [
        "conversation_search",
        "archival_memory_search",
        "mcp__memory__conversation_search",
        "memory.core_memory_view",
        "Memory/Context_Budget",
    ],
)
def test_the_result_of_a_memory_search_is_listed_but_not_found(memory, name):
    say(memory, "kettle: 30 euros", role="tool", name=name)
    say(memory, "What did the kettle cost?")
    assert contents(memory.conversations.search("kettle")) == ["What did the kettle cost?"]
    assert len(contents(memory.conversations.search())) == 2
    assert [m.index for m in memory.conversations.recent()] == [0, 1]


@pytest.mark.parametrize(
    ("role", "name"),
    [
        ("tool", "web_search"),
        ("tool", None),
        ("user", "conversation_search"),
        ("tool", "my_conversation_searcher"),
    ],
)
def test_other_messages_are_found(memory, role, name):
    say(memory, "kettle: 30 euros", role=role, name=name)
    assert contents(memory.conversations.search("kettle")) == ["kettle: 30 euros"]


def test_the_last_sentence_of_a_long_message_is_found_with_its_passage(memory):
    text = " ".join(f"word{number}" for number in range(600)) + " The kettle costs 30 euros."
    say(memory, text, "something else")
    hit = memory.conversations.search("kettle costs euros").items[0]
    assert hit.message.content == text
    assert "The kettle costs 30 euros." in hit.passage.text
    assert text[hit.passage.start : hit.passage.end] == hit.passage.text
    assert hit.passage.total == len(text)


def test_agents_do_not_hear_each_other(settings):
    engine = Engine(settings, embedder=HashEmbedder())
    ana, ben = memory_of(engine, "ana"), memory_of(engine, "ben")
    say(ana, "my secret tea")
    say(ben, "my own tea")
    assert contents(ben.conversations.search("secret tea")) == ["my own tea"]
    assert contents(ben.conversations.search()) == ["my own tea"]
    assert [m.index for m in ben.conversations.recent()] == [0]
    assert ben.overview().messages == 1
    engine.close()


def test_two_connections_of_one_agent_share_the_conversation(settings):
    engine = Engine(settings, embedder=HashEmbedder())
    one, two = memory_of(engine, "ana"), memory_of(engine, "ana")
    say(one, "green tea")
    say(two, "black tea")
    assert [(m.index, m.content) for m in one.conversations.recent()] == [
        (0, "green tea"),
        (1, "black tea"),
    ]
    assert two.conversations.search("tea").total == 2
    engine.close()


def test_threads_that_speak_at_once_get_numbers_without_a_gap(memory):
    said = []

    def speak(name):
        for number in range(6):
            said.extend(say(memory, f"{name} {number}", f"{name} {number} too"))

    threads = [threading.Thread(target=speak, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recent = memory.conversations.recent()
    assert [message.index for message in recent] == list(range(48))
    assert {message.id for message in recent} == set(said)
    assert all(
        recent[at + 1].content == f"{recent[at].content} too" for at in range(0, len(recent), 2)
    )
    assert memory.conversations.search("too").total == 48


def test_after_opening_again_everything_is_as_it_was(open_memory):
    first = open_memory(context_window=1_000, rethink_every=0)
    say(first, *[f"message number {number} about tea and kettles" for number in range(40)])
    first.conversations.flush()
    say(first, "one more", conversation="work")
    asked = ("kettles number 39", "number 3")
    before = (
        first.conversations.recent(),
        first.conversations.recent("work"),
        first.conversations.summary(),
        first.conversations.budget(),
        first.conversations.names(),
        first.overview(),
        [[hit.message.id for hit in first.conversations.search(query).items] for query in asked],
    )
    first.close()
    second = open_memory(context_window=1_000, rethink_every=0)
    after = (
        second.conversations.recent(),
        second.conversations.recent("work"),
        second.conversations.summary(),
        second.conversations.budget(),
        second.conversations.names(),
        second.overview(),
        [[hit.message.id for hit in second.conversations.search(query).items] for query in asked],
    )
    assert after == before


def test_a_budget_is_that_of_the_queue_in_the_database(open_memory):
    memory = open_memory(context_window=1_000)
    for number in range(30):
        say(memory, f"message number {number} " + "tea " * (number % 20))
        budget = memory.conversations.budget()
        recent = memory.conversations.recent()
        assert budget.parts.queue == sum(message.tokens for message in recent)
        assert budget.counts["queue_messages"] == len(recent)
        assert budget.counts["conversation_messages"] == number + 1
