"""`mcp-memory search` and `explain`: what is found, and why, told to a person."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from fakes import HashEmbedder, memory_of
from processes import command
from talker import Household

from mcp_memory.agent import AgentMemory
from mcp_memory.cli.explain import explain
from mcp_memory.cli.search import highlighted, search
from mcp_memory.cli.summarize import summarize
from mcp_memory.models.files import find_model
from mcp_memory.search.fusion import (
    MEANING,
    MEANING_NEAR,
    SPEAKER,
    TIME,
    WORDS,
    WORDS_NEAR,
    reasons,
)
from mcp_memory.settings import DEFAULT_MODEL, Settings, load_settings
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.errors import NotFound
from mcp_memory.values.records import Kind, NewMessage

MARCH = datetime(2026, 3, 9, 10, tzinfo=UTC)


def fill(memory: AgentMemory) -> None:
    memory.conversations.append(
        [
            NewMessage("user", "The heron stood at the pond\x1b[2J", "Ana", MARCH),
            NewMessage("assistant", "A grey one?", None, MARCH),
            NewMessage("user", "We watered the garden", None, MARCH + timedelta(days=30)),
        ]
    )
    memory.conversations.append([NewMessage("user", "A heron [bold]again")], "other")
    memory.archive.insert("Herons nest in April", tags=["birds"])
    memory.archive.insert("The heron is blue", kind=Kind.EPISODE, happened_at="2026-01-01")


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("MCP_MEMORY_DB", str(settings.db))
    monkeypatch.setenv("MCP_MEMORY_CACHE_DIR", str(settings.cache_dir))
    monkeypatch.setenv("MCP_MEMORY_EMBEDDING_MODEL", settings.embedding_model)
    memory = memory_of(Engine(settings, embedder=HashEmbedder()))
    fill(memory)
    memory.close()

    def run_it(of: click.Command, *arguments: str) -> Result:
        return CliRunner().invoke(of, arguments)

    return run_it


def found(result: Result, tier: str) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    results: list[dict[str, Any]] = json.loads(result.stdout)[tier]["results"]
    return results


def test_both_tiers_are_searched_and_a_missing_model_is_said(run):
    done = run(search, "heron")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("searched by words alone: the embedding model is unavailable")
    assert lines[1] == "messages: 2 found"
    assert "memories: 2 found" in lines
    shown = done.stdout.replace("\n    ", " | ")
    assert "user Ana in main 0" in shown
    assert "2026-03-09 10:00" in shown
    assert "fact #birds" in shown
    # What is stored can neither move the cursor nor style the terminal.
    assert "\x1b" not in done.stdout
    assert "A heron [bold]again" in done.stdout


def test_what_matches_is_marked(run):
    hit = found(run(search, "heron", "--conversation", "main", "--json"), "conversation")[0]
    start, end = hit["matches"][0]
    assert hit["text"][start:end] == "heron"
    shown = highlighted(hit)
    [span] = shown.spans
    assert shown.plain[span.start : span.end] == "heron"
    assert "bold" in str(span.style)


@pytest.mark.parametrize(
    ("arguments", "tier", "texts"),
    [
        (["--tier", "archival"], "archival", {"Herons nest in April", "The heron is blue"}),
        (["--tag", "birds"], "archival", {"Herons nest in April"}),
        (["--kind", "episode"], "archival", {"The heron is blue"}),
        (["--conversation", "other"], "conversation", {"A heron [bold]again"}),
        (["--role", "assistant"], "conversation", set()),
        (
            ["--tier", "conversation", "--to", "2026-03-31"],
            "conversation",
            {"The heron stood at the pond\x1b[2J"},
        ),
        (["--tier", "archival", "--from", "2026-02-01"], "archival", {"Herons nest in April"}),
    ],
)
def test_filters_choose_what_is_found(run, arguments, tier, texts):
    done = run(search, "heron", "--json", *arguments)
    assert {hit["text"] for hit in found(done, tier)} == texts
    assert set(json.loads(done.stdout)) == {"query", tier}


def test_the_limit_counts_for_each_tier(run):
    done = json.loads(run(search, "heron", "--limit", "1", "--json").stdout)
    for tier in ("conversation", "archival"):
        assert (len(done[tier]["results"]), done[tier]["total"]) == (1, 2)
        assert done[tier]["results"][0]["why"] == ["lexical"]
    assert "messages: 2 found, the best 1 shown" in run(search, "heron", "--limit", "1").stdout


def test_filters_of_both_tiers_at_once_are_refused(run):
    assert run(search, "heron", "--tag", "birds", "--role", "user").exit_code == 2
    assert run(search, "heron", "--tier", "archival", "--role", "user").exit_code == 2
    refused = run(search, "heron", "--from", "soon")
    assert "'soon' is not a date" in str(refused.exception)


def test_an_explanation_names_terms_speakers_times_and_ranks(run):
    done = run(explain, "what did Ana see at the pond in March 2026", "--json")
    told = json.loads(done.stdout)["conversation"]
    assert told["terms"]["pond"] > 0
    assert told["terms"]["see"] is None
    assert told["speakers"] == ["Ana"]
    [named] = told["times"]
    assert "March 2026" in named["text"]
    assert (named["from"], named["to"]) == (
        "2026-03-01T00:00:00+00:00",
        "2026-04-01T00:00:00+00:00",
    )
    first = told["hits"][0]
    assert first["by_words"] == 1
    assert first["by_meaning"] is None
    assert set(first["signals"]) >= {"words", "speaker", "time"}
    for part in first["signals"].values():
        assert part["adds"] == pytest.approx(part["standing"] * part["weight"], abs=0.01)
    text = run(explain, "what did Ana see at the pond in March 2026").stdout
    assert "words alone: the embedding model is unavailable" in text
    assert "speakers: Ana" in text
    assert "2026-03-01 00:00 to 2026-04-01 00:00" in text


def test_an_explanation_of_nothing_says_so(run):
    done = run(explain, "zebra")
    assert done.exit_code == 0, done.output
    assert "conversation: 0 found" in done.stdout
    refused = run(explain, " ")
    assert refused.exit_code == 2
    assert "QUERY is empty" in refused.output


@pytest.mark.parametrize("nothing", [(), ("",), (" ",)])
def test_without_a_query_the_newest_are_listed(run, nothing):
    done = run(search, *nothing, "--limit", "2")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "messages: 4 stored, the newest 2 shown"
    assert "A heron [bold]again" in lines[2]
    assert "memories: 2 stored" in lines
    assert "0.000" not in done.stdout
    listed = json.loads(run(search, *nothing, "--json").stdout)
    assert listed["query"] is None
    assert listed["conversation"]["search"] == "listing"


@pytest.mark.parametrize("of", [search, explain, summarize])
def test_an_agent_that_has_stored_nothing_is_named_with_those_that_have(of, run, settings):
    refused = run(of, "heron", "--agent", "defualt").exception
    assert isinstance(refused, NotFound)
    assert "'defualt' has stored nothing" in refused.message
    assert "'default'" in str(refused.hint)
    again = run(of, "heron", "--agent", "defualt").exception
    assert str(again) == str(refused)


def test_ranks_by_each_half_and_what_age_and_copies_leave_are_explained(open_memory):
    memory = open_memory()
    fill(memory)
    for number in range(3):
        memory.archive.insert(
            f"heron {'heron ' * number}at the weir", kind=Kind.PROJECT, happened_at="2020-01-01"
        )
    told = memory.explanations.explain("heron at the weir", "archival", limit=10)
    assert told.search == "hybrid"
    assert told.total == len(told.hits) == 5
    for rank_of in ("by_words", "by_meaning"):
        ranks = [getattr(hit, rank_of) for hit in told.hits if getattr(hit, rank_of)]
        assert sorted(ranks) == list(range(1, len(ranks) + 1))
    old = [hit for hit in told.hits if "weir" in hit.passage.text]
    assert all(hit.faded < 1 for hit in old)
    assert all(hit.faded == 1 for hit in told.hits if "nest" in hit.passage.text)
    assert all(hit.crowded == pytest.approx(1) or hit.crowded < 0.9 for hit in told.hits)
    # What is shown is what the score is made of, and nothing else.
    added = {hit.id: sum(of.standing * of.weight for of in hit.signals) for hit in told.hits}
    made = {hit.id: hit.score / hit.faded / hit.crowded for hit in told.hits}
    assert sorted(added, key=added.__getitem__) == sorted(made, key=made.__getitem__)
    found = memory.archive.search("heron at the weir")
    assert [hit.memory.id for hit in found.items] == [hit.id for hit in told.hits]
    assert [hit.why for hit in found.items] == [hit.why for hit in told.hits]


@pytest.mark.parametrize(
    ("signals", "worded", "why"),
    [
        ({WORDS: 2, MEANING: 1.5}, True, ("lexical", "semantic")),
        ({WORDS: 2, MEANING: 0.1}, True, ("lexical",)),
        ({WORDS: 0.1, WORDS_NEAR: 2, MEANING: 0.1}, True, ("near",)),
        ({WORDS: 2, WORDS_NEAR: 2.1, MEANING: 0.1}, True, ("lexical",)),
        ({WORDS: 0, MEANING: 1, MEANING_NEAR: 3}, False, ("semantic", "near")),
        ({WORDS: 0, MEANING: 1, TIME: 0.4, SPEAKER: 0}, False, ("semantic",)),
        ({WORDS: 0, MEANING: 0, TIME: 1, SPEAKER: 1}, False, ("when", "who")),
        ({WORDS: -0.1, MEANING: -2}, False, ("semantic",)),
        ({WORDS: -0.1, MEANING: -2}, True, ("lexical",)),
        ({WORDS: -0.3}, True, ("lexical",)),
        ({WORDS: 2, WORDS_NEAR: 0, MEANING: math.nan, MEANING_NEAR: math.nan}, True, ("lexical",)),
        ({}, False, ("semantic",)),
    ],
)
def test_a_reason_is_what_stands_out_and_there_is_always_one(signals, worded, why):
    assert reasons(signals, worded=worded) == why


@pytest.mark.slow
def test_a_search_goes_through_the_owner_that_runs_and_none_is_left(tmp_path: Path):
    house = Household(tmp_path, tmp_path / "cache")
    try:
        client = house.client()
        client.call("archival_memory_insert", content="The heron nests in April")
        pid = house.pid()
        done = command(house.home, "search", "heron", "--json", **house.settings)
        assert done.returncode == 0, done.stderr
        assert len(json.loads(done.stdout)["archival"]["results"]) == 1
        told = command(house.home, "explain", "heron", **house.settings)
        assert "archival: 1 found, by words alone" in told.stdout
        assert house.pid() == pid
    finally:
        house.clear()


@pytest.mark.slow
def test_without_an_owner_the_model_is_waited_for(settings, monkeypatch):
    cache = load_settings().cache_dir
    if find_model(DEFAULT_MODEL, cache) is None:
        pytest.skip("the model's files are not there")
    monkeypatch.setenv("MCP_MEMORY_DB", str(settings.db))
    done = CliRunner().invoke(search, ["bird", "--json"])
    assert done.exit_code == 0, done.output
    fresh = json.loads(done.stdout)["archival"]
    assert (fresh["search"], fresh["note"]) == ("hybrid", None)
