"""Summarizers: who writes the digest of what leaves the window.

The extractive one is always there and can't fail; the others ask a model, and
what they write takes its place once it is there.
"""

from mcp_memory.summarizers.extractive import ExtractiveSummarizer
from mcp_memory.summarizers.protocol import Summarizer

__all__ = ["ExtractiveSummarizer", "Summarizer"]
