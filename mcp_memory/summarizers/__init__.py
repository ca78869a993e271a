"""Summarizers: they write the summary of the messages that leave the context window.

The extractive one needs no model and can't fail. The others ask a model; their text
replaces the extracts when it arrives.
"""

from mcp_memory.summarizers.extractive import ExtractiveSummarizer
from mcp_memory.summarizers.protocol import Summarizer

__all__ = ["ExtractiveSummarizer", "Summarizer"]
