"""The fault tree as it is drawn, and what the faults carry."""

import re

import pytest

from mcp_memory.values import errors
from mcp_memory.values.errors import (
    BadCursor,
    DatabaseLocked,
    MatchFault,
    MemoryFault,
    ModelMismatch,
    NotFound,
    OverLimit,
    ReadOnly,
    SchemaTooNew,
    SettingsFault,
)


def drawn_tree():
    """Yield the name and the parent's name of every fault in the module's drawing."""
    parents = {}
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^(?P<branch>[│├└─ ]*)(?P<name>[A-Z]\w+)", line)
        if not match or (not match["branch"] and match["name"] != "MemoryFault"):
            continue
        depth = len(match["branch"]) // len("├── ")
        parents[depth] = match["name"]
        yield match["name"], parents[depth - 1] if depth else "Exception"


def test_the_drawing_of_the_faults_is_their_inheritance():
    defined = {
        name: cls.__bases__[0].__name__
        for name, cls in vars(errors).items()
        if isinstance(cls, type) and issubclass(cls, MemoryFault)
    }
    assert dict(drawn_tree()) == defined


def test_a_fault_is_one_line_of_message_and_hint():
    assert str(MemoryFault("it broke", hint="Mend it")) == "it broke. Mend it"
    assert str(MemoryFault("it broke")) == "it broke"


def test_what_is_over_a_limit_says_by_how_much():
    fault = OverLimit("block 'human'", used=2312, limit=2000, field="human", hint="Shorten it")
    assert (fault.used, fault.limit, fault.unit, fault.field) == (2312, 2000, "tokens", "human")
    assert "2000 tokens by 312" in fault.message


@pytest.mark.parametrize("pid", [4711, None])
def test_a_locked_database_names_its_holder_if_it_is_known(pid):
    fault = DatabaseLocked("/data/memory.duckdb", pid=pid)
    assert fault.pid == pid
    assert ("4711" in str(fault)) is (pid is not None)
    assert "None" not in str(fault)


@pytest.mark.parametrize(
    "fault",
    [
        BadCursor("it is of another search"),
        DatabaseLocked("/d", pid=1),
        MatchFault("twice", lines=(1, 2), field="old_content", hint="Give more of the text"),
        ModelMismatch(stored="a", wanted="b"),
        NotFound("no block", key="x", hint="Make it"),
        OverLimit("tags", used=40, limit=32, unit="tags", hint="Keep the few"),
        ReadOnly("persona"),
        SchemaTooNew("/d", found=9, known=2),
        SettingsFault("MCP_MEMORY_DB", "is empty", hint="Give a path"),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_every_fault_says_in_one_line_what_to_do_next(fault):
    assert fault.hint
    assert fault.hint in str(fault)
    assert "\n" not in str(fault)


def test_a_settings_fault_begins_with_the_variable_to_change():
    assert str(SettingsFault("MCP_MEMORY_DB", "is empty")).startswith("MCP_MEMORY_DB: ")
