"""How memories of each kind are stored and ranked: a table whose cells a user may override.

A row is data only: chunking, ageing and comparing happen where memories are
stored and searched. docs/kinds.md gives the reason for each number.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from mcp_memory.values.records import Kind

MIN_CHUNK_TOKENS: Final = 32
"""By judgement: a shorter chunk is less than a sentence."""

_MAX_SHOWN_CHARS: Final = 60


def _none_for(word: str) -> BeforeValidator:
    """Read a word as None, which TOML can't express."""
    return BeforeValidator(lambda value: None if value == word else value)


class Policy(BaseModel):
    """One row of the table.

    Attributes:
        guidance: One sentence for the model that writes such a memory.
        verbatim: What `store_memories` stores of the messages below the context: all of them,
            a short quote, or nothing.
        dated: Whether the day is put before the context.
        chunk_tokens: Longest chunk, in tokens of the embedding model, at most the model's input
            length; None for that length, in TOML "model".
        half_life_days: Age at which a score has lost half of what it can lose; None for
            never, in TOML "never".
        fade_floor: The fraction of its score that a memory retains at any age, 0 to 1.
        duplicate_factor: The distance at which two memories are near-duplicates, as a multiple
            of the model's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    guidance: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\r\n]*$")]
    verbatim: Literal["whole", "quote", "none"]
    dated: bool
    chunk_tokens: Annotated[
        Annotated[int, Field(ge=MIN_CHUNK_TOKENS, le=100_000)] | None, _none_for("model")
    ]
    half_life_days: Annotated[
        Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] | None, _none_for("never")
    ]
    fade_floor: Annotated[float, Field(ge=0, le=1)]
    duplicate_factor: Annotated[float, Field(ge=0, le=10)]

    def near_duplicate_at(self, model_at: float) -> float:
        """Return the cosine from which a memory of this kind is a near-duplicate.

        Args:
            model_at: The cosine from which two texts say the same for the model.
        """
        return 1 - self.duplicate_factor * (1 - model_at)


Policies = Mapping[Kind, Policy]
"""The table: a row for every kind."""

DEFAULTS: Final[Policies] = {
    Kind.PREFERENCE: Policy(
        guidance="One preference a memory, as a single sentence that names whose it is.",
        verbatim="quote",
        dated=False,
        chunk_tokens=None,
        half_life_days=None,
        fade_floor=0.5,
        duplicate_factor=2.0,
    ),
    Kind.FACT: Policy(
        guidance="One fact a memory, complete in itself: who, what, since when.",
        verbatim="quote",
        dated=False,
        chunk_tokens=None,
        half_life_days=None,
        fade_floor=0.5,
        duplicate_factor=1.5,
    ),
    Kind.TECHNICAL: Policy(
        guidance="Commands, paths, versions, numbers and error texts verbatim, with what they"
        " are for.",
        verbatim="whole",
        dated=False,
        chunk_tokens=128,
        half_life_days=365,
        fade_floor=0.9,
        duplicate_factor=1.0,
    ),
    Kind.PROJECT: Policy(
        guidance="A dated log: one step, decision or state a memory; don't rewrite earlier ones.",
        verbatim="whole",
        dated=True,
        chunk_tokens=None,
        half_life_days=21,
        fade_floor=0.6,
        duplicate_factor=0.5,
    ),
    Kind.EPISODE: Policy(
        guidance="What happened, with whom and when, in 1-3 sentences over the messages.",
        verbatim="whole",
        dated=False,
        chunk_tokens=192,
        half_life_days=365,
        fade_floor=0.8,
        duplicate_factor=1.0,
    ),
    Kind.REFLECTION: Policy(
        guidance="A conclusion in your own words, with what it rests on; no messages are kept.",
        verbatim="none",
        dated=False,
        chunk_tokens=None,
        half_life_days=365,
        fade_floor=0.8,
        duplicate_factor=1.5,
    ),
}


def read_policies(path: Path) -> Policies:
    """Return the table with the cells of a TOML file in place of the defaults.

    Raises:
        ValueError: The file can't be read, or a kind, cell or value is wrong; one line.
    """
    try:
        # Reading a pipe or a device might not return.
        if not path.is_file():
            raise ValueError(f"{path} is not a file")
        # Editors on Windows write a byte order mark.
        given = tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
    rows = dict(DEFAULTS)
    for name, cells in given.items():
        try:
            kind = Kind(name)
        except ValueError:
            raise ValueError(
                f"{path}: [{_shown(name)}] is not a kind; the kinds are {', '.join(Kind)}"
            ) from None
        rows[kind] = _overridden(path, kind, cells)
    return rows


def _overridden(path: Path, kind: Kind, cells: Any) -> Policy:
    if not isinstance(cells, dict):
        raise ValueError(f"{path}: {kind} = {_shown(cells)} is not a table of cells")
    for cell in cells:
        if cell not in Policy.model_fields:
            raise ValueError(
                f"{path}: {kind}.{_shown(cell)} is not a cell; the cells are"
                f" {', '.join(Policy.model_fields)}"
            )
    try:
        return Policy.model_validate(DEFAULTS[kind].model_dump() | cells)
    except ValidationError as error:
        first = error.errors()[0]
        cell = str(first["loc"][0])
        raise ValueError(
            f"{path}: {kind}.{cell} = {_shown(cells[cell])}: {_reason(cell, first['msg'])}"
        ) from None


def _reason(cell: str, message: str) -> str:
    """Return what is wrong with a value, and the word that is accepted in its place."""
    word = {"chunk_tokens": "model", "half_life_days": "never"}.get(cell)
    if cell == "guidance":
        return "it must be one line of 1 to 200 characters"
    said = message[:1].lower() + message[1:]
    return said if word is None else f'{said}, or "{word}"'


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _MAX_SHOWN_CHARS else shown[: _MAX_SHOWN_CHARS - 1] + "…"
