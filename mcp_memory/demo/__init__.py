"""A conversation of some months and the program that plays it against a real server."""
