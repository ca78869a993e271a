"""Observers are not users: probes, metrics and status change nothing and delay nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator

import anyio
import anyio.to_thread
import pytest
from sites import Site, listening

from mcp_memory.owner.admin import OPERATIONS
from mcp_memory.server.servers import Servers
from mcp_memory.settings import Settings

pytestmark = pytest.mark.anyio

PATIENCE_SECONDS = 60.0
PATHS = ("/readyz", "/healthz", "/metrics")


@pytest.fixture
def tended(settings: Settings) -> Iterator[Servers]:
    """Give servers whose database is tended a second after a change, and after a quiet second."""
    made = Servers(settings.model_copy(update={"heartbeat_seconds": 1.0}))
    yield made
    made.close()


async def observe(site: Site, token: str | None = None) -> None:
    """Look at a server in every way there is."""
    async with site.raw(token) as http:
        for path in PATHS:
            assert (await http.get(path)).status_code == 200
    status = await anyio.to_thread.run_sync(OPERATIONS["status"], site.servers, {})
    assert status["database"]["rows"]["tokens"] == (token is not None)


async def settled(site: Site) -> None:
    """Wait until the model was looked for: the background has nothing left to do."""
    with anyio.fail_after(PATIENCE_SECONDS):
        async with site.raw() as http:
            while True:
                if (await http.get("/readyz")).status_code == 200:
                    return
                await anyio.sleep(0.01)


def log_bytes(servers: Servers) -> int:
    path = f"{servers.settings.db}.wal"
    return os.path.getsize(path) if os.path.exists(path) else 0


@pytest.mark.parametrize("with_token", [False, True])
async def test_an_observer_commits_nothing_and_is_no_activity(servers, with_token):
    async with listening(servers) as site:
        token = await site.token("boss", "admin") if with_token else None
        await settled(site)
        engine = servers.memories().engine
        # A commit makes the log longer.
        before = engine.used_at, log_bytes(servers)
        for _ in range(3):
            await observe(site, token)
        assert (engine.used_at, log_bytes(servers)) == before
        # What reads the metrics is no client, and its token's use is not stored.
        assert servers.connections == []
        await anyio.to_thread.run_sync(servers.memories().tokens.save_uses)
        assert log_bytes(servers) == before[1]


async def test_maintenance_happens_while_observers_come_all_the_time(tended):
    async with listening(tended) as site, anyio.create_task_group() as group:
        await settled(site)

        async def keep_observing() -> None:
            while True:
                await observe(site)

        for _ in range(3):
            group.start_soon(keep_observing)
        memory = tended.memories().open("default")
        await anyio.to_thread.run_sync(memory.archive.insert, "The kettle is blue.")
        beats = tended.memories().heartbeats
        assert log_bytes(tended)
        with anyio.fail_after(PATIENCE_SECONDS):
            # Only in a quiet moment a log as short as this is written back.
            while True:
                if not log_bytes(tended) and tended.memories().heartbeats > beats:
                    break
                await anyio.sleep(0.05)
        group.cancel_scope.cancel()


async def test_a_database_that_was_taken_away_is_not_ready(servers):
    async with listening(servers) as site, site.raw() as http:
        await settled(site)
        os.rename(servers.settings.db, f"{servers.settings.db}.elsewhere")
        gone = await http.get("/readyz")
        assert gone.status_code == 503
        assert gone.json()["database"] == "failing"
        os.rename(f"{servers.settings.db}.elsewhere", servers.settings.db)
        assert (await http.get("/readyz")).status_code == 200
