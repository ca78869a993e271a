"""Where database and cache are by default, on each platform."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from platformdirs.macos import MacOS
from platformdirs.unix import Unix

from mcp_memory.cli.checks.machine import check_folders
from mcp_memory.settings import load_settings
from mcp_memory.values.locations import default_cache, default_db, expanded, former_db


class Windows:
    """The folders of Windows, as `platformdirs.windows` lays them out without an author."""

    def __init__(self, appname: str, *, appauthor: bool) -> None:
        assert not appauthor
        local = Path("~", "AppData", "Local").expanduser()
        self.user_data_dir = str(local / appname)
        self.user_cache_dir = str(local / appname / "Cache")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith(("XDG_", "MCP_MEMORY_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


PLATFORMS = pytest.mark.parametrize(
    ("platform", "data", "cache"),
    [
        pytest.param(Unix, ".local/share/{}", ".cache/{}", id="linux"),
        pytest.param(MacOS, "Library/Application Support/{}", "Library/Caches/{}", id="macos"),
        pytest.param(Windows, "AppData/Local/{}", "AppData/Local/{}/Cache", id="windows"),
    ],
)


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@PLATFORMS
def test_the_folders_have_the_name_of_the_distribution(home, platform, data, cache):
    assert default_db(platform) == str(home / data.format("mcp-virtual-memory") / "memory.duckdb")
    assert default_cache("x.duckdb", platform) == str(home / cache.format("mcp-virtual-memory"))


@PLATFORMS
def test_a_database_in_the_former_folder_is_used_until_the_new_one_has_one(
    home, platform, data, cache
):
    former = home / data.format("mcp-memory") / "memory.duckdb"
    new = home / data.format("mcp-virtual-memory") / "memory.duckdb"
    touch(former)
    assert default_db(platform) == str(former)
    touch(new)
    assert default_db(platform) == str(new)


@PLATFORMS
def test_another_program_s_files_in_the_former_folder_are_left_alone(home, platform, data, cache):
    touch(home / data.format("mcp-memory") / "sqlite_vec.db")
    touch(home / cache.format("mcp-memory") / "other")
    assert "mcp-virtual-memory" in default_db(platform)
    assert "mcp-virtual-memory" in default_cache("x.duckdb", platform)


@PLATFORMS
def test_models_in_the_former_cache_are_used_again(home, platform, data, cache):
    former = home / cache.format("mcp-memory")
    new = home / cache.format("mcp-virtual-memory")
    touch(former / "models" / "some--model" / "model.onnx")
    touch(new / "tiktoken" / "ranks")
    assert default_cache("x.duckdb", platform) == str(former)
    touch(new / "models" / "some--model" / "model.onnx")
    assert default_cache("x.duckdb", platform) == str(new)


def test_the_settings_take_both_from_this_platform():
    settings = load_settings()
    assert str(settings.db) == default_db()
    assert str(settings.cache_dir) == default_cache("x.duckdb")
    assert settings.db.parent.name == "mcp-virtual-memory"


def test_the_home_of_a_user_who_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="does not exist"):
        expanded("~no-such-user-here/memory.duckdb")


@pytest.mark.parametrize("path", ["", "  ", "."])
def test_an_empty_path_is_refused(path):
    with pytest.raises(ValueError, match="path of a file"):
        expanded(path)


@PLATFORMS
def test_doctor_can_name_the_former_database(home, platform, data, cache):
    assert former_db(platform) == str(home / data.format("mcp-memory") / "memory.duckdb")


def test_a_database_that_was_left_in_the_former_folder_is_reported(home):
    settings = load_settings()
    touch(Path(former_db()))
    assert load_settings().db == Path(former_db())
    touch(settings.db)
    found = [check for check in check_folders(load_settings()) if "0.1.0" in check.text]
    assert [check.level for check in found] == ["warning"]
    assert former_db() in found[0].text


COMMANDS: tuple[list[str], ...] = (
    [],
    ["serve", "--transport", "http", "--port", "0"],
    ["status"],
    ["search", "tea"],
    ["explain", "tea"],
    ["summarize"],
    ["block", "list"],
    ["token", "list"],
    ["load", __file__],
    ["models", "list"],
    ["models", "fetch"],
    ["reembed"],
    ["compact"],
    ["doctor"],
)


def as_nobody(*arguments, **settings):
    """Run a command as a user without an entry in the list of users and without HOME."""
    return subprocess.run(
        [sys.executable, "-m", "mcp_memory", *arguments],
        env={"PATH": os.environ["PATH"], "MCP_MEMORY_OFFLINE": "1", **settings},
        # `getuid` is what the home is looked up by; the interpreter may be root's alone.
        preexec_fn=lambda: os.setresuid(54_321, 0, 0),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can become a user of no name"
)
class TestWithoutAHome:
    @pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
    def test_every_command_says_in_one_line_what_to_set(self, arguments):
        done = as_nobody(*arguments)
        said = done.stdout + done.stderr
        assert done.returncode == (1 if arguments == ["doctor"] else 2), said
        assert "user 54321 has no home folder" in said
        assert "Set MCP_MEMORY_DB to a file that lasts" in said
        assert "Traceback" not in said
        if arguments != ["doctor"]:
            assert len(done.stderr.splitlines()) == 1

    @pytest.mark.parametrize("arguments", COMMANDS[2:9], ids=" ".join)
    def test_with_a_database_that_is_set_all_works(self, arguments):
        with tempfile.TemporaryDirectory() as name:  # pytest's own is closed to other users
            path = Path(name, "memory.duckdb")
            Path(f"{path}.owner").mkdir()
            for folder in (name, f"{path}.owner"):
                os.chown(folder, 54_321, 54_321)
            done = as_nobody(*arguments, MCP_MEMORY_DB=str(path))
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr

    def test_models_are_beside_the_database(self, tmp_path):
        path = tmp_path / "memory.duckdb"
        done = as_nobody("doctor", "--json", MCP_MEMORY_DB=str(path))
        checks = json.loads(done.stdout)["checks"]
        [cache] = [check for check in checks if check["subject"] == "cache folder"]
        assert f"{path}.cache" in cache["text"]
