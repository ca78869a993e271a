"""A model behind an OpenAI-compatible endpoint, with time-out, retries and circuit breaker.

It knows nothing of summaries or databases. Prompts, answers and the key are never logged.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from mcp_memory.settings import Settings
from mcp_memory.values.errors import EndpointFault

if TYPE_CHECKING:
    import openai
    import pybreaker

BREAK_AFTER_FAILURES: Final = 3
"""Failed requests in a row that open the circuit; by judgement."""

BREAK_SECONDS: Final = 120.0
"""How long an open circuit waits before it tries one request; by judgement."""

MAX_RETRIES: Final = 2
"""The default of the openai client."""

_NO_KEY: Final = "none"
"""Local servers need no key, but the client insists on one."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a model and its cost."""

    text: str
    input_tokens: int
    output_tokens: int


class Endpoint:
    """One model behind one address.

    Args:
        settings: Address, model, key and time-out.
        retries: How often a request without an answer, or answered 429 or 5xx, is
            repeated; the client waits longer each time.
        break_after: How many failures in a row open the circuit.
        break_seconds: How long an open circuit waits before it tries one request.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        retries: int = MAX_RETRIES,
        break_after: int = BREAK_AFTER_FAILURES,
        break_seconds: float = BREAK_SECONDS,
    ) -> None:
        import pybreaker

        self.model = settings.summarizer_model or ""
        self.host = urlsplit(settings.summarizer).hostname or ""
        self._settings = settings
        self._retries = retries
        self._client: openai.OpenAI | None = None
        self._breaker: pybreaker.CircuitBreaker = pybreaker.CircuitBreaker(
            fail_max=break_after, reset_timeout=break_seconds, throw_new_error_on_trip=False
        )

    @property
    def state(self) -> str:
        """`closed` while it works, `open` after failures, `half-open` while it tries again."""
        return str(self._breaker.current_state)

    def complete(self, system: str, user: str, max_tokens: int) -> Answer:
        """Ask the model and wait for its answer.

        Raises:
            EndpointFault: It failed, or its answer is unusable.
        """
        import openai
        import pybreaker

        try:
            return self._breaker.call(self._ask, system, user, max_tokens)
        except pybreaker.CircuitBreakerError as error:
            raise EndpointFault(
                "it failed several times in a row and is not asked for a while"
            ) from error
        except openai.APIStatusError as error:
            # The server's text may repeat the request or the key.
            raise EndpointFault(f"HTTP {error.status_code}") from None
        except openai.APITimeoutError:
            raise EndpointFault(
                f"no answer within {self._settings.summarizer_timeout_seconds:g} s"
            ) from None
        except openai.OpenAIError as error:
            raise EndpointFault(type(error).__name__) from None

    def close(self) -> None:
        """Close the connections; a waiting request fails."""
        if self._client is not None:
            self._client.close()

    def _ask(self, system: str, user: str, max_tokens: int) -> Answer:
        messages: list[Any] = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": user})
        try:
            reply: Any = self._connected().chat.completions.create(
                model=self.model, messages=messages, max_tokens=max_tokens
            )
        except ValueError:  # The client doesn't wrap the JSON decoder's.
            raise EndpointFault("the answer isn't JSON") from None
        # The client doesn't check answers: a server may send anything.
        try:
            choice = reply.choices[0]
            text = choice.message.content
        except (AttributeError, IndexError, TypeError):
            raise EndpointFault("the answer violates the protocol") from None
        if not isinstance(text, str) or not text.strip():
            raise EndpointFault("the answer is empty or was refused")
        if choice.finish_reason == "length":
            raise EndpointFault("the answer was cut off at its limit")
        usage = getattr(reply, "usage", None)
        return Answer(text, _tokens(usage, "prompt_tokens"), _tokens(usage, "completion_tokens"))

    def _connected(self) -> openai.OpenAI:
        if self._client is None:
            import openai

            # Below WARNING these log what is sent.
            for name in ("openai", "httpx2", "httpcore2"):
                logging.getLogger(name).setLevel(logging.WARNING)
            key = self._settings.summarizer_api_key
            # The client reads these from variables that are meant for OpenAI itself.
            others: Any = {
                "OpenAI-Organization": openai.Omit(),
                "OpenAI-Project": openai.Omit(),
            }
            self._client = openai.OpenAI(
                base_url=self._settings.summarizer,
                api_key=(key.get_secret_value() if key is not None else "") or _NO_KEY,
                timeout=self._settings.summarizer_timeout_seconds,
                max_retries=self._retries,
                default_headers=others,
            )
        return self._client


def _tokens(usage: object, name: str) -> int:
    found = getattr(usage, name, None)
    return found if isinstance(found, int) and found >= 0 else 0
