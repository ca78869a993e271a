"""Storage: the ports that the tiers need, and one folder for each engine."""
