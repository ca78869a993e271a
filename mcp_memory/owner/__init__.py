"""One process owns a database, and thin ones between it and each client pass bytes to it.

`shim`, `connect`, `locks`, `places` and `wire` are what a client starts: they
import neither pydantic nor typing nor dataclasses, so that the shim is there
at once and stays small.
"""
