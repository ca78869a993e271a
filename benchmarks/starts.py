"""How long until a server answers, and how long a call takes that does next to nothing."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from benchmarks import servers
from benchmarks.client import Clients, Command, RawClient
from benchmarks.harness import out, progress
from benchmarks.metrics import Latency

START_SECONDS: Final = 120.0
EMBEDDING_SECONDS: Final = 120.0
TRIVIAL_SECONDS: Final = 300.0
ROUNDS: Final = 8
BLOCK_CALLS: Final = 55
SETTLING_CALLS: Final = 5

BARE: Final = "bare"
REFERENCE: Final = "reference"
LABELS: Final = {
    "warm": "ours, the owner runs",
    "cold": "ours, no owner",
    BARE: "a bare server of the SDK",
    REFERENCE: f"{servers.NPM_PACKAGE} {servers.NPM_VERSION}",
}

VIEW_TOOL: Final = "core_memory_view"
# A name that no tool has: the protocol layer answers by itself.
FLOOR_TOOL: Final = "no_such_tool"


@dataclass(frozen=True, slots=True)
class Starts:
    """From the start of a process to its answer to `initialize`, by the keys of `LABELS`."""

    kinds: Mapping[str, Latency]

    def ratio(self, kind: str) -> float:
        """Return the median start of a kind, the bare server's being 1."""
        return self.kinds[kind].p50_ms / self.kinds[BARE].p50_ms

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as they stand in the JSON."""
        return {
            kind: {**latency.as_dict(), "ratio": round(self.ratio(kind), 4)}
            for kind, latency in self.kinds.items()
        }


@dataclass(frozen=True, slots=True)
class Trivial:
    """Calls that do next to nothing: `view` one that replies, `floor` one to a tool there isn't.

    The bare server's tool gives the same reply as ours.
    """

    view: Latency
    floor: Latency
    bare_view: Latency
    bare_floor: Latency

    @property
    def ratio(self) -> float:
        """The median of `view`, the bare server's being 1."""
        return self.view.p50_ms / self.bare_view.p50_ms

    @property
    def floor_ratio(self) -> float:
        """The median of `floor`, the bare server's being 1."""
        return self.floor.p50_ms / self.bare_floor.p50_ms

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as they stand in the JSON."""
        return {
            "view": self.view.as_dict(),
            "floor": self.floor.as_dict(),
            "bare_view": self.bare_view.as_dict(),
            "bare_floor": self.bare_floor.as_dict(),
            "ratio": round(self.ratio, 4),
            "floor_ratio": round(self.floor_ratio, 4),
        }


def measure(
    warm: Command, cold: Command, end_cold: Callable[[], None], times: int
) -> tuple[Starts, Trivial]:
    """Time starts and trivial calls of our server and of those it is beside.

    Args:
        warm: Our server on a database whose owner shall run all the time.
        cold: Our server on a database whose owner shall not run before it is started.
        end_cold: Ends the owner that `cold` has started.
        times: How many starts of each kind.

    Raises:
        BenchmarkFault: A server fails.
    """
    with (
        tempfile.TemporaryDirectory(prefix="mcp-memory-peers-") as name,
        Clients(TRIVIAL_SECONDS + times * START_SECONDS) as clients,
    ):
        folder = Path(name)
        ours = clients.start(warm)
        ours.initialize()
        ours.wait_until_embedded(timeout_seconds=EMBEDDING_SECONDS)
        reply = ours.ask("tools/call", {"name": VIEW_TOOL, "arguments": {}})
        make_database(cold)
        commands = {
            "warm": warm,
            "cold": cold,
            BARE: servers.bare_server(folder, reply, warm.environment),
        }
        reference = servers.reference_server(folder, warm.environment)
        if reference is not None:
            commands[REFERENCE] = reference
        started = time_starts(commands, end_cold, times)
        bare = clients.start(commands[BARE])
        bare.initialize()
        return started, time_trivial(ours, bare)


def time_starts(
    commands: Mapping[str, Command], end_cold: Callable[[], None], times: int
) -> Starts:
    """Start each server in turn, `times` times; the first round is not counted."""
    seconds: dict[str, list[float]] = {kind: [] for kind in commands}
    with progress() as bar:
        task = bar.add_task("starts", total=(times + 1) * len(commands))
        for number in range(times + 1):
            for kind, command in commands.items():
                end_cold()
                taken = time_start(command)
                if number:
                    seconds[kind].append(taken)
                bar.advance(task)
    end_cold()
    return Starts({kind: Latency.of(taken) for kind, taken in seconds.items()})


def time_start(command: Command) -> float:
    """Return the seconds from the start of a server to its answer to `initialize`."""
    with Clients(START_SECONDS) as clients:
        began = time.perf_counter()
        client = clients.start(command)
        client.initialize()
        seconds = time.perf_counter() - began
        client.close()
    return seconds


def make_database(command: Command) -> None:
    """Let our server make its database, so that a start finds one."""
    with Clients(START_SECONDS) as clients:
        client = clients.start(command)
        client.initialize()
        client.tool(VIEW_TOOL, {})
        client.close()


def time_trivial(ours: RawClient, bare: RawClient) -> Trivial:
    """Time trivial calls of both servers by the same client, in blocks of one kind, in turn."""
    timed = {
        "view": (ours, VIEW_TOOL),
        "bare_view": (bare, servers.BARE_TOOL),
        "floor": (ours, FLOOR_TOOL),
        "bare_floor": (bare, FLOOR_TOOL),
    }
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    with progress() as bar:
        task = bar.add_task("trivial calls", total=ROUNDS * len(timed))
        for _ in range(ROUNDS):
            for name, (client, tool) in timed.items():
                for number in range(BLOCK_CALLS):
                    began = time.perf_counter()
                    client.ask("tools/call", {"name": tool, "arguments": {}})
                    if number >= SETTLING_CALLS:
                        seconds[name].append(time.perf_counter() - began)
                bar.advance(task)
    return Trivial(**{name: Latency.of(taken) for name, taken in seconds.items()})


def show(started: Starts, trivial: Trivial) -> None:
    """Print both tables."""
    table = Table(title="Start to the answer to initialize, milliseconds")
    for name in ("", "p50", "p95", "x bare"):
        table.add_column(name, justify="right" if name else "left")
    for kind, latency in started.kinds.items():
        table.add_row(
            LABELS[kind],
            f"{latency.p50_ms:.0f}",
            f"{latency.p95_ms:.0f}",
            f"{started.ratio(kind):.3f}",
        )
    out.print(table)
    table = Table(title="A trivial call, milliseconds, p50 / p95")
    for name in ("", "ours", "bare", "x bare"):
        table.add_column(name, justify="right" if name else "left")
    for label, our, bare, ratio in (
        (VIEW_TOOL, trivial.view, trivial.bare_view, trivial.ratio),
        ("a tool there isn't", trivial.floor, trivial.bare_floor, trivial.floor_ratio),
    ):
        table.add_row(
            label,
            f"{our.p50_ms:.2f} / {our.p95_ms:.2f}",
            f"{bare.p50_ms:.2f} / {bare.p95_ms:.2f}",
            f"{ratio:.2f}",
        )
    out.print(table)
