"""Regular expressions: nothing in them that some Python of ours gets wrong."""

import importlib
import pkgutil
import re
from re import _parser  # type: ignore[attr-defined]  # nothing public tells what is in a pattern

import mcp_memory

POSSESSIVE = {"POSSESSIVE_REPEAT", "ATOMIC_GROUP"}


def operations(part):
    """Return the names of all operations in a part of a parsed pattern."""
    if isinstance(part, _parser.SubPattern):
        inner = list(part)
        return {str(operation) for operation, _ in inner}.union(
            *(operations(argument) for _, argument in inner)
        )
    return set().union(*map(operations, part)) if isinstance(part, (tuple, list)) else set()


def parsed(text, flags=0):
    return operations(_parser.parse(text, flags))


def test_the_check_sees_what_it_is_for():
    for text in ("(?:a(?:b|c)*+)?", "x|(?>ab)", "(?=a++)", r"(a)(?(1)[^b]?+|c)"):
        assert parsed(text) & POSSESSIVE
    assert not POSSESSIVE & parsed(r"(?:a|b)*(?=c+)\++")


def test_no_pattern_has_a_possessive_repetition():
    # Python 3.11.2 matches some such groups too short: "thing" was read as "thin".
    checked = 0
    for module in pkgutil.walk_packages(mcp_memory.__path__, "mcp_memory."):
        if module.name.endswith("__main__"):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, re.Pattern):
                checked += 1
                assert not parsed(value.pattern, value.flags) & POSSESSIVE, (module.name, name)
    assert checked > 50
