"""Training of semantic segmentation: heads against their definitions, windows against a plain loop, every kind of
backbone, going on after a kill."""

import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from backbench.backbones import BadInput, Letterbox
from backbench.tasks import Context, Dataset, Split, estimate, find_task
from backbench.tasks.datasets import IGNORE
from backbench.tasks.segmentation.heads import cross_entropy, segmenter_of
from backbench.tasks.segmentation.linear_head import LinearHead, upsample
from backbench.tasks.segmentation.sliding import slide
from backbench.tasks.segmentation.training import in_windows, label, letterboxed
from backbench.tasks.training.loop import Diverged
from backbench.tasks.training.scenes import Scenes
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

TASK = find_task("semantic-segmentation")
HEADS = ("linear", "upernet", "fcn")
LETTERBOX = Letterbox(64, (0.5,) * 3, (0.5,) * 3, "bilinear")


def halves(count, seed, square=False):
    """Grey noise with a red half, left or right, and a strip nobody labelled; images of two shapes."""
    rng = np.random.default_rng(seed)
    images, masks = [], []
    for index in range(count):
        width = 48 if index % 2 and not square else 64
        image, mask = rng.integers(90, 160, (64, width, 3)).astype(np.uint8), np.zeros((64, width), np.uint8)
        half = slice(0, width // 2) if rng.random() < 0.5 else slice(width // 2, None)
        image[:, half], mask[:, half] = (220, 30, 30), 1
        mask[:4] = IGNORE
        images.append(image)
        masks.append(mask)
    return Split(images, masks, f"halves-{count}-{seed}-{square}")


def halves_data(square=False, **sizes):
    how = {"train": (24, 1), "val": (6, 3), "test": (11, 2)}
    splits = {name: partial(halves, sizes.get(name, count), seed, square) for name, (count, seed) in how.items()}
    return Dataset("halves", "segmentation", ("grey", "red"), splits)


def equal(one, other):
    return all(np.array_equal(one[name], other[name]) for name in one)


# -- heads -----------------------------------------------------------------------------------------------------------


def test_the_linear_head_is_linear_on_the_concatenated_maps():
    torch.manual_seed(0)
    head = LinearHead([4, 6], 3).eval()
    for part in head.parts:
        part[0].running_mean.normal_()
        part[0].running_var.uniform_(0.5, 2)
    fine, coarse = torch.randn(2, 4, 12, 12), torch.randn(2, 6, 6, 6)
    normed = [part[0](m) for part, m in zip(head.parts, (fine, coarse), strict=True)]
    stacked = torch.cat([normed[0], upsample(normed[1], (12, 12))], dim=1)
    weight = torch.cat([part[1].weight for part in head.parts], dim=1)
    whole = nn.functional.conv2d(stacked, weight, head.parts[0][1].bias)
    torch.testing.assert_close(head([fine, coarse]), whole, atol=1e-5, rtol=1e-5)


SHAPES = {
    "hierarchical": [(4, 24), (6, 12), (8, 6), (9, 3)],
    "with a stem": [(3, 48), (4, 24), (6, 12), (8, 6), (9, 3)],
    "coarse": [(6, 6), (8, 3), (9, 2)],
    "plain": [(7, 12)],
    "patches of 14": [(7, 7)],
    "fine": [(4, 48)],
}


@pytest.mark.parametrize("head", ["upernet", "fcn"])
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_any_maps_make_scores_and_teach_every_weight(head, shapes):
    torch.manual_seed(0)
    made = segmenter_of(TASK.recipe({"head": head, "width": 8}), 96, 5, shapes)
    maps = [torch.randn(3, channels, side, side, requires_grad=True) for channels, side in shapes]
    targets = [{"mask": torch.randint(0, 5, (96, 96), dtype=torch.uint8)} for _ in range(3)]
    made.loss(maps, targets).backward()
    assert all(weight.grad is not None for weight in made.parameters())
    # What is finer than the head is made for (stride 4, 8) is left out, unless there is nothing else.
    finest = {"upernet": 24, "fcn": 12}[head]
    seen = [m.grad is not None for m in maps]
    assert seen == [side <= finest or len(shapes) == 1 for _, side in shapes]
    with torch.no_grad():
        scores = made.eval()(maps)
    assert scores.shape[:2] == (3, 5)
    wanted = (
        24
        if head == "upernet" and len(shapes) == 1
        else max(s for (_, s), taught in zip(shapes, seen, strict=True) if taught)
    )
    assert tuple(scores.shape[2:]) == (wanted, wanted)


def test_upernet_has_an_auxiliary_head_on_the_last_map_but_one():
    shapes = SHAPES["hierarchical"]
    torch.manual_seed(0)
    made, without = (segmenter_of(TASK.recipe({"head": "upernet", "auxiliary": w}), 96, 5, shapes) for w in (0.4, 0))
    assert without.auxiliary is None
    assert made.auxiliary.in_channels == 8
    maps = [torch.randn(2, channels, side, side) for channels, side in shapes]
    truth = torch.randint(0, 5, (2, 96, 96))
    made.eval()
    parts = [cross_entropy(head(maps), truth) for head in (made.head, made.auxiliary)]
    torch.testing.assert_close(made.loss(maps, [{"mask": t} for t in truth]), parts[0] + 0.4 * parts[1])


def test_upernet_learns_from_a_lone_image():
    torch.manual_seed(0)
    made = segmenter_of(TASK.recipe({"head": "upernet", "width": 8}), 96, 5, SHAPES["hierarchical"])
    maps = [torch.randn(1, channels, side, side) for channels, side in SHAPES["hierarchical"]]
    pooled = made.head.psp_modules.blocks[0].layers[1].batch_norm
    before = pooled.running_mean.clone()
    made.loss(maps, [{"mask": torch.zeros(96, 96, dtype=torch.uint8)}]).backward()
    assert torch.equal(pooled.running_mean, before)  # no statistics are taken of one value
    made([torch.cat([m, 2 * m]) for m in maps])
    assert not torch.equal(pooled.running_mean, before)


@given(st.integers(0, 2**32 - 1))
def test_parts_of_a_batch_have_the_loss_of_the_whole(seed):
    torch.manual_seed(seed)
    scores, truth = torch.randn(4, 3, 4, 4), torch.randint(0, 3, (4, 8, 8))
    truth[torch.rand(truth.shape) < torch.tensor([0, 0.3, 0.9, 1])[:, None, None]] = IGNORE
    whole = cross_entropy(scores, truth)
    parts = [cross_entropy(scores[rows], truth[rows]) * len(rows) / 4 for rows in ([0], [1, 2], [3])]
    assert float(sum(parts)) == pytest.approx(float(whole), abs=1e-6)
    assert parts[2] == 0  # nothing is labelled
    labelled = truth != IGNORE
    mean = nn.functional.cross_entropy(upsample(scores, (8, 8)), truth, ignore_index=IGNORE)
    assert float(whole) == pytest.approx(float(mean * labelled.sum() / truth.numel()), abs=1e-6)


# -- labels ----------------------------------------------------------------------------------------------------------


def test_labels_lie_where_the_letterboxed_image_shows_them():
    mask = np.zeros((20, 40), np.uint8)
    mask[:, 20:] = 3
    seen = letterboxed(Split([None], [mask], "one"), LETTERBOX, 0)["mask"]
    assert tuple(seen.shape) == (64, 64)
    assert (seen[32:] == IGNORE).all()
    assert (seen[:32, :32] == 0).all()
    assert (seen[:32, 32:] == 3).all()


def test_labels_follow_jittered_images():
    colours = np.array([[0, 0, 0], [250, 0, 0], [0, 0, 250]], np.uint8)
    mask = np.zeros((50, 70), np.uint8)
    mask[10:30, 5:25], mask[20:45, 40:65] = 1, 2
    split = Split([colours[mask]], [mask], "one")
    recipe = TASK.recipe({"scale": [0.4, 1.6], "horizontal_flip": 0.5})
    scenes = Scenes(split, LETTERBOX, recipe, partial(label, split), partial(letterboxed, split, LETTERBOX))
    padded = []
    for epoch in range(12):
        pixels, target = scenes[epoch, 0]
        seen, outside = target["mask"], target["mask"] == IGNORE
        assert pixels.shape[1:] == seen.shape == (64, 64)
        assert (pixels[:, outside] == 128).all()  # the card's mean colour
        shown = pixels.permute(1, 2, 0)[~outside].float()
        apart = torch.cdist(shown, torch.tensor(colours).float()).argmin(1) != seen[~outside]
        assert apart.float().mean() < 0.1  # edges only: images are resized smoothly, labels to the nearest
        padded.append(int(outside.sum()))
    assert len(set(padded)) > 6
    assert min(padded) == 0


# -- windows ---------------------------------------------------------------------------------------------------------


@given(st.integers(4, 17), st.integers(4, 17), st.integers(1, 4), st.integers(1, 5))
def test_windows_are_averaged_as_in_a_plain_loop(height, width, step, batch):
    side, pixels = 4, torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    place = torch.arange(side * side).reshape(side, side)

    def scores_of(windows):
        mean = windows.float().mean((1, 2, 3))[:, None, None]
        return torch.stack([mean * place, windows.float().sum(1)], dim=1)

    found: dict[tuple[int, int], list] = {}
    y = x = 0
    while True:
        top, left = min(y, height - side), min(x, width - side)
        scores = scores_of(pixels[None, :, top : top + side, left : left + side])[0]
        for i in range(side):
            for j in range(side):
                found.setdefault((top + i, left + j), []).append(scores[:, i, j])
        if x + side < width:
            x += step
        elif y + side < height:
            y, x = y + step, 0
        else:
            break
    given = slide(scores_of, pixels, 2, side, step, batch)
    for (i, j), scores in found.items():
        torch.testing.assert_close(given[:, i, j], torch.stack(scores).mean(0))
    assert len(found) == height * width


def test_one_window_that_covers_the_image_is_the_whole_image(make_backbone, context):
    settings = {"size": 64, "epochs": 1, "trainable": "full", "batch": 4}
    data = halves_data(square=True)
    found = [
        TASK.run(make_backbone(size=64), data, TASK.recipe(settings | {"inference": how}), context).predictions
        for how in ("whole", "slide")
    ]
    assert equal(*found)
    assert len(set(found[0]["mask"])) > 3  # it has learned to tell images apart


def test_windows_see_the_shorter_side_at_full_size(context):
    """A model whose scores are its pixels: what it finds is the image itself, in the image's own size."""
    shown, masks = [], [np.random.default_rng(0).integers(0, 2, (3, 7)).astype(np.uint8)]
    image = np.repeat((masks[0] * 255).repeat(8, 0).repeat(8, 1)[:, :, None], 3, axis=2)

    def maps_of(pixels, _device):
        shown.append(tuple(pixels.shape))
        return pixels.float()

    def head(pixels):
        return torch.stack([255 - pixels[:, 0], pixels[:, 0]], dim=1)

    model = SimpleNamespace(letterbox=Letterbox(48, (0.5,) * 3, (0.5,) * 3, "nearest"), maps_of=maps_of, head=head)
    split = Split([image], [masks[0].repeat(8, 0).repeat(8, 1)], "one")
    (found,) = in_windows(model, split, TASK.recipe({"inference": "slide", "stride": 0.5}), 2, context)
    assert shown == [(4, 3, 48, 48)]  # 24 x 56 becomes 48 x 112: windows at 0, 24, 48 and 64
    assert (found == split.targets[0]).mean() > 0.97
    assert context.images == 4


# -- the task --------------------------------------------------------------------------------------------------------


def test_learns_repeats_and_measures(make_backbone, context):
    data, backbone = halves_data(), make_backbone(size=64)
    recipe = TASK.recipe({"size": 64, "epochs": 5, "batch": 5})
    state = torch.get_rng_state()
    outcome = TASK.run(backbone, data, recipe, context)
    assert torch.equal(state, torch.get_rng_state())
    found = estimate(TASK.measure(outcome.predictions, data))
    assert list(found) == list(TASK.scores)
    assert found["miou"].low > 85
    assert found["pixel_accuracy"].high <= 100
    again = TASK.run(backbone, data, recipe, Context(context.bank, context.folder / "again"))
    assert equal(outcome.predictions, again.predictions)


@pytest.mark.parametrize("head", HEADS)
def test_every_kind_of_backbone_learns_and_is_measured(kind, head, odd_scenes, context):
    data = odd_scenes("segmentation")
    recipe = TASK.recipe({"size": 64, "head": head, "width": 8, "trainable": "full", "epochs": 1, "batch": 2})
    outcome = TASK.run(kind, data, recipe, context)
    scores = TASK.measure(outcome.predictions, data).scores(np.ones(3))
    assert all(0 <= scores[name] <= 100 for name in TASK.scores)
    assert scores["pixel_accuracy"] > 0


def test_stopped_in_an_epoch_it_goes_on_to_the_same_bits(make_backbone, tmp_path):
    class Killed(BaseException):
        pass

    def progress(_what, done, _total):
        if done == 5 and not stopped:
            stopped.append(done)
            raise Killed

    settings = {"size": 64, "head": "upernet", "width": 8, "trainable": "full", "scale": [0.5, 1.5]}
    recipe = TASK.recipe(settings | {"horizontal_flip": 0.5, "epochs": 3, "batch": 3, "learning_rate": 1e-2})
    data, stopped = halves_data(train=8), []
    whole = TASK.run(make_backbone(size=64), data, recipe, Context(None, tmp_path / "whole"))
    with pytest.raises(Killed):
        TASK.run(make_backbone(size=64), data, recipe, Context(None, tmp_path / "killed", progress=progress))
    curves = [tmp_path / name / "training" / "learning-rate-0.01" / "curve.jsonl" for name in ("whole", "killed")]
    assert len(curves[1].read_text().splitlines()) == 1
    again = TASK.run(make_backbone(size=64), data, recipe, Context(None, tmp_path / "killed", progress=progress))
    assert equal(whole.predictions, again.predictions)
    assert curves[0].read_text() == curves[1].read_text()


def test_validation_data_choose_the_rate(make_backbone, context):
    recipe = TASK.recipe({"size": 64, "epochs": 2, "batch": 4, "learning_rate": [1e-9, 1e-2]})
    outcome = TASK.run(make_backbone(size=64), halves_data(), recipe, context)
    curves = {c.parent.name: c.read_text().splitlines() for c in context.folder.rglob("curve.jsonl")}
    last = {name: json.loads(lines[-1])["val_miou"] for name, lines in curves.items()}
    assert last["learning-rate-0.01"] > last["learning-rate-1e-09"]
    assert outcome.chosen == {"learning_rate": 0.01, "val_miou": last["learning-rate-0.01"]}


@pytest.mark.parametrize("trainable", ["frozen", "full"])
def test_only_what_is_to_be_trained_is(trainable, make_backbone, context):
    backbone = make_backbone(size=64)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    recipe = TASK.recipe({"size": 64, "trainable": trainable, "epochs": 1, "horizontal_flip": 0.5})
    TASK.run(backbone, halves_data(), recipe, context)
    assert equal(before, backbone.state_dict())
    (kept,) = (context.folder / "training").rglob("*.safetensors")
    assert any("network." in name for name in load_file(kept)) == (trainable == "full")


def test_a_loss_that_is_no_number_ends_in_one_line(make_backbone, context):
    recipe = TASK.recipe({"size": 64, "epochs": 5, "learning_rate": 1e38})
    with pytest.raises(Diverged, match=r"the loss is (nan|inf) at step \d+ of 10 .*; try a lower learning rate"):
        TASK.run(make_backbone(size=64), halves_data(), recipe, context)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engine": "mmseg", "head": "linear"}, "engine mmseg has no head 'linear': say upernet or fcn"),
        ({"head": "segformer"}, "head: 'segformer' is none of linear, upernet, fcn"),
        ({"stride": 1.5}, "stride: .*less than or equal to 1"),
    ],
)
def test_what_there_is_not_is_refused(settings, message):
    with pytest.raises(BadInput, match=message):
        TASK.recipe(settings)


def test_defaults_follow_engine_and_head():
    assert TASK.recipe().head == "linear"
    assert TASK.recipe({"engine": "mmseg"}).head == "upernet"
    assert TASK.recipe({"engine": "mmseg", "head": "fcn"}).head == "fcn"
    rates = [TASK.recipe({"head": head}).learning_rate for head in HEADS]
    assert rates == [(0.02,), (0.001,), (0.001,)]
    assert TASK.recipe({"head": "fcn", "learning_rate": 0.1}).learning_rate == (0.1,)
