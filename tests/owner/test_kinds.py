"""The table of kinds belongs to the owner: a wrong file is refused, another one gives way."""

from __future__ import annotations

import pytest
from talker import Household, until

pytestmark = pytest.mark.slow

SAID = [{"role": "user", "content": "The importer is done."}]
CHUNK = {"start_index": 0, "end_index": 0, "context": "Importer done.", "kind": "project"}


def test_a_wrong_table_is_one_line_with_file_key_and_value_and_nothing_stays(house: Household):
    (house.home / "kinds.toml").write_text("[project]\nhalf_life_days = 'weeks'\n")
    client = house.start(kinds="kinds.toml")
    assert client.status() == 2
    assert client.messages == []
    (line,) = client.errors
    for part in ("MCP_MEMORY_KINDS", str(house.home / "kinds.toml"), "half_life_days", "'weeks'"):
        assert part in line
    until(lambda: not house.processes(), "the end of all processes", seconds=20)


def test_a_client_with_another_table_gets_the_one_of_the_owner(house: Household):
    (house.home / "mine.toml").write_text("[project]\ndated = false\nverbatim = 'none'\n")
    (house.home / "other.toml").write_text("[project]\nverbatim = 'quote'\n")
    (house.home / "wrong.toml").write_text("[projekt]\n")
    first = house.client(kinds="mine.toml")
    plain = house.client()
    assert "MCP_MEMORY_KINDS" not in house.log()
    for client in (plain, house.client(kinds="other.toml")):
        client.call("conversation_append", messages=SAID)
        (key,) = client.call("store_memories", chunks=[CHUNK])["ids"]
        hit = client.call("archival_memory_search", query="importer")["results"][0]
        assert (hit["id"], hit["text"]) == (key, "Importer done.")
    assert "another MCP_MEMORY_KINDS" in house.log()
    wrong = house.start(kinds="wrong.toml")
    assert wrong.status() == 2
    assert "projekt" in wrong.errors[0]
    first.call("core_memory_view")
