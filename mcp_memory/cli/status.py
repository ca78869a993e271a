"""`mcp-memory status`: the owner, its clients, and what the database holds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from mcp_memory.cli.output import echo_json, show
from mcp_memory.settings import Settings, load_settings
from mcp_memory.values.errors import StorageFault

if TYPE_CHECKING:
    from mcp_memory.owner.look import Look

ANSWER_SECONDS: Final = 5.0
_OWN_TABLES: Final = frozenset({"migrations", "settings"})
_NOBODY: Final = {
    "none": "no owner is running; it starts with the first client",
    "stale": "no owner is running; the address of a dead one is still there, which does no harm",
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=ANSWER_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long the owner may take to answer.",
)
def status(*, as_json: bool, timeout: float) -> None:
    """Show the owner of the database, its clients, and what the database holds.

    Nothing is started, opened or changed: if no owner is running, only the sizes of the
    files are shown. The exit status is 0 in every case.
    """
    settings = load_settings()
    seen = gather(settings, timeout)
    if as_json:
        echo_json(seen)
        return
    show(lines(seen, settings))


def gather(settings: Settings, seconds: float) -> dict[str, Any]:
    """Return what is known, as JSON: `{owner, clients, database, embedding, tokenizer}`.

    `owner.state` is `running`, `silent`, `busy`, `stale` or `none`; without an owner,
    `database.problems` also says why the next one will refuse the database.
    """
    from mcp_memory.agent.memories import check_files
    from mcp_memory.cli.checks.machine import check_folders
    from mcp_memory.owner.admin import offline_status
    from mcp_memory.owner.look import State, look
    from mcp_memory.owner.places import Places

    seen = look(Places(str(settings.db)), "status", seconds=seconds)
    report: dict[str, Any] = {"owner": _owner(seen), "clients": [], **offline_status(settings)}
    report["database"]["problems"] = [
        f"{check.text}. {check.hint}"
        for check in check_folders(settings)
        if check.level == "problem"
    ]
    answer = seen.result
    if seen.state is State.RUNNING:
        database = report["database"] | answer.get("database", {})
        report |= {name: answer[name] for name in report if name != "owner" and name in answer}
        report["database"] = database
    report["owner"] |= answer.get("owner", {})
    if seen.state in {State.NONE, State.STALE}:
        try:
            check_files(settings.db)
        except StorageFault as fault:
            report["database"]["problems"].append(str(fault))
    return report


def lines(seen: dict[str, Any], settings: Settings) -> list[tuple[str, str]]:
    """Return the lines to print: a subject, empty where it goes on, and a text."""
    shown = [("owner", _owner_line(seen["owner"], settings))]
    if seen["owner"]["state"] == "running":
        clients = seen["clients"]
        shown.append(("clients", f"{len(clients)} connected"))
        for client in clients:
            name = client["client"] or "a client without a name"
            since = _moment(client["since"], settings)
            shown.append(("", f"agent {client['agent']}, {name}, since {since}"))
    shown.append(("database", seen["database"]["path"]))
    shown.extend(("", problem) for problem in seen["database"]["problems"])
    shown.extend(("", line) for line in _database_lines(seen["database"]))
    embedding = seen["embedding"]
    model = [embedding["model"]]
    if embedding["state"]:
        detail = f" ({embedding['detail']})" if embedding.get("detail") else ""
        model.append(f"{embedding['state']}{detail}")
    if embedding["pending"] is not None:
        model.append(f"{_count(embedding['pending'], 'text')} pending")
    shown.append(("model", ", ".join(model)))
    shown.append(("tokenizer", seen["tokenizer"]))
    shown.append(("summaries", _summarizer_line(seen["summarizer"])))
    return shown


def _summarizer_line(summarizer: dict[str, Any]) -> str:
    if summarizer["kind"] != "endpoint":
        return f"{summarizer['kind']}, without a model"
    line = f"{summarizer['model']} at {summarizer['host']}"
    if "circuit" not in summarizer:
        return line
    cost = summarizer["dollars_today"]
    return (
        f"{line}, circuit {summarizer['circuit']}; {summarizer['tokens_today']} of"
        f" {summarizer['tokens_per_day']} tokens today"
        + ("" if cost is None else f", {cost:.2f} dollars")
    )


def _owner(seen: Look) -> dict[str, Any]:
    address = seen.address or {}
    since = address.get("since")
    return {
        "state": seen.state.value,
        "pid": address.get("pid"),
        "version": address.get("version"),
        "kind": address.get("kind"),
        "since": (
            datetime.fromtimestamp(since, UTC).isoformat()
            if isinstance(since, (int, float))
            else None
        ),
        "idle_seconds": None,
        "heartbeats": None,
        "holder": seen.holder or None,
        "detail": seen.refusal or None,
    }


def _owner_line(owner: dict[str, Any], settings: Settings) -> str:
    state = owner["state"]
    if state in _NOBODY:
        return _NOBODY[state]
    if state == "busy":
        return f"starting, leaving or waiting for a command: {owner['holder']}"
    who = f"process {owner['pid']}, version {owner['version']}, {_kind(owner)}"
    since = f", since {_moment(owner['since'], settings)}" if owner["since"] else ""
    if state == "silent":
        return f"{who}{since}, does not answer; `mcp-memory doctor` says what to do"
    refused = f"; it refused: {owner['detail']}" if owner["detail"] else ""
    return f"{who}{since}{refused}"


def _kind(owner: dict[str, Any]) -> str:
    if owner["kind"] == "serve":
        return "started with `mcp-memory serve`"
    idle = owner["idle_seconds"]
    return "started by a client" + ("" if idle is None else f", ends {idle:g} s after the last one")


def _database_lines(database: dict[str, Any]) -> list[str]:
    if database["bytes"] is None:
        return ["not there yet"]
    dead = "" if database.get("dead_frac") is None else f" ({database['dead_frac']:.0%} dead)"
    size = f"{_bytes(database['bytes'])}{dead}, write-ahead log {_bytes(database['wal_bytes'])}"
    if database["rows"] is None:
        return [size]
    rows = ", ".join(
        f"{name} {count}" for name, count in database["rows"].items() if name not in _OWN_TABLES
    )
    return [
        f"{size}, schema {database['schema']}",
        f"{_count(database['agents'], 'agent')}; rows: {rows}",
    ]


def _moment(text: str, settings: Settings) -> str:
    moment = datetime.fromisoformat(text).astimezone(settings.zone)
    return f"{moment:%Y-%m-%d %H:%M:%S} {settings.timezone}"


def _bytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
