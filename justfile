# Recipes use the tools on the path: `python3 -m venv .venv && .venv/bin/pip install -e '.[dev]'`
# and activate it first.

default:
    @just --list

# Everything that has to pass, but for the slow tests
check:
    ruff check
    ruff format --check
    mypy
    lint-imports
    mcp-memory schemas --check
    pytest -m "not slow"

# The fast tests; arguments go to pytest
test *args:
    pytest -m "not slow" {{ args }}

# The tests with the real model and with subprocesses
slow *args:
    pytest -m slow {{ args }}

# Write schemas/, docs/settings.md and the tables of the README, after a change to a tool or setting
schemas:
    mcp-memory schemas

# The gate, as the continuous integration runs it
gate:
    .ci/run

# Real hosts with a scripted model; needs npm
hosts *args:
    python tests/hosts/run.py {{ args }}

# Latency, and recall when given the path of locomo10.json
bench data="":
    python -m benchmarks latency
    {{ if data != "" { "python -m benchmarks recall --data " + quote(data) } else { "" } }}
