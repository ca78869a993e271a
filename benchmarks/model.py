"""The embedding model that the server uses, in this process.

A client can't see how much of a call is the model's time, so the model is timed
by itself: the only place where a benchmark reaches below the facade.
"""

from __future__ import annotations

from benchmarks import BenchmarkFault
from benchmarks.servers import Model
from mcp_memory.models.embedding import Embedder, FastEmbedder
from mcp_memory.models.files import ModelFiles, find_model
from mcp_memory.settings import load_settings


def model_files() -> ModelFiles:
    """Return the files of the model that the server uses.

    Raises:
        BenchmarkFault: They are not there.
    """
    settings = load_settings()
    files = find_model(settings.embedding_model, settings.cache_dir)
    if files is None:
        raise BenchmarkFault("the model's files are missing: run `mcp-memory models fetch` first")
    return files


def model() -> Model:
    """Return where the files of the model are.

    Raises:
        BenchmarkFault: They are not there.
    """
    files = model_files()
    return Model(files.spec.name, files.directory, files.directory / files.spec.model_file)


def load_embedder() -> Embedder:
    """Return the model that the server uses, loaded in this process.

    Raises:
        BenchmarkFault: Its files are not there.
    """
    return FastEmbedder.load(model_files(), threads=load_settings().threads)
