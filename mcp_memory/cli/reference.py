"""The reference of all settings: `mcp-memory serve --help` and docs/settings.md.

Both are made from the fields of `Settings`; nothing is written down a second time.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from mcp_memory.settings import SECTIONS, Settings
from mcp_memory.values.locations import PREFIX

_WIDTH: Final = 90
_PAGE: Final = """\
# Settings

<!-- Generated from mcp_memory/settings.py by `mcp-memory schemas`. -->

All settings are environment variables, and all are optional. An MCP client sets them in the `env`
of its entry for this server. A wrong value stops the start with one line on stderr and exit status
2; `mcp-memory doctor` also finds names that do not exist. An empty value means the default, and so
does a variable that the client did not fill in, such as `${user_config.timezone}`; that is one line
on stderr.
"""


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One setting, as the reference shows it; Markdown's backticks included."""

    name: str
    default: str
    values: str
    description: str


def sections() -> Iterator[tuple[str, list[SettingRow]]]:
    """Give the headings with the settings below each, in their order in `Settings`."""
    headings = {first: heading for heading, first in SECTIONS.items()}
    rows: list[SettingRow] = []
    heading = ""
    for name, field in Settings.model_fields.items():
        if name in headings:
            if rows:
                yield heading, rows
            heading, rows = headings[name], []
        rows.append(_row(name, field))
    yield heading, rows


def settings_help() -> str:
    """Return the reference for a terminal, as an epilog of click."""
    paragraphs = ["\b\nSettings (environment variables, all optional):"]
    for heading, rows in sections():
        lines = ["\b", f"{heading}:"]
        for row in rows:
            default = f"; default: {row.default}" if row.default else ""
            text = f"{row.description} ({row.values}{default})".replace("`", "")
            lines.append(f"  {row.name}")
            lines += textwrap.wrap(
                text,
                _WIDTH,
                break_on_hyphens=False,
                initial_indent=" " * 6,
                subsequent_indent=" " * 6,
            )
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs)


def settings_page() -> str:
    """Return the text of docs/settings.md."""
    lines = [_PAGE]
    for heading, rows in sections():
        lines += [f"## {heading}", "", "| setting | values | default | |", "|---|---|---|---|"]
        for row in rows:
            text = re.sub(r"\(docs/(\S+)\)", r"([more](\1))", row.description)
            default = row.default or "–"
            lines.append(f"| `{row.name}` | {row.values} | {default} | {text} |")
        lines.append("")
    return "\n".join(lines)


def _row(name: str, field: FieldInfo) -> SettingRow:
    shown: Any = field.json_schema_extra or {}
    if not field.description:
        raise TypeError(f"the setting {name} has no description")
    values = shown.get("values") or _values(field.annotation)
    values = ", ".join(filter(None, (shown.get("unit"), _range(field) or values)))
    return SettingRow(
        PREFIX + name.upper(),
        shown.get("default") or _value(field.default),
        values,
        field.description,
    )


def _values(annotation: Any) -> str:
    """Return what a type takes, in words; nothing for a number, which has a range."""
    options = [kind for kind in get_args(annotation) if kind is not type(None)]
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{option}`" for option in options)
    if get_origin(annotation) is tuple:
        return "names, separated by commas"
    kind = options[0] if options else annotation
    return {bool: "`on`, `off`", Path: "a path", str: "text", SecretStr: "text"}.get(kind, "")


def _range(field: FieldInfo) -> str:
    """Return the limits of a number."""
    limits = {
        name: _value(getattr(limit, name))
        for limit in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if hasattr(limit, name)
    }
    if limits.keys() == {"ge", "le"}:
        return f"{limits['ge']} to {limits['le']}"
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    return ", ".join(f"{words[name]} {value}" for name, value in limits.items())


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "`on`" if value else "`off`"
    if isinstance(value, (int, float)):
        return f"{value:,}".removesuffix(".0")
    return f"`{value}`" if isinstance(value, str) and value else ""
