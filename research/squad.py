"""Questions about articles, in the form of SQuAD: is the sentence found that has the answer?

CMRC 2018 (simplified Chinese) and DRCD (traditional) are published in it, and
sets in other languages. An article becomes a talk, each of its sentences a
turn, as if it were read out; gold is the sentence in which the answer begins.

Source: arXiv:1606.05250; the repositories ymcui/cmrc2018 and
DRCKnowledgeTeam/DRCD.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.loaders import NO_KIND, DataFault, Question, Talk, Turn, load_json, wanted
from mcp_memory.values.text import sentence_ranges

DAY: Final = datetime(2018, 1, 1, tzinfo=UTC)


def load(path: Path) -> list[Talk]:
    """Return the articles of a file.

    Raises:
        DataFault: There is no such file, or it is something else.
    """
    articles = wanted(load_json(path), "data", list, str(path))
    if not articles:
        raise DataFault(f"{path}: has no article")
    return [parse(str(number), article) for number, article in enumerate(articles)]


def parse(name: str, article: Any) -> Talk:
    """Return an article with its questions; those without an answer are left out.

    Raises:
        DataFault: It is not of the data set's form.
    """
    turns: list[Turn] = []
    questions: list[Question] = []
    for number, paragraph in enumerate(wanted(article, "paragraphs", list, f"article {name}")):
        what = f"article {name}, paragraph {number}"
        context = wanted(paragraph, "context", str, what)
        ranges = sentence_ranges(context)
        session = str(number)
        turns += [
            Turn(f"{session}:{start}", session, "user", None, context[start:end], DAY)
            for start, end in ranges
        ]
        for raw in wanted(paragraph, "qas", list, what):
            text = wanted(raw, "question", str, f"{what}, a question")
            begins = set(_begins(raw, what))
            gold = frozenset(
                f"{session}:{start}"
                for start, end in ranges
                if any(start <= begin < end for begin in begins)
            )
            if gold:
                questions.append(Question(text, NO_KIND, gold, frozenset({session})))
    return Talk(name, tuple(turns), tuple(questions))


def _begins(raw: Any, what: str) -> Iterator[int]:
    """Yield the characters at which the answers of a question begin."""
    for answer in wanted(raw, "answers", list, f"{what}, a question"):
        yield wanted(answer, "answer_start", int, f"{what}, an answer")
