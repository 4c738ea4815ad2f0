"""Training that survives: a loop with checkpoints, and what goes into it and comes out of it."""
