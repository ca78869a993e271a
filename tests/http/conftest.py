"""A real database behind every listener; without a model, so that search goes by words."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mcp_memory.server.servers import Servers
from mcp_memory.settings import Settings


@pytest.fixture
def servers(settings: Settings) -> Iterator[Servers]:
    made = Servers(settings)
    yield made
    made.close()
