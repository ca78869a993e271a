"""Rules of the source tree that no linter of ours checks."""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import mcp_memory

PACKAGE = Path(mcp_memory.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
STORE = PACKAGE / "store"
ENGINE = STORE / "duckdb"

MAX_ENTRIES = 16
"""Files and folders in the package's root, by judgement: a list that is read at a glance."""

SQL = re.compile(
    r"\bSELECT\b.+\bFROM\b|\bINSERT\s+(OR\s+\w+\s+)?INTO\b|\bUPDATE\b.+\bSET\b|\bDELETE\s+FROM\b"
    r"|\b(CREATE|ALTER|DROP)\s+(TABLE|INDEX|VIEW)\b",
    re.DOTALL,
)
INSERT = re.compile(r"\bINSERT\s+(?:OR\s+\w+\s+)?INTO\s+(\S+)\s*(\(|BY\s+NAME\b)?")


def texts(source: str) -> Iterator[str]:
    """Yield the strings of a module without docstrings; values in an f-string are `{}`."""
    tree = ast.parse(source)
    parts: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            parts.add(id(node.value))  # Docstrings, those of attributes included.
        elif isinstance(node, ast.JoinedStr):
            parts.update(id(value) for value in node.values)
    for node in ast.walk(tree):
        if id(node) in parts:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(
                str(value.value) if isinstance(value, ast.Constant) else "{}"
                for value in node.values
            )


def imported(source: str) -> set[str]:
    """Return the packages that a module imports anywhere."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def unnamed(text: str) -> list[str]:
    """Return the tables that a statement inserts into without naming the columns."""
    return [table for table, columns in INSERT.findall(text) if not columns]


def name(module: Path) -> str:
    return str(module.relative_to(PACKAGE))


@pytest.mark.parametrize(
    ("text", "is_sql"),
    [
        ("SELECT a FROM t", True),
        ("INSERT INTO t (a) VALUES (1)", True),
        ("UPDATE t\nSET a = 1", True),
        ("DELETE FROM t", True),
        ("CREATE TABLE t (a text)", True),
        ("Select one from the list", False),
        ("update the block, set its limit", False),
    ],
)
def test_statements_are_told_from_sentences(text: str, is_sql: bool) -> None:
    assert (SQL.search(text) is not None) is is_sql


def test_strings_are_found_without_docstrings() -> None:
    source = 'class A:\n    """SELECT a FROM b"""\n    x = f"INSERT INTO {t} VALUES" " (1)"\n'
    assert list(texts(source)) == ["INSERT INTO {} VALUES (1)"]


def test_an_insert_names_its_columns_or_takes_them_by_name() -> None:
    assert unnamed("INSERT INTO t VALUES (1)") == ["t"]
    assert unnamed("INSERT INTO {} SELECT 1") == ["{}"]
    assert unnamed("INSERT INTO t (a) VALUES (1)") == []
    assert unnamed("INSERT INTO t BY NAME SELECT 1 AS a") == []


def test_sql_is_in_the_store_alone() -> None:
    found = [
        (name(module), text)
        for module in MODULES
        if STORE not in module.parents
        for text in texts(module.read_text(encoding="utf-8"))
        if SQL.search(text)
    ]
    assert found == []


def test_every_insert_names_its_columns() -> None:
    found = [
        (name(module), table)
        for module in MODULES
        if STORE in module.parents
        for text in texts(module.read_text(encoding="utf-8"))
        for table in unnamed(text)
    ]
    assert found == []


def test_the_driver_is_imported_by_its_engine_alone() -> None:
    found = [
        name(module)
        for module in MODULES
        if ENGINE not in module.parents and "duckdb" in imported(module.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_the_root_of_the_package_has_few_entries() -> None:
    entries = sorted(entry.name for entry in PACKAGE.iterdir() if entry.name != "__pycache__")
    assert len(entries) <= MAX_ENTRIES, entries


def test_no_comment_turns_the_formatter_off() -> None:
    found = []
    for module in MODULES:
        with module.open("rb") as file:
            found += [
                (name(module), token.start[0])
                for token in tokenize.tokenize(file.readline)
                if token.type == tokenize.COMMENT and re.match(r"#\s*fmt:", token.string)
            ]
    assert found == []


def test_no_two_public_classes_have_one_name() -> None:
    places: dict[str, list[str]] = {}
    for module in MODULES:
        for node in ast.parse(module.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(name(module))
    assert {found: where for found, where in places.items() if len(where) > 1} == {}
