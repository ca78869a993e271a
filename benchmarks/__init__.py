"""Measurements of the promises that the documentation makes: `python -m benchmarks --help`.

They use the server as a client does, over MCP, or the library's facade; two exceptions:
`model.py` loads the embedding model, and `scale.py` opens the facade with known vectors.
"""


class BenchmarkFault(Exception):
    """The benchmark can't go on; the message is for the person who runs it."""
