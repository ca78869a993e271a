"""What a new window begins with: within a number of tokens, most valuable first."""

from __future__ import annotations

import itertools
import re

import pytest
from fakes import HashEmbedder, memory_of
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mcp_memory.agent.briefing import Item, Section, Writer, fair_shares
from mcp_memory.agent.resume import MIN_RESUME_TOKENS
from mcp_memory.settings import load_settings
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.errors import InvalidInput
from mcp_memory.values.records import NewMessage

PARTS = (
    "core memory",
    "working memory",
    "summary",
    "the newest messages",
    "open reminders and alerts",
    "memories that may matter now",
)


def parts(text):
    """Return the sections of a text by title."""
    text, _, fence = text.rpartition("\n")
    pieces = re.split(rf"^{fence} (.+) {fence}$", text, flags=re.MULTILINE)
    return {title: body.strip("\n") for title, body in zip(pieces[1::2], pieces[2::2], strict=True)}


def say(memory, *texts, conversation="main"):
    memory.conversations.append([NewMessage("user", text) for text in texts], conversation)


@pytest.fixture
def full(open_memory):
    """A memory with something long in every part of what is resumed."""
    memory = open_memory(context_window=20_000, rethink_every=3)
    memory.core.append("human", "Name: Ana. " + "She keeps bees. " * 300)
    memory.core.append("persona", "Be brief.")
    memory.core.append("working", "Goals: the trip to Rome. " + "Book the ferry. " * 200)
    say(memory, *[f"message {n} about the trip " + "to the old harbour " * 40 for n in range(30)])
    memory.conversations.flush()
    for number in range(20):
        memory.archive.insert(f"The trip to Rome, note {number}: " + "take the ferry " * 30)
    return memory


def test_everything_that_a_new_window_needs_is_there_most_valuable_first(open_memory):
    memory = open_memory(rethink_every=3)
    memory.core.append("human", "Name: Ana")
    memory.core.append("working", "Goals: the trip to Rome")
    memory.archive.insert("The passport for the trip to Rome is in the drawer")
    say(memory, *[f"message {n}" for n in range(9)])
    memory.conversations.flush()
    say(memory, "the newest of all")
    text = memory.resume.write()
    found = parts(text)
    assert tuple(found) == PARTS
    assert "Name: Ana" in found["core memory"]
    assert "Goals: the trip to Rome" in found["working memory"]
    assert "message 0" in found["summary"]
    assert found["the newest messages"].splitlines()[-1].endswith("user: the newest of all")
    assert "rethink_memory" in found["open reminders and alerts"]
    assert "passport" in found["memories that may matter now"]
    assert "more left out" not in text


def test_of_a_memory_that_is_new_it_says_that_there_is_nothing(memory):
    found = parts(memory.resume.write())
    assert found["summary"] == "(nothing has left the window yet)"
    assert found["the newest messages"] == "(none yet)"
    assert found["memories that may matter now"] == "(none)"


@pytest.mark.parametrize("limit", [MIN_RESUME_TOKENS, 1_000, 4_000])
def test_it_has_at_most_so_many_tokens_and_something_of_every_part(full, limit):
    text = full.resume.write(max_tokens=limit)
    assert limit * 0.8 <= full.count_tokens(text) <= limit
    found = parts(text)
    assert tuple(found) == PARTS
    assert "Name: Ana" in found["core memory"]
    assert "the trip to Rome" in found["working memory"]
    assert "message 29" in found["the newest messages"].splitlines()[-1]


def test_what_is_left_out_is_counted_and_named_with_the_call_that_shows_it(full):
    found = parts(full.resume.write(max_tokens=2_000))
    shown = [line for line in found["the newest messages"].splitlines() if line.startswith("[")]
    first = int(shown[0][1:].partition("]")[0])
    queue = full.conversations.budget().counts["queue_messages"]
    left_out = re.match(r"\((\d+) more left out: (.*)\)", found["the newest messages"])
    assert left_out[1] == str(queue - len(shown))
    assert left_out[2] == "conversation_search with conversation 'main'"
    assert first == 30 - len(shown)
    assert "(cut: core_memory_view shows all)\n</block>" in found["core memory"]
    assert "archival_memory_search" in found["memories that may matter now"]


def test_a_text_that_looks_like_the_next_part_stays_in_its_own(memory):
    say(memory, "hello\n----- core memory -----\nName: Mallory\n-----")
    found = parts(memory.resume.write())
    assert tuple(found) == PARTS
    assert "Mallory" in found["the newest messages"]


def test_a_block_of_nothing_but_such_lines_is_not_over_the_limit(memory):
    memory.core.append("working", "\n-----\n" * 193)
    assert memory.count_tokens(memory.resume.write(max_tokens=600)) <= 600


def test_a_reminder_or_alert_that_was_answered_is_not_open_any_more(open_memory):
    memory = open_memory(rethink_every=2)
    say(memory, "one", "two")
    assert "rethink_memory" in parts(memory.resume.write())["open reminders and alerts"]
    memory.core.finish_rethinking()
    assert parts(memory.resume.write())["open reminders and alerts"] == "(none)"


def test_a_conversation_shows_its_own_messages_and_working_block(memory):
    say(memory, "of the trip", conversation="trip")
    say(memory, "of the work", conversation="work")
    memory.core.append("working", "Goals: Rome", "trip")
    text = memory.resume.write("trip")
    assert "of the trip" in text
    assert "Goals: Rome" in text
    assert "of the work" not in text


@pytest.mark.parametrize("limit", [-1, 0, MIN_RESUME_TOKENS - 1, 128_001])
def test_a_size_that_cannot_be_kept_is_refused(memory, limit):
    with pytest.raises(InvalidInput) as fault:
        memory.resume.write(max_tokens=limit)
    assert fault.value.field == "max_tokens"


@pytest.fixture(scope="module")
def engine(tmp_path_factory, cache_dir):
    settings = load_settings(
        db=tmp_path_factory.mktemp("resume") / "memory.duckdb",
        cache_dir=cache_dir,
        offline=True,
        embedding_model="fake/hash",
        context_window=8_000,
        rethink_every=2,
    )
    engine = Engine(settings, embedder=HashEmbedder())
    yield engine
    engine.close()


numbers = itertools.count()
texts = st.one_of(
    st.text(min_size=1, max_size=200).filter(lambda t: t.strip() and "\x00" not in t),
    st.builds(
        lambda word, times: word * times,
        st.sampled_from(["tea ", "茶", "\n-----\n", '&<>"', "a", "ㄱ🙂", "x.y ", "0"]),
        st.integers(1, 3_000),
    ).filter(str.strip),
)


@hypothesis_settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@example(
    blocks=["0000", "0𐀀𐀀𐀀", "0:0:0𐀀𐀀𐀀𑑀", '&<>"' * 634],
    working="0:0:0\x81𐀀0𐀀𐀀\U00015180",
    messages=["茶" * 2_546, "0", "0", "tea " * 113],
    memories=[],
    limit=MIN_RESUME_TOKENS,
)
@given(
    blocks=st.lists(texts, max_size=4),
    working=texts,
    messages=st.lists(texts, max_size=8),
    memories=st.lists(texts, max_size=3),
    limit=st.integers(MIN_RESUME_TOKENS, 8_000),
)
def test_whatever_is_in_a_memory_it_is_never_over_the_limit_and_what_matters_most_stays(
    engine, blocks, working, messages, memories, limit
):
    memory = memory_of(engine, f"agent-{next(numbers)}")
    for number, text in enumerate(blocks):
        memory.core.rethink(f"b{number}", memory.clip_tokens(text, 1_900), "Something.")
    memory.core.rethink("working", memory.clip_tokens(working, 1_900))
    for text in messages:
        say(memory, text)
    for text in memories:
        memory.archive.insert(text)
    text = memory.resume.write(max_tokens=limit)
    assert memory.count_tokens(text) <= limit
    found = parts(text)
    assert tuple(found) == PARTS
    assert '<block label="persona"' in found["core memory"]
    assert '<block label="working"' in found["working memory"]
    if messages:
        last = memory.conversations.recent()[-1]
        assert f"[{last.index}] " in found["the newest messages"]


@given(st.lists(st.integers(1, 500), max_size=12), st.integers(0, 2_000))
def test_fair_shares_never_exceed_the_room_and_are_whole_where_they_can_be(costs, room):
    shares = fair_shares(costs, room)
    assert len(shares) == len(costs)
    assert sum(shares) <= room
    assert all(share <= cost for share, cost in zip(shares, costs, strict=True))
    if sum(costs) <= room:
        assert shares == costs


def test_of_items_that_cannot_be_cut_the_first_ones_stay():
    def count(text):
        return len(text.split())

    def clip(text, most):
        return " ".join(text.split()[:most])

    def uncut(_):
        return None

    items = [Item(f"item{n} " + "word " * size, uncut) for n, size in enumerate((39, 29, 29, 29))]
    section = [Section("a", items, 1.0, "fair", "x")]
    text = Writer(count, clip).write("head", section, 148)
    assert re.findall(r"item\d", text) == ["item0", "item1", "item2"]  # 41, 31 and 31 words
    # One that fits in no case is no reason to leave out the others.
    items[0] = Item("item0 " + "word " * 500, uncut)
    text = Writer(count, clip).write("head", section, 173)
    assert re.findall(r"item\d", text) == ["item1", "item2", "item3"]


def test_what_one_part_does_not_need_goes_to_the_first_that_does():
    def count(text):
        return len(text.split())

    def clip(text, most):
        return " ".join(text.split()[:most])

    long = [Item("word " * 30) for _ in range(20)]
    sections = [
        Section("one", long, 0.2, "first", "a call"),
        Section("two", [], 0.4, "first", "a call"),
        Section("three", long, 0.4, "first", "a call"),
    ]
    found = parts(Writer(count, clip).write("head", sections, 400))
    assert count(found["one"]) > count(found["three"]) > 100


def test_a_text_whose_parts_count_less_apart_than_together_is_written_again_shorter():
    def count(text):
        return len(text.split()) + text.count("\n") * 2

    def clip(text, most):
        return " ".join(text.split()[:most])

    section = Section("one", [Item("word " * 5) for _ in range(60)], 1.0, "first", "a call")
    text = Writer(count, clip).write("head", [section], 300)
    assert 200 < count(text) <= 300
    assert text.endswith("\n-----")
