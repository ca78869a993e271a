"""Arbitrary input by every door, for some seconds; fuzzer.py runs by hand for as long as wished."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from seeds import VARIABLE

from .fuzzer import Broken, Fuzzer, target

SECONDS = 20.0
# Read here: a test has no variable of the product.
SEED = int(os.environ[VARIABLE])

pytestmark = pytest.mark.slow


def test_no_input_causes_an_internal_error_and_none_changes_anything_if_refused(tmp_path: Path):
    with target(tmp_path) as opened:
        fuzzer = Fuzzer(opened, SEED)
        fuzzer.run(SECONDS)
    assert len(fuzzer.tried) == 6
    assert fuzzer.refused


def test_the_fuzzer_notices_what_must_never_happen(tmp_path: Path):
    with target(tmp_path) as opened:
        before = opened.state()
        arguments = {"label": "human", "content": "Likes herons."}
        opened.ask("tools/call", {"name": "core_memory_append", "arguments": arguments})
        assert opened.state() != before
        long = {"result": {"content": [{"type": "text", "text": "heron " * 2_100}]}}
        with pytest.raises(Broken, match="tokens"):
            opened.check_reply("a call", long)
        opened.server.errors.append("Traceback (most recent call last):")
        with pytest.raises(Broken, match="caused"):
            opened.check_log("a call")
