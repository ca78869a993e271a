"""One entry to all benchmarks: `python -m benchmarks NAME ...`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Final

COMMANDS: Final = {
    "recall": "how much of what is asked for does a search find?",
    "latency": "what does the server add to the embedding?",
    "scale": "what does a search cost among up to a million memories?",
    "clients": "what do many clients of one memory cost, and a start?",
    "compare": "is another installed version faster, or smaller?",
    "peers": "how does it compare with other memory servers?",
    "report": "write RESULTS.md from the files in benchmarks/results",
    "memory": "does the owner stay small, and does a large text make others wait?",
    "soak": "is everything still there after killing the owner for ten minutes?",
    "paging": "does paging do exactly what its rules say?",
    "keyvalue": "does search carry an agent through nested key-value pairs?",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a benchmark; return its exit status."""
    listed = "\n".join(f"  {name:<10}{question}" for name, question in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"benchmarks:\n{listed}",
        epilog="`python -m benchmarks NAME --help` shows the options of one.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("name", choices=COMMANDS, metavar="NAME", help="one of the benchmarks")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="passed to the benchmark")
    given = parser.parse_args(argv)
    # Imported only now: each needs packages that the others do without.
    benchmark = importlib.import_module(f"benchmarks.{given.name}")
    status: int = benchmark.main(given.options)
    return status


if __name__ == "__main__":
    sys.exit(main())
