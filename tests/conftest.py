"""What tests share: settings without the user's environment, a memory on a real database."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes import HashEmbedder, memory_of

from mcp_memory.agent import AgentMemory
from mcp_memory.settings import Settings, load_settings
from mcp_memory.tiers.engine import Engine
from mcp_memory.values.dates import Clock, now
from mcp_memory.values.locations import PREFIX

pytest_plugins = ["retries", "seeds"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of model and rank files that the fast tests share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


@pytest.fixture
def settings(tmp_path: Path, cache_dir: Path) -> Settings:
    return load_settings(
        db=tmp_path / "memory.duckdb",
        cache_dir=cache_dir,
        offline=True,
        embedding_model="fake/hash",
    )


@pytest.fixture
def open_memory(settings: Settings) -> Iterator[Callable[..., AgentMemory]]:
    """Open the memory of an agent on the test's database; closed at the end."""
    opened: list[AgentMemory] = []

    def open_it(
        agent: str = "default", *, has_model: bool = True, clock: Clock = now, **changes: object
    ) -> AgentMemory:
        changed = settings.model_copy(update=changes)
        embedder = HashEmbedder() if has_model else None
        memory = memory_of(Engine(changed, embedder=embedder, clock=clock), agent)
        opened.append(memory)
        return memory

    yield open_it
    for memory in opened:
        memory.close()


@pytest.fixture
def memory(open_memory: Callable[..., AgentMemory]) -> AgentMemory:
    return open_memory()
