"""Explanations: heat maps against other ways to them, curves against a loop over pixels, and maps that are no use."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from backbench.backbones import BackboneCard, BadInput, NotApplicable, load_backbone
from backbench.tasks import Dataset, estimate, find_task, read_predictions, write_predictions
from backbench.tasks.analysis.explain import area, curves_of, place_in_order, spread
from backbench.tasks.analysis.explaining import grad_cam, last_seen, rollout
from backbench.tasks.classification.linear_probe import chosen_probe
from backbench.tasks.ood.adversarial import PixelClassifier
from captum.attr import LayerGradCam
from sklearn.metrics import auc
from torch import nn

TASK = find_task("explain")
SMALL = {"images": 6, "steps": 4, "shown": 2, "c": [0.1]}


def classifier_of(backbone, data, context, c=0.1):
    probe, _ = chosen_probe(backbone, data, TASK.recipe({"c": [c]}), context)
    return PixelClassifier(backbone, probe).eval()


def pixels_of(backbone, split, count=3):
    return torch.stack([backbone.transform.pixels(split.images[i]) for i in range(count)]) / 255


@pytest.fixture
def cnn(squares_data, context):
    return classifier_of(load_backbone("mini/cnn-supervised"), squares_data(), context)


@pytest.fixture
def vit(squares_data, context):
    return classifier_of(load_backbone("mini/vit-supervised"), squares_data(), context)


# -- maps --------------------------------------------------------------------------------------------------------


def test_a_map_goes_on_as_what_is_made_of_it(kind):
    images = torch.randn(2, 3, kind.input.size, kind.input.size)
    block, shapes = kind.blocks[0], []

    def see(map):
        shapes.append(map.shape)
        return map

    before = kind(images).embedding
    if "hiera" in kind.card.model:
        with kind.seen_as_map(block, images, see), pytest.raises(NotApplicable, match="not the image row by row"):
            kind(images)
        return
    with kind.seen_as_map(block, images, see):
        assert torch.allclose(kind(images).embedding, before, atol=1e-6)
    with kind.seen_as_map(block, images, torch.zeros_like):
        assert not torch.allclose(kind(images).embedding, before, rtol=1e-2, atol=0)
    assert shapes[0][0] == 2
    assert shapes[0][2] == shapes[0][3]
    assert torch.equal(kind(images).embedding, before)  # and no longer


def test_a_wrong_block_is_told_with_the_nearest():
    backbone = load_backbone("mini/cnn-random")
    with pytest.raises(BadInput, match=r"did you mean 'layer4\.0'"), backbone.seen_as_map("layer4", torch.ones(1), abs):
        pass


def test_grad_cam_of_a_convolution_is_that_of_captum_alone(cnn, squares_data):
    pixels, classes = pixels_of(cnn.backbone, squares_data()["test"]), torch.tensor([0, 1, 2])
    module = cnn.backbone.body.get_submodule("layer3.0")
    plain = LayerGradCam(cnn, module).attribute(pixels.requires_grad_(), classes, relu_attributions=True)
    assert torch.allclose(grad_cam(cnn, pixels, classes, "layer3.0"), plain[:, 0], rtol=1e-4, atol=1e-6)


def test_grad_cam_of_tokens_is_that_by_hand(vit, squares_data):
    pixels, classes, kept = pixels_of(vit.backbone, squares_data()["test"]), torch.tensor([0, 1, 2]), []
    hook = vit.backbone.body.get_submodule("blocks.3").register_forward_hook(lambda *call: kept.append(call[2]))
    logits = vit(pixels)
    hook.remove()
    [tokens] = kept
    (slope,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), tokens)
    places = tokens.shape[1] - 64  # 8 x 8 patches
    heat = (slope[:, places:].mean(dim=1, keepdim=True) * tokens[:, places:]).sum(dim=2).relu().reshape(3, 8, 8)
    assert heat.any()
    assert torch.allclose(grad_cam(vit, pixels, classes, "blocks.3"), heat, rtol=1e-4, atol=1e-6)


def test_the_block_is_the_last_that_is_fine_and_counts(cnn, squares_data):
    pixels, classes = pixels_of(cnn.backbone, squares_data()["test"]), torch.tensor([0, 1, 2])
    # Of 64 pixels, the maps have 16, 8, 4 and 2 places each way.
    assert [last_seen(cnn, pixels, classes, grid) for grid in (1, 4, 16)] == ["layer4.0", "layer3.0", "layer1.0"]
    assert last_seen(cnn, pixels, classes, 17) == "layer4.0"


def test_places_that_the_class_token_no_longer_sees_do_not_count(squares_data, context):
    says = {"source": "timm", "model": "vit_tiny_patch16_224", "pretrained": False, "input": {"size": 64}}
    narrow = {"depth": 3, "embed_dim": 48, "num_heads": 2}
    backbone = load_backbone(BackboneCard.model_validate(says | {"model_args": narrow}))
    found = classifier_of(backbone, squares_data(), context)
    pixels, classes = pixels_of(backbone, squares_data()["test"]), torch.tensor([0, 1, 2])
    assert last_seen(found, pixels, classes, 4) == backbone.blocks[-2]


def test_rollout_is_the_product_by_hand(vit, squares_data):
    backbone = vit.backbone
    images = backbone.transform.normalise(255 * pixels_of(backbone, squares_data()["test"]))
    found = list(backbone.attention(images, lambda map: map).values())
    for i in range(len(images)):
        flow = np.eye(found[0].weights.shape[-1])
        for map in found:
            mean = map.weights[i, 0].mean(dim=0).double().numpy()
            flow = (0.5 * mean + 0.5 * np.eye(len(mean))) @ flow
        first = found[0].prefix
        expected = (flow[0] if first else flow.mean(axis=0))[first:].reshape(8, 8)
        assert np.allclose(rollout(backbone, images)[i].numpy(), expected, atol=1e-6)


def test_there_is_no_rollout_without_attention_to_all(cnn):
    with pytest.raises(NotApplicable, match="no attention over"):
        rollout(cnn.backbone, torch.randn(1, 3, 64, 64))


# -- curves ------------------------------------------------------------------------------------------------------


def test_curves_are_those_of_a_loop_over_pixels(cnn, squares_data):
    """Deletion puts the card's mean in the place of the most important pixels, insertion takes them out of the blur."""
    from scipy.ndimage import correlate1d

    [image] = pixels_of(cnn.backbone, squares_data()["test"], 1)
    rng, recipe, side = np.random.default_rng(0), TASK.recipe(SMALL | {"blur": 0.05}), 64
    heats, ties = rng.random((2, 4, 4)), torch.from_numpy(rng.random(side * side))
    found = curves_of(cnn, image, 2, heats, ties, recipe)

    sigma = 0.05 * side
    kernel = np.exp(-0.5 * (np.arange(-6, 7) / sigma) ** 2)
    vague = image.double().numpy()
    for axis in (1, 2):
        vague = correlate1d(vague, kernel / kernel.sum(), axis=axis, mode="mirror")
    mean, chance = np.array(cnn.backbone.input.mean), ties.reshape(side, side).numpy()
    for m, heat in enumerate(heats):
        wide = spread(torch.from_numpy(heat)[None], side)[0].numpy()
        ranking = sorted(((y, x) for y in range(side) for x in range(side)), key=lambda at: (-wide[at], chance[at]))
        for step in range(recipe.steps + 1):
            without, only = image.double().numpy().copy(), vague.copy()
            for y, x in ranking[: round(step * side * side / recipe.steps)]:
                without[:, y, x], only[:, y, x] = mean, image[:, y, x]
            for kind, picture in enumerate((without, only)):
                with torch.no_grad():
                    sure = cnn(torch.from_numpy(picture).float()[None]).softmax(dim=1)[0, 2]
                assert found[m, kind, step] == pytest.approx(float(sure), abs=1e-4)


def test_equals_go_in_the_order_of_chance():
    ties = torch.tensor([0.3, 0.1, 0.9, 0.2])
    assert place_in_order(torch.zeros(2, 2), ties).flatten().tolist() == [2, 0, 3, 1]
    assert place_in_order(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), ties).flatten().tolist() == [3, 1, 0, 2]


def test_the_area_is_that_of_scikit_learn():
    curves = np.random.default_rng(0).random((3, 2, 9))
    expected = [[auc(np.linspace(0, 1, 9), curve) for curve in rows] for rows in curves]
    assert np.allclose(area(curves), expected)


# -- the task ----------------------------------------------------------------------------------------------------


def test_every_kind_is_explained_or_told_why_not(kind, squares_data, context, tmp_path):
    data = squares_data()
    if "hiera" in kind.card.model:
        with pytest.raises(NotApplicable, match="not the image row by row"):
            TASK.run(kind, data, TASK.recipe(SMALL), context)
        return
    outcome = TASK.run(kind, data, TASK.recipe(SMALL), context)
    write_predictions(outcome.predictions, tmp_path / "p.parquet")
    stored = read_predictions(tmp_path / "p.parquet")
    found = estimate(replace(TASK.measure(stored, data), replicates=20))
    assert all(np.isfinite([told.low, told.value, told.high]).all() for told in found.values())
    assert {"insertion", "deletion", "insertion_gain", "random_deletion"} <= found.keys()
    assert ("rollout_insertion" in found) == ("vit" in kind.card.model)
    assert found["insertion_gain"].value == pytest.approx(found["insertion"].value - found["random_insertion"].value)
    assert len(TASK.picture(stored, data).axes) >= 6
    again = TASK.run(kind, data, TASK.recipe(SMALL), context).predictions
    assert all(np.array_equal(again[name], outcome.predictions[name]) for name in again)


def test_grad_cam_finds_what_a_trained_network_needs_and_chance_does_not(digits, context):
    recipe = TASK.recipe({"images": 32, "steps": 8, "c": [0.01], "shown": 0})
    outcome = TASK.run(load_backbone("mini/cnn-supervised"), digits, recipe, context)
    found = estimate(TASK.measure(outcome.predictions, digits))
    assert found["insertion_gain"].low > 0
    assert found["deletion_gain"].low > 0
    assert found["insertion"].low > found["deletion"].high


@pytest.mark.parametrize("what", ["one class", "equal images", "few images", "no picture"])
def test_what_is_degenerate_has_a_score(what, squares_data, make_split, context):
    classes, splits = ("red", "green", "blue", "grey"), dict(zip(("train", "val", "test"), (16, 8, 5), strict=True))
    labels = [0] if what == "one class" else range(4)
    made = {n: make_split(count, i, labels=np.resize(labels, count)) for i, (n, count) in enumerate(splits.items())}
    if what == "equal images":
        made = {name: replace(split, images=np.zeros_like(split.images)) for name, split in made.items()}
    data = Dataset("odd", "classification", classes[: len(labels)], {n: lambda s=s: s for n, s in made.items()})
    recipe = SMALL | {"images": 1 if what == "few images" else 5, "shown": 0 if what == "no picture" else 2}
    outcome = TASK.run(load_backbone("mini/cnn-random"), data, TASK.recipe(recipe), context)
    found = estimate(replace(TASK.measure(outcome.predictions, data), replicates=20))
    assert all(np.isfinite([told.low, told.value, told.high]).all() for told in found.values())
    if what == "one class":
        assert found["insertion"].value == found["deletion"].value == pytest.approx(100)
    assert TASK.picture(outcome.predictions, data) is not None


def test_a_network_that_is_silent_is_explained_by_chance(squares_data, context):
    backbone = load_backbone("mini/cnn-random")
    for weight in backbone.parameters():
        nn.init.zeros_(weight)  # constant features
    outcome = TASK.run(backbone, squares_data(), TASK.recipe(SMALL), context)
    found = TASK.measure(outcome.predictions, squares_data()).scores(np.ones(6))
    assert found["insertion_gain"] == found["deletion_gain"] == 0
    assert not outcome.predictions["heat"][outcome.predictions["method"] == "gradcam"].any()


@pytest.fixture
def stored(squares_data, context):
    return TASK.run(load_backbone("mini/cnn-random"), squares_data(), TASK.recipe(SMALL), context).predictions


@pytest.mark.parametrize(
    ("column", "harm", "told"),
    [
        ("insertion", lambda rows: rows + 2, "insertion: holds what is no curve"),
        ("deletion", lambda rows: np.full_like(rows, np.nan), "deletion: holds what is no curve"),
        ("method", lambda rows: np.full_like(rows, "gradcam"), "method: there is no random"),
        ("id", lambda rows: np.resize(np.array(["x"], object), len(rows)), "rows are missing|none of the test images"),
    ],
)
def test_predictions_that_cannot_be_are_refused(column, harm, told, stored, squares_data):
    stored[column] = harm(stored[column])
    with pytest.raises(BadInput, match=told):
        TASK.measure(stored, squares_data())
