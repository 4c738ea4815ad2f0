"""Pretrain one mini network: `python -m backbench.backbones.mini.pretrain NAME [--steps N] [--output DIR]`.

Scenes are composed on the fly from the pretraining digits only. The number of steps is fixed, not the time, and all
seeds are: on one machine the same command gives the same weights. Written for one thread; run two side by side.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from .networks import SPECS, WEIGHTS, build, spec
from .objectives import Contrastive, ImageText, Masked, Objective, Supervised
from .scenes import VERSION, digit_pool


@dataclass(frozen=True)
class Plan:
    """How long and how fast a network learns."""

    objective: type[Objective]
    steps: int
    rate: float  # peak learning rate of AdamW
    decay: float = 0.05


PLANS: dict[str, Plan] = {
    "cnn-supervised": Plan(Supervised, 2500, 2e-3),
    "vit-supervised": Plan(Supervised, 6000, 1.2e-3),
    "vit-contrastive": Plan(Contrastive, 2000, 1.5e-3),
    "vit-masked": Plan(Masked, 1600, 1.5e-3),
    "cnn-image-text": Plan(ImageText, 1000, 3e-3),
}


def pretrain(name: str, steps: int | None = None, log=print) -> nn.Module:
    """The trained network, from its plan and seed; `steps` shortens or lengthens the whole schedule."""
    plan, seed, pool = PLANS[name], spec(name).seed, digit_pool("pretrain")
    steps = steps or plan.steps
    network = build(name)
    torch.manual_seed(seed)  # heads, masks and shortened captions
    objective = plan.objective(network).train().to(memory_format=torch.channels_last)
    for module in objective.modules():
        if hasattr(module, "fused_attn"):
            # On a CPU the fused backward pass is the slow one: 320 against 500 images/s.
            module.fused_attn = False  # pyright: ignore[reportArgumentType]
    matrices = [p for p in objective.parameters() if p.ndim > 1]
    vectors = [p for p in objective.parameters() if p.ndim <= 1]  # norms and biases are not decayed
    groups = [{"params": matrices, "weight_decay": plan.decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98))
    warm = max(1, min(300, steps // 10))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda t: min((t + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * max(0, t - warm) / (steps - warm)))
    )
    began, running = time.monotonic(), 0.0
    for step in range(steps):
        views = objective.draw(pool, seed, step)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = objective.loss(views)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        running += (loss.item() - running) * max(0.02, 1 / (step + 1))
        if (step + 1) % 100 == 0 or step + 1 == steps:
            spent = time.monotonic() - began
            left = spent / (step + 1) * (steps - step - 1)
            log(f"{name} step {step + 1}/{steps} loss {running:.3f} {spent / 60:.1f} min, {left / 60:.1f} min left")
    return network.eval()


def save(name: str, network: nn.Module, directory: Path, steps: int) -> Path:
    """Write the network's weights as float16 to directory/NAME.safetensors, whole or not at all."""
    facts = spec(name)
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / f"{name}.safetensors"
    # Batch norm's step counters matter to training only.
    weights = {k: v.half().contiguous() for k, v in network.state_dict().items() if v.is_floating_point()}
    metadata = {
        "format": "pt",
        "method": facts.method,
        "objective": facts.objective,
        "script": f"python -m backbench.backbones.mini.pretrain {name} --steps {steps}",
        "seed": str(facts.seed),
        "scenes": str(VERSION),
    }
    unfinished = target.with_suffix(f".{os.getpid()}.part")
    save_file(weights, unfinished, metadata=metadata)
    unfinished.chmod(0o644)  # safetensors makes its files private
    os.replace(unfinished, target)
    return target


def main(arguments: list[str] | None = None) -> None:
    """The command line; --help says the rest."""
    parser = argparse.ArgumentParser(prog="pretrain", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=SPECS)
    parser.add_argument("--steps", type=int, help="optimiser steps instead of the plan's")
    parser.add_argument("--output", type=Path, default=WEIGHTS, help="directory of the safetensors file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.name in PLANS:
        steps = options.steps or PLANS[options.name].steps
        network = pretrain(options.name, steps, log=lambda line: print(line, file=sys.stderr, flush=True))
    else:  # the random network is stored as initialised
        steps, network = 0, build(options.name)
    path = save(options.name, network, options.output, steps)
    print(f"{path} ({path.stat().st_size:,} bytes)")


if __name__ == "__main__":
    main()
