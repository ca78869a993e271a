"""The only reader of the environment: `MCP_MEMORY_*`, checked once at start."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo

import platformdirs
from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from mcp_memory.errors import InvalidInput, SettingsFault
from mcp_memory.text import check_name

PREFIX: Final = "MCP_MEMORY_"
APP_NAME: Final = "mcp-memory"
DEFAULT_MODEL: Final = "snowflake/snowflake-arctic-embed-s-int8"
DEFAULT_CONVERSATION: Final = "main"


class SearchMode(StrEnum):
    """Which halves of the search are used; all but `hybrid` are for measuring."""

    HYBRID = "hybrid"
    LEXICAL = "lexical"
    DENSE = "dense"


def _default_db() -> Path:
    return Path(platformdirs.user_data_dir(APP_NAME, appauthor=False)) / "memory.duckdb"


def _default_cache() -> Path:
    return Path(platformdirs.user_cache_dir(APP_NAME, appauthor=False))


def _expanded(path: Path) -> Path:
    if not str(path).strip() or str(path) == ".":
        raise ValueError("give the path of a file")
    try:
        return Path(os.path.abspath(path.expanduser()))
    except RuntimeError as error:
        raise ValueError("names the home of a user that there is not") from error


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


class Settings(BaseSettings):
    """Everything that can be set, with its default. Times are seconds, sizes tokens."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    db: Annotated[Path, AfterValidator(_expanded)] = Field(default_factory=_default_db)
    agent: Annotated[str, AfterValidator(_agent)] = "default"
    context_window: int = Field(default=128_000, ge=1_000, le=100_000_000)
    tokenizer: Literal["o200k_base", "cl100k_base"] = "o200k_base"
    embedding_model: str = Field(default=DEFAULT_MODEL, min_length=1)
    toolset: Literal["standard"] = "standard"
    owner: Literal["off"] = "off"
    timezone: Annotated[str, AfterValidator(_zone)] = "UTC"
    max_reply_tokens: int = Field(default=2_000, ge=300, le=100_000)
    warn_at: float = Field(default=0.70, gt=0, le=1)
    flush_at: float = Field(default=1.0, gt=0, le=1)
    keep_after_flush: float = Field(default=0.5, ge=0, lt=1)
    rethink_every: int = Field(default=5, ge=0)
    offline: bool = False
    cache_dir: Annotated[Path, AfterValidator(_expanded)] = Field(default_factory=_default_cache)
    threads: int | None = Field(default=None, ge=1)
    search_mode: SearchMode = SearchMode.HYBRID
    log_level: Literal["debug", "info", "warning", "error"] = "warning"

    @model_validator(mode="after")
    def _in_order(self) -> Settings:
        if not self.keep_after_flush < self.flush_at:
            raise ValueError("KEEP_AFTER_FLUSH must be less than FLUSH_AT")
        if self.warn_at > self.flush_at:
            raise ValueError("WARN_AT must not be more than FLUSH_AT")
        return self

    @property
    def zone(self) -> ZoneInfo:
        """The time zone in which a date without a time is read and times are shown."""
        return ZoneInfo(self.timezone)


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
