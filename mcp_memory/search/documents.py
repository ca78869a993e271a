"""The documents of a search index by number: key, words, times, labels; one can come or go."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, Generic

import numpy as np

from mcp_memory.search.columns import Column
from mcp_memory.search.fading import UNFADED_FLOOR, Fading
from mcp_memory.search.kept import Copied, KeptIndex, KeptWords
from mcp_memory.search.passages import Words
from mcp_memory.search.queries import Key

Ageing = Mapping[str, tuple[float | None, float]]
"""By label the half-life in days, or None, and the part of a score that age leaves."""

_KEY_BYTES: Final = 200


class Documents(Generic[Key]):
    """Numbers count up from 0 and stay; who leaves is marked. Not thread-safe."""

    def __init__(self) -> None:
        self._keys: list[Key] = []
        self._numbers: dict[Key, int] = {}
        self._alive = Column(np.bool_)
        self._when = Column(np.float64)
        self._recorded = Column(np.float64)
        self._newest = -np.inf
        self._fading = Fading()
        self._labels: dict[str, array[int]] = {}
        self._speakers: dict[str, array[int]] = {}
        self._words = Words()

    def __len__(self) -> int:
        """Return the number of documents that can be found."""
        return len(self._numbers)

    def __contains__(self, key: object) -> bool:
        """Return whether `key` can be found."""
        return key in self._numbers

    @property
    def end(self) -> int:
        """The number of the next document."""
        return len(self._keys)

    @property
    def nbytes(self) -> int:
        """Memory in use, about."""
        columns = (self._alive, self._when, self._recorded, self._fading)
        labels = sum(len(numbers) for numbers in self._labels.values()) * 4
        own = sum(column.nbytes for column in columns) + len(self._keys) * _KEY_BYTES
        return own + labels + self._words.nbytes

    @property
    def speakers(self) -> Iterable[str]:
        """Who has said something."""
        return self._speakers.keys()

    @property
    def changes(self) -> int:
        """How many documents ever came and went: what has changed since is the difference."""
        return 2 * len(self._keys) - len(self._numbers)

    def add(
        self,
        key: Key,
        text: str,
        *,
        when: datetime,
        recorded: datetime,
        labels: Iterable[str] = (),
        prefix: str = "",
        thread: str | None = None,
        speaker: str | None = None,
        half_life_days: float | None = None,
        fade_floor: float = UNFADED_FLOOR,
    ) -> None:
        """Make a document findable by its words; one that has the key is replaced.

        Args:
            prefix: Words that find it too but are no part of it, such as the speaker.
            thread: What it goes on with, after what was added last to the same thread.
            speaker: Who says it.
            half_life_days: After how long what its score can lose is half lost; None for never.
            fade_floor: The part of its score that it keeps whatever its age.
        """
        self.remove(key)
        number = len(self._keys)
        self._keys.append(key)
        self._numbers[key] = number
        self._alive.append(True)
        self._when.append(when.timestamp())
        self._recorded.append(recorded.timestamp())
        self._newest = max(self._newest, recorded.timestamp())
        self._fading.add(half_life_days, fade_floor)
        for label in labels:
            self._labels.setdefault(label, array("i")).append(number)
        if speaker:
            self._speakers.setdefault(speaker, array("i")).append(number)
        self._words.add(text, prefix, thread, when.timestamp())

    def add_all(self, documents: Iterable[tuple[Key, str, Mapping[str, Any]]]) -> None:
        """Add many documents faster: key, text, and what else `add` takes."""
        with self._words.bulk():
            for key, text, about in documents:
                self.add(key, text, **about)

    def remove(self, key: Key) -> None:
        """Let no search find the document; nothing happens if it isn't there."""
        number = self._numbers.pop(key, None)
        if number is not None:
            self._alive.values[number] = False

    def copy(self) -> Copied:
        """Return all but the vectors as it is now, in a moment."""
        return Copied(
            list(self._keys),
            self._alive.values.copy(),
            self._when.values.copy(),
            self._recorded.values.copy(),
            {label: numbers[:] for label, numbers in self._labels.items()},
            {speaker: numbers[:] for speaker, numbers in self._speakers.items()},
            self._words.copy(),
        )

    def adopt(self, words: KeptWords) -> None:
        """Use what was made of the words of a copy, so that they need not be folded here."""
        self._words.adopt(words)

    def restore(self: Documents[str], kept: KeptIndex, ageing: Ageing) -> None:
        """Take up what was kept of an index; this one is empty.

        Args:
            kept: All but the vectors.
            ageing: How the scores of documents with a label age, by what is set today.
        """
        self._keys = kept.keys
        self._numbers = {key: number for number, key in enumerate(kept.keys)}
        self._alive = Column.of(np.ones(len(kept.keys), dtype=np.bool_))
        self._when = Column.of(kept.when)
        self._recorded = Column.of(kept.recorded)
        self._newest = float(kept.recorded.max(initial=-np.inf))
        groups = kept.labels.parts()
        self._fading.restore(
            len(kept.keys), [(groups[label], *ageing[label]) for label in ageing if label in groups]
        )
        for held, parts in ((self._labels, groups), (self._speakers, kept.speakers.parts())):
            for name, numbers in parts.items():
                held[name] = array("i", numbers.tobytes())
        self._words.restore(kept.words, kept.when)
