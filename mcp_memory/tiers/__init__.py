"""The tiers of memory of every agent, and their caches in this process."""
