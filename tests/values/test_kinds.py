"""The table of kinds: what a file may override, and what each cell does to a memory."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from fakes import HashEmbedder, memory_of

from mcp_memory.models.embedding import FastEmbedder
from mcp_memory.models.fetching import fetch_model
from mcp_memory.settings import DEFAULT_MODEL, load_settings, settings_of
from mcp_memory.tiers.engine import Engine
from mcp_memory.tiers.jobs import INLINE_CHUNKS
from mcp_memory.values.errors import SettingsFault
from mcp_memory.values.kinds import DEFAULTS, Policy, read_policies
from mcp_memory.values.records import Kind, NewMessage, StoreChunk
from mcp_memory.values.render import QUOTE_CHARS

GUIDE = Path(__file__).parents[2] / "docs" / "kinds.md"
WORDS = " ".join(f"word{number}" for number in range(40))
LONG = " ".join(f"word{number}" for number in range(200))


def changed(kind: Kind, **cells: object) -> dict[Kind, Policy]:
    """Return the table with cells of one kind changed."""
    return {**DEFAULTS, kind: DEFAULTS[kind].model_copy(update=cells)}


def chunks_of(memory, memory_id):
    """Return the ranges of characters that a memory's vectors stand for."""
    engine = memory._engine
    return [
        (int(start), int(end))
        for block in engine.vectors.blocks("default", "memory", engine.store.seq("default"))
        for key, start, end in zip(block.ids, block.starts, block.ends, strict=True)
        if key == memory_id
    ]


def stored(memory, kind, *messages, context="Ana chose a kettle.", first=0):
    memory.conversations.append([NewMessage(*message) for message in messages])
    chunk = StoreChunk(first, first + len(messages) - 1, context, kind)
    return memory.conversations.store([chunk])[0].memory


def rows_of_guide(heading: str) -> dict[str, list[str]]:
    """Return the rows of the table under a heading, by their first cell."""
    section = GUIDE.read_text("utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    rows = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in (rows[0], *rows[2:])}


def as_toml(policy: Policy, cell: str) -> str:
    value = getattr(policy, cell)
    if value is None:
        return {"chunk_tokens": '"model"', "half_life_days": '"never"'}[cell]
    if isinstance(value, str):
        return f'"{value}"'
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"


def test_the_guide_shows_the_table_as_it_is():
    rows = rows_of_guide("The table")
    head = rows.pop("kind")
    assert set(head) == set(Policy.model_fields) - {"guidance"}
    assert rows == {
        kind.value: [as_toml(policy, cell) for cell in head] for kind, policy in DEFAULTS.items()
    }
    guidance = rows_of_guide("What the model is told")
    guidance.pop("kind")
    assert guidance == {kind.value: [policy.guidance] for kind, policy in DEFAULTS.items()}


def test_every_kind_has_a_row():
    assert set(DEFAULTS) == set(Kind)


def test_the_example_of_the_guide_is_taken(tmp_path):
    example = re.search(r"```toml\n(.*?)```", GUIDE.read_text("utf-8"), re.S)[1]
    file = tmp_path / "kinds.toml"
    file.write_text(example, "utf-8")
    assert read_policies(file) != DEFAULTS


def test_a_file_overrides_single_cells(tmp_path):
    file = tmp_path / "kinds.toml"
    # As an editor on Windows writes it.
    file.write_bytes(
        b"\xef\xbb\xbf[project]\r\nhalf_life_days = 7\r\n"
        b'[technical]\r\nchunk_tokens = "model"\r\nhalf_life_days = "never"\r\n'
    )
    table = read_policies(file)
    assert table == changed(Kind.PROJECT, half_life_days=7.0) | {
        Kind.TECHNICAL: DEFAULTS[Kind.TECHNICAL].model_copy(
            update={"chunk_tokens": None, "half_life_days": None}
        )
    }


REFUSED = [
    ("[projekt]\ndated = true", ["'projekt'", "preference, fact"]),
    ("[project]\nhalf_life = 3", ["project.'half_life'", "half_life_days"]),
    ("project = 3", ["project = 3", "table"]),
    ('[project]\nhalf_life_days = "weeks"', ["project.half_life_days = 'weeks'", '"never"']),
    ("[project]\nhalf_life_days = 0", ["project.half_life_days = 0"]),
    ("[project]\nhalf_life_days = inf", ["project.half_life_days = inf"]),
    ("[project]\nhalf_life_days = true", ["project.half_life_days = True"]),
    ("[fact]\nfade_floor = nan", ["fact.fade_floor = nan"]),
    ("[fact]\nfade_floor = 1.5", ["fact.fade_floor = 1.5"]),
    ("[fact]\nduplicate_factor = -1", ["fact.duplicate_factor = -1"]),
    ("[fact]\nchunk_tokens = 31", ["fact.chunk_tokens = 31", "32", '"model"']),
    ("[fact]\nchunk_tokens = 64.5", ["fact.chunk_tokens = 64.5"]),
    ('[fact]\nverbatim = "all"', ["fact.verbatim = 'all'", "'whole', 'quote' or 'none'"]),
    ('[fact]\ndated = "yes"', ["fact.dated = 'yes'"]),
    ('[fact]\nguidance = "a\\nb"', ["fact.guidance = 'a\\nb'", "one line"]),
    ("[fact]\nguidance = 3", ["fact.guidance = 3"]),
    ("fact = [", ["not TOML"]),
    ("[fact]\n[fact]", ["not TOML"]),
]


@pytest.mark.parametrize(("text", "parts"), REFUSED, ids=[text for text, _ in REFUSED])
def test_what_a_file_must_not_say_is_one_line_with_file_key_and_value(tmp_path, text, parts):
    file = tmp_path / "kinds.toml"
    file.write_text(text)
    with pytest.raises(SettingsFault) as fault:
        load_settings(db=tmp_path / "memory.duckdb", kinds=str(file))
    assert fault.value.setting == "MCP_MEMORY_KINDS"
    assert "\n" not in str(fault.value)
    for part in (str(file), *parts):
        assert part in fault.value.message


@pytest.mark.parametrize(
    "name", ["missing.toml", "", " ", ".", "/dev/zero", "~nobody-of-this-name/k.toml"]
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path, name):
    with pytest.raises(SettingsFault) as fault:
        load_settings(db=tmp_path / "memory.duckdb", kinds=name)
    assert fault.value.setting == "MCP_MEMORY_KINDS"


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "kinds.toml").write_bytes(b"\xff\xfe[\x00")
    with pytest.raises(SettingsFault, match=r"kinds\.toml is not TOML"):
        load_settings(db=tmp_path / "memory.duckdb", kinds="kinds.toml")


def test_a_relative_path_begins_in_the_folder_of_the_database(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    (home / "kinds.toml").write_text("[project]\nhalf_life_days = 7")
    monkeypatch.chdir(tmp_path)
    settings = settings_of(
        {"MCP_MEMORY_DB": str(home / "memory.duckdb"), "MCP_MEMORY_KINDS": "kinds.toml"}
    )
    assert settings.kinds[Kind.PROJECT].half_life_days == 7
    assert load_settings().kinds == DEFAULTS


SAID = [("user", "Which kettle?", "Ana"), ("assistant", "The red one, for 30 euros.")]
VERBATIM = "user (Ana): Which kettle?\nassistant: The red one, for 30 euros."


@pytest.mark.parametrize("kind", list(Kind))
def test_short_messages_stand_under_the_context_but_for_a_reflection(memory, kind):
    kept = stored(memory, kind, *SAID)
    day = kept.happened_at.date()
    head = f"[{day}] Ana chose a kettle." if kind is Kind.PROJECT else "Ana chose a kettle."
    wanted = head if kind is Kind.REFLECTION else f"{head}\n\n{VERBATIM}"
    assert kept.content == wanted


@pytest.mark.parametrize("kind", list(Kind))
def test_long_messages_are_whole_a_quote_of_the_user_or_left_out(memory, kind):
    said = [("assistant", "Shall I? " * 100), ("user", "yes please " * 100)]
    body = stored(memory, kind, *said).content.partition("\n\n")[2]
    if DEFAULTS[kind].verbatim == "whole":
        assert body == f"assistant: {'Shall I? ' * 100}\nuser: {'yes please ' * 100}".rstrip()
    elif DEFAULTS[kind].verbatim == "quote":
        assert body.startswith("user: yes please yes please")
        assert body.endswith((" yes […]", " please […]"))
        assert QUOTE_CHARS // 2 < len(body) <= QUOTE_CHARS + len(" […]")
    else:
        assert body == ""


@pytest.mark.parametrize(
    "said",
    [
        [("assistant", "的" * 1_000)],
        [("user", "很" * 1_000), ("assistant", "好")],
        [("user", "x" * 1_000)],
    ],
)
def test_a_text_without_spaces_is_quoted_by_its_beginning(memory, said):
    body = stored(memory, Kind.PREFERENCE, *said).content.partition("\n\n")[2]
    assert len(body) == QUOTE_CHARS + len(" […]")


def test_progress_is_dated_by_the_day_in_the_zone_that_is_set(open_memory):
    memory = open_memory(timezone="Asia/Shanghai")
    late = datetime(2026, 3, 2, 20, tzinfo=UTC)
    kept = stored(memory, Kind.PROJECT, ("user", "Done.", None, late), context=" Importer done. ")
    assert kept.content.startswith("[2026-03-03] Importer done.\n")
    assert kept.happened_at == late


@pytest.mark.parametrize(
    "context",
    [
        "[2026-03-01] Importer done.",
        "2026-03-01: Importer done.",
        "1 March 2026: importer done.",
        "On March 1, 2026 the importer was done.",
        "2026年3月1日：导入程序已经完成。",
    ],
)
def test_progress_that_is_dated_already_keeps_its_date(memory, context):
    assert stored(memory, Kind.PROJECT, *SAID, context=context).content.startswith(context)


def test_the_range_a_memory_was_made_from_is_found_by_its_tag(memory):
    stored(memory, Kind.EPISODE, ("user", "Hello"))
    kept = stored(memory, Kind.FACT, *SAID, first=1)
    assert kept.tags == ("messages:main:1-2",)
    (hit,) = memory.archive.search(tags=["messages:main:1-2"]).items
    assert hit.memory == kept
    assert memory.archive.search("kettle", tags=["messages:main:1-2"]).total == 1


def test_ranges_are_neither_listed_among_the_tags_nor_found_by_words(open_memory):
    memory = open_memory(has_model=False)
    stored(memory, Kind.FACT, *SAID)
    memory.archive.insert("Ana likes tea.", tags=["tea", "message"])
    assert memory.archive.tags() == ["message", "tea"]
    assert memory.overview().tags == ("message", "tea")
    assert memory.archive.search("messages:main:0-1").total == 1
    assert memory.archive.search("main").total == 0


def test_the_range_of_a_conversation_with_a_long_name_can_be_searched_too(memory):
    name = "n" * 128
    memory.conversations.append([NewMessage("user", "Hello")], name)
    (kept,) = memory.conversations.store([StoreChunk(0, 0, "A greeting.")], name)
    (tag,) = kept.memory.tags
    assert tag.endswith(":0-0")
    assert memory.archive.search(tags=[tag]).total == 1


def test_the_same_conclusion_from_two_ranges_is_one_memory_with_both(memory):
    first = stored(memory, Kind.REFLECTION, *SAID)
    second = stored(memory, Kind.REFLECTION, *SAID, first=2)
    assert (second.id, second.version) == (first.id, 2)
    assert second.tags == ("messages:main:0-1", "messages:main:2-3")
    assert memory.archive.count() == 1


def test_an_overridden_kind_is_kept_as_the_table_says(open_memory):
    memory = open_memory(kinds=changed(Kind.EPISODE, verbatim="none", dated=True))
    kept = stored(memory, Kind.EPISODE, *SAID)
    assert kept.content == f"[{kept.happened_at.date()}] Ana chose a kettle."


@pytest.mark.parametrize("later", [False, True], ids=["at once", "by the background"])
def test_a_kind_says_how_long_its_chunks_are(open_memory, later):
    memory = open_memory(kinds=changed(Kind.TECHNICAL, chunk_tokens=32))
    text = " ".join([LONG] * (INLINE_CHUNKS // 3)) if later else LONG
    technical = memory.archive.insert(text, kind=Kind.TECHNICAL)
    fact = memory.archive.insert(f"{text} more", kind=Kind.FACT)
    assert technical.embedded is fact.embedded is not later
    memory._engine.fill_pending()
    lengths = [
        max(len(kept.memory.content[start:end].split()) for start, end in ranges)
        for kept in (technical, fact)
        for ranges in [chunks_of(memory, kept.memory.id)]
    ]
    assert lengths == [32, 50]


def test_another_kind_cuts_a_memory_anew_at_once(open_memory):
    memory = open_memory(kinds=changed(Kind.TECHNICAL, chunk_tokens=32))
    kept = memory.archive.insert(LONG, kind=Kind.FACT).memory
    before = len(chunks_of(memory, kept.id))
    memory.archive.update(kept.id, kind=Kind.TECHNICAL)
    assert len(chunks_of(memory, kept.id)) > before
    memory.archive.update(kept.id, kind=Kind.FACT)
    assert len(chunks_of(memory, kept.id)) == before


def test_a_merged_memory_keeps_the_chunks_of_its_own_kind(open_memory):
    memory = open_memory(kinds=changed(Kind.TECHNICAL, chunk_tokens=32))
    kept = memory.archive.insert(LONG, kind=Kind.FACT).memory
    before = chunks_of(memory, kept.id)
    merged = memory.archive.insert(LONG, kind=Kind.TECHNICAL, tags=["a"]).memory
    assert (merged.id, merged.kind, merged.tags) == (kept.id, Kind.FACT, ("a",))
    memory._engine.fill_pending()
    assert chunks_of(memory, kept.id) == before


def old_and_new(memory, kind):
    """Keep two texts that answer equally well; the old one is put in last."""
    new = memory.archive.insert("heron exporter: done", kind=kind).memory
    old = memory.archive.insert(
        "heron exporter: open", kind=kind, happened_at="2020-01-01T12:00:00Z"
    ).memory
    return old.id, new.id


def found(page):
    return [hit.memory.id for hit in page.items]


@pytest.mark.parametrize("kind", list(Kind))
def test_of_what_answers_equally_well_the_newer_comes_first_if_its_kind_ages(open_memory, kind):
    memory = open_memory(has_model=False)
    old, new = old_and_new(memory, kind)
    ages = DEFAULTS[kind].half_life_days is not None
    page = memory.archive.search("heron exporter")
    assert found(page) == ([new, old] if ages else [old, new])
    assert page.total == 2


def test_ageing_leaves_totals_filters_and_listings_alone(memory):
    old, new = old_and_new(memory, Kind.PROJECT)
    assert found(memory.archive.search()) == [new, old]
    year = {"start_date": "2020-01-01", "end_date": "2020-12-31"}
    for query in (None, "heron exporter"):
        page = memory.archive.search(query, **year)
        assert (found(page), page.total) == ([old], 1)
        assert memory.archive.search(query, kinds=[Kind.PROJECT]).total == 2


def test_an_old_memory_keeps_the_floor_of_its_score(open_memory):
    memory = open_memory(
        has_model=False,
        kinds=changed(Kind.PROJECT, fade_floor=0.25, half_life_days=1.0),
    )
    kept = memory.archive.insert(
        "heron exporter: open", kind=Kind.PROJECT, happened_at="2020-01-01T12:00:00Z"
    ).memory
    aged = memory.archive.search("heron exporter").items[0].score
    memory.archive.update(kept.id, kind=Kind.FACT)
    assert aged == pytest.approx(memory.archive.search("heron exporter").items[0].score / 4)


def test_what_is_still_to_come_is_worth_no_more_than_what_is_new(open_memory):
    memory = open_memory(has_model=False)
    ahead = (datetime.now(UTC) + timedelta(days=365)).isoformat()
    kept = memory.archive.insert("heron exporter: open", kind=Kind.PROJECT, happened_at=ahead)
    coming = memory.archive.search("heron exporter").items[0].score
    memory.archive.update(kept.memory.id, kind=Kind.FACT)
    assert coming == pytest.approx(memory.archive.search("heron exporter").items[0].score)


def test_another_kind_ages_a_memory_at_once(open_memory):
    memory = open_memory(has_model=False)
    old, new = old_and_new(memory, Kind.FACT)
    assert found(memory.archive.search("heron exporter")) == [old, new]
    memory.archive.update(old, kind=Kind.PROJECT)
    assert found(memory.archive.search("heron exporter")) == [new, old]
    memory.archive.update(old, kind=Kind.PREFERENCE)
    assert found(memory.archive.search("heron exporter")) == [old, new]


def test_a_memory_ages_the_same_after_the_database_was_opened_again(open_memory):
    memory = open_memory(has_model=False)
    old, new = old_and_new(memory, Kind.PROJECT)
    memory.close()
    again = open_memory(has_model=False)
    assert found(again.archive.search("heron exporter")) == [new, old]


@pytest.mark.parametrize("kind", list(Kind))
def test_how_near_a_duplicate_must_be_is_a_matter_of_the_kind(memory, kind):
    embedder = HashEmbedder()
    later = WORDS.replace("word5 ", "other ").replace("word6 ", "again ")
    one, two = embedder.embed_passages([WORDS, later])
    assert 0.95 < one @ two < 0.975
    first = memory.archive.insert(WORDS).memory
    named = [near.id for near in memory.archive.insert(later, kind=kind).near_duplicates]
    assert named == ([] if kind is Kind.PROJECT else [first.id])


def test_the_factor_widens_and_narrows_the_distance_of_the_model():
    rows = [
        DEFAULTS[Kind.FACT].model_copy(update={"duplicate_factor": factor}).near_duplicate_at(0.95)
        for factor in (0, 0.5, 1, 2)
    ]
    assert rows == pytest.approx([1, 0.975, 0.95, 0.9])


class DeafEmbedder(HashEmbedder):
    """A model that was made for another language: to it all texts are nearly the same."""

    def embed_passages(self, texts, *, urgent=True):
        vectors = np.ones((len(texts), self.dimension), np.float32)
        vectors += super().embed_passages(texts) * 0.1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_what_shares_no_words_is_no_duplicate_whatever_the_model_thinks(settings):
    memory = memory_of(Engine(settings, embedder=DeafEmbedder()))
    for number in range(5):
        memory.archive.insert(f"项目的数据库在{number}端口上运行。")
    first = memory.archive.insert("安娜喜欢坐火车。").memory
    assert memory.archive.insert("导入程序已经完成").near_duplicates == ()
    (near,) = memory.archive.insert("安娜不喜欢坐火车。").near_duplicates
    assert near.id == first.id
    memory.close()


@pytest.mark.slow
def test_with_the_default_model_a_preference_in_other_words_is_named_and_another_is_not(settings):
    files = fetch_model(DEFAULT_MODEL, load_settings().cache_dir, offline=False)
    changes = {"embedding_model": DEFAULT_MODEL}
    engine = Engine(
        settings.model_copy(update=changes), embedder=FastEmbedder.load(files, threads=1)
    )
    memory = memory_of(engine)
    first = memory.archive.insert("Ana prefers trains to planes.", kind=Kind.PREFERENCE).memory
    for text in ("Ana wants replies in short sentences.", "安娜喜欢喝绿茶。"):
        kept = memory.archive.insert(text, kind=Kind.PREFERENCE)
        assert kept.near_duplicates == ()
    said = "Ana would rather take the train than fly."
    other = memory.archive.insert(said, kind=Kind.TECHNICAL)
    assert other.near_duplicates == ()
    memory.archive.delete(other.memory.id)
    (near,) = memory.archive.insert(said, kind=Kind.PREFERENCE).near_duplicates
    assert near.id == first.id
    memory.close()
