"""The extractive digest: what was said, chosen, dated, never too long."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_memory.records import ROLES, Message
from mcp_memory.summarizer import ExtractiveSummarizer
from mcp_memory.tokens import Tokenizer

MOMENT = datetime(2026, 3, 1, 12, tzinfo=UTC)
LINE = re.compile(r"- \[(?P<day>\d{4}-\d{2}-\d{2}) (?P<who>[^\]]*)\] (?P<text>.+)")


def count_words(text):
    return len(re.findall(r"\w+|[^\w\s]", text))


def message(content, index=0, role="user", name=None, at=None):
    moment = at or MOMENT + timedelta(days=index)
    return Message(
        id=f"{index:010d}", conversation="main", index=index, role=role, content=content,
        tokens=count_words(content), created_at=moment, recorded_at=moment, name=name,
    )  # fmt: skip


def messages(*contents):
    return [message(content, index) for index, content in enumerate(contents)]


def summarize(evicted, parent=None, max_tokens=1_000):
    return ExtractiveSummarizer(count_words).summarize(parent, evicted, max_tokens=max_tokens)


WORDS = ["deadline", "tea", "Marta", "ERR_CONN_4031", "42", "thanks", "ok", "we", "decided",
         "咖啡", "上海", "path/to/file.py", "really?", "No.", "Yes!", "<b>", "[x]", "\n",
         "`code`"]  # fmt: skip
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
    for line in summarize(evicted, max_tokens=max_tokens).splitlines():
        match = LINE.fullmatch(line)
        assert match
        assert any(
            match["text"] in " ".join(message.content.split())
            and match["who"] == message.role
            and match["day"] == message.created_at.date().isoformat()
            for message in evicted
        )


@settings(deadline=None)
@given(evictions, st.none() | contents, st.integers(0, 80))
def test_the_same_input_gives_the_same_summary(evicted, parent, max_tokens):
    assert summarize(evicted, parent, max_tokens) == summarize(evicted, parent, max_tokens)


@settings(deadline=None)
@given(evictions)
def test_the_lines_stand_in_the_order_in_which_they_were_said(evicted):
    days = [line[3:13] for line in summarize(evicted).splitlines()]
    assert days == sorted(days)


@settings(deadline=None)
@given(evictions)
def test_a_summary_of_a_summary_alone_keeps_it_as_it_is(evicted):
    first = summarize(evicted)
    assert set(summarize([], first).splitlines()) <= set(first.splitlines())
    assert summarize([], summarize([], first)) == summarize([], first)


def test_nothing_said_is_an_empty_summary():
    assert summarize([]) == ""
    assert summarize([], "") == ""
    assert summarize(messages("...", "!!!", "the and of")) == ""


def test_no_room_is_an_empty_summary():
    assert summarize(messages("The launch is on May 5."), max_tokens=0) == ""


def test_a_speaker_with_a_name_is_named():
    said = [message("The server db-01 is in Falkenstein.", role="tool", name="inventory")]
    assert summarize(said) == "- [2026-03-01 inventory] The server db-01 is in Falkenstein."


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
        ("我决定以后不要喝咖啡。", "好的谢谢你的帮助真的很好。"),
    ],
)
def test_with_room_for_one_sentence_the_telling_one_stays(telling, talk):
    for said in (messages(telling, talk), messages(talk, telling)):
        room = max(count_words(line) for line in summarize(said).splitlines())
        assert telling in summarize(said, max_tokens=room)


def test_what_was_said_twice_is_kept_once():
    summary = summarize(messages("The launch is on May 5.", "the LAUNCH is on may 5!"))
    assert len(summary.splitlines()) == 1


def test_different_facts_are_preferred_to_the_same_fact_again():
    said = messages(
        "The database of project Atlas is DuckDB 2.",
        "Project Atlas has DuckDB 2 as its database indeed.",
        "Marta leads the team in Porto since 2024.",
    )
    room = 2 * max(count_words(line) for line in summarize(said).splitlines())
    summary = summarize(said, max_tokens=room)
    assert "Marta leads" in summary
    assert "Atlas" in summary


def test_chinese_sentences_are_chosen_one_by_one():
    said = messages("我昨天在上海喝咖啡。我的生日是5月3日。")
    summary = summarize(said)
    assert [LINE.fullmatch(line)["text"] for line in summary.splitlines()] == [
        "我昨天在上海喝咖啡。",
        "我的生日是5月3日。",
    ]


def test_lines_of_the_parent_keep_their_dates_and_stand_first():
    parent = "- [2025-12-24 user] My sister Marta lives in Porto."
    summary = summarize(messages("The launch is on May 5."), parent)
    assert summary.splitlines() == [parent, "- [2026-03-01 user] The launch is on May 5."]


def test_lines_of_the_parent_compete_with_what_is_new():
    telling = "- [2025-12-24 user] Incident INC-2041 cost 1250 euros because of ERR_CONN_4031."
    talk = "- [2025-12-25 user] Thanks, that sounds nice."
    new = message("We decided to meet Marta in Porto on May 5.")
    everything = summarize([new], f"{talk}\n{telling}")
    room = sum(sorted(count_words(line) for line in everything.splitlines())[1:])
    kept = summarize([new], f"{talk}\n{telling}", room).splitlines()
    assert kept == [telling, f"- [2026-03-01 user] {new.content}"]


def test_the_free_text_of_a_client_is_a_parent_too():
    parent = "The user is called Ana.\n\n  She moves to Porto in May 2026.  "
    summary = summarize([], parent)
    assert summary.splitlines() == ["The user is called Ana.", "She moves to Porto in May 2026."]


def test_a_sentence_without_end_is_cut_and_shows_it():
    said = "The log says " + "error 4031 at node alpha-7 " * 100
    (line,) = summarize(messages(said)).splitlines()
    assert line.endswith("…")
    assert len(line) < 500
    assert line.removeprefix("- [2026-03-01 user] ").removesuffix("…") in said


def test_a_name_with_brackets_does_not_break_the_next_summary():
    said = [message("The launch is on May 5.", name="bot [v2]")]
    first = summarize(said)
    assert summarize([], first) == first


def test_an_address_with_a_question_mark_is_kept_whole():
    address = "https://example.org/search?q=tea&n=1"
    assert address in summarize(messages(f"The report is at {address} for now."))
