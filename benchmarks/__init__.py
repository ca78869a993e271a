"""Measurements of the promises that the documentation makes: `python -m benchmarks --help`."""
