"""Attacks on networks whose worst case is known, and on small real ones."""

import sys
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from backbench.backbones import Backbone, BackboneCard, BadInput, Features, Input, Unavailable, load_backbone
from backbench.tasks import Dataset, estimate, find_task, read_predictions, write_predictions
from backbench.tasks.classification.linear_probe import chosen_probe
from backbench.tasks.design import Probe
from backbench.tasks.ood import adversarial
from backbench.tasks.ood.adversarial import L2, LINF, PixelClassifier, attack_all, frozen
from torch import nn

pytestmark = pytest.mark.skipif(
    find_spec("foolbox") is None, reason="foolbox is not installed: pip install 'backbench[adversarial]'"
)
TASK = find_task("adversarial")


class Pixels(Backbone):
    """Embeddings are the normalised pixels themselves."""

    def __init__(self):
        card = BackboneCard(source="timm", model="pixels", name="pixels", pretrained=False)
        super().__init__(card, Input(size=16, mean=(0.5,) * 3, std=(0.25,) * 3), nn.Identity())

    def extract(self, images, *, embedding, maps, projection):
        return Features(embedding=images.flatten(1))


def linear(weight, bias):
    """A classifier whose logits are `weight` (C, 768) times the pixels in 0…1, plus `bias` (C,)."""
    plain = torch.tensor(weight) / 4  # pixels are normalised: (x - 0.5) / 0.25
    offset = torch.tensor(bias) + torch.tensor(weight).sum(dim=1) / 2
    return PixelClassifier(Pixels(), Probe(torch.zeros(768).double(), torch.ones(768).double(), plain, offset)).eval()


def attack(classifier, pixels, labels, steps=10, seed=0):
    noise = [np.random.default_rng([seed, i]) for i in range(len(pixels))]
    given = torch.tensor(pixels).float().reshape(-1, 3, 16, 16)
    with frozen(classifier.backbone):
        return attack_all(classifier, given, torch.tensor(labels), steps, noise)


def test_in_the_cube_of_pixels_a_linear_network_falls_where_it_must():
    """Two classes: the worst each pixel can do is its weight times the room it has, up to the radius."""
    rng = np.random.default_rng(0)
    way = rng.normal(size=768)
    pixels = rng.choice([0.0, 1.0, 0.01, 0.99, 0.3, 0.5], size=(32, 768))
    margins = np.linspace(0.02, 1.2, 32) * np.abs(way).sum() * 8 / 255
    labels = np.arange(32) % 2
    found = {"fgsm": [], "pgd_linf": []}
    for i in range(32):  # each with a bias of its own that gives its margin
        side = 1 if labels[i] else -1
        bias = margins[i] * side - way @ pixels[i]
        said = attack(
            linear(np.stack([-way / 2, way / 2]), [-bias / 2, bias / 2]), pixels[i : i + 1], labels[i : i + 1]
        )
        assert said["predicted"] == labels[i]
        for name, rows in found.items():
            rows.append(said[name][0] == labels[i])
    harm = np.where(labels[:, None] == 1, way, -way)  # what a rising pixel does for the right class
    for place, radius in enumerate(LINF):
        room = np.minimum(radius / 255, np.where(harm > 0, pixels, 1 - pixels))
        left = margins - (np.abs(way) * room).sum(axis=1)
        told = np.abs(left) > 1e-4
        assert 0 < (left < 0).sum() < 32
        for name, rows in found.items():
            np.testing.assert_array_equal(np.array(rows)[told, place], (left > 0)[told], name)


def test_in_the_ball_a_linear_network_falls_where_it_must():
    """Away from the borders of the cube the worst case is the radius times the length of the gradient."""
    rng = np.random.default_rng(1)
    way = rng.choice([-1.0, 1.0], 768)
    length = np.linalg.norm(way)
    pixels = rng.uniform(0.4, 0.6, size=(1, 768))
    shares = np.concatenate([radius * np.array([0.8, 0.95, 1.01, 1.2]) for radius in L2])
    stands = []
    for share in shares:
        bias = share * length - way @ pixels[0]
        classifier = linear(np.stack([-way / 2, way / 2]), [-bias / 2, bias / 2])
        stands.append(attack(classifier, pixels, [1], steps=40)["pgd_l2"][0] == 1)
    np.testing.assert_array_equal(stands, shares[:, None] > np.array(L2))


def test_fgsm_is_a_step_along_the_sign_of_the_gradient(make_backbone):
    torch.manual_seed(0)
    backbone = make_backbone()
    probe = Probe(*(of.double() for of in (torch.zeros(19), torch.ones(19), torch.randn(4, 19) * 20, torch.zeros(4))))
    classifier = PixelClassifier(backbone, probe).eval()
    pixels = torch.rand(40, 3, 16, 16)
    labels = classifier(pixels).argmax(dim=1)
    noise = [np.random.default_rng(i) for i in range(40)]
    with frozen(backbone):
        found = attack_all(classifier, pixels, labels, 3, noise)["fgsm"]
    given = pixels.clone().requires_grad_()
    gradient = torch.autograd.grad(nn.functional.cross_entropy(classifier(given), labels, reduction="sum"), given)[0]
    stands = torch.ones(40, dtype=torch.bool)
    for place, radius in enumerate(LINF):
        after = classifier((pixels + radius / 255 * gradient.sign()).clamp(0, 1)).argmax(dim=1)
        stands &= after == labels
        assert (torch.tensor(found[:, place]) == labels).tolist() == stands.tolist()
    assert 0 < stands.sum() < 40


def test_random_starts_are_uniform_in_the_ball():
    points = torch.stack([adversarial.in_ball(np.random.default_rng(i), (3, 2, 2), "l2") for i in range(2000)])
    radii = points.flatten(1).norm(dim=1).numpy()
    assert radii.max() <= 1
    np.testing.assert_allclose(np.quantile(radii**12, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.04)
    assert points.mean(dim=0).abs().max() < 0.03
    cube = torch.stack([adversarial.in_ball(np.random.default_rng(i), (3, 2, 2), "linf") for i in range(2000)])
    np.testing.assert_allclose(np.quantile(cube, [0, 0.25, 0.5, 0.75, 1]), [-1, -0.5, 0, 0.5, 1], atol=0.03)


@pytest.fixture(scope="module")
def small(digits):
    """Fewer scenes, as each passes the network some hundred times."""
    sizes = {"train": 300, "val": 80, "test": 24}
    return Dataset("few", "classification", digits.classes, {n: partial(digits[n].take, k) for n, k in sizes.items()})


def test_stronger_attacks_leave_less_on_any_number_of_cores(small, context, tmp_path, monkeypatch):
    backbone = load_backbone("mini/cnn-supervised")
    recipe = TASK.recipe({"images": 14, "steps": 4, "c": [1e-3, 1e-2]})
    outcomes = []
    for cores in (1, 3):
        monkeypatch.setattr(adversarial, "cores", lambda cores=cores: cores)
        monkeypatch.setattr(adversarial, "batch_size", lambda size, device: 5)
        outcomes.append(TASK.run(backbone, small, recipe, context))
    for name, column in outcomes[0].predictions.items():
        np.testing.assert_array_equal(column, outcomes[1].predictions[name])
    write_predictions(outcomes[0].predictions, tmp_path / "p.parquet")
    found = {
        name: e.value for name, e in estimate(TASK.measure(read_predictions(tmp_path / "p.parquet"), small)).items()
    }
    assert list(found) == list(TASK.scores)
    assert found["top1"] > 60
    assert found["pgd_linf_8"] <= found["fgsm_8"] < found["top1"]
    assert found["pgd_linf_8"] < found["pgd_linf_1"]
    for norm, radii in (("linf", LINF), ("l2", L2)):
        curve = [found["top1"], *(found[f"pgd_{norm}_{radius}"] for radius in radii)]
        assert curve == sorted(curve, reverse=True)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in backbone.parameters())
    titles = [axes.get_title() for axes in TASK.picture(outcomes[0].predictions, small).axes]
    assert titles == ["Under attack in L∞", "Under attack in L2"]


def test_plain_images_are_classified_as_the_linear_probe_does(make_backbone, squares_data, context):
    data = squares_data()
    outcome = TASK.run(make_backbone(), data, TASK.recipe({"steps": 1}), context)
    probe, chosen = chosen_probe(make_backbone(), data, TASK.recipe(), context)
    said = probe.logits(context.embeddings(make_backbone(), data["test"])).argmax(dim=1)
    np.testing.assert_array_equal(outcome.predictions["predicted"], said)
    assert outcome.chosen == chosen
    assert len(TASK.run(make_backbone(), data, TASK.recipe({"images": 5}), context).predictions["id"]) == 5


def test_every_kind_of_network_can_be_attacked(kind, make_split, context):
    sizes = {"train": (12, 1), "val": (4, 2), "test": (4, 3)}
    side = kind.input.size
    build = {name: partial(make_split, *size, size=side) for name, size in sizes.items()}
    data = Dataset("squares", "classification", ("red", "green", "blue", "grey"), build)
    outcome = TASK.run(kind, data, TASK.recipe({"images": 4, "steps": 2, "c": [1.0]}), context)
    found = estimate(TASK.measure(outcome.predictions, data))
    assert found["pgd_linf_8"].value <= found["top1"].value


def test_an_image_of_no_class_is_not_attacked(make_backbone, squares_data, context):
    whole = squares_data()
    none = replace(whole["test"], targets=np.full(50, -1))
    parts = {
        "train": partial(whole.__getitem__, "train"),
        "val": partial(whole.__getitem__, "val"),
        "test": lambda: none,
    }
    data = Dataset("none", "classification", whole.classes, parts)
    predictions = TASK.run(make_backbone(), data, TASK.recipe(), context).predictions
    assert (predictions["pgd_linf"] == predictions["predicted"][:, None]).all()
    assert set(TASK.measure(predictions, data).scores(np.ones(50)).values()) == {0.0}


def test_predictions_that_cannot_be_are_refused(make_backbone, squares_data, context):
    data = squares_data()
    predictions = TASK.run(make_backbone(), data, TASK.recipe({"steps": 1}), context).predictions
    with pytest.raises(BadInput, match="row 0 is for image"):
        TASK.measure(predictions | {"id": predictions["id"][::-1]}, data)
    with pytest.raises(BadInput, match=r"fgsm has the shape \(50, 2\), not \(50, 4\)"):
        TASK.measure(predictions | {"fgsm": predictions["fgsm"][:, :2]}, data)
    risen = np.tile(data["test"].targets[:, None], (1, 3)).astype(np.int32)
    risen[3, 0] = -1
    with pytest.raises(BadInput, match="pgd_l2 is right at a radius beyond one where it is not"):
        TASK.measure(predictions | {"pgd_l2": risen}, data)


def test_without_foolbox_it_says_how_to_get_it(make_backbone, squares_data, context, monkeypatch):
    monkeypatch.setitem(sys.modules, "foolbox", None)
    with pytest.raises(Unavailable, match=r"pip install 'backbench\[adversarial\]'"):
        TASK.run(make_backbone(), squares_data(), TASK.recipe(), context)
    assert context.images == 0
