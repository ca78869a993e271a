"""Search indexes that are being kept, killed at every step of it; see `dying`.

`python dying_keeper.py FOLDER` leaves in `FOLDER/killed/001`, `002`, … what a kill at the
first, second, … step has left of a database in which an index was kept before.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from dying import BEFORE, Calls, in_a_fork, kill_everywhere, open_memory, prepare, said

from mcp_memory.agent import AgentMemory
from mcp_memory.models.tokenizer import Tokenizer
from mcp_memory.store.duckdb import keptindexes

KILLED: Final = "killed"
KEYS: Final = (("memory", "default"), ("message", "default"))


def keep(memory: AgentMemory) -> None:
    """Keep both indexes of an agent, in several parts each."""
    keptindexes.PART_BYTES = 1_500  # type: ignore[misc]  # of this process alone
    engine = memory._engine
    memory.archive.search("kettle")
    memory.conversations.search("kettle")
    for key in KEYS:
        if not engine.keeping.keep(key, engine.lock):
            sys.exit("somebody has written")


def main(folder: Path) -> None:
    """Kill the keeping of indexes at each of its steps."""
    tokenizer = Tokenizer(cache_dir=folder)
    tokenizer.count("")

    def make() -> None:
        memory = open_memory(folder / BEFORE, tokenizer)
        prepare(memory)
        keep(memory)
        memory.archive.insert("The new kettle is blue.")
        memory.conversations.append(said(26, 1))
        memory.close()

    if in_a_fork(make) != 0:
        sys.exit("the database of before could not be made")
    kill_everywhere(folder / BEFORE, folder / KILLED, Calls((keep,)), tokenizer)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
