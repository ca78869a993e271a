"""Tuning of the search, run by hand: see README.md. It may reach below the facade."""
