"""Finding texts by their words and by their meaning."""
