"""How much CPU the command line takes to answer, beside a bare `import torch`, interleaved in one run."""

import os
import resource
import subprocess
import sys

import pytest

CLI = "import sys; from backbench.benchmarks.cli import main; main()"
BARS = {("--help",): 0.3, ("list", "tasks"): 0.4, ("list", "backbones"): 0.7}  # CPU-seconds


def cpu_seconds(*command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.speed
@pytest.mark.parametrize("words", BARS)
def test_light_commands(words, capsys):
    ours, torch = [], []
    for _ in range(5):
        ours.append(cpu_seconds(sys.executable, "-c", CLI, *words))
        torch.append(cpu_seconds(sys.executable, "-c", "import torch"))
    with capsys.disabled():
        ratio = min(torch) / min(ours)
        print(f"\nbackbench {' '.join(words)}: {min(ours):.2f} CPU-s, `import torch` is {ratio:.0f}x that")
    assert min(ours) <= BARS[words]
