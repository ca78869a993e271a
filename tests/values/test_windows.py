"""A model's name instead of its window's size."""

from __future__ import annotations

import pytest

from mcp_memory.settings import load_settings
from mcp_memory.values.errors import SettingsFault
from mcp_memory.values.windows import WINDOWS, window_of


@pytest.mark.parametrize("name", WINDOWS)
def test_every_name_of_the_table_is_found_however_it_is_spelled(name):
    spelled = [name, name.upper(), name.replace(".", "-"), f"maker/{name}", f" {name}-20261121 "]
    assert {window_of(one) for one in spelled} == {WINDOWS[name]}


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("claude-opus-4-5-20251101", "claude-opus-4.5"),
        ("openai/gpt-5.1-codex", "gpt-5.1"),
        ("gpt-4o-mini", "gpt-4o"),
        ("gpt-4-0613", "gpt-4"),
        ("gemini-3-pro-preview", "gemini-3-pro"),
        ("llama3.1:8b", "llama-3.1"),
        ("qwen3-coder:30b", "qwen3-coder"),
        ("qwen3:32b", "qwen3"),
        ("o1-mini-2024-09-12", "o1-mini"),
        ("gpt-5.2-chat-latest", "gpt-5.2-chat"),
        ("mistral-small-3-1-24b-instruct-2503", "mistral-small-3.1"),
    ],
)
def test_the_longest_name_that_a_model_begins_with_is_meant(name, known):
    assert window_of(name) == WINDOWS[known]


@pytest.mark.parametrize(
    ("small", "large"),
    [
        ("o1-mini", "o1"),
        ("gpt-5.2-chat", "gpt-5.2"),
        ("codestral-2405", "codestral"),
        ("command-a-vision", "command-a"),
        ("kimi-k2-instruct", "kimi-k2-0905"),
        ("mistral-large-2402", "mistral-large"),
        ("glm-4.5v", "glm-4.5"),
    ],
)
def test_a_model_of_a_smaller_window_is_not_taken_for_its_family(small, large):
    assert window_of(small) < window_of(large)


def test_a_name_does_not_go_on_in_the_middle_of_a_word():
    for name in ("gpt-4x", "o3x", "phi-44"):
        with pytest.raises(ValueError, match="neither a number"):
            window_of(name)


def test_the_window_can_be_set_by_a_model_or_a_number(monkeypatch):
    monkeypatch.setenv("MCP_MEMORY_CONTEXT_WINDOW", "Gemini-3-Pro")
    assert load_settings().context_window == WINDOWS["gemini-3-pro"]
    monkeypatch.setenv("MCP_MEMORY_CONTEXT_WINDOW", " 32000 ")
    assert load_settings().context_window == 32_000


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("gtp-5.1", "similar ones are gpt-5.1"),
        ("my own", "a known model; some are"),
        ("999", "1000"),
    ],
)
def test_a_window_that_cannot_be_taken_is_one_line_that_names_what_is_near(given, told):
    with pytest.raises(SettingsFault) as fault:
        load_settings(context_window=given)
    assert told in str(fault.value)
    assert "\n" not in str(fault.value)
