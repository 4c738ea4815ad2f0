"""The page that sets two backbones of a run side by side (writing), from its results and their predictions alone."""
