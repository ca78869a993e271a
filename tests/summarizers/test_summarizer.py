"""The extractive digest: what was said, chosen, dated, never too long."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_memory.models.tokenizer import Tokenizer
from mcp_memory.summarizers import ExtractiveSummarizer, layout
from mcp_memory.summarizers.extractive import MAX_MESSAGE_CHARS
from mcp_memory.values.records import ROLES, Message

MOMENT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def count_words(text):
    return len(re.findall(r"\w+|[^\w\s]", text))


def message(content, index=0, role="user", name=None, at=None):
    moment = at or MOMENT + timedelta(days=index)
    return Message(
        id=f"{index:010d}",
        conversation="main",
        index=index,
        role=role,
        content=content,
        tokens=count_words(content),
        created_at=moment,
        recorded_at=moment,
        name=name,
    )


def messages(*contents):
    return [message(content, index) for index, content in enumerate(contents)]


def summarize(evicted, parent=None, max_tokens=1_000):
    return ExtractiveSummarizer(count_words).summarize(parent, evicted, max_tokens=max_tokens)


def lines(summary):
    return layout.read(summary)[0]


def hints(summary):
    return layout.read(summary)[1]


NOUNS = [
    "harbour",
    "kitchen",
    "lighthouse",
    "stable",
    "chapel",
    "bridge",
    "garage",
    "attic",
    "tower",
    "cellar",
    "barn",
    "fence",
    "balcony",
    "hallway",
    "nursery",
    "workshop",
    "boathouse",
    "shed",
]
WORDS = [
    "deadline",
    "tea",
    "Marta",
    "ERR_CONN_4031",
    "42",
    "thanks",
    "ok",
    "we",
    "decided",
    "咖啡",
    "上海",
    "path/to/file.py",
    "really?",
    "No.",
    "Yes!",
    "<b>",
    "[x]",
    "\n",
    "`code`",
]
contents = st.lists(st.sampled_from(WORDS), min_size=1, max_size=30).map(" ".join).filter(str.strip)
evictions = st.lists(st.tuples(contents, st.sampled_from(ROLES)), max_size=8).map(
    lambda said: [message(content, index, role) for index, (content, role) in enumerate(said)]
)


@settings(deadline=None)
@given(evictions, st.none() | contents, st.integers(0, 80))
def test_a_summary_is_never_longer_than_it_may_be(evicted, parent, max_tokens):
    assert count_words(summarize(evicted, parent, max_tokens)) <= max_tokens


@pytest.fixture(scope="module")
def tokenizer(cache_dir):
    return Tokenizer(cache_dir=cache_dir)


@settings(deadline=None)
@given(st.none() | st.text() | contents, st.lists(st.text(), max_size=5), st.integers(0, 60))
def test_a_summary_fits_in_tokens_of_a_real_tokenizer(tokenizer, parent, said, max_tokens):
    summarizer = ExtractiveSummarizer(tokenizer.count)
    summary = summarizer.summarize(parent, messages(*said), max_tokens=max_tokens)
    assert tokenizer.count(summary) <= max_tokens


@settings(deadline=None)
@given(evictions, st.integers(0, 200))
def test_every_line_was_said_by_whom_and_on_the_day_it_names(evicted, max_tokens):
    for line in lines(summarize(evicted, max_tokens=max_tokens)):
        assert any(
            line.text.strip("…") in " ".join(message.content.split())
            and line.who == message.role
            and line.day == message.created_at.date().isoformat()
            for message in evicted
        )


@settings(deadline=None)
@given(evictions, st.integers(0, 80))
def test_every_hint_is_a_word_that_was_said(evicted, max_tokens):
    said = " ".join(message.content for message in evicted)
    assert all(hint in said for hint in hints(summarize(evicted, max_tokens=max_tokens)))


@settings(deadline=None)
@given(evictions, st.none() | contents, st.integers(0, 80))
def test_the_same_input_gives_the_same_summary(evicted, parent, max_tokens):
    assert summarize(evicted, parent, max_tokens) == summarize(evicted, parent, max_tokens)


@settings(deadline=None)
@given(evictions)
def test_the_lines_stand_in_the_order_in_which_they_were_said(evicted):
    days = [line.day for line in lines(summarize(evicted))]
    assert days == sorted(days)


@settings(deadline=None)
@given(evictions, st.none() | contents | st.text(), st.integers(0, 200))
def test_a_summary_with_nothing_new_stays_as_it_is(evicted, parent, max_tokens):
    first = summarize(evicted, parent, max_tokens)
    assert summarize([], first, max_tokens) == first
    assert summarize(messages("Ok, thanks!"), first, max_tokens) == first


@settings(deadline=None)
@given(evictions, st.integers(0, 200))
def test_a_summary_is_read_back_as_it_was_laid_out(evicted, max_tokens):
    first = summarize(evicted, max_tokens=max_tokens)
    assert layout.lay_out(*layout.read(first)) == first


def test_nothing_said_is_an_empty_summary():
    assert summarize([]) == ""
    assert summarize([], "") == ""
    assert summarize(messages("...", "!!!", "the and of")) == ""


def test_no_room_is_an_empty_summary():
    assert summarize(messages("The launch is on May 5."), max_tokens=0) == ""


def test_a_speaker_with_a_name_is_named():
    said = [message("The server db-01 is in Falkenstein.", role="tool", name="inventory")]
    assert summarize(said) == "[2026-03-01]\ninventory: The server db-01 is in Falkenstein."


def test_a_day_and_a_speaker_stand_once_for_the_lines_that_follow():
    said = [
        message("The launch is on May 5. The ticket is INC-2041.", name="Ana", at=MOMENT),
        message("Marta leads the team in Porto.", name="Ben", at=MOMENT),
    ]
    assert summarize(said).splitlines() == [
        "[2026-03-01]",
        "Ana: The launch is on May 5.",
        "- The ticket is INC-2041.",
        "Ben: Marta leads the team in Porto.",
    ]


@pytest.mark.parametrize(
    ("telling", "talk"),
    [
        ("The build fails with ERR_CONN_4031 again.", "The weather outside seems rather fine."),
        ("Bring the red SAP chairs.", "Bring many red wooden chairs."),
        ("Bring 42 red chairs.", "Bring many red wooden chairs."),
        ("It costs 1250 euros altogether.", "It was quite a lot of money altogether."),
        ("We decided to move the launch to Thursday.", "People were talking about some things."),
        ("My sister Marta lives in Porto.", "Someone somewhere likes something nice."),
        ("I am allergic to peanuts.", "Thanks, sounds good, talk soon then."),
        ("The launch was moved to the harbour instead.", "The launch party outside was loud."),
        ("Still undecided: which caterer for the harbour?", "Do you like the harbour, too?"),
        ("我决定以后不要喝咖啡。", "好的谢谢你的帮助真的很好。"),
        ("会议改到下周三上午。", "会议室里面人很多。"),
        ("私はエビのアレルギーがあります。", "今日はとてもいい気分でした。"),
    ],
)
def test_with_room_for_one_sentence_the_telling_one_stays(telling, talk):
    for said in (messages(telling, talk), messages(talk, telling)):
        room = max(count_words(summarize([one])) for one in said if summarize([one]))
        assert telling in summarize(said, max_tokens=room)


def test_what_was_said_twice_is_kept_once():
    summary = summarize(messages("The launch is on May 5.", "the LAUNCH is on may 5!"))
    assert len(lines(summary)) == 1


def test_different_facts_are_preferred_to_the_same_fact_again():
    said = messages(
        "The database of project Atlas is DuckDB 2.",
        "Project Atlas has DuckDB 2 as its database indeed.",
        "Marta leads the team in Porto since 2024.",
    )
    room = count_words(summarize(said[1:]))
    summary = summarize(said, max_tokens=room)
    assert "Marta leads" in summary
    assert "Atlas" in summary


def test_chinese_sentences_are_chosen_one_by_one():
    summary = summarize(messages("我昨天在上海喝咖啡。我的生日是5月3日。"))
    assert [line.text for line in lines(summary)] == ["我昨天在上海喝咖啡。", "我的生日是5月3日。"]


def test_lines_of_the_parent_keep_their_dates_and_stand_first():
    parent = "[2025-12-24]\nuser: My sister Marta lives in Porto."
    summary = summarize(messages("The launch is on May 5."), parent)
    assert summary == f"{parent}\n[2026-03-01]\nuser: The launch is on May 5."


def test_lines_of_the_parent_compete_with_what_is_new():
    telling = "user: Incident INC-2041 cost 1250 euros because of ERR_CONN_4031."
    talk = "user: Somebody walked slowly around outside."
    new = message("We decided to meet Marta in Porto on May 5.")
    room = count_words(f"[2025-12-24]\n{telling}\n[2026-03-01]\nuser: {new.content}\nAlso: a")
    summary = summarize([new], f"[2025-12-24]\n{talk}\n{telling}", room)
    assert telling in summary
    assert new.content in summary
    assert talk not in summary


def test_the_free_text_of_a_client_is_a_parent_too():
    parent = "The user is called Ana.\n\n  She moves to Porto in May 2026.  "
    summary = summarize(messages("The launch is on May 5."), parent)
    assert summary.splitlines() == [
        "The user is called Ana.",
        "She moves to Porto in May 2026.",
        "[2026-03-01]",
        "user: The launch is on May 5.",
    ]


def test_hints_of_the_parent_are_carried_on():
    parent = "[2025-12-24]\nuser: Marta leads the team.\nAlso mentioned: pottery Falkenstein"
    assert hints(summarize(messages("The launch is on May 5."), parent)) == [
        "pottery",
        "Falkenstein",
    ]


def test_what_finds_no_room_is_hinted_at():
    said = [f"The {word} was painted at noon on day {number}." for number, word in enumerate(NOUNS)]
    summary = summarize(messages(*said), max_tokens=150)
    shown = {noun for noun in NOUNS if noun in " ".join(line.text for line in lines(summary))}
    assert shown
    assert set(hints(summary)) & (set(NOUNS) - shown)


def test_a_long_sentence_is_cut_into_lines_and_shows_it():
    said = "The log says " + ", ".join(f"error {number} at node n{number}" for number in range(60))
    found = lines(summarize(messages(said), max_tokens=5_000))
    assert len(found) > 1
    assert all(len(line.text) <= layout.MAX_LINE_CHARS for line in found)
    assert found[0].text.endswith("…")
    assert found[1].text.startswith("…")
    assert all(line.text.strip("…") in said for line in found)


def test_of_a_giant_message_only_its_ends_are_read():
    middle = "needle-4711 stands in the middle. "
    said = "The first line names Falkenstein. " + "x " * 400_000 + middle + "y " * 400_000
    said += "\nThe last line names Porto."
    read = []

    def count(text):
        read.append(len(text))
        return count_words(text)

    summary = ExtractiveSummarizer(count).summarize(None, messages(said), max_tokens=300)
    assert "Falkenstein" in summary
    assert "Porto" in summary
    assert "needle" not in summary
    assert sum(read) < 10 * MAX_MESSAGE_CHARS


def test_a_name_with_brackets_or_a_colon_does_not_break_the_next_summary():
    for name in ("bot [v2]", "bot: v2", "[2026-01-01]", "Also mentioned: x"):
        said = [message("The launch is on May 5. The ticket is INC-2041.", name=name)]
        first = summarize(said)
        assert summarize(messages("Marta leads the team in Porto."), first).startswith(first)


def test_interjections_before_a_sentence_are_left_out():
    assert "user: I sold the boat to Marta." in summarize(
        messages("Oh wow, hey Ana! I sold the boat to Marta. Haha, great!")
    )


def test_lines_of_a_program_are_no_sentences():
    code = "import os\nclass Pool:\n    def acquire(self):\n        return self._queue.get(block)"
    assert lines(summarize([message(code, role="tool")])) == []


def test_an_address_with_a_question_mark_is_kept_whole():
    address = "https://example.org/search?q=tea&n=1"
    assert address in summarize(messages(f"The report is at {address} for now."))
