"""Whoever has waited longest is next, also before the one who has just left."""

import threading

from talker import until

from mcp_memory.models.embedding import Turns


def test_whoever_has_left_waits_behind_those_who_came_before():
    turns = Turns(1)
    order = []
    threads = []

    def go_in(name):
        with turns:
            order.append(name)

    with turns:
        for name in "abc":
            thread = threading.Thread(target=go_in, args=(name,))
            threads.append(thread)
            thread.start()
            until(lambda: len(turns._waiting) == len(threads), f"{name} to wait")
    go_in("again")
    for thread in threads:
        thread.join()
    assert order == ["a", "b", "c", "again"]


def test_as_many_are_inside_as_there_is_room_for():
    turns = Turns(2)
    with turns, turns:
        late = threading.Thread(target=lambda: turns.__enter__())
        late.start()
        until(lambda: turns._waiting, "the third to wait")
    late.join()
    assert turns._free == 1
