"""One conversation through version 1 of the Python SDK, told as JSON on stdout.

python python_v1.py COMMAND [ARGUMENT...]; it runs where `mcp<2` is installed.
"""

import json
import os
import sys

import anyio
import anyio.lowlevel
from mcp import ClientSession, StdioServerParameters, types
from mcp.client.stdio import stdio_client
from pydantic import AnyUrl

CORE = AnyUrl("memory://core")


async def main() -> None:
    """Have the conversation."""
    command, *arguments = sys.argv[1:]
    server = StdioServerParameters(command=command, args=arguments, env=dict(os.environ))
    story, news = {}, anyio.Event()

    async def hear(message):
        if isinstance(message, types.ServerNotification) and isinstance(
            message.root, types.ResourceUpdatedNotification
        ):
            story["updated"] = str(message.root.params.uri)
            news.set()

    async with (
        stdio_client(server) as (read, write),
        ClientSession(read, write, message_handler=hear) as session,
    ):
        await session.initialize()

        async def call(name, **given):
            return (await session.call_tool(name, given)).structuredContent

        story["tools"] = [tool.name for tool in (await session.list_tools()).tools]
        content = "The heron nests behind the mill."
        story["stored"] = await call("archival_memory_insert", content=content)
        story["found"] = await call("archival_memory_search", query="heron")
        story["core"] = (await session.read_resource(CORE)).contents[0].text
        completed = await session.complete(
            types.ResourceTemplateReference(type="ref/resource", uri="memory://core/{label}"),
            {"name": "label", "value": "hu"},
        )
        story["completed"] = completed.completion.values
        await session.subscribe_resource(CORE)
        await call("core_memory_append", label="human", content="Likes herons.")
        await news.wait()

        # This SDK doesn't tell the server of a call that was given up; a host does.
        async with anyio.create_task_group() as group:
            number = session._request_id
            group.start_soon(lambda: call("archival_memory_search", query="mill"))
            await anyio.lowlevel.checkpoint()
            params = types.CancelledNotificationParams(requestId=number, reason="not needed")
            notification = types.CancelledNotification(
                method="notifications/cancelled", params=params
            )
            await session.send_notification(types.ClientNotification(notification))
            group.cancel_scope.cancel()
        story["cancelled"] = True
        story["after"] = await call("core_memory_view")
    print(json.dumps(story))


anyio.run(main)
