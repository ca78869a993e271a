"""Does a memory stay whole and level when its owner is killed again and again?

Clients on stdio (both protocol eras), streamable HTTP and SSE work on one
database for several agents. The owner is killed every 20 seconds. In the end
everything that was acknowledged is read back. Every text of an agent carries its
mark, a word that no other text has: a mark in a reply to another agent is a leak.

With `--hostile` a further client tries for half of the time to stop the others.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import secrets
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
from mcp import Client
from mcp.client.stdio import stdio_client
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError

from benchmarks import BenchmarkFault, harness
from benchmarks.harness import SEED, err, kill_owner, owner_pid
from benchmarks.metrics import Latency, percentile, plain
from benchmarks.procfs import Usage, children, kill, usage
from benchmarks.soakload import (
    CALL_SECONDS,
    KINDS,
    WORKING,
    Ledger,
    Shared,
    Supervisor,
    Tally,
    Worker,
    connection,
    create_token,
    parameters,
    server_environment,
)

MINUTES: Final = 10.0
KILL_EVERY_SECONDS: Final = 20.0
WARM_UP_SECONDS: Final = 60.0
PROBE_SECONDS: Final = 10.0
AGENTS: Final = ("anna", "bela", "cleo")
SETTLING_SECONDS: Final = 5.0
"""After a kill, calls measure the start of the next owner."""

TURN_SECONDS: Final = 2 * KILL_EVERY_SECONDS
"""How long the hostile client works and rests in turn: listeners change with each kill, so that it
meets both."""

GOAL_HOSTILE: Final = 3.0
"""p95 of the others' calls with a hostile client by that without one."""

GOAL_GROWTH: Final = 1.10
"""The level at the end by that after a minute; by judgement, more than two runs differ."""

LEVEL_SAMPLES: Final = 4
"""Samples that make a level: listeners take turns, and each is in there twice."""

_LOG_ENTRY: Final = re.compile(r"\bmcp-memory ([A-Z]+) ")
PAGE: Final = 50
READ_REPLY_TOKENS: Final = 100_000

MEASURES: Final = {
    "owner, resident": lambda sample: sample.owner.rss_kb,
    "owner, descriptors": lambda sample: sample.owner.descriptors,
    "shims, resident": lambda sample: sum(shim.rss_kb for shim in sample.shims),
    "shims, descriptors": lambda sample: sum(shim.descriptors for shim in sample.shims),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """What the owner and the shims hold just before the owner is killed.

    `ready` says whether the owner had its model, which is most of what it holds.
    """

    at_seconds: float
    listening: str | None
    ready: bool
    owner: Usage
    shims: tuple[Usage, ...]
    zombies: int


@dataclass(slots=True)
class Soak:
    """A run, filled as it goes."""

    shared: Shared
    tallies: dict[str, Tally]
    samples: list[Sample] = field(default_factory=list)
    kills: int = 0
    starts: int = 0
    problems: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


async def soak(db: Path, minutes: float, log: Any, *, hostile: bool = False) -> Soak:
    """Let all kinds of clients of all agents work, and kill owners meanwhile.

    Raises:
        BenchmarkFault: The server can't be started, or no token can be made.
    """
    ledgers = {agent: Ledger(f"{agent}{secrets.token_hex(4)}") for agent in AGENTS}
    done = Soak(Shared(ledgers), {kind: Tally() for kind in KINDS})
    settings = server_environment(db)
    tokens = {
        agent: await anyio.to_thread.run_sync(create_token, settings, db.parent, agent)
        for agent in AGENTS
    }
    supervisor = Supervisor(settings, db.parent)
    async with anyio.create_task_group() as group:
        group.start_soon(supervisor.run)
        for number, kind in enumerate(KINDS):
            # Two agents a kind, so that each meets others on every transport.
            for agent in (AGENTS[number % len(AGENTS)], AGENTS[(number + 1) % len(AGENTS)]):
                stays = kind.startswith("stdio")
                worker = Worker(
                    name=f"{kind.replace(' ', '-')}-{agent}",
                    agent=agent,
                    connect=connection(kind, db, agent, tokens[agent], supervisor, log),
                    stays=stays,
                    shared=done.shared,
                    tally=done.tallies[kind],
                    seed=SEED + number,
                )
                transport = kind.split()[0]
                group.start_soon(
                    worker.run,
                    (lambda: True)
                    if stays
                    else partial(lambda wanted: supervisor.listening == wanted, transport),
                )
        if hostile:
            turn_seconds = min(TURN_SECONDS, minutes * 60 / 2)
            group.start_soon(attack_in_turns, db, supervisor.port, turn_seconds, done.shared)
        started = parameters(db, AGENTS[0])
        async with Client(
            stdio_client(started, errlog=log), read_timeout_seconds=PROBE_SECONDS
        ) as probe:
            await kill_regularly(db, minutes * 60, supervisor, probe, done)
        group.cancel_scope.cancel()
    done.starts = supervisor.starts
    for written in (supervisor.log, *db.parent.rglob("owner.log")):
        done.errors += logged_errors(written.read_text(encoding="utf-8", errors="replace"))
    return done


async def kill_regularly(
    db: Path, seconds: float, supervisor: Supervisor, probe: Client, done: Soak
) -> None:
    """Kill the owner every 20 seconds until the time is over; take a sample before each."""
    began = anyio.current_time()
    for number in range(1, int(seconds / KILL_EVERY_SECONDS) + 1):
        await anyio.sleep_until(began + number * KILL_EVERY_SECONDS)
        if done.shared.phase == "hostile":
            await kill_in_attack(db, done)
            continue
        ready = await has_model(probe)
        pid = await anyio.to_thread.run_sync(owner_pid, db)
        if pid is None:
            err.print("no owner runs that could be killed")
            continue
        sample = take_sample(anyio.current_time() - began, pid, supervisor, ready=ready)
        if sample is not None:
            done.samples.append(sample)
            err.print(
                f"{sample.at_seconds:4.0f} s: owner {sample.owner.rss_kb / 1_024:.0f} MB, "
                f"{sample.owner.descriptors} descriptors, {sample.listening or 'detached'}, "
                f"model {'ready' if sample.ready else 'not ready'}; killed"
            )
        await kill_and_settle(pid, done)
    await anyio.sleep_until(began + seconds)


async def attack_in_turns(db: Path, port: int, turn_seconds: float, shared: Shared) -> None:
    """Let a hostile client work and rest in turn, until cancelled."""
    while True:
        shared.phase = "calm"
        await anyio.sleep(turn_seconds)
        async with await anyio.open_process(
            [sys.executable, "-m", "benchmarks.hostile", str(db), str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=None,
            cwd=Path(__file__).parents[1],
        ) as process:
            shared.phase = "hostile"
            try:
                await anyio.sleep(turn_seconds)
            finally:
                process.kill()


async def kill_in_attack(db: Path, done: Soak) -> None:
    """Kill the owner; what it holds now is no level to compare."""
    pid = await anyio.to_thread.run_sync(owner_pid, db)
    if pid is not None:
        await kill_and_settle(pid, done)


async def kill_and_settle(pid: int, done: Soak) -> None:
    """Kill the owner and let the next one start; calls don't count meanwhile."""
    done.shared.unsettled = True
    await anyio.to_thread.run_sync(kill, pid)
    done.kills += 1
    await anyio.sleep(SETTLING_SECONDS)
    done.shared.unsettled = False


async def has_model(client: Client) -> bool:
    """Return whether the owner says that its embedding model is loaded."""
    try:
        reply = await client.read_resource("memory://status", cache_mode="bypass")
        status = json.loads(getattr(reply.contents[0], "text", ""))["embedding"]
        return bool(status["state"] == "ready")
    except MCPError:
        return False


def take_sample(
    at_seconds: float, owner: int, supervisor: Supervisor, *, ready: bool
) -> Sample | None:
    """Return what the owner and the shims hold, or None where that can't be seen."""
    held = usage(owner)
    if held is None:
        return None
    shims = [pid for pid in children(os.getpid())[0] if pid not in {supervisor.pid, owner}]
    return Sample(
        at_seconds=at_seconds,
        listening=supervisor.listening,
        ready=ready,
        owner=held,
        shims=tuple(filter(None, map(usage, shims))),
        zombies=sum(children(pid)[1] for pid in shims),
    )


async def verify(db: Path, done: Soak, log: Any) -> None:
    """Read everything back, for each agent through a new client, and note what is wrong."""
    for agent, ledger in done.shared.ledgers.items():
        started = parameters(db, agent, max_reply_tokens=READ_REPLY_TOKENS)
        async with Client(
            stdio_client(started, errlog=log), read_timeout_seconds=CALL_SECONDS
        ) as client:
            found = {
                hit["id"]: hit["text"]
                for hit in await _all(client, "archival_memory_search", {"top_k": PAGE})
            }
            done.problems += ledger.wrong_memories(found) + ledger.doubled_memories(found)
            done.shared.look(str(found), agent, "the memories at the end")
            for conversation in ledger.messages:
                asked = {"conversation": conversation, "limit": PAGE}
                hits = await _all(client, "conversation_search", asked)
                done.problems += ledger.lost_messages(conversation, (hit["id"] for hit in hits))
                done.shared.look(str(hits), agent, "the messages at the end")
            for conversation in ledger.blocks:
                asked = {"conversation": conversation}
                blocks = await _all(client, "core_memory_view", asked, field="blocks")
                values = [item["value"] for item in blocks if item["label"] == WORKING]
                done.problems += ledger.wrong_block(conversation, "".join(values))
                done.shared.look(str(blocks), agent, "the blocks at the end")


async def _all(
    client: Client, tool: str, arguments: dict[str, Any], *, field: str = "results"
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: dict[str, Any] = {}
    while True:
        result = await client.call_tool(tool, {**arguments, **cursor})
        page = result.structured_content
        if result.is_error or page is None:
            raise BenchmarkFault(f"{tool} was refused: {result.content}")
        found += page[field]
        if not page.get("next_cursor"):
            return found
        cursor = {"cursor": page["next_cursor"]}


def verdicts(done: Soak) -> list[str]:
    """Return a line for each goal."""
    promised = sum(ledger.promised for ledger in done.shared.ledgers.values())
    lost_clients = sum(tally.lost_clients for tally in done.tallies.values())
    unanswered = sum(tally.unanswered for tally in done.tallies.values())
    idle = [kind for kind, tally in done.tallies.items() if not tally.seconds]
    lines = [
        _line(
            f"kept: {promised} acknowledged, {len(done.problems)} lost or doubled, "
            f"{done.kills} kills",
            met=not done.problems,
        ),
        _line(
            f"isolated: {len(done.shared.leaks)} marks seen by others", met=not done.shared.leaks
        ),
        _line(f"stdio clients that had to be started again: {lost_clients}", met=not lost_clients),
        _line(
            f"calls without any answer in {CALL_SECONDS:.0f} s: {unanswered}", met=not unanswered
        ),
        _line(f"errors in the servers' logs: {len(done.errors)}", met=not done.errors),
        _line(f"kinds of clients without an answer: {', '.join(idle) or 'none'}", met=not idle),
    ]
    calm, attacked = (in_phase(done, phase) for phase in ("calm", "hostile"))
    if calm and attacked:
        slower = percentile(attacked, 0.95) / percentile(calm, 0.95)
        lines.append(
            harness.verdict(
                "p95 of calls, with a hostile client / without",
                f"{slower:.2f}",
                f"{GOAL_HOSTILE:g}",
                met=slower <= GOAL_HOSTILE,
            )
        )
    # Like points: an owner that listens and has its model, at the end of its time.
    alike = [sample for sample in done.samples if sample.listening and sample.ready]
    times = [sample.at_seconds for sample in alike]
    for name, of in MEASURES.items():
        ratio = growth(times, list(map(of, alike)), after_seconds=WARM_UP_SECONDS)
        lines.append(
            f"{name}: no verdict, the run was too short or there is no /proc"
            if ratio is None
            else harness.verdict(
                f"{name}, end / after {WARM_UP_SECONDS:.0f} s",
                f"{ratio:.3f}",
                f"{GOAL_GROWTH:g}",
                met=ratio <= GOAL_GROWTH,
            )
        )
    if done.samples:
        zombies = done.samples[-1].zombies
        lines.append(_line(f"dead owners that were not reaped: {zombies}", met=not zombies))
    return lines


def in_phase(done: Soak, phase: str) -> list[float]:
    """Return the seconds of the calls in a phase, of all clients; see `Shared`."""
    return [seconds for tally in done.tallies.values() for seconds in tally.by_phase.get(phase, ())]


def _line(label: str, *, met: bool) -> str:
    return f"{label}: {'met' if met else 'MISSED'}"


def growth(
    times: Sequence[float], values: Sequence[float], *, after_seconds: float
) -> float | None:
    """Return the level at the end by that after the beginning; None if the run was too short.

    Args:
        times: When each value was taken, in seconds, ascending.
        values: What was measured, always at a like point.
        after_seconds: What was before is the warming up, and doesn't count.
    """
    settled = [value for at, value in zip(times, values, strict=True) if at >= after_seconds]
    if len(settled) < 2 * LEVEL_SAMPLES:
        return None
    early = percentile(settled[:LEVEL_SAMPLES], 0.5)
    return percentile(settled[-LEVEL_SAMPLES:], 0.5) / early if early else None


def logged_errors(log: str) -> list[str]:
    """Return the errors that a server has logged, each with its traceback."""
    errors: list[str] = []
    is_error = False
    for line in log.splitlines():
        if entry := _LOG_ENTRY.search(line):
            is_error = entry[1] in {"ERROR", "CRITICAL"}
            if is_error:
                errors.append(line)
        elif is_error:
            errors[-1] += f"\n{line}"
    return errors


def show(done: Soak) -> None:
    """Print the table of the calls."""
    harness.table(
        "Calls by kind of client; milliseconds, p50 / p95",
        ("", "answered", "failed", "refused", "connected", "latency"),
        [
            (
                " ".join([kind.split()[0], *sorted(tally.versions)]),
                len(tally.seconds),
                tally.failed,
                tally.refused.total(),
                tally.connections,
                Latency.of(tally.seconds) if tally.seconds else None,
            )
            for kind, tally in done.tallies.items()
        ],
    )


def report(done: Soak, minutes: float) -> dict[str, Any]:
    """Return the whole run for the JSON."""
    return {
        "minutes": minutes,
        "kills": done.kills,
        "listener_starts": done.starts,
        "calls": {
            kind: {
                **(plain(Latency.of(tally.seconds)) if tally.seconds else {"calls": 0}),
                "failed": tally.failed,
                "unanswered": tally.unanswered,
                "connections": tally.connections,
                "lost_clients": tally.lost_clients,
                "notifications": tally.notifications,
                "protocol_versions": sorted(tally.versions),
                "refused": dict(tally.refused),
            }
            for kind, tally in done.tallies.items()
        },
        "phases": {
            phase: plain(Latency.of(seconds))
            for phase in ("calm", "hostile")
            if (seconds := in_phase(done, phase))
        },
        "samples": done.samples,
        "problems": done.problems,
        "leaks": done.shared.leaks,
        "logged_errors": done.errors,
    }


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes <= 24 * 60:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of minutes, up to a day")
    return minutes


async def _run(minutes: float, hostile: bool) -> Soak:
    with harness.temporary() as folder:
        db = folder / "memory.duckdb"
        with (folder / "clients.log").open("w+", encoding="utf-8", errors="replace") as log:
            try:
                done = await soak(db, minutes, log, hostile=hostile)
                # From here on what is read comes from the file.
                kill_owner(db)
                await verify(db, done, log)
            finally:
                kill_owner(db)
    return done


def _benchmark(options: argparse.Namespace) -> None:
    done = anyio.run(_run, options.minutes, options.hostile)
    show(done)
    for kind, tally in done.tallies.items():
        for reason, times in tally.refused.items():
            err.print(f"{kind}, refused {times} times: {reason}", markup=False)
    for line in (done.problems + done.shared.leaks)[:20] + done.errors[-2:]:
        err.print(line, markup=False)
    harness.finish("soak", options, report(done, options.minutes), verdicts(done))
    if done.problems or done.shared.leaks:
        raise BenchmarkFault("something acknowledged was lost, or something leaked")


def main(argv: Sequence[str]) -> int:
    """Run the benchmark; return its exit status."""
    # The SDK's client logs each connection that breaks, and here they break on purpose.
    logging.getLogger("mcp").setLevel(logging.CRITICAL)
    # Subscriptions of the handshake era are what has to go on working.
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    parser = harness.parser("soak", __doc__)
    parser.add_argument("--minutes", type=_minutes, default=MINUTES, help="default: 10")
    parser.add_argument(
        "--hostile", action="store_true", help="with a client that tries to stop the others"
    )
    return harness.run(partial(_benchmark, parser.parse_args(argv)))
