"""Thinking core memory over: what is gathered for it, and what is kept of it."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

import duckdb
import pytest
from fakes import FakeClock, HashEmbedder, memory_of

from mcp_memory.agent import Memories
from mcp_memory.agent.claims import clash, is_claim, relative_dates
from mcp_memory.agent.reflection import MIN_REFLECT_TOKENS
from mcp_memory.models.embedding import FastEmbedder
from mcp_memory.models.fetching import fetch_model
from mcp_memory.settings import DEFAULT_MODEL, load_settings
from mcp_memory.store.duckdb.migrations import migrate
from mcp_memory.tiers.consolidations import MAX_REASON_CHARS
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.errors import InvalidInput, NotFound, OverLimit
from mcp_memory.values.records import NewMessage


def say(memory, *texts, conversation="main"):
    memory.conversations.append([NewMessage("user", text) for text in texts], conversation)


def rows(memory):
    return memory._engine.store.database.read(
        "SELECT id, began_at, finished_at, reason, changed FROM consolidations"
        " WHERE agent = $1 ORDER BY began_at",
        memory.agent,
    )


def ranges(done):
    return [(c.label, c.from_version, c.to_version) for c in done.consolidation.changed]


def part(text, title):
    """Return the lines of one section of the gathered text."""
    found = re.search(rf"^----- {title}[^\n]* -----\n(.*?)(?=^-----)", text, re.M | re.S)
    return found[1].splitlines()


def test_it_begins_with_the_first_rewrite_and_covers_what_changed_since(memory):
    memory.core.append("human", "Name: Ana")
    memory.core.rethink("human", "Name: Ana\nCity: Porto")
    memory.core.append("persona", "Be brief.")
    memory.core.rethink("human", "Ana, Porto")
    done = memory.core.finish_rethinking("Ana has moved")
    assert ranges(done) == [("human", 1, 3), ("persona", 0, 1)]
    assert [(c.before, c.after) for c in done.changes] == [
        ("Name: Ana", "Ana, Porto"),
        (None, "Be brief."),
    ]
    unit = done.consolidation
    assert unit.author == "client"
    assert unit.reason == "Ana has moved"
    assert unit.began_at < unit.finished_at
    assert memory.core.finish_rethinking().changes == ()


def test_its_beginning_is_kept_with_the_rewrite_and_survives_a_crash(open_memory):
    first = open_memory()
    first.core.rethink("human", "Name: Ana")
    first.core.append("human", "City: Porto")
    assert [row[2] for row in rows(first)] == [None]
    again = open_memory()
    done = again.core.finish_rethinking("learned")
    assert ranges(done) == [("human", 0, 2)]
    assert [row[3] for row in rows(again)] == ["learned"]


def test_what_was_changed_before_it_began_is_not_part_of_it(memory):
    memory.core.append("human", "Name: Ana")
    memory.core.rethink("persona", "Be brief.")
    assert ranges(memory.core.finish_rethinking()) == [("persona", 0, 1)]


def test_after_the_reflect_prompt_every_edit_is_part_of_it(memory):
    memory.core.append("human", "Name: Ana")
    memory.reflections.write("Think.")
    assert rows(memory) == []
    memory.core.append("human", "City: Porto")
    assert len(rows(memory)) == 1
    done = memory.core.finish_rethinking()
    assert ranges(done) == [("human", 1, 2)]


def test_the_event_and_the_row_tell_the_same(memory):
    memory.core.rethink("human", "Name: Ana")
    done = memory.core.finish_rethinking("learned her name").consolidation
    event = memory.events(1)[0]
    assert event.kind == "rethought"
    assert event.data == {
        "consolidation": done.id,
        "author": "client",
        "changed": ["human"],
        "versions": [[0, 1]],
        "reason": "learned her name",
    }
    assert rows(memory)[0][0] == done.id


@pytest.mark.parametrize(
    ("reason", "fault"), [(" ", InvalidInput), ("a\x00", InvalidInput), ("x" * 501, OverLimit)]
)
def test_a_reason_that_cannot_be_kept_finishes_nothing(memory, reason, fault):
    memory.core.rethink("human", "Name: Ana")
    with pytest.raises(fault) as refused:
        memory.core.finish_rethinking(reason)
    assert refused.value.field == "reason"
    assert [row[2] for row in rows(memory)] == [None]
    assert memory.core.finish_rethinking("x" * MAX_REASON_CHARS).changes != ()


def test_the_users_own_edit_begins_none_and_is_shown_as_the_rest(memory):
    memory.core.define("human", "Name: Ana")
    assert rows(memory) == []
    memory.core.rethink("persona", "Be brief.")
    memory.core.define("human", "Name: Anna")
    assert ranges(memory.core.finish_rethinking()) == [("human", 1, 2), ("persona", 0, 1)]


def test_a_clock_that_is_set_back_hides_no_change(open_memory):
    clock = FakeClock()
    memory = open_memory(clock=clock)
    memory.core.rethink("human", "Name: Ana")
    clock.moment = datetime.now(UTC) - timedelta(days=30)
    memory.core.append("human", "City: Porto")
    done = memory.core.finish_rethinking()
    assert ranges(done) == [("human", 0, 2)]
    memory.core.rethink("human", "Ana, Porto")
    assert ranges(memory.core.finish_rethinking()) == [("human", 2, 3)]


def test_what_another_agent_made_of_a_shared_block_is_shown_too(settings):
    granted = settings.model_copy(update={"shared_blocks": ("goals",)})
    memories = Memories(Engine(granted, embedder=HashEmbedder()))
    ana, bo = memories.open("ana"), memories.open("bo")
    ana.core.rethink("goals", "Ship it in May")
    ana.core.append("working", "Goals: write", "trip")
    bo.core.append("goals", "Then rest")
    done = ana.core.finish_rethinking("planned")
    assert [(c.label, c.conversation, c.shared) for c in done.consolidation.changed] == [
        ("goals", "", True),
        ("working", "trip", False),
    ]
    assert done.changes[0].after == "Ship it in May\nThen rest"
    assert [r.consolidation and r.consolidation.reason for r in bo.core.history("goals")] == [
        "planned",
        "planned",
    ]
    assert ana.core.history("working", "trip")[0].consolidation == done.consolidation
    memories.close()


def test_the_history_of_a_block_tells_each_version_when_by_whom_and_why(memory):
    memory.core.append("human", "Name: Ana")
    memory.core.rethink("human", "Name: Anna")
    memory.core.rethink("human", "Name: Anna, Porto")
    memory.core.finish_rethinking("spelled right")
    memory.core.append("human", "Has a cat")
    history = memory.core.history("human")
    assert [revision.block.version for revision in history] == [4, 3, 2, 1]
    reasons = [r.consolidation.reason if r.consolidation else None for r in history]
    assert reasons == [None, "spelled right", "spelled right", None]
    assert history[3].block.value == "Name: Ana"
    assert [r.block.version for r in memory.core.history("human", limit=2)] == [4, 3]
    with pytest.raises(NotFound):
        memory.core.history("nobody")


def test_a_database_of_before_knows_when_the_last_was_finished(settings):
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    settings.db.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect(str(settings.db)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        migrate(connection, str(settings.db), upto=5)
        connection.execute(
            "INSERT INTO events VALUES ($1, $2, $3, $4, $5, $6, $7)",
            ("default", "0000000001", "rethought", None, "done", "{}", moment),
        )
    memory = memory_of(Engine(settings, embedder=HashEmbedder()))
    assert memory.core.finish_rethinking().consolidation.began_at == moment
    memory.close()


# Reminders


def test_a_reminder_is_due_once_for_what_is_new(settings):
    memories = Memories(Engine(settings, embedder=HashEmbedder()))
    memory = memories.open("default")
    told: list[frozenset[str]] = []
    memory.listen(told.append)
    assert memories.schedule.consolidation_due("default") is None
    say(memory, "one", "two")
    memory.archive.insert("three")
    due = memories.schedule.consolidation_due("default")
    assert (due.messages, due.memories, due.since) == (2, 1, None)
    assert memories.schedule.consolidation_due("default") == due
    told.clear()
    event = memories.schedule.remind("default")
    assert event.kind == "rethink_reminder"
    assert told == [frozenset({"events"})]  # Once, and of nothing else.
    assert memories.schedule.remind("default") is None
    say(memory, "four")
    assert memories.schedule.consolidation_due("default").messages == 3
    memory.core.finish_rethinking()
    assert memories.schedule.consolidation_due("default") is None
    memories.close()


def test_what_was_recorded_before_the_clock_was_set_back_is_not_news_for_ever(settings):
    clock = FakeClock(datetime.now(UTC) + timedelta(days=30))
    memories = Memories(Engine(settings, embedder=HashEmbedder(), clock=clock))
    say(memories.open("default"), "one")
    clock.moment = None
    assert memories.schedule.remind("default") is not None
    assert memories.schedule.remind("default") is None
    memories.close()


def test_tool_results_alone_are_no_news_and_who_wants_no_reminders_gets_none(settings):
    memories = Memories(Engine(settings, embedder=HashEmbedder()))
    memory = memories.open("default")
    memory.conversations.append([NewMessage("tool", "42", name="calculator")])
    assert memories.schedule.consolidation_due("default") is None
    memories.close()
    quiet = settings.model_copy(update={"rethink_every": 0})
    memories = Memories(Engine(quiet, embedder=HashEmbedder()))
    say(memories.open("default"), "one")
    assert memories.schedule.consolidation_due("default") is None
    memories.close()


# What is gathered


def test_what_is_new_since_the_last_time_is_gathered(memory):
    say(memory, "said before")
    memory.archive.insert("kept before")
    memory.core.finish_rethinking()
    say(memory, "said since", conversation="trip")
    key = memory.archive.insert("kept since").memory.id
    text = memory.reflections.write("Think.")
    assert text.startswith("Think.\n")
    assert part(text, "said since")[0].startswith("conversation 'trip' [0] ")
    assert part(text, "stored since")[0].startswith(key)
    assert "before" not in text.replace("before memory", "")


def test_what_contradicts_is_shown_with_ids_and_dates(memory):
    key = memory.archive.insert(
        "The staging database listens on port 5432", happened_at="2026-01-05"
    ).memory.id
    memory.core.append("human", "Ana lives in the old town of Porto")
    say(
        memory,
        "The staging database listens on port 5433",
        "Oh, Ana lives in the old town of Lisbon.",
        "The weather is fine today",
    )
    checks = part(memory.reflections.write("Think."), "check: may contradict")
    assert len(checks) == 2
    [port] = [line for line in checks if "5433" in line]
    assert f"memory {key} 2026-01-05" in port
    assert port.endswith("number 5433 / 5432")
    [city] = [line for line in checks if "Lisbon" in line]
    assert "block human" in city
    assert city.endswith("name lisbon / porto")


def test_a_new_memory_is_held_against_older_ones(memory):
    old = memory.archive.insert("The deploy key of the site expires in May 2026").memory.id
    memory.core.finish_rethinking()
    new = memory.archive.insert("The deploy key of the site expires in May 2027").memory.id
    [line] = part(memory.reflections.write("Think."), "check: may contradict")
    assert f"new memory {new}" in line
    assert f"before memory {old}" in line


def test_memories_that_say_the_same_are_shown_as_one_pair(memory):
    memory.archive.insert("Take the ferry to the island of Rab")
    memory.archive.insert("take the ferry, to the island of Rab!")
    memory.archive.insert("Something else altogether")
    [line] = part(memory.reflections.write("Think."), "check: memories that say nearly")
    assert line.endswith("| 1.00")
    assert "(none found)" in memory.reflections.write("Think.")


def test_full_blocks_and_lines_with_dates_that_shift_are_named_with_their_day(memory):
    memory.core.define("notes", "tea " * 50, description="Notes", limit=55)
    memory.core.append("human", "Her exam is tomorrow")
    memory.core.append("human", "明天有会议")
    memory.core.append("human", "Born on 2 May 1990")
    lines = part(memory.reflections.write("Think."), "check: full blocks")
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    assert [line for line in lines if line.startswith("block notes is nearly full: 5")] == lines[:1]
    assert lines[1:] == [
        f'block human, written {today}: "Her exam is tomorrow": write tomorrow as a date',
        f'block human, written {today}: "明天有会议": write 明天 as a date',
    ]


def test_a_line_has_the_day_on_which_it_was_written_not_that_of_the_last_edit(open_memory):
    clock = FakeClock(datetime(2026, 3, 1, tzinfo=UTC))
    memory = open_memory(clock=clock)
    memory.core.append("human", "Her exam is tomorrow")
    clock.moment = None
    memory.core.append("human", "Name: Ana")
    [line] = part(memory.reflections.write("Think."), "check: full blocks")
    assert line.startswith("block human, written 2026-03-01:")


def test_without_a_model_the_rest_is_gathered(settings):
    memory = memory_of(Engine(settings))
    say(memory, "The port is 5433")
    text = memory.reflections.write("Think.")
    assert "not checked" in text
    assert part(text, "said ever")[0].endswith("user: The port is 5433")
    memory.close()


@pytest.mark.parametrize("limit", [MIN_REFLECT_TOKENS, 3_000])
def test_however_much_is_new_the_text_has_at_most_so_many_tokens(open_memory, limit):
    memory = open_memory(context_window=100_000)
    memory.core.append("human", "Name: Ana. " + "She keeps bees. " * 400)
    say(
        memory, *[f"On day {n} Ana paid {n} euros at the market. " + "Ok. " * 30 for n in range(99)]
    )
    for number in range(40):
        memory.archive.insert(f"The market on day {number} costs {number * 7} euros")
    text = memory.reflections.write("Think.", max_tokens=limit)
    assert limit * 0.7 <= memory.count_tokens(text) <= limit
    assert "Name: Ana" in text
    assert "said ever: 99 messages" in text
    assert "day 98" in text
    with pytest.raises(InvalidInput):
        memory.reflections.write("Think.", max_tokens=MIN_REFLECT_TOKENS - 1)


@pytest.mark.parametrize(
    ("ours", "theirs", "kind"),
    [
        ("The port is 5433", "The port is 5432", "number"),
        ("The meeting is on Thursday", "The meeting is on Tuesday", "number"),
        ("Ana has three cats", "Ana has two cats", "number"),
        ("会议四点开始", "会议三点开始", "number"),
        ("Ana moved to Lisbon", "Ana lives in Porto", "name"),
        ("My sister is called Carla", "Her sister is called Clara", "name"),
        ("Ana no longer drinks coffee", "Ana drinks coffee", "negation"),
        ("I don't like coffee", "I like coffee", "negation"),
        ("安娜不住在里斯本", "安娜住在里斯本", "negation"),
        ("My favourite drink is coffee", "The favourite drink is tea", "word"),
        ("Ana has two cats in Porto", "Ana has two cats", None),
        ("Ana drinks tea in the morning", "The build fails with ERR_42", None),
        ("The key rotates every 90 days", "The key is rotated every 90 days", None),
        ("Clara is a doctor in Madrid", "Ana's sister is called Clara", None),
    ],
)
def test_statements_clash_by_number_name_negation_or_word(ours, theirs, kind):
    found = clash(ours, theirs)
    assert (found.kind if found else None) == kind
    turned = clash(theirs, ours)
    assert (turned.kind if turned else None) == kind


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("We met yesterday and meet again next Friday", ("yesterday", "next Friday")),
        ("It ended three weeks ago", ("three weeks ago",)),
        ("Due in 2 days", ("in 2 days",)),
        ("上周开始，明天结束", ("上周", "明天")),
        ("三天后", ("三天后",)),
        ("先週の会議", ("先週",)),
        ("On 2026-05-07 he may march on", ()),
        ("The last one, in days of old", ()),
    ],
)
def test_dates_that_shift_are_seen(text, words):
    assert relative_dates(text) == words


def test_questions_and_scraps_claim_nothing():
    assert is_claim("Ana lives in Porto")
    assert not is_claim("Does Ana live in Porto?")
    assert not is_claim("ok")


@pytest.fixture(scope="module")
def real_embedder() -> FastEmbedder:
    files = fetch_model(DEFAULT_MODEL, load_settings().cache_dir, offline=False)
    return FastEmbedder.load(files, threads=None)


@pytest.mark.slow
def test_with_the_real_model_a_changed_fact_is_found_and_other_things_are_not(
    settings, real_embedder
):
    memory = memory_of(Engine(settings, embedder=real_embedder, check_model=False))
    memory.core.append("human", "Ana lives in Porto with her sister.")
    port = memory.archive.insert("The database listens on port 5432.").memory.id
    drink = memory.archive.insert("The user's favourite drink is tea.").memory.id
    memory.archive.insert("The deploy key rotates every 90 days.")
    memory.core.finish_rethinking()
    say(
        memory,
        "By the way, I had no time yesterday. The database listens on port 5433 now.",
        "My favourite drink is coffee these days.",
        "Ana moved to Lisbon last year.",
        "The plumber comes on Tuesday.",
    )
    found = memory.reflections.gather().contradictions
    assert {c.old.where for c in found} == {f"memory {port}", f"memory {drink}", "block human"}
    assert all(math.isclose(c.similarity, 0.9, abs_tol=0.1) for c in found)
    memory.close()
