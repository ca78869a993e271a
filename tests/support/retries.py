"""A pytest plugin that reports the tests which `--reruns` needed to pass.

Such a test is listed under FLAKY, with the traceback of its first run. A few of them
do not fail the run; `MAX_FLAKY` and more would hide that something is wrong.
"""

from __future__ import annotations

import pytest

MAX_FLAKY = 2
"""By judgement: what a busy machine causes in a run of 3,000 tests, seldom more than one."""


def flaky(reporter: pytest.TerminalReporter) -> dict[str, pytest.TestReport]:
    """Return the tests that failed and then passed: their first report by name."""
    failed = {
        report.nodeid
        for outcome in ("failed", "error")
        for report in reporter.stats.get(outcome, [])
        if isinstance(report, pytest.TestReport)
    }
    found: dict[str, pytest.TestReport] = {}
    for report in reporter.stats.get("rerun", []):
        if report.nodeid not in failed:
            found.setdefault(report.nodeid, report)
    return found


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run in which too many tests are flaky."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    # In a worker of pytest-xdist nothing is reported.
    if reporter is not None and len(flaky(reporter)) > MAX_FLAKY and not session.exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the names, then how each test failed at first."""
    found = flaky(terminalreporter)
    if not found:
        return
    terminalreporter.section("FLAKY", yellow=True)
    for name in found:
        terminalreporter.write_line(name)
    if len(found) > MAX_FLAKY:
        terminalreporter.write_line(
            f"{len(found)} tests are flaky, and at most {MAX_FLAKY} may be: the run has failed.",
            red=True,
        )
    for name, report in found.items():
        terminalreporter.section(f"first run of {name}", sep="_")
        terminalreporter.write_line(report.longreprtext)
