"""The main job with nothing faked: a real client, the real model, a real database."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest
from mcp import Client
from processes import command, stdio

from mcp_memory.models.fetching import fetch_model
from mcp_memory.settings import DEFAULT_MODEL, load_settings

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def model_cache() -> Path:
    """The user's own cache, so that the model is fetched once a machine."""
    cache = load_settings().cache_dir
    fetch_model(DEFAULT_MODEL, cache, offline=False)
    return cache


async def ready(client: Client) -> None:
    """Wait until the model is loaded and no vector is pending."""
    with anyio.fail_after(120):
        while True:
            content = (await client.read_resource("memory://status")).contents[0]
            embedding = json.loads(content.text)["embedding"]
            waiting = embedding["pending"] + embedding["windows_pending"]
            if embedding["state"] == "ready" and not waiting:
                return
            assert embedding["state"] != "unavailable", embedding
            await anyio.sleep(0.1)


async def test_memories_are_found_in_other_words_and_after_a_restart(tmp_path, model_cache):
    async with stdio(tmp_path, cache_dir=model_cache) as client:
        facts = [
            "My sister Ingrid is afraid of dogs since she was bitten as a child.",
            "The quarterly numbers have to be with the board by the third of March.",
            "We paint the kitchen in a dark green.",
            "The router's admin password was changed to a sentence about whales.",
            "我昨天在上海喝咖啡，遇到了老同学。",
        ]
        ids = []
        for fact in facts:
            reply = await client.call_tool("archival_memory_insert", {"content": fact})
            ids.append(reply.structured_content["id"])
        await ready(client)
    async with stdio(tmp_path, cache_dir=model_cache) as client:
        await ready(client)
        for query, expected in (
            ("which relative has a phobia of animals", ids[0]),
            ("deadline for the financial report", ids[1]),
            ("colour of the walls where we cook", ids[2]),
            ("咖啡", ids[4]),
        ):
            found = await client.call_tool("archival_memory_search", {"query": query, "top_k": 1})
            assert found.structured_content["search"] == "hybrid"
            assert found.structured_content["results"][0]["id"] == expected


async def test_search_goes_by_words_until_the_model_is_there_and_says_so(tmp_path):
    async with stdio(tmp_path) as client:  # offline, with an empty cache
        await client.call_tool("archival_memory_insert", {"content": "The heron nests in April"})
        found = await client.call_tool("archival_memory_search", {"query": "heron nesting"})
        assert found.structured_content["search"] == "lexical"
        assert "embedding model is" in found.structured_content["note"]
        assert found.structured_content["total"] == 1
        with anyio.fail_after(60):
            while True:
                content = (await client.read_resource("memory://status")).contents[0]
                embedding = json.loads(content.text)["embedding"]
                if embedding["state"] == "unavailable":
                    break
                await anyio.sleep(0.05)
        assert embedding["pending"] == 1
        assert embedding["detail"]


async def test_what_came_before_the_model_gets_its_vectors_later(tmp_path, model_cache):
    async with stdio(tmp_path) as client:
        await client.call_tool(
            "conversation_append",
            {"messages": [{"role": "user", "content": "My daughter adores dinosaurs"}]},
        )
    async with stdio(tmp_path, cache_dir=model_cache) as client:
        await ready(client)
        found = await client.call_tool(
            "conversation_search", {"query": "what does my kid love", "limit": 1}
        )
        assert found.structured_content["search"] == "hybrid"
        assert found.structured_content["results"][0]["text"] == "My daughter adores dinosaurs"


async def test_a_long_memory_is_found_by_what_only_its_last_sentence_means(tmp_path, model_cache):
    filler = " ".join(
        f"Section {n} describes the drainage of field {n} in dry terms." for n in range(400)
    )
    async with stdio(tmp_path, cache_dir=model_cache) as client:
        await ready(client)
        reply = await client.call_tool(
            "archival_memory_insert",
            {"content": f"{filler} In the end the farmer gave his tractor to the museum."},
        )
        await ready(client)
        found = await client.call_tool(
            "archival_memory_search", {"query": "an agricultural machine was donated", "top_k": 1}
        )
        hit = found.structured_content["results"][0]
        assert hit["id"] == reply.structured_content["id"]
        assert "tractor to the museum" in hit["text"]


async def test_a_near_duplicate_is_stored_and_named(tmp_path, model_cache):
    async with stdio(tmp_path, cache_dir=model_cache) as client:
        await ready(client)
        first = await client.call_tool(
            "archival_memory_insert", {"content": "Ana lives in Lisbon with two cats."}
        )
        second = await client.call_tool(
            "archival_memory_insert", {"content": "Ana lives in Lisbon and has two cats."}
        )
        assert second.structured_content["created"] is True
        near = second.structured_content["near_duplicates"]
        assert [item["id"] for item in near] == [first.structured_content["id"]]
        other = await client.call_tool(
            "archival_memory_insert", {"content": "The invoice for the roof is unpaid."}
        )
        assert "near_duplicates" not in other.structured_content


async def test_another_model_is_refused_with_the_way_out(tmp_path, model_cache):
    async with stdio(tmp_path, cache_dir=model_cache) as client:
        await client.call_tool("archival_memory_insert", {"content": "A heron in the reeds"})
        await ready(client)
    # The database says that another model made it, as after a change of the setting.
    from mcp_memory.store.duckdb.database import Database

    database = Database(tmp_path / "memory.duckdb")
    with database.transaction() as tx:
        tx.run("UPDATE settings SET value = 'other/model' WHERE key = 'embedding_model'")
    database.close()
    async with stdio(tmp_path, cache_dir=model_cache) as client:
        refused = await client.call_tool("archival_memory_search", {"query": "heron"})
        assert refused.is_error
        assert "other/model" in refused.content[0].text
        assert "mcp-memory reembed" in refused.content[0].text
    done = command(tmp_path, "reembed", cache_dir=model_cache)
    assert done.returncode == 0, done.stderr
    assert "1 texts embedded" in done.stdout
    async with stdio(tmp_path, cache_dir=model_cache) as client:
        await ready(client)
        found = await client.call_tool("archival_memory_search", {"query": "a bird among plants"})
        assert found.structured_content["search"] == "hybrid"
        assert found.structured_content["results"][0]["text"] == "A heron in the reeds"


async def test_nothing_is_left_in_the_home_but_the_memory(tmp_path, model_cache):
    """The runtime of the model would keep a device id there for its maker."""
    async with stdio(tmp_path, cache_dir=model_cache) as client:
        await client.call_tool("archival_memory_insert", {"content": "x"})
        await ready(client)
    left = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*") if path.is_file()}
    assert left <= {
        "memory.duckdb",
        "memory.duckdb.wal",
        "memory.duckdb.witness",
        "memory.duckdb.core",
    }
