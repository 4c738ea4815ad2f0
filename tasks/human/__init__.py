"""How like people a backbone sees: what it gets wrong, and by which cue it decides."""
