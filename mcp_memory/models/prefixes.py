"""What models want in front of a question or a text, and what that does to questions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_SEARCH: Final = "Represent this sentence for searching relevant passages: "
_INSTRUCT: Final = (
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
)


@dataclass(frozen=True, slots=True)
class Prefixes:
    """What stands in front of a question, and of a text to be found."""

    query: str
    passage: str = ""


PREFIXES: Final = {
    "BAAI/bge-small-zh": Prefixes("为这个句子生成表示以用于检索相关文章："),  # noqa: RUF001  data
    "BAAI/bge-": Prefixes(_SEARCH),
    "mixedbread-ai/mxbai-": Prefixes(_SEARCH),
    "snowflake/": Prefixes(_SEARCH),
    "intfloat/multilingual-e5-": Prefixes("query: ", "passage: "),
    "nomic-ai/": Prefixes("search_query: ", "search_document: "),
    "google/embeddinggemma-": Prefixes("task: search result | query: ", "title: none | text: "),
    "Qwen/Qwen3-Embedding-": Prefixes(_INSTRUCT),
}
"""What models of a family want in front of a text, which fastembed leaves to its caller.

Source: the model cards.
"""

QUESTIONS: Final = (
    "What is my sister's name?",
    "How do I set up the project on a new machine?",
    "Why was the plan changed?",
    "Who asked about the invoice?",
    "How much did it cost?",
    "What happened at the meeting last week?",
    "Which version of the library is in use?",
    "How does the team work together?",
)
"""Questions of any kind, to see what a prefix does to all of them: four of these give nearly the
same, as do sixteen (cosine 0.98 and more)."""
