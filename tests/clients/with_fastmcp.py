"""One conversation through fastmcp's client, told as JSON on stdout.

python with_fastmcp.py MODE COMMAND [ARGUMENT...]; it runs where fastmcp is installed.
"""

import json
import os
import sys

import anyio
import mcp_types as types
from fastmcp import Client
from fastmcp.client.transports import StdioTransport

CORE = "memory://core"


async def main() -> None:
    """Have the conversation."""
    mode, command, *arguments = sys.argv[1:]
    story, news = {}, anyio.Event()

    async def hear(message):
        if isinstance(message, types.ResourceUpdatedNotification):
            story["updated"] = str(message.params.uri)
            news.set()

    transport = StdioTransport(command, arguments, env=dict(os.environ), keep_alive=False)
    async with Client(transport, mode=mode, message_handler=hear) as client:

        async def call(name, **given):
            return (await client.call_tool(name, given)).structured_content

        story["tools"] = [tool.name for tool in await client.list_tools()]
        content = "The heron nests behind the mill."
        story["stored"] = await call("archival_memory_insert", content=content)
        story["found"] = await call("archival_memory_search", query="heron")
        story["core"] = (await client.read_resource(CORE))[0].text
        completed = await client.complete(
            types.ResourceTemplateReference(type="ref/resource", uri="memory://core/{label}"),
            {"name": "label", "value": "hu"},
        )
        story["completed"] = completed.values
        if mode == "legacy":
            await client.session.subscribe_resource(CORE)
            await call("core_memory_append", label="human", content="Likes herons.")
            await news.wait()
        else:
            from mcp.client.subscriptions import listen

            async with listen(client.session, resource_subscriptions=[CORE]) as changes:
                await call("core_memory_append", label="human", content="Likes herons.")
                async for change in changes:
                    story["updated"] = str(change.uri)
                    break

        with anyio.move_on_after(0) as scope:
            await call("archival_memory_search", query="mill")
        story["cancelled"] = scope.cancelled_caught
        story["after"] = await call("core_memory_view")
    print(json.dumps(story))


anyio.run(main)
