"""Questions about articles, in the form of SQuAD: is the sentence found that has the answer?

CMRC 2018 (simplified Chinese) and DRCD (traditional) are published in it, and
sets in other languages. An article becomes a talk, each of its sentences a
turn, as if it were read out; gold is the sentence in which the answer begins.

Source: arXiv:1606.05250; the repositories ymcui/cmrc2018 and
DRCKnowledgeTeam/DRCD.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.loaders import NO_KIND, Question, Talk, Turn, load_json, reading
from mcp_memory.values.text import sentence_ranges

DAY: Final = datetime(2018, 1, 1, tzinfo=UTC)


def load(path: Path) -> list[Talk]:
    """Return the articles of a file.

    Raises:
        DataFault: There is no such file, or it is something else.
    """
    with reading(str(path)):
        return [
            parse(str(number), article) for number, article in enumerate(load_json(path)["data"])
        ]


def parse(name: str, article: Any) -> Talk:
    """Return an article with its questions; those without an answer are left out."""
    turns: list[Turn] = []
    questions: list[Question] = []
    for number, paragraph in enumerate(article["paragraphs"]):
        context, session = paragraph["context"], str(number)
        ranges = sentence_ranges(context)
        turns += [
            Turn(f"{session}:{start}", session, "user", None, context[start:end], DAY)
            for start, end in ranges
        ]
        for raw in paragraph["qas"]:
            begins = [answer["answer_start"] for answer in raw["answers"]]
            gold = frozenset(
                f"{session}:{start}"
                for start, end in ranges
                if any(start <= begin < end for begin in begins)
            )
            if gold:
                questions.append(Question(raw["question"], NO_KIND, gold, frozenset({session})))
    return Talk(name, tuple(turns), tuple(questions))
