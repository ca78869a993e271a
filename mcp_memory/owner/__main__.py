"""`python -m mcp_memory.owner DATABASE`: the owner as a client starts it."""

import os
import sys
from typing import NoReturn

from mcp_memory.owner.connect import FULL_STATUS
from mcp_memory.owner.places import Places
from mcp_memory.owner.seat import Seat
from mcp_memory.values.errors import DiskFull, MemoryFault
from mcp_memory.values.locations import PREFIX

_LEAVING_SECONDS = 10.0
"""How long an earlier owner may take to leave. By judgement: it answers for 5 seconds at most."""


def main(db: str) -> NoReturn:
    """Own a database until no client is left."""
    os.umask(0o077)
    os.environ[f"{PREFIX}DB"] = db
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    seat = Seat(Places(db), "detached")
    try:
        seat.take(_LEAVING_SECONDS)
    except DiskFull:
        os._exit(FULL_STATUS)  # There is no room for a line in the log either.
    except MemoryFault as fault:
        sys.stderr.write(f"{fault}\n")
        sys.exit(3)
    # Clients can connect from here on; what answers them is imported now.
    from mcp_memory.owner.process import own_detached

    own_detached(seat)


if __name__ == "__main__":
    main(sys.argv[1])
