"""How backbones see: analyses of their representations, shown and never ranked."""
