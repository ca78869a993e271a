"""The log of a server: nobody can flood it, fill the disk with it, or write a line of it."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

from mcp_memory.server.logs import MAX_ALIKE, MAX_CHARS, MAX_FILE_BYTES, _Formatter, _Seldom

LOGS = """
import logging, sys
from mcp_memory.server import logs
logs.set_up("info", "mcp-memory %(levelname)s %(name)s: %(message)s", *sys.argv[1:])
logger = logging.getLogger("it")
"""


def logged(code: str, stderr: Path, *arguments: str) -> str:
    """Run code that logs in a process of its own, and return what is in its log then."""
    with stderr.open("ab") as file:
        command = [sys.executable, "-c", f"{LOGS}\n{code}", *arguments]
        subprocess.run(command, stderr=file, check=True, timeout=60)
    return stderr.read_text("utf-8")


def test_a_record_is_one_line_without_terminal_escapes(tmp_path: Path):
    code = r"""logger.info("tool %s", "x\nmcp-memory ERROR forged: y\x1b[2J\x9b\u202e\u2028\r")"""
    log = logged(code, tmp_path / "log")
    assert log.splitlines() == [
        "mcp-memory INFO it: tool x\\nmcp-memory ERROR forged: y\\x1b[2J\\x9b\\u202e\\u2028\\r"
    ]


def test_a_long_text_of_a_client_is_cut(tmp_path: Path):
    log = logged('logger.info("tool %r", "x" * 30_000_000)', tmp_path / "log")
    assert len(log) < MAX_CHARS + 100


def test_a_traceback_can_not_pose_as_records(tmp_path: Path):
    code = r"""
try:
    raise ValueError("no\nmcp-memory ERROR forged: \x1b[2J" + "x" * 100_000)
except ValueError:
    logger.exception("it failed")
"""
    first, *others = logged(code, tmp_path / "log").splitlines()
    assert first == "mcp-memory ERROR it: it failed"
    assert others
    assert all(line.startswith("    ") and line.isprintable() for line in others)
    assert sum(map(len, others)) < 30_000


def test_records_of_one_kind_are_few_and_others_are_still_written(tmp_path: Path):
    code = """
for number in range(10_000):
    logger.warning("client %s is refused", number)
logger.warning("something else")
"""
    log = logged(code, tmp_path / "log")
    assert log.count("is refused") == MAX_ALIKE
    assert "something else" in log


def test_it_says_later_how_many_records_were_left_out():
    seldom = _Seldom()
    record = logging.makeLogRecord({"name": "it", "msg": "again", "created": 1_000.0})
    assert sum(seldom.filter(record) for _ in range(100)) == MAX_ALIKE
    later = logging.makeLogRecord({"name": "it", "msg": "again", "created": 1_061.0})
    assert seldom.filter(later)
    assert _Formatter("%(message)s").format(later).startswith("again (and 80 more of this kind")


def test_the_file_is_begun_again_while_it_runs(tmp_path: Path):
    path = tmp_path / "owner.log"
    code = """
for number in range(3_000):
    logger.info(f"{number} " + "x" * 1_000)
"""
    log = logged(code, path, str(path))
    assert "2999 x" in log
    assert len(log) < MAX_FILE_BYTES + 3_000
    before = tmp_path / "owner.log.1"
    assert before.stat().st_size < MAX_FILE_BYTES + 3_000
    assert {file.name for file in tmp_path.iterdir()} == {"owner.log", "owner.log.1"}


def test_a_file_that_is_not_its_own_is_left_alone(tmp_path: Path):
    code = 'for number in range(2_000): logger.info(f"{number} " + "x" * 1_000)'
    logged(code, tmp_path / "mine", str(tmp_path / "owner.log"))
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]
