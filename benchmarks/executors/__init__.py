"""Ways to run cells: on this machine (local), also in processes that were launched together (launched)."""
