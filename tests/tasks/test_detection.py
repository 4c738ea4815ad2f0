"""The detection tasks end to end on coloured rectangles, and the parts between: pyramid, letterbox, mask pasting."""

from functools import partial

import numpy as np
import pytest
import torch
from backbench.backbones import BadInput, Letterbox
from backbench.tasks import Dataset, Split, estimate, find_task
from backbench.tasks.datasets import Objects, rle
from backbench.tasks.dense import input_size
from backbench.tasks.detection.frame import boxes_in, detections_out, targets_in
from backbench.tasks.detection.pyramid import FeaturePyramid, Levels, pyramid_over
from backbench.tasks.detection.simple_pyramid import SimplePyramid
from torchvision.models.detection.roi_heads import project_masks_on_boxes

SIDE = 64
TASKS = ("detection", "instance-segmentation")


def rectangles(count, seed, empty=()):
    """One or two rectangles, red (0) or blue (1), on grey noise; a crowd now and then; images of several shapes."""
    rng = np.random.default_rng(seed)
    images, targets = [], []
    for index in range(count):
        height, width = rng.integers(SIDE // 2, SIDE, 2) if index % 3 else (SIDE, SIDE)
        image = rng.integers(90, 160, (height, width, 3)).astype(np.uint8)
        k = 0 if index in empty else rng.integers(1, 3)
        corner = np.stack([rng.integers(0, width - 20, k), rng.integers(0, height - 20, k)], axis=1)
        boxes = np.concatenate([corner, np.minimum(corner + rng.integers(16, 30, (k, 2)), [width, height])], axis=1)
        labels, masks = rng.integers(0, 2, k), np.zeros((k, height, width), bool)
        for (x1, y1, x2, y2), label, mask in zip(boxes, labels, masks, strict=True):
            image[y1:y2, x1:x2] = (230, 20, 20) if label == 0 else (20, 20, 230)
            mask[y1:y2, x1:x2] = True
        images.append(image)
        targets.append(Objects(boxes.astype(np.float32), labels, masks, rng.random(k) < 0.1))
    return Split(images, targets, f"rectangles-{count}-{seed}", [f"{seed}-{i}" for i in range(count)])


@pytest.fixture
def data():
    splits = {"train": partial(rectangles, 48, 1, empty=(5, 6)), "test": partial(rectangles, 24, 2, empty=(3,))}
    return Dataset("rectangles", "detection", ("red", "blue"), splits)


@pytest.mark.parametrize("name", TASKS)
def test_learns_repeats_and_measures(name, data, make_backbone, context):
    task, backbone = find_task(name), make_backbone(size=SIDE)
    recipe = task.recipe({"size": 64, "epochs": 12, "batch": 8, "width": 32, "box_width": 32, "mask_width": 8})
    state, told = torch.get_rng_state(), []
    context.progress = lambda what, done, total: told.append((what, done, total))
    outcome = task.run(backbone, data, recipe, context)
    assert torch.equal(state, torch.get_rng_state())
    assert ("training", 72, 72) in told
    assert ("detecting", 24, 24) in told
    found = estimate(task.measure(outcome.predictions, data))
    assert set(found) <= set(task.scores)
    assert next(iter(found)) == task.headline
    assert found["ap50"].low > 20  # pure chance is near 0
    again = task.run(backbone, data, recipe, context)
    assert outcome.predictions.keys() == again.predictions.keys()
    for column, values in outcome.predictions.items():
        assert (values == again.predictions[column]).all(), column


def test_predictions_survive_the_file(data, make_backbone, context, tmp_path):
    from backbench.tasks import read_predictions, write_predictions

    task = find_task("instance-segmentation")
    outcome = task.run(make_backbone(size=SIDE), data, task.recipe({"size": 64, "epochs": 1, "width": 8}), context)
    write_predictions(outcome.predictions, tmp_path / "p.parquet")
    read = read_predictions(tmp_path / "p.parquet")
    ones = np.ones(24)
    assert task.measure(read, data).scores(ones) == task.measure(outcome.predictions, data).scores(ones)


def test_without_masks_only_detection_is_possible(data, make_backbone, context):
    def bare(split):
        whole = data[split]
        targets = [Objects(o.boxes, o.labels, crowd=o.crowd) for o in whole.targets]
        return Split(whole.images, targets, whole.fingerprint + "bare", whole.ids)

    boxes = Dataset("boxes", "detection", data.classes, {name: partial(bare, name) for name in ("train", "test")})
    task = find_task("instance-segmentation")
    with pytest.raises(BadInput, match="boxes but no masks"):
        task.run(make_backbone(size=SIDE), boxes, task.recipe({"size": 64, "epochs": 1}), context)


def test_a_loss_that_is_no_number_ends_in_one_line(data, make_backbone, context):
    task = find_task("detection")
    with pytest.raises(RuntimeError, match=r"the loss is (nan|inf) at step \d+ of 12; try a lower learning_rate"):
        task.run(
            make_backbone(size=SIDE),
            data,
            task.recipe({"size": 64, "epochs": 4, "batch": 16, "learning_rate": 1e30}),
            context,
        )


def test_default_size(make_backbone):
    assert [input_size(make_backbone(size=size), None) for size in (16, 64, 224)] == [32, 96, 320]
    assert input_size(make_backbone(size=64), 256) == 256


def test_levels_follow_the_training_boxes():
    rng = np.random.default_rng(0)

    def boxes(low, high, tall=1.0):
        side = rng.uniform(low, high, (500, 1))
        return np.concatenate([np.zeros((500, 2)), side, side * tall], axis=1)

    assert Levels.of(boxes(18, 30)).strides == (8,)
    assert Levels.of(boxes(12, 200)).strides == (4, 8, 16, 32) or Levels.of(boxes(12, 200)).strides == (8, 16, 32)
    tall = Levels.of(boxes(20, 70, tall=2))
    assert tall.ratios == pytest.approx((2, 2, 2))
    assert all(a <= b for sizes in tall.sizes for a, b in [sizes])
    assert Levels.of(np.zeros((0, 4))).strides
    assert Levels.of(boxes(1, 2)).strides == (4,)


@pytest.mark.parametrize("shapes", [[(5, 12)], [(4, 24), (6, 12), (8, 6), (9, 3)], [(5, 12)] * 3, [(7, 7)]])
@pytest.mark.parametrize("strides", [(8,), (4, 8, 16, 32), (16, 32)])
def test_any_backbone_makes_any_pyramid(shapes, strides):
    pyramid = pyramid_over(shapes, 96, strides, 16)
    assert isinstance(pyramid, SimplePyramid if len(shapes) == 1 else FeaturePyramid)
    maps = [torch.randn(2, channels, side, side, requires_grad=True) for channels, side in shapes]
    found = list(pyramid(maps).values())
    assert [tuple(m.shape) for m in found] == [(2, 16, 96 // s, 96 // s) for s in strides]
    sum(m.sum() for m in found).backward()
    assert all(m.grad is not None for m in maps)  # no level of the backbone is left unused


def test_a_plain_vit_gets_the_levels_of_vitdet():
    """arXiv 2203.16527: two deconvolutions with norm and GELU between, one, none, max-pooling; nothing top-down."""
    pyramid = SimplePyramid([(64, 14)], 224, (4, 8, 16, 32), 16)
    kinds = [[type(part).__name__ for part in level] for level in pyramid.levels]
    tail = ["Conv2d", "LayerNorm2d", "Conv2d", "LayerNorm2d"]
    up = ["ConvTranspose2d", "LayerNorm2d", "GELU", "ConvTranspose2d"]
    assert kinds == [up + tail, ["ConvTranspose2d", *tail], tail, ["MaxPool2d", *tail]]
    one = [torch.randn(2, 64, 14, 14)]
    before = [m.detach() for m in pyramid.eval()(one).values()]
    torch.nn.init.zeros_(pyramid.levels[3][-2].weight)
    after = [m.detach() for m in pyramid(one).values()]
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, True, True, False]


def test_a_patch_of_14_pixels_makes_levels_of_powers_of_two():
    found = SimplePyramid([(8, 23)], 322, (8, 16, 32), 16)([torch.randn(1, 8, 23, 23)])
    assert [tuple(m.shape[-2:]) for m in found.values()] == [(40, 40), (20, 20), (10, 10)]


@pytest.mark.parametrize("size", [(64, 64), (48, 100), (301, 77)])
def test_boxes_and_masks_come_back_from_the_letterbox(size):
    height, width = size
    letterbox = Letterbox(96, (0.5,) * 3, (0.5,) * 3, "bilinear")
    box = np.array([[0.1 * width, 0.2 * height, 0.8 * width, 0.7 * height]])
    mask = np.zeros((1, height, width), bool)
    mask[:, int(0.2 * height) : int(0.7 * height), int(0.1 * width) : int(0.8 * width)] = True
    objects = Objects(np.repeat(box, 2, 0), np.array([0, 1]), np.repeat(mask, 2, 0), np.array([False, True]))
    target = targets_in(objects, size, letterbox, masks=True)
    assert target["labels"].tolist() == [0]  # the crowd is left out
    assert tuple(target["masks"].shape) == (1, 96, 96)
    seen = target["masks"][0].nonzero().float()
    edges = torch.stack([seen[:, 1].min(), seen[:, 0].min(), seen[:, 1].max() + 1, seen[:, 0].max() + 1])
    torch.testing.assert_close(edges, target["boxes"][0], atol=1.5, rtol=0)
    cut = project_masks_on_boxes(target["masks"], target["boxes"], torch.tensor([0]), 28)
    found = {"boxes": target["boxes"], "labels": target["labels"], "scores": torch.ones(1), "masks": cut[:, None]}
    back = detections_out(found, size, letterbox)
    np.testing.assert_allclose(back.boxes, box, rtol=1e-4)
    shape = rle.decode(back.masks[0], size)
    assert (shape & mask[0]).sum() / (shape | mask[0]).sum() > 0.85


def test_what_lies_in_the_padding_is_dropped():
    letterbox = Letterbox(96, (0.5,) * 3, (0.5,) * 3, "bilinear")
    found = {
        "boxes": torch.tensor([[10.0, 60, 40, 90], [10, 10, 40, 90]]),
        "labels": torch.tensor([0, 1]),
        "scores": torch.tensor([0.9, 0.8]),
    }
    back = detections_out(found, (50, 100), letterbox)  # half as high as wide: all below 48 is padding
    assert back.labels.tolist() == [1]
    np.testing.assert_allclose(back.boxes, [[10 / 0.96, 10 / 0.96, 40 / 0.96, 50]], rtol=1e-5)
    assert len(boxes_in(Objects(np.zeros((0, 4)), np.zeros(0, int)), (50, 100), letterbox)) == 0
