"""`python -m backbench`, the command line: what `torchrun -m` and `accelerate launch -m` start in every process."""

from .benchmarks.cli import main

if __name__ == "__main__":
    main()
