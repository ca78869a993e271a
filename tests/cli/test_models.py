"""`mcp-memory models` on a hub of our own, and once on the real model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hub import CONTENTS, MODEL_FILE, NAME, Hub, running_hub, small_model

from mcp_memory.cli.models import models
from mcp_memory.models import files as modelfiles
from mcp_memory.values.errors import ModelUnavailable

FOLDER = "models/" + NAME.replace("/", "--")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(modelfiles, "ARCTIC", small_model())
    with running_hub(monkeypatch) as hub:
        yield hub


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("MCP_MEMORY_CACHE_DIR", str(tmp_path))

    def run_it(*arguments: str) -> Result:
        return CliRunner().invoke(models, arguments)

    return run_it


def test_fetch_says_where_the_files_are_how_large_and_checked(
    hub: Hub, run: Callable[..., Result], tmp_path: Path
) -> None:
    done = run("fetch")
    assert done.exit_code == 0
    assert done.stdout == f"{NAME} is ready: {tmp_path / FOLDER} (1.0 MB, checksums verified)\n"
    assert done.stderr.splitlines() == [
        "fetching tokenizer.json from the hub",
        f"fetching {MODEL_FILE} from the hub",
    ]
    again = run("fetch")
    assert again.stdout.startswith(f"{NAME} is already there: ")
    assert len(hub.paths) == len(CONTENTS)


@pytest.mark.usefixtures("hub")
def test_on_a_terminal_there_is_a_bar(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    done = run("fetch")
    assert done.stdout.startswith(f"{NAME} is ready")
    assert "━" in done.stderr
    assert f"{MODEL_FILE} from the hub" in done.stderr


def test_a_failed_fetch_says_why_for_every_source(hub: Hub, run: Callable[..., Result]) -> None:
    hub.files.clear()
    done = run("fetch")
    assert isinstance(done.exception, ModelUnavailable)
    said = [line for line in done.stderr.splitlines() if line.startswith("- ")]
    assert said[0].startswith("- the hub: HTTP status 404")
    assert said[1] == "- the package index: no package contains this model"


def test_list_says_what_is_set_where_it_is_and_whether_it_is_there(
    hub: Hub, run: Callable[..., Result], tmp_path: Path
) -> None:
    before = run("list").stdout
    assert f"model:  {NAME} (the default)" in before
    assert "not there; `mcp-memory models fetch`" in before
    assert str(tmp_path / FOLDER) in before
    run("fetch")
    assert "state:  there, 1.0 MB, checksums verified" in run("list").stdout
    (tmp_path / FOLDER / MODEL_FILE).write_bytes(b"damaged")
    assert "not there" in run("list").stdout


def test_list_all_names_every_model_that_can_be_set(run: Callable[..., Result]) -> None:
    listed = run("list", "--all").stdout
    assert f"   384  {NAME}\n" in listed
    assert "   384  BAAI/bge-small-en-v1.5\n" in listed
    assert "  1024  intfloat/multilingual-e5-large\n" in listed


def test_another_model_can_be_named(run: Callable[..., Result]) -> None:
    done = run("fetch", "--model", "no/such-model")
    assert isinstance(done.exception, ModelUnavailable)
    assert "no/such-model" in str(done.exception)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="it has no SIGINT to send to a process")
def test_an_interrupted_fetch_ends_at_once_and_says_how_to_go_on(hub: Hub, tmp_path: Path) -> None:
    hub.files = {"config.json": bytes(1_000_000), MODEL_FILE: b"the model"}
    hub.hang_at = 600_000
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "0",
        "MCP_MEMORY_CACHE_DIR": str(tmp_path),
    }
    command = [sys.executable, "-m", "mcp_memory", "models", "fetch"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "fetching config.json from the hub\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, out) == (130, "")
    assert "the same command fetches the rest" in err


@pytest.mark.slow
def test_the_real_model_is_fetched_and_listed_by_the_program(tmp_path: Path) -> None:
    environment = os.environ | {"MCP_MEMORY_CACHE_DIR": str(tmp_path)}

    def run_program(*arguments: str) -> str:
        command = [sys.executable, "-m", "mcp_memory", "models", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    assert "(34.7 MB, checksums verified)" in run_program("fetch")
    assert "is already there" in run_program("fetch")
    assert "there, 34.7 MB" in run_program("list")
