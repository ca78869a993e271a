"""A folder with a database, and all that is started for it; it ends with the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from talker import Household


@pytest.fixture
def house(tmp_path: Path, cache_dir: Path) -> Iterator[Household]:
    household = Household(tmp_path, cache_dir)
    yield household
    household.clear()
