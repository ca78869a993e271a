"""Kills a process at every step of persisting search indexes; see `dying`.

`python dying_persister.py FOLDER` leaves in `FOLDER/killed/001`, `002`, … what a kill at the
first, second, … step leaves of a database that had persisted indexes before.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from dying import BEFORE, Calls, in_a_fork, kill_everywhere, open_memory, prepare, said

from mcp_memory.agent import AgentMemory
from mcp_memory.models.tokenizer import Tokenizer
from mcp_memory.store.duckdb import indexes

KILLED: Final = "killed"


def persist(memory: AgentMemory) -> None:
    """Persist both indexes of an agent, each in several parts."""
    indexes.PART_BYTES = 1_500  # type: ignore[misc]  # of this process alone
    engine = memory._engine
    memory.archive.search("kettle")
    memory.conversations.search("kettle")
    for tier in (engine.archival, engine.recall):
        tier.indexes.persist(memory.agent)


def main(folder: Path) -> None:
    """Make the database to start from, and kill the persisting of indexes at every step."""
    tokenizer = Tokenizer(cache_dir=folder)
    tokenizer.count("")

    def make() -> None:
        memory = open_memory(folder / BEFORE, tokenizer)
        prepare(memory)
        persist(memory)
        memory.archive.insert("The new kettle is blue.")
        memory.conversations.append(said(26, 1))
        memory.close()

    if in_a_fork(make) != 0:
        sys.exit("the database to start from was not made")
    kill_everywhere(folder / BEFORE, folder / KILLED, Calls((persist,)), tokenizer)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
