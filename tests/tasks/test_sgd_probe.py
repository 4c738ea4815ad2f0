"""Many heads in one pass against torch's own layers and optimiser, and augmented views."""

import numpy as np
import pytest
import torch
from backbench.backbones import BadInput, Input
from backbench.backbones.views import View
from backbench.tasks import find_task
from backbench.tasks.classification.heads import Heads, schedule, train
from PIL import Image
from torch import nn
from torch.nn.functional import cross_entropy

RATES = (0.01, 0.05, 0.2)


def reference(x, y, heads, rate, epochs, batch, seed):
    """One head by torch's own batch normalisation, layer and SGD."""
    net = nn.Sequential(nn.BatchNorm1d(x.shape[1], affine=False, eps=1e-6), nn.Linear(x.shape[1], 4))
    net[1].weight.data.copy_(heads.weight[0])
    net[1].bias.data.zero_()
    optimiser = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9)
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        for step in range(len(x) // batch):
            rows = order[step * batch : (step + 1) * batch]
            optimiser.param_groups[0]["lr"] = rate * schedule(epoch + step / (len(x) // batch), epochs, 1)
            optimiser.zero_grad()
            cross_entropy(net(x[rows]), y[rows]).backward()
            optimiser.step()
    return net.eval()


def trained(heads, x, y, optimiser="sgd", epochs=4):
    generator = torch.Generator().manual_seed(5)
    train(
        heads,
        lambda _epoch, rows: [each[rows] for each in x],
        y,
        epochs=epochs,
        warmup=1,
        batch=16,
        optimiser=optimiser,
        generator=generator,
    )


def test_every_head_is_torchs():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 70, 12, generator=generator) * 3 + 1, torch.randint(0, 4, (70,), generator=generator)
    heads = [Heads(RATES, 12, 4, generator) for _ in x]
    expected = [[reference(a, y, h, rate, 4, 16, 5) for rate in RATES] for a, h in zip(x, heads, strict=True)]
    trained(heads, x, y)
    for features, head, nets in zip(x, heads, expected, strict=True):
        for i, net in enumerate(nets):
            torch.testing.assert_close(head.logits(features)[i], net(features).detach(), atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(head.logits(features, i), head.logits(features)[i])


def test_lars_steps_by_a_share_of_the_weight():
    """Without momentum yet, the first step of a layer is the rate times 0.001 of its norm, whatever the gradient's."""
    generator = torch.Generator().manual_seed(0)
    heads, x = Heads(RATES, 12, 4, generator), torch.randn(16, 12, generator=generator)
    before = heads.weight.clone()
    heads.step(x, torch.arange(16) % 4, 1.0, "lars")
    moved = (heads.weight - before).flatten(1).norm(dim=1) / before.flatten(1).norm(dim=1)
    torch.testing.assert_close(moved, 0.001 * torch.tensor(RATES))


@pytest.mark.parametrize("settings", [{}, {"optimiser": "sgd", "norm": False}, {"views": 2}, {"batch": 7}])
def test_learns_and_repeats(settings, make_backbone, squares_data, context):
    task, data = find_task("sgd-probe"), squares_data()
    runs = [task.run(make_backbone(), data, task.recipe({"epochs": 40} | settings), context) for _ in range(2)]
    for column, values in runs[0].predictions.items():
        np.testing.assert_array_equal(values, runs[1].predictions[column])
    assert runs[0].chosen["rate"] in task.recipe().rates
    assert task.measure(runs[0].predictions, data).scores(np.ones(50))["top1"] > 60


def test_a_warm_up_of_the_whole_run_is_refused():
    with pytest.raises(BadInput, match="warmup 10 leaves none of the 5 epochs"):
        find_task("sgd-probe").recipe({"epochs": 5})


# -- views ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (16, 16), (1, 300), (300, 1)])
def test_views_differ_repeat_and_fit(shape):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8))
    views = [View.of(Input(size=24, mean=(0.5,) * 3, std=(0.5,) * 3), number) for number in range(4)]
    pixels = [view.pixels(image) for view in views]
    assert all(p.shape == (3, 24, 24) and p.dtype == torch.uint8 for p in pixels)
    assert torch.equal(views[2].pixels(np.array(image)), pixels[2])
    assert len({p.numpy().tobytes() for p in pixels}) == 4 or 1 in shape
    assert len({str(view.identity) for view in views}) == 4


def test_crops_keep_area_and_ratio():
    view = View.of(Input(size=24, mean=(0.5,) * 3, std=(0.5,) * 3), 0)
    random = np.random.default_rng(0)
    left, top, width, height = np.array([view.crop(400, 300, random) for _ in range(500)]).T
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (left + width <= 400).all()
    assert (top + height <= 300).all()
    share, ratio = width * height / 120_000, width / height
    assert 0.079 < share.min() < 0.15
    assert 0.8 < share.max() <= 1
    assert 0.74 < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 1.35
