"""The gate runs a failed test once more and names it if it passes then."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SUPPORT = ROOT / "tests" / "support"
PLUGINS = ("-p", "pytest_rerunfailures", "-p", "retries", "-p", "no:cacheprovider")
FLAKY = """
ran = []
def test_flaky_{number}():
    ran.append(1)
    assert len(ran) > 1, "the first run"
"""
BROKEN = "def test_broken():\n    raise ValueError('always')\n"
WHOLE = "def test_whole():\n    pass\n"
FLAKY_FIXTURE = """
import pytest
ran = []
@pytest.fixture
def thing():
    ran.append(1)
    assert len(ran) > 1, "the first setup"
def test_with_a_flaky_fixture(thing):
    pass
"""


@pytest.fixture
def run(tmp_path):
    def run_it(*texts, options=("--reruns", "1")):
        for number, text in enumerate(texts):
            (tmp_path / f"test_{number}.py").write_text(text.replace("{number}", str(number)))
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")
        }
        return subprocess.run(
            [sys.executable, "-m", "pytest", *PLUGINS, *options],
            cwd=tmp_path,
            env=environment
            | {
                "PYTHONPATH": str(SUPPORT),
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
                "NO_COLOR": "1",
            },
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run_it


def section(done):
    """Return the lines under FLAKY, up to the next heading."""
    lines = done.stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if line.strip("= ") == "FLAKY") + 1
    end = next(i for i in range(start, len(lines)) if lines[i].startswith(("=", "_")))
    return [line for line in lines[start:end] if line]


def test_two_flaky_tests_are_listed_and_the_run_passes(run):
    done = run(FLAKY, WHOLE, FLAKY_FIXTURE)
    assert done.returncode == 0, done.stdout
    assert section(done) == [
        "test_0.py::test_flaky_0",
        "test_2.py::test_with_a_flaky_fixture",
    ]
    assert "the first run" in done.stdout
    assert "3 passed, 2 rerun" in done.stdout.splitlines()[-1]


def test_three_flaky_tests_fail_the_run(run):
    done = run(FLAKY, FLAKY, FLAKY)
    assert done.returncode == 1
    assert section(done)[:3] == [f"test_{n}.py::test_flaky_{n}" for n in range(3)]
    assert "3 tests are flaky, and at most 2 may be" in section(done)[3]
    assert "3 passed, 3 rerun" in done.stdout.splitlines()[-1]


def test_a_test_that_fails_twice_fails_the_run_and_is_not_flaky(run):
    done = run(BROKEN, FLAKY)
    assert done.returncode == 1
    assert section(done) == ["test_1.py::test_flaky_1"]
    assert "1 failed, 1 passed, 2 rerun" in done.stdout.splitlines()[-1]


def test_without_a_flaky_test_there_is_no_heading(run):
    done = run(WHOLE)
    assert done.returncode == 0
    assert "FLAKY" not in done.stdout


def test_without_the_option_nothing_is_run_again(run):
    done = run(FLAKY, options=())
    assert done.returncode == 1
    assert "1 failed" in done.stdout.splitlines()[-1]


def test_the_gate_finds_its_two_commands_in_the_readme():
    text = (ROOT / "README.md").read_text("utf-8")
    assert re.search(r"^python3 -m venv \.venv .* demo$", text, re.MULTILINE)
    assert re.search(r"^python3 -m venv \.venv .*/pytest$", text, re.MULTILINE)
