"""The only reader of the environment: `MCP_MEMORY_*`, checked once at start."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from mcp_memory.values.errors import InvalidInput, SettingsFault
from mcp_memory.values.kinds import DEFAULTS, Policies, read_policies
from mcp_memory.values.locations import PREFIX, default_cache, default_db, expanded
from mcp_memory.values.project import install_hint
from mcp_memory.values.text import check_label, check_name
from mcp_memory.values.windows import window_of

DEFAULT_MODEL: Final = "snowflake/snowflake-arctic-embed-s-int8"
DEFAULT_CONVERSATION: Final = "main"
EXTRACTIVE: Final = "extractive"
"""The summarizer that needs no model."""

_ENDPOINT_PACKAGES: Final = ("openai", "pybreaker")


def _default_db() -> Path:
    return Path(default_db())


def _default_cache() -> Path:
    return Path(default_cache())


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
        return check_name(name, "agent")
    except InvalidInput as error:
        raise ValueError(str(error)) from error


def _issuer(url: str | None) -> str | None:
    """Check a URL; it is kept to the letter, as tokens have to name it."""
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
    """Read the table of kinds; a path that is not absolute begins in the database's folder."""
    if not isinstance(given, (str, Path)):
        return given
    if not str(given).strip():
        raise ValueError("give the path of a file")
    if "db" not in info.data:
        return DEFAULTS  # The path of the database is refused already.
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


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""Several names, separated by commas."""


class Settings(BaseSettings):
    """Everything that can be set, with its default. Times are seconds, sizes tokens."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    db: Annotated[Path, AfterValidator(_expanded)] = Field(default_factory=_default_db)
    agent: Annotated[str, AfterValidator(_agent)] = "default"
    context_window: Annotated[int, BeforeValidator(_window)] = Field(
        default=128_000, ge=1_000, le=100_000_000
    )
    tokenizer: Literal["o200k_base", "cl100k_base"] = "o200k_base"
    embedding_model: str = Field(default=DEFAULT_MODEL, min_length=1)
    owner: Literal["auto", "off"] = "auto"
    owner_idle_seconds: float = Field(default=300.0, ge=0, le=1e9)
    heartbeat_seconds: float = Field(default=300.0, ge=0, le=1e9)
    timezone: Annotated[str, AfterValidator(_zone)] = "UTC"
    max_reply_tokens: int = Field(default=2_000, ge=300, le=100_000)
    warn_at: float = Field(default=0.70, gt=0, le=1)
    flush_at: float = Field(default=1.0, gt=0, le=1)
    keep_after_flush: float = Field(default=0.5, ge=0, lt=1)
    rethink_every: int = Field(default=5, ge=0)
    window_vectors: bool = True
    auto_consolidate: Literal["off", "on"] = "off"
    shared_blocks: Annotated[Names, AfterValidator(_shared_labels)] = ()
    summarizer: Annotated[str, AfterValidator(_summarizer)] = EXTRACTIVE
    summarizer_model: str | None = Field(default=None, min_length=1)
    summarizer_api_key: SecretStr | None = None
    summarizer_timeout_seconds: float = Field(default=60.0, gt=0, le=3_600)
    summarizer_window: int = Field(default=32_000, ge=4_000)
    summarizer_tokens_per_day: int = Field(default=500_000, ge=0)
    summarizer_input_price: float | None = Field(default=None, ge=0)
    summarizer_output_price: float | None = Field(default=None, ge=0)
    sampling: Literal["off", "auto"] = "off"
    offline: bool = False
    cache_dir: Annotated[Path, AfterValidator(_expanded)] = Field(default_factory=_default_cache)
    threads: int | None = Field(default=None, ge=1)
    cache_mb: int = Field(default=512, ge=16, le=1_000_000)
    kinds: Annotated[Policies, NoDecode, BeforeValidator(_table)] = DEFAULTS
    log_level: Literal["debug", "info", "warning", "error"] = "warning"

    # What follows is for `serve --transport http|sse` alone.
    http_public_url: Annotated[str | None, AfterValidator(_url)] = None
    http_allowed_hosts: Names = ()
    http_allowed_origins: Names = ()
    http_issuer: Annotated[str | None, AfterValidator(_issuer)] = None
    http_audience: str | None = Field(default=None, min_length=1)
    http_jwks_url: Annotated[str | None, AfterValidator(_url)] = None
    http_scope_prefix: str = ""
    http_agent_claim: str = Field(default="sub", min_length=1)
    http_max_body_bytes: int = Field(default=72 * 1024 * 1024, ge=1_024)
    http_requests_per_minute: int = Field(default=3_000, ge=1)
    http_sessions_per_token: int = Field(default=256, ge=1)
    http_session_idle_seconds: float = Field(default=1_800.0, ge=1, le=1e9)

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
    """Return the settings that another process has in its environment.

    Raises:
        SettingsFault: A value can't be taken; the message is one line.
    """
    given = {
        name: environ[PREFIX + name.upper()]
        for name in Settings.model_fields
        if PREFIX + name.upper() in environ
    }
    # A prefix that no variable has: this process's own environment is not looked at.
    return load_settings(_env_prefix=f"{PREFIX}_NOT_", **given)


def load_settings(**overrides: object) -> Settings:
    """Return the settings from the environment, with `overrides` on top.

    Raises:
        SettingsFault: A value can't be taken; the message is one line.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # pydantic checks the values
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + (str(first["loc"][0]).upper() if first["loc"] else "*")
        reason = first["msg"].removeprefix("Value error, ")
        shown = "" if not first["loc"] else f"{str(first['input'])!r}: "
        raise SettingsFault(
            name, f"{shown}{reason}", hint="See `mcp-memory serve --help` for the settings"
        ) from error
