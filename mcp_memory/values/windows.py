"""The context windows of well-known models, so that a user can set a name instead of a number.

The figures are for input and output together, compared with the table that LiteLLM
publishes (model_prices_and_context_window.json, August 2026). Where providers of a model
differ, the table has the smaller figure of the maker, because a window that is set too large
is flushed too late. Makers change them; a user who knows better sets a number. An unknown
name is refused, with similar ones.
"""

from __future__ import annotations

import difflib
import re
from typing import Final

WINDOWS: Final[dict[str, int]] = {
    "claude-3": 200_000,
    "claude-3.5": 200_000,
    "claude-3.7": 200_000,
    "claude-fable-5": 1_000_000,
    "claude-haiku-4.5": 200_000,
    "claude-opus-4": 200_000,
    "claude-opus-4.1": 200_000,
    "claude-opus-4.5": 200_000,
    "claude-opus-4.6": 1_000_000,
    "claude-opus-4.7": 1_000_000,
    "claude-opus-4.8": 1_000_000,
    "claude-opus-5": 1_000_000,
    "claude-sonnet-4": 200_000,
    "claude-sonnet-4.5": 200_000,
    "claude-sonnet-4.6": 1_000_000,
    "claude-sonnet-5": 1_000_000,
    "codestral": 256_000,
    "codestral-2405": 32_000,
    "codestral-2501": 128_000,
    "command-a": 256_000,
    "command-a-vision": 128_000,
    "command-r": 128_000,
    "deepseek-chat": 128_000,
    "deepseek-r1": 128_000,
    "deepseek-reasoner": 128_000,
    "deepseek-v3": 128_000,
    "deepseek-v4": 1_000_000,
    "devstral-2": 256_000,
    "devstral-medium": 128_000,
    "devstral-small": 128_000,
    "gemini-1.5-flash": 1_048_576,
    "gemini-1.5-pro": 2_097_152,
    "gemini-2.0-flash": 1_048_576,
    "gemini-2.5-flash": 1_048_576,
    "gemini-2.5-pro": 1_048_576,
    "gemini-3-flash": 1_048_576,
    "gemini-3-pro": 1_048_576,
    "gemini-3.1-flash-lite": 1_048_576,
    "gemini-3.1-flash-live": 131_072,
    "gemini-3.1-pro": 1_048_576,
    "gemini-3.5-flash": 1_048_576,
    "gemini-3.6-flash": 1_048_576,
    "gemma-2": 8_192,
    "gemma-3": 131_072,
    "gemma-3-1b": 32_768,
    "gemma-4": 128_000,
    "gemma-4-26b": 256_000,
    "gemma-4-31b": 256_000,
    "glm-4.5": 131_072,
    "glm-4.5v": 65_536,
    "glm-4.6": 200_000,
    "glm-4.6v": 131_072,
    "glm-4.7": 200_000,
    "glm-5": 200_000,
    "gpt-3.5-turbo": 16_385,
    "gpt-4": 8_192,
    "gpt-4-32k": 32_768,
    "gpt-4-turbo": 128_000,
    "gpt-4.1": 1_047_576,
    "gpt-4.5": 128_000,
    "gpt-4o": 128_000,
    "gpt-5": 400_000,
    "gpt-5-chat": 128_000,
    "gpt-5.1": 400_000,
    "gpt-5.1-chat": 128_000,
    "gpt-5.2": 400_000,
    "gpt-5.2-chat": 128_000,
    "gpt-5.3-chat": 128_000,
    "gpt-5.3-codex": 400_000,
    "gpt-5.3-codex-spark": 128_000,
    "gpt-5.3-instant": 128_000,
    "gpt-5.4": 1_050_000,
    "gpt-5.4-mini": 400_000,
    "gpt-5.4-nano": 400_000,
    "gpt-5.5": 1_050_000,
    "gpt-5.6": 1_050_000,
    "gpt-oss": 131_072,
    "grok-3": 131_072,
    "grok-4": 256_000,
    "grok-4-fast": 2_000_000,
    "grok-4.1-fast": 2_000_000,
    "grok-4.20": 2_000_000,
    "grok-4.3": 1_000_000,
    "grok-4.5": 500_000,
    "grok-code-fast-1": 256_000,
    "kimi-k2": 131_072,
    "kimi-k2-0905": 262_144,
    "kimi-k2-thinking": 262_144,
    "kimi-k2.5": 262_144,
    "kimi-k2.6": 262_144,
    "kimi-k2.7": 262_144,
    "llama-3": 8_192,
    "llama-3.1": 131_072,
    "llama-3.2": 131_072,
    "llama-3.3": 131_072,
    "llama-4-maverick": 1_048_576,
    "llama-4-scout": 10_485_760,
    "magistral": 40_000,
    "minimax-m2": 196_608,
    "minimax-m3": 512_000,
    "mistral-large": 128_000,
    "mistral-large-2402": 32_000,
    "mistral-large-2512": 256_000,
    "mistral-large-3": 256_000,
    "mistral-medium-3": 128_000,
    "mistral-medium-3.5": 256_000,
    "mistral-small-3": 32_768,
    "mistral-small-3.1": 128_000,
    "mistral-small-3.2": 128_000,
    "nova-2": 1_000_000,
    "nova-lite": 300_000,
    "nova-micro": 128_000,
    "nova-premier": 1_000_000,
    "nova-pro": 300_000,
    "o1": 200_000,
    "o1-mini": 128_000,
    "o1-preview": 128_000,
    "o3": 200_000,
    "o3-mini": 200_000,
    "o4-mini": 200_000,
    "phi-4": 16_384,
    "phi-4-mini": 128_000,
    "phi-4-multimodal": 128_000,
    "phi-4-reasoning": 32_768,
    "qwen2.5": 32_768,
    "qwen3": 40_960,
    "qwen3-235b-a22b-2507": 262_144,
    "qwen3-coder": 262_144,
    "qwen3-max": 258_048,
    "qwen3-next": 262_144,
    "qwen3-vl": 131_072,
    "qwen3.5": 262_144,
    "qwen3.6": 256_000,
    "qwen3.7": 262_144,
}
"""Tokens by model; of two names that match, the longer one counts."""

_SEPARATORS: Final = re.compile(r"[-._\s]+|(?<=[a-z])(?=\d)")
_MIN_SIMILARITY: Final = 0.5  # By judgement.


def window_of(model: str) -> int:
    """Return the context window of a model, in tokens.

    The name may be in any case, have a date or another ending (`claude-opus-4-5-20251101`,
    `qwen3:32b`), and start with its maker (`openai/gpt-5.1`).

    Raises:
        ValueError: The model is unknown; the message names similar ones.
    """
    asked = _plain(model.rpartition("/")[2])
    known = {_plain(name): name for name in WINDOWS}
    fitting = [name for name in known if re.match(re.escape(name) + r"(?![a-z0-9])", asked)]
    if fitting:
        return WINDOWS[known[max(fitting, key=len)]]
    close = difflib.get_close_matches(asked, known, n=4, cutoff=_MIN_SIMILARITY)
    names = ", ".join(known[name] for name in close) or ", ".join(list(WINDOWS)[::12])
    raise ValueError(
        "is neither a number of tokens nor a known model;"
        f" {'similar ones' if close else 'some'} are {names}"
    )


def _plain(name: str) -> str:
    return _SEPARATORS.sub("-", name.strip().lower())
