"""What the benchmarks share: a server to talk to, tables, progress and JSON.

Everything goes through the public MCP interface, as a host would use it: the
server is a subprocess on stdio and the client is the SDK's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import anyio
from mcp import Client, StdioServerParameters
from mcp.client.stdio import get_default_environment, stdio_client
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mcp_memory import __version__
from mcp_memory.values.project import DISTRIBUTION

CALL_TIMEOUT_SECONDS: Final = 120.0
STATUS_POLL_SECONDS: Final = 0.25

# Only what says where the model is reaches the server: any other setting of
# this machine would change the figures.
PASSED_ON: Final = (
    "MCP_MEMORY_CACHE_DIR",
    "MCP_MEMORY_EMBEDDING_MODEL",
    "MCP_MEMORY_OFFLINE",
    "XDG_CACHE_HOME",
)

SERVER: Final = (sys.executable, "-m", "mcp_memory")
"""The installed server, as a client starts it."""

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130

_LOG_TAIL_LINES: Final = 15

out = Console()
err = Console(stderr=True)


def positive(text: str) -> int:
    """Return a number of the command line.

    Raises:
        ArgumentTypeError: It is none, or 0.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


class BenchmarkFault(Exception):
    """The benchmark can't go on; the message is for the person who runs it."""


def environment(db: Path, **settings: object) -> dict[str, str]:
    """Return the environment of a server on `db`, and nothing else of this machine's settings.

    Args:
        db: The database file.
        settings: Settings of the server by their name without prefix, in lower case.
    """
    env = get_default_environment()
    env |= {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    env["MCP_MEMORY_DB"] = str(db)
    return env | {f"MCP_MEMORY_{name.upper()}": str(value) for name, value in settings.items()}


def without_model(folder: Path) -> dict[str, str]:
    """Return the settings of a server that searches by words alone, as it has no model.

    Args:
        folder: An empty folder, or one that does not exist.
    """
    return {"cache_dir": str(folder), "offline": "1"}


@asynccontextmanager
async def serve(db: Path, **settings: str) -> AsyncGenerator[Client]:
    """Start a server on `db` and yield a client that is connected to it.

    Args:
        db: The database file; made when missing.
        settings: Settings of the server by their name without prefix, in lower case.

    Raises:
        BenchmarkFault: The server failed; the message has the end of its log.
    """
    parameters = StdioServerParameters(
        command=SERVER[0],
        args=[*SERVER[1:], "serve"],
        env=environment(db, **{"owner": "off", **settings}),
        # Not the current folder: `-m` would prefer a checkout there to what is installed.
        cwd=db.parent,
    )
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        try:
            async with Client(
                stdio_client(parameters, errlog=log), read_timeout_seconds=CALL_TIMEOUT_SECONDS
            ) as client:
                yield client
        except Exception as error:
            cause = _first_cause(error)
            if isinstance(cause, BenchmarkFault):
                raise cause from error
            log.seek(0)
            tail = "".join(log.readlines()[-_LOG_TAIL_LINES:]).strip()
            raise BenchmarkFault(
                f"the server failed: {cause!r}" + (f"\nits log ends:\n{tail}" if tail else "")
            ) from error


async def call(client: Client, tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Call a tool and return its structured content.

    Raises:
        BenchmarkFault: The tool answered with an error.
    """
    result = await client.call_tool(tool, dict(arguments))
    if result.is_error or result.structured_content is None:
        text = " ".join(getattr(part, "text", "") for part in result.content)
        raise BenchmarkFault(f"{tool} was refused: {text}")
    content: dict[str, Any] = result.structured_content
    return content


async def embedding_status(client: Client) -> dict[str, Any]:
    """Return what `memory://status` says of the embedding: state, model, pending."""
    reply = await client.read_resource("memory://status", cache_mode="bypass")
    status: dict[str, Any] = json.loads(getattr(reply.contents[0], "text", ""))["embedding"]
    return status


async def wait_until_embedded(
    client: Client,
    *,
    timeout_seconds: float,
    on_wait: Callable[[str], None] = lambda _: None,
) -> str:
    """Wait until the model is loaded and no text waits for its vector; return the model.

    Args:
        client: The connection.
        timeout_seconds: How long the whole wait may take.
        on_wait: Called with what is being waited for.

    Raises:
        BenchmarkFault: The model is unavailable, or it took too long.
    """
    state = "unknown"
    with anyio.move_on_after(timeout_seconds):
        while True:
            status = await embedding_status(client)
            state = f"{status['state']}, {status['pending']} pending"
            if status["state"] == "unavailable":
                raise BenchmarkFault(
                    "the embedding model is unavailable: run `mcp-memory models fetch` first"
                )
            waiting = status["pending"] + status.get("windows_pending", 0)
            if status["state"] == "ready" and waiting == 0:
                return str(status["model"])
            on_wait(state)
            await anyio.sleep(STATUS_POLL_SECONDS)
    raise BenchmarkFault(f"the embedding was not done in {timeout_seconds:.0f} s: {state}")


def progress() -> Progress:
    """Return a progress bar on stderr, so that stdout has the tables alone."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
    )


def machine() -> dict[str, Any]:
    """Return what has to stand beside any figure: when, on what, with what."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {
            DISTRIBUTION: __version__,
            **{name: version(name) for name in ("mcp", "duckdb", "fastembed")},
        },
    }


def write_json(path: Path | None, report: Mapping[str, Any]) -> None:
    """Write the report, if a path was asked for."""
    if path is not None:
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        err.print(f"wrote {path}")


def run(benchmark: Callable[[], Awaitable[None]]) -> int:
    """Run a benchmark and return its exit status; Ctrl-C stops the servers, too."""
    return run_blocking(partial(anyio.run, benchmark))


def run_blocking(benchmark: Callable[[], object]) -> int:
    """Run a benchmark that is no coroutine, as `run` does."""
    try:
        benchmark()
    except KeyboardInterrupt:
        err.print("interrupted")
        return EXIT_INTERRUPTED
    except BenchmarkFault as error:
        err.print(f"error: {error}", markup=False)
        return EXIT_FAILED
    return 0


def _first_cause(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
