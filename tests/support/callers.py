"""A client of either protocol era that checks what every tool result must fulfil."""

from __future__ import annotations

from typing import Any

from mcp import Client

ERAS = ("legacy", "2026-07-28")


class Caller:
    """Calls tools through the SDK's client and checks each result."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def __call__(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Return the structured content of a call that must succeed."""
        result = await self.raw(tool, **arguments)
        assert not result.is_error, result.content[0].text
        return dict(result.structured_content)

    async def refused(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Return the structured content of a call that must be refused."""
        result = await self.raw(tool, **arguments)
        assert result.is_error, result.content[0].text
        assert result.structured_content["message"] in result.content[0].text
        return dict(result.structured_content)

    async def raw(self, tool: str, **arguments: Any) -> Any:
        """Return the whole result of a call."""
        return await self.client.call_tool(tool, arguments)

    async def read(self, uri: str) -> str:
        """Return the text of a resource."""
        content: Any = (await self.client.read_resource(uri)).contents[0]
        return str(content.text)
