"""The official conformance suite against the product's own server, over streamable HTTP."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from node_packages import DIRECTORY_VARIABLE, NodeUnavailable, install
from processes import environment

pytestmark = pytest.mark.slow

PACKAGE: Final = "@modelcontextprotocol/conformance"
VERSION: Final = "0.2.0-alpha.12"
REVISIONS: Final = ("2026-07-28", "2025-11-25")
SUPPORT: Final = Path(__file__).parents[1] / "support"


class Suite:
    """The installed suite."""

    def __init__(self, node: Path, folder: Path) -> None:
        self._node = node
        self._folder = folder

    def required(self, revision: str) -> set[str]:
        """Return the scenarios that a server of this revision must pass, from the suite's list."""
        text = (self._folder / "requirements" / f"{revision}.yaml").read_text(encoding="utf-8")
        section = re.search(r"^server:\n((?:  - .*\n|\s*#.*\n|\n)+)", text, re.MULTILINE)
        assert section is not None
        return set(re.findall(r"^  - (\S+)", section[1], re.MULTILINE))

    def run(self, url: str, revision: str, results: Path) -> subprocess.CompletedProcess[str]:
        program = str(self._folder / "dist" / "index.js")
        arguments = ["server", "--url", url, "--requirements", revision, "-o", str(results)]
        return subprocess.run(
            [str(self._node), program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=200,
            check=False,
        )


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    given = os.environ.get(DIRECTORY_VARIABLE)
    try:
        node, modules = install(
            {PACKAGE: VERSION}, Path(given) if given else tmp_path_factory.mktemp("node")
        )
    except NodeUnavailable as reason:
        if given:
            raise
        pytest.skip(f"the conformance suite can't be installed: {reason}")
    return Suite(node, modules / PACKAGE)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """The URL of the product's server with the fixtures mounted."""
    log = tmp_path / "server.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("serve.py"))],
            env={**environment(tmp_path), "PYTHONPATH": str(SUPPORT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    with process:
        assert process.stdout is not None
        try:
            address = process.stdout.readline().strip()
            assert address, log.read_text(encoding="utf-8")
            yield address
        finally:
            process.kill()


def outcomes(results: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the checks of each scenario that was run."""
    found: dict[str, list[dict[str, Any]]] = {}
    for file in results.glob("*/checks.json"):
        scenario = re.fullmatch(r"server-(.+)-\d{4}-\d\d-\d\dT[\d-]+Z", file.parent.name)
        assert scenario is not None, file.parent.name
        found.setdefault(scenario[1], []).extend(json.loads(file.read_text(encoding="utf-8")))
    return found


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_required_scenario_of_a_revision_passes(revision, suite, url, tmp_path):
    """Not a check of them fails, is left out or gives a warning; the suite itself says so too."""
    done = suite.run(url, revision, tmp_path / "results")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    found = outcomes(tmp_path / "results")
    required = suite.required(revision)
    assert len(required) >= 30
    assert required <= found.keys()
    assert [
        (scenario, check["id"], check["status"], check.get("errorMessage"))
        for scenario in sorted(required)
        for check in found[scenario]
        if check["status"] not in {"SUCCESS", "INFO"}
    ] == []
    assert all(
        any(check["status"] == "SUCCESS" for check in found[scenario]) for scenario in required
    )
