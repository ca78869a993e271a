"""The data sets that conversations and questions can be read from, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from benchmarks import beam, longmemeval, memorybank, squad
from benchmarks.talks import Talk, load_locomo

LOADERS: Final[Mapping[str, Callable[[Path], list[Talk]]]] = {
    "locomo": load_locomo,
    "longmemeval": longmemeval.load,
    "beam": beam.load,
    "memorybank": memorybank.load,
    "squad": squad.load,
}
HINTS: Final[Mapping[str, str]] = {
    "locomo": "Give the path of locomo10.json: the LoCoMo data set, ten long conversations with "
    "questions and their evidence (CC BY-NC 4.0), from the snap-research/locomo repository on "
    "GitHub.",
    "longmemeval": "Give the path of longmemeval_s.json or one of its kind, from the data set "
    "xiaowu0162/longmemeval on Hugging Face.",
    "beam": "Give the path of a folder such as chats/100K, from the mohammadtavakoli78/BEAM "
    "repository on GitHub.",
    "memorybank": "Give the path of the folder eval_data/cn or eval_data/en, from the "
    "zhongwanjun/MemoryBank-SiliconFriend repository on GitHub.",
    "squad": "Give the path of a file in the form of SQuAD 1.1, such as "
    "squad-style-data/cmrc2018_dev.json from the ymcui/cmrc2018 repository on GitHub.",
}
