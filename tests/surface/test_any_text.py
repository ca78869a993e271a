"""Any Unicode text can be stored, searched for and shown; none is an error inside the server."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mcp_memory.agent import AgentMemory
from mcp_memory.server.arguments import validate
from mcp_memory.server.prompts import get_prompt
from mcp_memory.server.replies import Fitter
from mcp_memory.server.resources import read_resource
from mcp_memory.server.tools import TOOLS
from mcp_memory.values.errors import InvalidInput

ODD = re.findall(
    r"\S+",
    """
    yesterday 昨天 去年五月 先週 2023-99 2023-00-00 0000-01-01 9999-12-31 99/99/2023 0s 000s q1
    may 3rd last the between from until weeks ago 99999999999999999999 ß İ ŉ ﬃ ﷺ ǰ ² ① ½ ٣ '
    """,
)
# Marks without a letter, joiners, a byte order mark, controls, and what doesn't decompose.
ALONE = [
    "\u0301",
    "\u0345",
    "\u20d0",
    "\u0e31",
    "\u200d",
    "\ufe0f",
    "\u00ad",
    "\ufeff",
    "\x1b",
    "\x85",
]
PIECES = st.text(max_size=6) | st.sampled_from(ODD + ALONE)
TEXTS = st.lists(PIECES, max_size=8).map(" ".join) | st.lists(PIECES, max_size=8).map("".join)
TOOLS_THAT_SEARCH = ("conversation_search", "archival_memory_search")


def call(memory: AgentMemory, tool: str, **arguments: Any) -> dict[str, Any]:
    fitter = Fitter(memory.count_tokens, memory.clip_tokens, 2_000)
    spec = TOOLS[tool]
    result = spec.handler(memory, fitter, validate(tool, spec.arguments, arguments)[0]).result()
    return dict(result.structured_content or {})


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(TEXTS, TEXTS, TEXTS)
@example("tea \u0301 yesterday", "tea \u0301 yesterday", "\u0301")
@example("\u0301", "\u0301", "Ana")
@example("x", "10000 years before 9999-12-31", "Ana")
def test_any_text_is_stored_and_searched_or_refused_by_what_is_wrong(memory, text, query, name):
    fitter = Fitter(memory.count_tokens, memory.clip_tokens, 2_000)
    try:
        message = {"role": "user", "content": text, "name": name}
        call(memory, "conversation_append", messages=[message])
        call(memory, "archival_memory_insert", content=text)
        call(memory, "core_memory_append", label="working", content=text)
    except InvalidInput:
        pass  # An empty text, a NUL, half of a pair, a name of two lines, or a full block.
    for tool in TOOLS_THAT_SEARCH:
        try:
            found = call(memory, tool, query=query)
        except InvalidInput:
            continue
        assert found["total"] >= len(found["results"])
    for prompt in ("resume", "reflect", "summarize_overflow", "memory_guide"):
        assert get_prompt(memory, fitter, prompt, {}).messages
    for uri in ("memory://core", "memory://conversations/main/recent", "memory://status"):
        assert read_resource(memory, fitter, uri).text
