"""How memory stands in a model's context: pure functions from records to text."""

from __future__ import annotations

from collections.abc import Sequence

from mcp_memory.records import Block, Message
from mcp_memory.text import escape


def compile_blocks(blocks: Sequence[Block]) -> str:
    """Return the blocks as they stand in context, values escaped."""
    return "\n".join(compile_block(block) for block in blocks)


def compile_block(block: Block) -> str:
    """Return one block as it stands in context, its value escaped."""
    access = ' read_only="true"' if block.read_only else ""
    return (
        f'<block label="{escape(block.label)}" description="{escape(block.description)}"'
        f' tokens="{block.tokens}" limit="{block.limit}"{access}>\n'
        f"{escape(block.value)}\n</block>"
    )


def render_message(message: Message) -> str:
    """Return a message as it stands in context; its tokens are those of this text."""
    who = f"{message.role} ({message.name})" if message.name else message.role
    return f"{who}: {message.content}\n"
