"""The tiers of memory of every agent, and what is kept of them in this process."""
