"""What fails in the owner's event loop is logged, but for what is no failure."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys

import anyio
import anyio.abc
import pytest

from mcp_memory.owner.process import log_failure

pytestmark = pytest.mark.anyio


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


async def _cancel_as_it_is_readable(handler) -> None:
    """Cancel a wait for a unix socket in the turn of the loop in which there is something."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(handler)
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with theirs:
        async with (
            await anyio.abc.UNIXSocketStream.from_socket(ours) as stream,
            anyio.create_task_group() as group,
        ):
            group.start_soon(stream.receive)
            await anyio.wait_all_tasks_blocked()
            theirs.send(b"x")
            # It stands before the socket in the loop's next turn.
            loop.call_soon(group.cancel_scope.cancel)
            await anyio.sleep_forever()
    assert group.cancel_scope.cancelled_caught


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such sockets there")
async def test_a_wait_that_is_cancelled_as_it_is_over_is_no_failure(
    logged: pytest.LogCaptureFixture,
):
    failures = []
    await _cancel_as_it_is_readable(lambda _, context: failures.append(context))
    if not failures:
        pytest.skip("this version of anyio has no such failure")
    await _cancel_as_it_is_readable(log_failure)
    assert logged.text == ""


async def test_whatever_else_fails_in_the_loop_is_logged(logged: pytest.LogCaptureFixture):
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(log_failure)
    done = loop.create_future()
    done.set_result(None)
    loop.call_soon(done.set_exception, ValueError())
    loop.call_soon(lambda: 1 / 0)
    await anyio.wait_all_tasks_blocked()
    assert "InvalidStateError" in logged.text
    assert "ZeroDivisionError" in logged.text
