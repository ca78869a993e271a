"""A client with settings that can't be taken is refused, and nobody else notices."""

from __future__ import annotations

import pytest
from talker import Household, until

pytestmark = pytest.mark.slow


def _refused(house: Household, **settings: str) -> str:
    """Return the one line that a client is refused with."""
    client = house.start(**settings)
    assert client.status() == 2
    assert client.messages == []
    (line,) = client.errors
    return line


def test_a_wrong_setting_is_one_line_and_the_owner_of_others_lives(house: Household):
    other = house.client()
    pid = house.pid()
    assert "MCP_MEMORY_CONTEXT_WINDOW" in _refused(house, context_window="many")
    assert "MCP_MEMORY_AGENT" in _refused(house, agent="a" * 500)
    other.call("core_memory_view")
    assert house.owners() == [pid]


def test_a_wrong_setting_of_the_first_client_leaves_no_owner(house: Household):
    assert "MCP_MEMORY_TIMEZONE" in _refused(house, timezone="Mars/Olympus")
    until(lambda: not house.processes(), "the end of all processes", seconds=20)
    house.client().call("core_memory_view")


@pytest.mark.parametrize(
    ("setting", "value"), [("tokenizer", "cl100k_base"), ("embedding_model", "another/model")]
)
def test_what_must_be_the_same_for_all_is_refused_with_the_way_out(
    house: Household, setting: str, value: str
):
    other = house.client()
    line = _refused(house, **{setting: value})
    assert f"MCP_MEMORY_{setting.upper()}" in line
    assert value in line
    assert "Set the same in every client" in line
    other.call("core_memory_view")


def test_a_database_that_names_no_file_is_refused_at_once(house: Household):
    assert "MCP_MEMORY_DB" in _refused(house, db="~there-is-no-such-user/memory.duckdb")
    assert house.processes() == []
