"""Clients with windows of different sizes write and flush one conversation at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise
from typing import Any

import pytest
from talker import Household, Talker, until

from mcp_memory.store.duckdb.database import Database

pytestmark = pytest.mark.slow

TURNS = 30
WINDOWS = (3_500, 3_500, 6_000, 20_000)


def talk(client: Talker, number: int, window: int) -> list[tuple[str, str]]:
    """Append turns, flush now and then; return what was acknowledged, in order."""
    acknowledged = []
    for turn in range(TURNS):
        content = f"client {number} says {turn}: " + "the kettle whistles " * (10 * (turn % 6))
        reply = client.call(
            "conversation_append",
            conversation="both",
            messages=[{"role": "user", "content": content}],
        )
        assert reply["used_tokens"] <= reply["window_tokens"] == window
        acknowledged.append((reply["ids"][0], content.strip()))
        if turn % 10 == number:
            client.call("conversation_flush", conversation="both")
    return acknowledged


def listed(client: Talker) -> Iterator[dict[str, Any]]:
    """Yield every message of the conversation, page by page."""
    asked: dict[str, Any] = {"conversation": "both", "limit": 50}
    while True:
        page = client.call("conversation_search", **asked)
        yield from page["results"]
        if "next_cursor" not in page:
            return
        asked["cursor"] = page["next_cursor"]


def test_all_that_was_said_is_there_once_and_the_summaries_have_no_gap(house: Household):
    clients = [house.client(context_window=window, max_reply_tokens=10_000) for window in WINDOWS]
    assert house.owners() == [house.pid()]
    with ThreadPoolExecutor(len(clients)) as threads:
        said = list(threads.map(talk, clients, range(len(clients)), WINDOWS))

    found = sorted(listed(clients[0]), key=lambda hit: hit["index"])
    assert [hit["index"] for hit in found] == list(range(TURNS * len(WINDOWS)))
    place = {hit["id"]: hit["index"] for hit in found}
    text = {hit["id"]: hit["text"].strip() for hit in found}
    assert len(place) == len(found)
    for own in said:
        assert [text[key] for key, _ in own] == [content for _, content in own]
        places = [place[key] for key, _ in own]
        assert places == sorted(places)

    budgets = [client.call("context_budget", conversation="both") for client in clients]
    # The queue is one for all of them.
    (queued,) = {budget["counts"]["queue_messages"] for budget in budgets}
    for client in clients:  # First: they would start another owner.
        client.kill()
    house.end_owner()
    until(lambda: not house.processes(), "the end of all processes")
    with closing(Database(house.home / "memory.duckdb")) as database:
        summaries = database.read(
            "SELECT id, parent, first_position, last_position FROM summaries"
            " WHERE conversation = 'both' ORDER BY last_position"
        )
    assert len(summaries) > len(WINDOWS)
    assert summaries[0][1:3] == (None, 0)
    for before, summary in pairwise(summaries):
        assert summary[1:3] == (before[0], before[3] + 1)
    assert summaries[-1][3] == len(found) - queued - 1
