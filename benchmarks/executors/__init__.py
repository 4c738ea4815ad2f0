"""Ways to run cells: on this machine (local)."""
