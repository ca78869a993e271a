"""The page of results says what the reports say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import BenchmarkFault, report

REPORT: dict[str, Any] = {
    "benchmark": "latency",
    "at": "2026-11-30T17:00:00+00:00",
    "platform": "Linux",
    "cpus": 2,
    "python": "3.11.7",
    "versions": {"mcp_memory": "0.1.0"},
    "command": "python -m benchmarks latency",
    "sizes": [{"size": 10_000, "search": {"calls": 9, "p50_ms": 8.5, "p95_ms": 9}, "raw": [1, 2]}],
    "quality": {"all": {"mrr": 0.6}, "multi-hop": {"mrr": None}},
    "verdicts": ["search: 4 ms, goal 5 ms: met"],
}


def page(folder: Path, **reports: object) -> str:
    for name, content in reports.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return report.page(folder)


def test_a_report_becomes_a_section_with_its_verdicts_and_tables(tmp_path: Path):
    lines = page(tmp_path, latency=REPORT).splitlines()
    assert "## latency" in lines
    about = "`python -m benchmarks latency`, 2026-11-30; Linux, 2 processors, Python 3.11.7"
    assert any(line.startswith(about) for line in lines)
    assert "- search: 4 ms, goal 5 ms: met" in lines
    assert "| size | search |" in lines
    assert "| 10,000 | 8.5 / 9 |" in lines
    assert "| all | 0.6 |" in lines
    assert "| multi-hop | – |" in lines


def test_sections_come_in_the_order_of_their_names(tmp_path: Path):
    text = page(tmp_path, soak=REPORT, clients=REPORT)
    assert text.index("## clients") < text.index("## soak")


def test_a_file_that_is_not_a_report_is_named(tmp_path: Path):
    with pytest.raises(BenchmarkFault, match="has no report"):
        report.page(tmp_path)
    wrong: list[object] = [[], {"benchmark": "x"}]
    for content in wrong:
        with pytest.raises(BenchmarkFault, match=r"wrong\.json is not a report"):
            page(tmp_path, wrong=content)


def test_the_page_in_the_repository_is_up_to_date():
    assert report.PAGE.read_text(encoding="utf-8") == report.page(report.FOLDER)
