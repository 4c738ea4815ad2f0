"""How much CPU the command line takes to answer, beside a bare `import torch`."""

import subprocess
import sys

import pytest

CLI = "import sys; from backbench.benchmarks.cli import main; main()"
BARS = {("--help",): 0.3, ("list", "tasks"): 0.4, ("list", "backbones"): 0.7}  # CPU-seconds


@pytest.mark.speed
@pytest.mark.parametrize("words", BARS)
def test_light_commands(words, interleaved, report):
    def call(*command):
        return lambda: subprocess.run([sys.executable, "-c", *command], check=True, stdout=subprocess.DEVNULL)

    ours, torch = interleaved(call(CLI, *words), call("import torch"))
    bar = f"≤ {BARS[words]} CPU-s"
    report(measure=f"backbench {' '.join(words)}", against="import torch", ours=ours, theirs=torch, bar=bar, held="")
    assert ours <= BARS[words]
