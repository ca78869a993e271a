"""What commands print: stored text is seen as it is, and never acts on the terminal."""

from __future__ import annotations

import io
import json
import logging
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fakes import HashEmbedder, memory_of
from hypothesis import example, given
from hypothesis import strategies as st

import mcp_memory.cli
from mcp_memory.cli import cli
from mcp_memory.server.logs import set_up
from mcp_memory.settings import Settings
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.records import NewMessage
from mcp_memory.values.visible import visible

EVIL = (
    "\x1b]0;title\x07\x1b[2J\x9b31m\x85\x7f\x08 \u202eevil\u2066x\u2069 \u200bz\u00ad\u2028"
    "\U000e0041\u3164\u034f\ufeff end"
)
NAME = "Ana\u202e\u2066\u200b"
HIDDEN = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}


def acts(text: str) -> list[str]:
    """Return the characters of an output that a terminal would obey or not show."""
    return [char for char in text if char not in "\n\t" and unicodedata.category(char) in HIDDEN]


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("MCP_MEMORY_DB", str(settings.db))
    monkeypatch.setenv("MCP_MEMORY_CACHE_DIR", str(settings.cache_dir))
    monkeypatch.setenv("MCP_MEMORY_EMBEDDING_MODEL", settings.embedding_model)
    engine = Engine(settings, embedder=HashEmbedder())
    memory = memory_of(engine)
    memory.core.append("human", EVIL)
    memory.core.finish_rethinking(EVIL)
    messages = [NewMessage("user", f"tea {number} {EVIL}", "Ana") for number in range(9)]
    memory.conversations.append(messages, NAME)
    memory.conversations.flush(NAME, f"summary {EVIL}")
    memory.archive.insert(f"tea {EVIL}", tags=[NAME])
    memory.close()
    return lambda *arguments: CliRunner().invoke(cli, arguments)


COMMANDS = (
    ("search", "tea"),
    ("search",),
    ("search", "tea", "--conversation", NAME),
    ("explain", "tea"),
    ("block", "list"),
    ("block", "history", "human"),
    ("block", "history", "human", "--version", "1"),
    ("block", "set", "human", EVIL, "--description", EVIL),
    ("summarize", NAME),
    ("status",),
    ("doctor",),
    ("token", "create", "--name", NAME),
    ("token", "list"),
)


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_no_command_prints_what_acts_on_a_terminal(arguments, run):
    run("token", "create", "--name", NAME)
    done = run(*arguments)
    assert done.exit_code in {0, 1}, done.output
    assert acts(done.output) == []
    if arguments[0] in {"search", "explain", "summarize"} or arguments[1:2] == ("list",):
        assert "\\u202e" in done.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("search", "tea"),
        ("search",),
        ("explain", "tea"),
        ("status",),
        ("doctor",),
        ("token", "list"),
    ],
    ids=" ".join,
)
def test_json_has_escapes_for_it_and_loses_nothing(arguments, run):
    run("token", "create", "--name", NAME)
    done = run(*arguments, "--json")
    assert acts(done.stdout) == []
    report = json.loads(done.stdout)
    if arguments[0] == "search":
        assert report["archival"]["results"][0]["text"] == f"tea {EVIL}"
        assert report["conversation"]["results"][0]["conversation"] == NAME
    if arguments[0] == "token":
        assert report[0]["name"] == NAME


@pytest.mark.parametrize(
    "arguments",
    [
        ("search", "tea", "--agent", NAME),
        ("block", "history", f"x{EVIL}"),
        ("search", "--from", EVIL),
        ("load", f"/nothing/{EVIL}"),
        (f"no-{EVIL}",),
    ],
    ids=lambda arguments: arguments[0][:6],
)
def test_an_error_that_quotes_text_is_printed_so_too(arguments, run, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["mcp-memory", *arguments])
    with pytest.raises(SystemExit) as ended:
        mcp_memory.cli.main()
    assert ended.value.code in {1, 2}
    told = capsys.readouterr()
    assert told.err
    assert acts(told.out + told.err) == []


def test_the_log_is_printed_so_too(monkeypatch):
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    log = io.StringIO()
    monkeypatch.setattr("sys.stderr", log)
    try:
        set_up("info", "%(levelname)s %(message)s")
        logging.getLogger("test").info("stored %s", EVIL)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    assert acts(log.getvalue()) == []
    assert "\\x1b[2J" in log.getvalue()


@given(st.text())
@example("caf\u00e9 咖啡\u3000e\u0301 👍🏽 ❤\ufe0f a\u00a0b")
@example(EVIL)
def test_only_what_acts_or_hides_is_replaced(text):
    shown = visible(text)
    assert acts(shown) == []
    assert "\n" not in shown
    assert visible(shown) == shown
    kept = [char for char in text if visible(char) == char]
    assert [char for char in kept if char in shown] == kept
    assert visible("é咖\u3000\u0301👍🏽❤\ufe0f\u00a0") == "é咖\u3000\u0301👍🏽❤\ufe0f\u00a0"
    assert visible(f"a\n{text}", lines=True).startswith("a\n")


def test_commands_print_in_one_place_only():
    folder = Path(mcp_memory.cli.__file__).parent
    direct = re.compile(r"click\.s?echo\(|(?<![\w.])print\(|std(?:out|err)\.write\(|\.show\(\)")
    found = [
        path.name
        for path in folder.rglob("*.py")
        if path.name != "output.py" and direct.search(path.read_text("utf-8"))
    ]
    assert found == []
