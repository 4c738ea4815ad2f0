"""The detection tasks end to end on coloured rectangles, and the parts between: pyramid, letterbox, mask pasting."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from backbench import load_backbone
from backbench.backbones import BackboneCard, BadInput, Letterbox, NotApplicable
from backbench.tasks import Bank, Context, Dataset, Split, estimate, find_task
from backbench.tasks.datasets import Objects, rle
from backbench.tasks.detection.frame import boxes_in, detections_out, targets_in
from backbench.tasks.detection.heads import RegionHeads, RetinaHeads, heads_of
from backbench.tasks.detection.pyramid import FeaturePyramid, Levels, pyramid_over
from backbench.tasks.detection.recipe import DetectorRecipe, MaskRecipe
from backbench.tasks.detection.simple_pyramid import SimplePyramid
from backbench.tasks.training.dense_recipe import input_size
from backbench.tasks.training.loop import Diverged
from backbench.tasks.training.trainable import trainable_copy
from backbench.tasks.training.windows import attend_in_windows, windows_of
from torchvision.models.detection.roi_heads import project_masks_on_boxes

SIDE = 64
TASKS = ("detection", "instance-segmentation")
SMALL = {"width": 8, "box_width": 16, "mask_width": 8, "mask_layers": 1, "proposals": 8, "samples": 8}


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
    splits = {
        "train": partial(rectangles, 48, 1, empty=(5, 6)),
        "val": partial(rectangles, 12, 3),
        "test": partial(rectangles, 24, 2, empty=(3,)),
    }
    return Dataset("rectangles", "detection", ("red", "blue"), splits)


def equal(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


# -- learning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("detection", {}),
        ("detection", {"detector": "retinanet"}),
        ("instance-segmentation", {}),
    ],
)
def test_learns_and_measures(name, settings, data, make_backbone, context):
    task, backbone = find_task(name), make_backbone(size=SIDE)
    recipe = task.recipe({"size": 64, "epochs": 12, "width": 32, "box_width": 32, "mask_width": 8} | settings)
    state, told = torch.get_rng_state(), []
    context.progress = lambda what, done, total: told.append((what, done, total))
    outcome = task.run(backbone, data, recipe, context)
    assert torch.equal(state, torch.get_rng_state())
    assert any(what.startswith("epoch 12 of 12") and done == total for what, done, total in told)
    assert ("detecting", 24, 24) in told
    found = estimate(task.measure(outcome.predictions, data))
    assert set(found) <= set(task.scores)
    assert next(iter(found)) == task.headline
    assert found["ap50"].low > 20  # pure chance is near 0
    curve = context.folder / "training" / f"learning-rate-{recipe.learning_rate[0]:g}" / "curve.jsonl"
    scores = [json.loads(line)["val_ap"] for line in curve.read_text().splitlines()]
    assert len(scores) == 12
    assert scores[-1] > scores[0]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("detection", {"detector": "retinanet", "trainable": "full", "micro_batch": 3}),
        ("instance-segmentation", {"trainable": "full", "scale": [0.5, 1.5], "horizontal_flip": 0.5}),
        ("instance-segmentation", {}),
    ],
)
def test_a_killed_training_goes_on_to_the_same_bits(name, settings, data, make_backbone, tmp_path):
    class Killed(BaseException):
        pass

    def progress(what, done, total):
        if "epoch 2" in what and done % 6 == 2:
            raise Killed

    task, bank = find_task(name), Bank(tmp_path / "features")
    recipe = task.recipe({"size": 64, "epochs": 3, "batch": 8, "anchor_samples": 8} | SMALL | settings)
    whole = task.run(make_backbone(size=SIDE), data, recipe, Context(bank, tmp_path / "whole"))
    with pytest.raises(Killed):
        task.run(make_backbone(size=SIDE), data, recipe, Context(bank, tmp_path / "killed", progress=progress))
    again = task.run(make_backbone(size=SIDE), data, recipe, Context(bank, tmp_path / "killed"))
    assert equal(again.predictions, whole.predictions)
    assert len(whole.predictions["score"])


def test_validation_data_choose_the_rate(data, make_backbone, context):
    task = find_task("detection")
    recipe = task.recipe({"size": 64, "epochs": 3, "learning_rate": [1e-7, 8e-3], "drop_path": 0.1} | SMALL)
    chosen = task.run(make_backbone(size=SIDE), data, recipe, context).chosen
    assert chosen["learning_rate"] == 8e-3
    assert chosen["val_ap"] > 0
    assert chosen["drop_path"].startswith("none")  # a frozen network runs as it is


def test_every_kind_of_backbone_trains_and_is_scored(kind, odd_scenes, context):
    data, before = odd_scenes("detection"), kind.weights_digest
    for task, settings in [
        ("detection", {"trainable": "full"}),
        ("detection", {"trainable": "last-1", "detector": "retinanet", "scale": [0.5, 2.0]}),
        ("instance-segmentation", {"trainable": "frozen"}),
    ]:
        found = find_task(task)
        recipe = found.recipe({"epochs": 1, "batch": 2, "anchor_samples": 8} | SMALL | settings)
        outcome = found.run(kind, data, recipe, replace(context, folder=context.folder / task / recipe.detector))
        assert set(estimate(found.measure(outcome.predictions, data))) <= set(found.scores)
    del vars(kind)["weights_digest"]
    assert kind.weights_digest == before


@pytest.mark.parametrize("detector", ["faster-rcnn", "retinanet"])
def test_a_batch_without_any_object_is_learned_from(detector):
    recipe = MaskRecipe(**SMALL) if detector == "faster-rcnn" else DetectorRecipe(detector="retinanet", **SMALL)
    heads = heads_of(recipe, Levels.of(np.zeros((0, 4)), 2), 3, 64, detector == "faster-rcnn", [(4, 16), (8, 8)])
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    none |= {"masks": torch.zeros(0, 64, 64, dtype=torch.uint8)} if detector == "faster-rcnn" else {}
    loss = heads.loss([torch.randn(2, 4, 16, 16), torch.randn(2, 8, 8, 8)], [none, none])
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is None or p.grad.isfinite().all() for p in heads.parameters())


@pytest.mark.parametrize("size", [64, 70])  # 70: five patches of 14, which the coarsest stride does not divide
def test_retinanet_finds_what_torchvision_does(size):
    """The same weights on the same pyramid through torchvision's own pass over an image."""
    torch.manual_seed(0)
    levels = Levels((8, 32), ((10.0, 14.0), (20.0, 30.0)), (0.5, 1.0, 2.0))
    heads = RetinaHeads([(4, 5)], size, levels, 3, DetectorRecipe(detector="retinanet", width=8)).eval()
    torch.nn.init.constant_(heads.retina.head.classification_head.cls_logits.bias, 0.0)
    maps, side = [torch.randn(1, 4, 5, 5)], heads.side
    assert side == 32 * -(-size // 32)
    with torch.no_grad():
        pyramid = heads.pyramid(maps)
        heads.retina.backbone.forward = lambda _images: pyramid
        heads.retina.transform.min_size, heads.retina.transform.max_size = (side,), side
        [expected] = heads.retina([torch.zeros(3, side, side)])
        [found] = heads.detect(maps)
    assert len(found["scores"]) > 10
    torch.testing.assert_close(found["boxes"] * side / size, expected["boxes"])
    assert torch.equal(found["labels"], expected["labels"])


def test_boxes_and_masks_are_enlarged_to_what_the_coarsest_stride_divides():
    heads = RegionHeads([(4, 5)], 70, Levels((8, 32), ((9.0, 12.0), (40.0, 60.0)), (1.0,)), 2, DetectorRecipe(), True)
    assert heads.side == 96
    seen = {}
    heads._losses = lambda images, pyramid, targets: seen.update(targets[0]) or {"loss": torch.zeros(())}
    mask = torch.zeros(1, 70, 70, dtype=torch.uint8)
    mask[:, 35:] = 1
    box = torch.tensor([[0.0, 35, 70, 70]])
    heads.loss([torch.randn(1, 4, 5, 5)], [{"boxes": box, "labels": torch.tensor([1]), "masks": mask}])
    torch.testing.assert_close(seen["boxes"], torch.tensor([[0.0, 48, 96, 96]]))
    assert seen["masks"].shape == (1, 96, 96)
    assert seen["masks"][:, 48:].all()
    assert not seen["masks"][:, :48].any()


# -- recipes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        ("instance-segmentation", {"detector": "retinanet"}, "retinanet gives no masks"),
        ("detection", {"detector": "cascade-rcnn"}, "engine torchvision has no cascade-rcnn; it has: faster-rcnn"),
        ("detection", {"engine": "detectron"}, "engine"),
        ("detection", {"box_loss": "giou"}, "box_loss giou is for the box heads of engine mmdet"),
        ("detection", {"window": 7}, "`window` is for a network that is trained"),
        ("detection", {"scale": [2, 0.1]}, "`scale` is the least and the largest factor"),
        ("detection", {"proposal": 7}, "proposals"),
    ],
)
def test_recipes_that_cannot_be(task, settings, message):
    with pytest.raises(BadInput, match=message):
        find_task(task).recipe(settings)


def test_each_engine_has_a_default():
    assert find_task("detection").recipe({}).detector == "faster-rcnn"
    assert find_task("instance-segmentation").recipe({"engine": "mmdet"}).detector == "cascade-rcnn"
    assert find_task("detection").recipe({"engine": "mmdet", "detector": "retinanet"}).detector == "retinanet"


def test_the_sizes_of_coco_make_the_usual_mask_rcnn():
    """Anchors of 8 cells a level from stride 4 on, RoIAlign of 7 and 14, as arXiv 1703.06870 and 1612.03144 have it."""
    recipe = MaskRecipe(
        width=256, box_width=1024, mask_width=256, mask_layers=4, cells=8, box_cells=7, mask_cells=14, proposals=1000
    )
    rng = np.random.default_rng(0)
    side = 2 ** rng.uniform(5, 9.9, (500, 1))
    levels = Levels.of(np.concatenate([np.zeros((500, 2)), side, side], axis=1), recipe.cells)
    assert levels.strides == (4, 8, 16, 32, 64)
    with torch.device("meta"):
        heads = RegionHeads([(8, 256), (8, 128), (8, 64), (8, 32)], 1024, levels, 80, recipe, True)
        other = RegionHeads([(8, 256)], 1024, levels, 80, recipe.model_copy(update={"box_layers": 4}), True)
    assert heads.regions.box_head.fc6.weight.shape == (1024, 256 * 49)
    assert [tuple(p.shape) for p in other.regions.box_head.parameters() if p.ndim > 1] == [
        *[(256, 256, 3, 3)] * 4,
        (1024, 256 * 49),
    ]
    assert heads.regions.mask_roi_pool.output_size == (14, 14)
    assert len(heads.regions.mask_head) == 4
    assert heads.proposals.post_nms_top_n() == 1000


# -- the tasks -------------------------------------------------------------------------------------------------------


def test_predictions_survive_the_file(data, make_backbone, context, tmp_path):
    from backbench.tasks import read_predictions, write_predictions

    task = find_task("instance-segmentation")
    outcome = task.run(make_backbone(size=SIDE), data, task.recipe({"size": 64, "epochs": 1} | SMALL), context)
    write_predictions(outcome.predictions, tmp_path / "p.parquet")
    read = read_predictions(tmp_path / "p.parquet")
    ones = np.ones(24)
    assert task.measure(read, data).scores(ones) == task.measure(outcome.predictions, data).scores(ones)


def test_without_masks_only_detection_is_possible(data, make_backbone, context):
    def bare(split):
        whole = data[split]
        targets = [Objects(o.boxes, o.labels, crowd=o.crowd) for o in whole.targets]
        return Split(whole.images, targets, whole.fingerprint + "bare", whole.ids)

    boxes = Dataset(
        "boxes", "detection", data.classes, {name: partial(bare, name) for name in ("train", "val", "test")}
    )
    task = find_task("instance-segmentation")
    with pytest.raises(BadInput, match="boxes but no masks"):
        task.run(make_backbone(size=SIDE), boxes, task.recipe({"size": 64, "epochs": 1}), context)


def test_a_loss_that_is_no_number_ends_in_one_line(data, make_backbone, context):
    task = find_task("detection")
    recipe = task.recipe({"size": 64, "epochs": 4, "batch": 16, "learning_rate": 1e30} | SMALL)
    with pytest.raises(Diverged, match=r"the loss is (nan|inf) at step \d+ of 12 .* try a lower learning rate"):
        task.run(make_backbone(size=SIDE), data, recipe, context)


def test_default_size(make_backbone):
    assert [input_size(make_backbone(size=size), None) for size in (16, 64, 224)] == [32, 96, 320]
    assert input_size(make_backbone(size=64), 256) == 256


# -- windows ---------------------------------------------------------------------------------------------------------


def plain_vit(card):
    """Of so large weights that each token moves all those that it is seen by."""
    backbone = load_backbone(BackboneCard.model_validate(card | {"model_args": DEPTH}))
    torch.manual_seed(0)
    for weight in backbone.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    return backbone


VIT = {"source": "timm", "model": "vit_tiny_patch16_224", "pretrained": False, "input": {"size": 64}}
REGISTERS = VIT | {"model": "vit_small_patch14_reg4_dinov2", "input": {"size": 56}}
DEPTH = {"depth": 8, "embed_dim": 48, "num_heads": 2}


@pytest.mark.parametrize("card", [VIT, REGISTERS])
def test_windows_as_large_as_the_image_change_nothing(card):
    backbone = plain_vit(card)
    size, grid = input_size(backbone, None), 6
    images = torch.randn(2, 3, size, size)
    whole = backbone(images, embedding=False, maps=True).maps[0]
    assert whole.shape[-1] == grid
    for window, same in [(grid, True), (2 * grid, True), (4, False)]:
        made, _ = trainable_copy(backbone, "full", maps=True)
        attend_in_windows(made, window, size)
        assert torch.allclose(made(images, embedding=False, maps=True).maps[0], whole, atol=1e-5) is same


@pytest.mark.parametrize("card", [VIT, REGISTERS])
def test_what_is_seen_in_one_window_stays_in_it_but_for_the_blocks_that_attend_everywhere(card):
    backbone = plain_vit(card)
    attend_in_windows(backbone, 4, input_size(backbone, None))
    within, everywhere = (backbone.body.get_submodule(backbone.blocks[i]) for i in (4, 5))  # 1, 3, 5, 7 see it all
    tokens = torch.randn(1, (5 if card is REGISTERS else 1) + 36, 48)
    other = tokens.clone()
    other[:, -1] = torch.randn(
        48
    )  # the last patch: windows begin at rows and columns 0 and 2, so it lies in the last one alone
    for block, expected in [(within, 16), (everywhere, 36)]:
        changed = (block(tokens) != block(other)).any(-1)[0, -36:].reshape(6, 6)
        assert changed.sum() == expected
        assert changed[2:, 2:].all()


def test_every_patch_has_a_place_in_the_windows():
    for grid, window in [(8, 4), (6, 4), (9, 2), (5, 3)]:
        patches, owner = windows_of(grid, window)
        assert patches.shape == ((-(-grid // window)) ** 2, window**2)
        assert patches.ravel()[owner].tolist() == list(range(grid**2))


@pytest.mark.parametrize("model", ["vit_small_patch16_dinov3", "hiera_tiny_224", "beit_base_patch16_224"])
def test_windows_are_for_plain_vits(model):
    arguments = {"embed_dim": 48, "num_heads": 2, "depth": 5} if "hiera" not in model else {"stages": [1, 1, 1, 1]}
    card = VIT | {"model": model, "model_args": arguments}
    backbone = load_backbone(BackboneCard.model_validate(card))
    with pytest.raises(NotApplicable, match="`window` is for plain ViTs whose blocks take nothing but tokens"):
        attend_in_windows(backbone, 2, 64)


def test_a_detector_is_trained_in_windows(odd_scenes, context):
    backbone = plain_vit(VIT)
    task = find_task("detection")
    recipe = task.recipe({"trainable": "full", "window": 4, "epochs": 1, "batch": 2} | SMALL)
    assert task.run(backbone, odd_scenes("detection"), recipe, context).chosen == {"learning_rate": 4e-3}


# -- parts -----------------------------------------------------------------------------------------------------------


def test_levels_follow_the_training_boxes():
    rng = np.random.default_rng(0)

    def boxes(low, high, tall=1.0):
        side = rng.uniform(low, high, (500, 1))
        return np.concatenate([np.zeros((500, 2)), side, side * tall], axis=1)

    assert Levels.of(boxes(18, 30), 2).strides == (8,)
    assert Levels.of(boxes(40, 120), 2).strides == (16, 32)
    assert Levels.of(boxes(40, 500), 2).strides == (32, 64)
    assert Levels.of(boxes(40, 120), 8).strides == (4, 8)
    tall = Levels.of(boxes(20, 70, tall=2), 2)
    assert tall.ratios == pytest.approx((2, 2, 2))
    assert all(a <= b for sizes in tall.sizes for a, b in [sizes])
    assert Levels.of(np.zeros((0, 4)), 2).strides
    assert Levels.of(boxes(1, 2), 2).strides == (4,)


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
