"""The only reader of the environment: `MCP_MEMORY_*`, checked once at start."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    SecretStr,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from mcp_memory.values.errors import InvalidInput, SettingsFault
from mcp_memory.values.kinds import DEFAULTS, Policies, read_policies
from mcp_memory.values.locations import (
    DB_NAME,
    PREFIX,
    default_cache,
    default_db,
    expanded,
    own_settings,
)
from mcp_memory.values.project import install_hint
from mcp_memory.values.text import check_agent, check_label
from mcp_memory.values.windows import window_of

DEFAULT_MODEL: Final = "snowflake/snowflake-arctic-embed-s-int8"
DEFAULT_CONVERSATION: Final = "main"
EXTRACTIVE: Final = "extractive"
"""The summarizer that needs no model."""

_ENDPOINT_PACKAGES: Final = ("openai", "pybreaker")


def _default_db() -> Path:
    return Path(default_db())


def _default_cache(data: Mapping[str, Any]) -> Path:
    # Without a database its path was refused, which is what is reported.
    return Path(default_cache(str(data.get("db", DB_NAME))))


def _expanded(path: Path) -> Path:
    return Path(expanded(str(path)))


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:
        raise ValueError("is no IANA time zone, such as Europe/Berlin") from error
    return name


def _agent(name: str) -> str:
    try:
        return check_agent(name)
    except InvalidInput as error:
        raise ValueError(str(error)) from error


def _issuer(url: str | None) -> str | None:
    """Check a URL. It is not changed: tokens name it letter by letter."""
    if url is None:
        return None
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("is no URL such as https://example.org/path")
    return url


def _summarizer(name: str) -> str:
    if name == EXTRACTIVE:
        return name
    try:
        checked = _issuer(name)
    except ValueError as error:
        raise ValueError(f"is neither `{EXTRACTIVE}` nor a URL such as https://host/v1") from error
    return str(checked).rstrip("/")


def _url(url: str | None) -> str | None:
    return None if _issuer(url) is None or url is None else url.removesuffix("/")


def _table(given: object, info: ValidationInfo) -> object:
    """Read the table of kinds; a relative path starts at the database's folder."""
    if not isinstance(given, (str, Path)):
        return given
    if not str(given).strip():
        raise ValueError("give the path of a file")
    if "db" not in info.data:
        return DEFAULTS  # The path of the database was refused; that is what is reported.
    return read_policies(info.data["db"].parent / os.path.expanduser(given))


def _window(given: object) -> object:
    if not isinstance(given, str) or re.fullmatch(r"[-+\d_.\s]*", given):
        return given
    return window_of(given)


def _split(names: object) -> object:
    if isinstance(names, str):
        return tuple(name.strip() for name in names.split(",") if name.strip())
    return names


def _shared_labels(labels: tuple[str, ...]) -> tuple[str, ...]:
    try:
        checked = sorted({check_label(label) for label in labels})
    except InvalidInput as error:
        raise ValueError(str(error)) from error
    if "working" in checked:
        raise ValueError("the block 'working' belongs to a conversation and can't be shared")
    return tuple(checked)


Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
"""Several names, separated by commas."""


SECTIONS: Final = {
    "Memory": "db",
    "Window": "context_window",
    "Core memory": "rethink_every",
    "Search": "embedding_model",
    "Summaries": "summarizer",
    "Processes and files": "owner",
    "HTTP and SSE": "http_public_url",
}
"""The headings of the settings' reference, each with the first setting below it."""


def _shown(
    *, default: str | None = None, unit: str | None = None, values: str | None = None
) -> dict[str, JsonValue]:
    """Return what the settings' reference shows beside a field's description.

    Args:
        default: The default in words, if its value says nothing to a reader.
        unit: Of the numbers.
        values: What can be set, if the type does not say it.
    """
    given = {"default": default, "unit": unit, "values": values}
    return {name: text for name, text in given.items() if text is not None}


class Settings(BaseModel):
    """Everything that can be set. docs/settings.md and the command line's help are made from it."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", validate_default=True, arbitrary_types_allowed=True
    )

    db: Annotated[Path, AfterValidator(_expanded)] = Field(
        default_factory=_default_db,
        description="The database file. It is created if it does not exist.",
        json_schema_extra=_shown(default="`memory.duckdb` in the platform's data folder"),
    )
    agent: Annotated[str, AfterValidator(_agent)] = Field(
        default="default",
        description="Whose memory this is. Agents in one database do not see each other's memory,"
        " except for shared blocks.",
    )
    shared_blocks: Annotated[Names, AfterValidator(_shared_labels)] = Field(
        default=(),
        description="Labels of the core memory blocks that this agent shares with other agents of"
        " the database.",
    )
    kinds: Annotated[Policies, BeforeValidator(_table)] = Field(
        default=DEFAULTS,
        description="A TOML file that changes how memories of each kind are stored and ranked"
        " (docs/kinds.md). A relative path starts at the database's folder.",
        json_schema_extra=_shown(default="the built-in table", values="a path"),
    )
    timezone: Annotated[str, AfterValidator(_zone)] = Field(
        default="UTC",
        description="The IANA time zone, such as Europe/Berlin, in which dates without a zone are"
        " read and times are shown.",
        json_schema_extra=_shown(values="a time zone"),
    )
    max_reply_tokens: int = Field(
        default=2_000,
        ge=300,
        le=100_000,
        description="The longest reply of a tool. What does not fit is on the next page.",
        json_schema_extra=_shown(unit="tokens"),
    )

    context_window: Annotated[int, BeforeValidator(_window)] = Field(
        default=128_000,
        ge=1_000,
        le=100_000_000,
        description="The size of the model's context window, or the model's name, such as gpt-5.1.",
        json_schema_extra=_shown(unit="tokens or a name"),
    )
    tokenizer: Literal["o200k_base", "cl100k_base"] = Field(
        default="o200k_base", description="The encoding that all tokens are counted with."
    )
    warn_at: float = Field(
        default=0.70,
        gt=0,
        le=1,
        description="How full the window is when replies start to warn of the next flush."
        " Not more than `MCP_MEMORY_FLUSH_AT`.",
        json_schema_extra=_shown(unit="fraction of the window"),
    )
    flush_at: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="How full the window is when the oldest messages are evicted and summarized.",
        json_schema_extra=_shown(unit="fraction of the window"),
    )
    keep_after_flush: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="How full the window is after a flush. Less than `MCP_MEMORY_FLUSH_AT`.",
        json_schema_extra=_shown(unit="fraction of the window"),
    )

    rethink_every: int = Field(
        default=5,
        ge=0,
        description="How many user messages pass before a reply reminds the model to revise core"
        " memory. 0 turns the reminder off.",
        json_schema_extra=_shown(unit="messages"),
    )
    auto_consolidate: Literal["off", "on"] = Field(
        default="off",
        description="Whether the model of `MCP_MEMORY_SUMMARIZER` revises core memory in the"
        " background (docs/consolidation.md).",
    )

    embedding_model: str = Field(
        default=DEFAULT_MODEL,
        min_length=1,
        description="The model that makes the vectors: any that `mcp-memory models list --all`"
        " shows. Run `mcp-memory reembed` after a change.",
    )
    window_vectors: bool = Field(
        default=True,
        description="Whether each message is also embedded together with the messages before it,"
        " which finds more and takes more time and memory.",
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        description="How many batches of texts are embedded at once.",
        json_schema_extra=_shown(default="one for each processor, at most 4"),
    )
    cache_mb: int = Field(
        default=512,
        ge=16,
        le=1_000_000,
        description="Memory for the search indexes. The index that was used longest ago is dropped"
        " first.",
        json_schema_extra=_shown(unit="MB"),
    )

    summarizer: Annotated[str, AfterValidator(_summarizer)] = Field(
        default=EXTRACTIVE,
        description="`extractive` selects sentences and needs no model. The URL of an"
        " OpenAI-compatible endpoint, such as https://host/v1, has its model write the summaries.",
        json_schema_extra=_shown(values="`extractive` or a URL"),
    )
    summarizer_model: str | None = Field(
        default=None,
        min_length=1,
        description="The name of the endpoint's model. An endpoint needs it.",
    )
    summarizer_api_key: SecretStr | None = Field(
        default=None, description="The key that is sent to the endpoint."
    )
    summarizer_timeout_seconds: float = Field(
        default=60.0,
        gt=0,
        le=3_600,
        description="How long one request to the endpoint may take.",
        json_schema_extra=_shown(unit="seconds"),
    )
    summarizer_window: int = Field(
        default=32_000,
        ge=4_000,
        description="The context window of the endpoint's model.",
        json_schema_extra=_shown(unit="tokens"),
    )
    summarizer_tokens_per_day: int = Field(
        default=500_000,
        ge=0,
        description="How many tokens the endpoint may use in a day. Summaries are extractive"
        " after that.",
        json_schema_extra=_shown(unit="tokens"),
    )
    summarizer_input_price: float | None = Field(
        default=None,
        ge=0,
        description="The endpoint's price of input, to show what summaries cost.",
        json_schema_extra=_shown(unit="dollars per million tokens"),
    )
    summarizer_output_price: float | None = Field(
        default=None,
        ge=0,
        description="The endpoint's price of output.",
        json_schema_extra=_shown(unit="dollars per million tokens"),
    )
    sampling: Literal["off", "auto"] = Field(
        default="off",
        description="With `auto` the client's own model writes the summaries, if the client allows"
        " it (MCP sampling) and no endpoint is set.",
    )

    owner: Literal["auto", "off"] = Field(
        default="auto",
        description="With `auto` one process owns the database and serves all clients. With `off`"
        " this process is the only one (docs/sharing.md).",
    )
    owner_idle_seconds: float = Field(
        default=300.0,
        ge=0,
        le=1e9,
        description="How long after its last client has left the owner exits.",
        json_schema_extra=_shown(unit="seconds"),
    )
    heartbeat_seconds: float = Field(
        default=300.0,
        ge=0,
        le=1e9,
        description="How long after a change maintenance runs in the background. 0 turns it off.",
        json_schema_extra=_shown(unit="seconds"),
    )
    offline: bool = Field(
        default=False, description="Whether to stay off the network. No model is downloaded then."
    )
    cache_dir: Annotated[Path, AfterValidator(_expanded)] = Field(
        default_factory=_default_cache,
        description="The folder of downloaded model files.",
        json_schema_extra=_shown(default="the platform's cache folder"),
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="warning", description="The least serious log messages that go to stderr."
    )

    http_public_url: Annotated[str | None, AfterValidator(_url)] = Field(
        default=None,
        description="The URL at which clients reach the server behind a proxy.",
        json_schema_extra=_shown(values="a URL"),
    )
    http_allowed_hosts: Names = Field(
        default=(),
        description="Host names, besides the server's own, that a request may name in `Host`.",
    )
    http_allowed_origins: Names = Field(
        default=(), description="Origins of the web pages that may call the server."
    )
    http_no_auth: bool = Field(
        default=False,
        description="Whether anybody on this machine may call without a token, until the first"
        " access token is created.",
    )
    http_issuer: Annotated[str | None, AfterValidator(_issuer)] = Field(
        default=None,
        description="The OAuth issuer whose JWTs are accepted (docs/team.md).",
        json_schema_extra=_shown(values="a URL"),
    )
    http_audience: str | None = Field(
        default=None,
        min_length=1,
        description="The `aud` that a JWT must have.",
        json_schema_extra=_shown(default="the public URL with `/mcp` or `/sse`"),
    )
    http_jwks_url: Annotated[str | None, AfterValidator(_url)] = Field(
        default=None,
        description="The URL of the issuer's keys.",
        json_schema_extra=_shown(default="the one in the issuer's metadata", values="a URL"),
    )
    http_scope_prefix: str = Field(
        default="",
        description="What precedes `read`, `write` and `admin` in the scopes of a JWT.",
    )
    http_agent_claim: str = Field(
        default="sub", min_length=1, description="The claim of a JWT that names the agent."
    )
    http_max_body_bytes: int = Field(
        default=72 * 1024 * 1024,
        ge=1_024,
        description="The largest request.",
        json_schema_extra=_shown(unit="bytes"),
    )
    http_requests_per_minute: int = Field(
        default=3_000,
        ge=1,
        description="How many requests one access token may make in a minute.",
        json_schema_extra=_shown(unit="requests"),
    )
    http_sessions_per_token: int = Field(
        default=256,
        ge=1,
        description="How many sessions one access token may have open.",
        json_schema_extra=_shown(unit="sessions"),
    )
    http_session_idle_seconds: float = Field(
        default=1_800.0,
        ge=1,
        le=1e9,
        description="How long a session may be idle before it ends.",
        json_schema_extra=_shown(unit="seconds"),
    )

    @model_validator(mode="after")
    def _in_order(self) -> Settings:
        if not self.keep_after_flush < self.flush_at:
            raise ValueError("KEEP_AFTER_FLUSH must be less than FLUSH_AT")
        if self.warn_at > self.flush_at:
            raise ValueError("WARN_AT must not be more than FLUSH_AT")
        if self.summarizer != EXTRACTIVE and self.summarizer_model is None:
            raise ValueError("SUMMARIZER_MODEL must name the endpoint's model")
        if self.summarizer != EXTRACTIVE and not all(map(find_spec, _ENDPOINT_PACKAGES)):
            raise ValueError(
                f"SUMMARIZER: an endpoint needs {' and '.join(_ENDPOINT_PACKAGES)}."
                f" {install_hint('endpoint')}"
            )
        return self

    @property
    def zone(self) -> ZoneInfo:
        """The time zone in which a date without a time is read and times are shown."""
        return ZoneInfo(self.timezone)


def settings_of(environ: Mapping[str, str]) -> Settings:
    """Return the settings in the environment of another process.

    Raises:
        SettingsFault: A value is wrong; the message is one line.
    """
    return _checked(_given(environ))


def load_settings(**overrides: object) -> Settings:
    """Return the settings from the environment, with `overrides` on top.

    Raises:
        SettingsFault: A value is wrong; the message is one line.
    """
    return _checked({**_given(os.environ), **overrides})


def _given(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        name.removeprefix(PREFIX).lower(): value for name, value in own_settings(environ).items()
    }


def _checked(values: Mapping[str, object]) -> Settings:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + (str(first["loc"][0]).upper() if first["loc"] else "*")
        reason = first["msg"].removeprefix("Value error, ")
        shown = "" if not first["loc"] else f"{str(first['input'])!r}: "
        raise SettingsFault(
            name, f"{shown}{reason}", hint="See `mcp-memory serve --help` for the settings"
        ) from error
