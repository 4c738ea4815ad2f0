"""Many heads in one pass beside a loop over `nn.Linear` heads that are trained side by side, as DINOv2 does."""

import pytest
import torch
from backbench.tasks.classification.heads import Heads, schedule, train
from torch import nn
from torch.nn.functional import cross_entropy

# By the number of inputs, of 13 heads each, and of classes. With 100 classes nearly all of our time goes into the two
# matrix products of a step, which a loop takes as well: they alone are more than a third of its time.
BARS = {(1, 10): 1.8, (1, 100): 1.4, (4, 10): 3.0, (4, 100): 1.4}
WIDTH, ROWS, BATCH, EPOCHS = 384, 2_560, 128, 2
RATES = {
    "sgd": (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1),
    "lars": (1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
}


class Lars(torch.optim.Optimizer):
    """As masked autoencoders are probed (You et al. 2017, without it on biases), one tensor after the other."""

    def __init__(self, groups):
        super().__init__(groups, {"lr": 0.0})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                change = p.grad
                if p.ndim > 1:
                    size, norm = torch.norm(change), torch.norm(p)
                    ones = torch.ones_like(norm)
                    trust = torch.where(norm > 0, torch.where(size > 0, 0.001 * norm / size, ones), ones)
                    change = change.mul(trust)
                state = self.state[p]
                if "mu" not in state:
                    state["mu"] = torch.zeros_like(p)
                state["mu"].mul_(0.9).add_(change)
                p.add_(state["mu"], alpha=-group["lr"])


@pytest.mark.speed
@pytest.mark.parametrize("optimiser", ["lars", "sgd"])
@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("inputs", [1, 4])  # 13 and 52 heads
def test_many_heads_in_one_pass(inputs, classes, optimiser, interleaved, report):
    rates, generator = RATES[optimiser], torch.Generator().manual_seed(0)
    labels = torch.randint(0, classes, (ROWS,), generator=generator)
    centres = torch.randn(inputs, classes, WIDTH, generator=generator)
    features = [c[labels] + 4 * torch.randn(ROWS, WIDTH, generator=generator) for c in centres]
    first = [Heads(rates, WIDTH, classes, generator).weight[0] for _ in features]
    made, loops = [], {}

    def one_pass():
        made[:] = [Heads(rates, WIDTH, classes, generator) for _ in features]
        for head, weight in zip(made, first, strict=True):
            head.weight[:] = weight
        train(
            made,
            lambda _epoch, rows: [x[rows] for x in features],
            labels,
            epochs=EPOCHS,
            warmup=0,
            batch=BATCH,
            optimiser=optimiser,
            generator=torch.Generator().manual_seed(1),
        )

    def loop():
        heads, groups = nn.ModuleDict(), []
        for i, weight in enumerate(first):
            for j, rate in enumerate(rates):
                head = nn.Sequential(nn.BatchNorm1d(WIDTH, affine=False, eps=1e-6), nn.Linear(WIDTH, classes))
                head[1].weight.data.copy_(weight)
                head[1].bias.data.zero_()
                heads[f"{i}_{j}"] = head
                groups.append({"params": list(head.parameters()), "lr": rate})
        chosen = Lars(groups) if optimiser == "lars" else torch.optim.SGD(groups, momentum=0.9)
        generator = torch.Generator().manual_seed(1)
        for epoch in range(EPOCHS):
            order = torch.randperm(ROWS, generator=generator)
            for step, rows in enumerate(order.split(BATCH)):
                for group, rate in zip(chosen.param_groups, rates * inputs, strict=True):
                    group["lr"] = rate * schedule(epoch + step * BATCH / ROWS, EPOCHS, 0)
                seen, y = [x[rows] for x in features], labels[rows]
                logits = {name: head(seen[int(name.split("_")[0])]) for name, head in heads.items()}
                loss = sum(cross_entropy(each, y) for each in logits.values())
                chosen.zero_grad()
                loss.backward()
                chosen.step()
        loops.update(heads)

    ours, theirs = interleaved(one_pass, loop, rounds=3)
    logits = torch.cat([head.logits(x) for head, x in zip(made, features, strict=True)])
    with torch.inference_mode():
        others = [h.eval()(features[int(n.split("_")[0])]) for n, h in loops.items()]
    pairs = [(cross_entropy(a, labels), cross_entropy(b, labels)) for a, b in zip(logits, others, strict=True)]
    apart = max(float((a - b).abs()) for a, b in pairs)
    report(
        measure=f"{13 * inputs} heads, {optimiser}, {classes} classes",
        against="loop over heads",
        ours=ours,
        theirs=theirs,
        bar=f"≥ {BARS[inputs, classes]}x",
        held=f"losses at most {apart:.1e} apart",
    )
    assert apart <= 1e-5
    assert theirs >= BARS[inputs, classes] * ours
