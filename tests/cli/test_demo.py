"""The demo: its conversation, its script, and one run against the real server."""

import io
import itertools
import os
import re
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import anyio
import pytest
from click.testing import CliRunner
from rich.console import Console

from mcp_memory.cli.demo import demo
from mcp_memory.cli.demo.player import batches
from mcp_memory.cli.demo.script import QUESTIONS, RECOLLECTIONS, SAVES, load_conversation
from mcp_memory.cli.demo.show import BAR_CELLS, Show, around, bar, clip
from mcp_memory.cli.demo.wire import server_environment, temporary_server
from mcp_memory.values.errors import MemoryFault

RUN_SECONDS = 240


@pytest.fixture(scope="module")
def conversation():
    return load_conversation()


def dates(messages):
    return [datetime.fromisoformat(message["created_at"]) for message in messages]


def words_of(text):
    """Words that carry a meaning, cut to the part that inflection leaves alone."""
    small = {"what", "where", "which", "with", "from", "that", "this", "does", "have"}
    return {word[:5] for word in re.findall(r"[a-z]{4,}", text.lower())} - small


def test_the_conversation_has_about_two_hundred_messages_of_the_known_roles(conversation):
    assert 190 <= len(conversation) <= 220
    assert {message["role"] for message in conversation} == {"user", "assistant", "tool"}
    assert all(message["content"].strip() for message in conversation)
    allowed = {"role", "content", "name", "created_at"}
    assert all(set(message) <= allowed for message in conversation)


def test_its_dates_have_a_zone_and_only_go_forward_over_some_months(conversation):
    times = dates(conversation)
    assert all(time.utcoffset() is not None for time in times)
    assert all(earlier < later for earlier, later in itertools.pairwise(times))
    assert times[-1] - times[0] > timedelta(days=120)


def test_a_tool_result_follows_an_assistant_and_has_a_name(conversation):
    results = [n for n, message in enumerate(conversation) if message["role"] == "tool"]
    assert len(results) >= 3
    assert all(conversation[n - 1]["role"] == "assistant" for n in results)
    assert all(conversation[n]["name"] for n in results)


def test_no_two_messages_are_alike(conversation):
    texts = [message["content"] for message in conversation]
    assert len(set(texts)) == len(texts)


def test_the_script_points_to_the_messages_that_it_means(conversation):
    places = [place for save in SAVES for place in save.places]
    places += [place for question in QUESTIONS for place in question.answers]
    for index, words in places:
        assert words in conversation[index]["content"]


def test_the_agent_saves_in_the_order_of_the_conversation():
    last = [save.places[-1][0] for save in SAVES]
    assert last == sorted(last)
    for save in SAVES:
        for chunk in save.arguments.get("chunks", ()):
            places = (chunk["start_index"], chunk["end_index"])
            assert places == (save.places[0][0], save.places[-1][0])
            assert places[0] <= places[1]


def test_what_is_asked_of_archival_memory_was_named_by_a_save_before():
    named = [save.name for save in SAVES if save.name]
    assert len(set(named)) == len(named)
    assert {question.name for question in RECOLLECTIONS} <= set(named)
    assert {save.of for save in SAVES if save.of} <= set(named)


def test_every_question_is_about_the_first_third(conversation):
    for question in QUESTIONS:
        assert question.answers[0][0] < len(conversation) / 3


def test_a_question_in_other_words_shares_none_with_its_answer(conversation):
    asked = [question for question in QUESTIONS if question.kind == "other words"]
    assert len(asked) >= 3
    for question in asked:
        answer = conversation[question.answers[0][0]]["content"]
        assert not words_of(question.text) & words_of(answer)


def test_the_identifier_asked_for_stands_in_one_message_only(conversation):
    (question,) = (question for question in QUESTIONS if question.kind == "identifier")
    (identifier,) = re.findall(r"[A-Z]+-\d+", question.text)
    holders = [n for n, message in enumerate(conversation) if identifier in message["content"]]
    assert holders == [question.answers[0][0]]


def test_the_fact_that_changed_was_said_twice_with_different_values():
    (question,) = (question for question in QUESTIONS if question.kind == "changed fact")
    (old, old_words), (new, new_words) = question.answers
    assert old < new
    assert old_words != new_words


def test_batches_hold_every_message_once_and_never_part_a_visit(conversation):
    parts = list(batches(conversation))
    assert [index for part in parts for index in part] == list(range(len(conversation)))
    times = dates(conversation)
    for part in parts[1:]:
        assert times[part[0]] - times[part[0] - 1] > timedelta(hours=6)


def test_the_server_gets_a_database_of_its_own_and_no_other_setting_of_ours(monkeypatch):
    monkeypatch.setenv("MCP_MEMORY_DB", "mine.duckdb")
    monkeypatch.setenv("MCP_MEMORY_WARN_AT", "0.2")
    monkeypatch.setenv("MCP_MEMORY_CACHE_DIR", "models")
    monkeypatch.setenv("UNRELATED", "kept")
    environment = server_environment(Path("folder"), 5000)
    assert environment["MCP_MEMORY_DB"] == str(Path("folder", "demo.duckdb"))
    assert environment["MCP_MEMORY_CONTEXT_WINDOW"] == "5000"
    assert environment["MCP_MEMORY_OWNER"] == "off"
    assert environment["MCP_MEMORY_CACHE_DIR"] == "models"
    assert environment["UNRELATED"] == "kept"
    assert "MCP_MEMORY_WARN_AT" not in environment


@pytest.mark.parametrize("pressure", [0.0, 0.4, 0.7, 0.99, 1.0, 1.6])
def test_a_bar_always_has_the_same_width_and_is_ascii(pressure):
    assert len(bar(pressure)) == BAR_CELLS + 2
    assert bar(pressure).isascii()


def test_a_long_text_is_clipped_between_words_around_those_that_matter():
    text = "before " * 60 + "the needle " + "after " * 60
    shown = around(text, "the needle", 80)
    assert "the needle" in shown
    assert len(shown) <= 90
    assert set(shown.split()) <= {"before", "the", "needle", "after", "..."}
    assert clip("a\n b   c", 10) == "a b c"
    assert clip("word " * 30, 20) == "word word word ..."
    assert len(clip("w" * 30, 20)) <= 20


def test_what_came_over_the_wire_is_never_markup_and_never_acts():
    out = io.StringIO()
    show = Show(Console(file=out, width=80))
    show.told("who", "an [red]alert[/red] [/] \x1b[2J \u202e")
    show.say("[link=x]y[/link]")
    assert "an [red]alert[/red] [/] \\x1b[2J \\u202e" in out.getvalue()
    assert "[link=x]y[/link]" in out.getvalue()


def test_a_terminal_that_shows_ascii_alone_gets_nothing_else():
    out = io.StringIO()
    show = Show(Console(file=out, width=80), ascii_only=True)
    show.told("Günther", "“café” – 外婆 …")
    show.filled("2 Feb", 0.7, "warning")
    assert out.getvalue().isascii()
    assert 'Gunther    "cafe"' in out.getvalue()
    assert not show.can_show("外婆想吃什么点心？")
    assert show.can_show("Günther")


def test_help_says_what_it_does_and_what_the_exit_status_means():
    result = CliRunner().invoke(demo, ["--help"])
    assert result.exit_code == 0
    assert "--window" in result.output
    assert "Exit status 1" in result.output


def run_demo(*arguments, **settings):
    return subprocess.run(
        [sys.executable, "-m", "mcp_memory", "demo", *arguments],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"} | settings,
        encoding="utf-8",
        timeout=RUN_SECONDS,
        check=False,
    )


def parts(output):
    """Return the paragraphs of a run by their heading."""
    found: dict[str, list[str]] = {}
    for text in output.splitlines():
        if text and not text.startswith(" "):
            found[text] = []
        elif text.strip():
            found[list(found)[-1]].append(text.strip())
    return {heading: " ".join(texts) for heading, texts in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize("locale", [{}, {"LC_ALL": "C", "TERM": "dumb"}], ids=["plain", "ascii"])
def test_the_demo_says_why_and_what_finds_all_and_ends_with_what_to_do(tmp_path, locale):
    folders = {name: str(tmp_path) for name in ("TMPDIR", "TEMP", "TMP")}
    result = run_demo("--fast", **folders, **locale)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    told = parts(result.stdout)
    assert list(told) == [
        "Why a memory",
        "1. Hanna talks, and the window fills up",
        "2. Half a year later",
        "3. Can it still answer?",
        "That is the point",
        "Give it to your assistant",
    ]
    why, happens, later, answers, point, give = told.values()
    assert "What no longer fits is forgotten" in why
    assert f"exchange {len(load_conversation())} messages" in why
    assert "token" not in why
    assert "they would be forgotten now" in happens
    assert "have left its window" in later
    assert "20 Feb 2026" in answers
    assert "the later one is true" in answers
    total = len(QUESTIONS) + len(RECOLLECTIONS)
    assert f"{total} of {total} questions were answered from memory" in point
    assert f"For {len(QUESTIONS)} of the {len(QUESTIONS)} about" in point
    assert f"claude mcp add memory -s user -- {Path(sys.executable).parent}" in give
    assert '{"mcpServers": {"memory": {"command": ' in give
    for raw in ("{'", '"id"', "…", "ids", "█", "│", "→"):
        assert raw not in result.stdout
    if locale:
        assert result.stdout.isascii()
    assert not list(tmp_path.glob("mcp-memory-demo-*"))


def test_the_readme_tells_the_numbers_of_the_demo():
    readme = Path(__file__).parents[2].joinpath("README.md").read_text("utf-8")
    told = re.search(r"A conversation of (\d+) messages", readme)
    assert told is not None
    assert int(told[1]) == len(load_conversation())


DIES_AT_ONCE = "import sys; sys.exit('no room on the device')"
DIES_AT_THE_FIRST_LINE = "import sys; sys.stdin.readline(); sys.exit('out of memory')"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "last_words"),
    [(DIES_AT_ONCE, "no room on the device"), (DIES_AT_THE_FIRST_LINE, "out of memory")],
)
def test_a_server_that_dies_is_a_fault_with_the_last_line_of_its_log(program, last_words):
    async def connect():
        async with temporary_server(4000, arguments=("-c", program)):
            pass

    with pytest.raises(MemoryFault, match=last_words):
        anyio.run(connect)


FAILS_AT_THE_FIRST_LINE = "import sys; sys.stdin.readline(); [][1]"


@pytest.mark.slow
def test_a_server_that_fails_is_a_fault_with_the_last_traceback_of_its_log():
    async def connect():
        async with temporary_server(4000, arguments=("-c", FAILS_AT_THE_FIRST_LINE)):
            pass

    with pytest.raises(MemoryFault, match="IndexError: list index") as raised:
        anyio.run(connect)
    assert 'File "<string>", line 1' in str(raised.value)
