"""Every kind of architecture with random weights: the interface's promises, and what its own classifier would see."""

import re
from copy import deepcopy
from pathlib import Path

import pytest
import timm
import torch
import yaml
from backbench.backbones import load_backbone
from backbench.backbones.card import BackboneCard
from backbench.backbones.check import check

FAMILIES = yaml.safe_load((Path(__file__).parent / "architectures.yaml").read_text())
ARCHITECTURES = {name: keys | {"family": family} for family, named in FAMILIES.items() for name, keys in named.items()}
MATRIX = [pytest.param(n, marks=[pytest.mark.slow] if k.get("slow") else []) for n, k in ARCHITECTURES.items()]


def card_of(name, size, args=None, **keys):
    source, _, model = name.partition("/")
    says = {"name": name, "source": source, "model": model, "pretrained": False, "model_args": args or {}}
    return BackboneCard.model_validate(says | {"input": {"size": size}} | keys)


def load(name, **keys):
    return load_backbone(card_of(name, ARCHITECTURES[name]["size"], ARCHITECTURES[name].get("args"), **keys))


def failed(points):
    # How far rounding in half precision grows in a network that was never trained says nothing: that it runs does.
    rounding = ("half precision is close", "cosine similarity")
    bad = [point for point in points if point.state == "fail"]
    return {p.name: p.detail for p in bad if p.name != rounding[0] or not p.detail.startswith(rounding[1])}


def alive(backbone):
    """The backbone with the statistics of noise in its batch norms: left at 0 and 1, deep networks give next to 0."""
    norms = [m for m in backbone.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None
        norm.train()
    side = backbone.input.size
    with torch.no_grad():
        backbone(torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(0)))
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
    return backbone.eval()


def noise(backbone, batch=2):
    side = backbone.input.size
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1))


def what_classifiers_see(backbone, images):
    """The inputs of the layers that give scores, in the library's own network with classifiers put on."""
    body = deepcopy(backbone.body)
    if backbone.card.source == "torchvision":
        layers = [[module for module in body.modules() if isinstance(module, torch.nn.Identity)][-1]]
    else:
        body.reset_classifier(7)
        found = body.get_classifier()
        layers = [_first_layer(body, one) for one in (found if isinstance(found, tuple) else [found])]
        layers = [layer for several in layers for layer in several]
    seen = []
    for layer in layers:
        layer.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        body.eval()(images)
    # SqueezeNet scores every place, CLIP's ResNet every token, of which the first is the pooled one.
    return [one.mean((2, 3)) if one.ndim == 4 else one[:, 0] if one.ndim == 3 else one for one in seen]


def _first_layer(body, classifier):
    if isinstance(classifier, torch.nn.ModuleList):  # one for each branch
        return [layer for one in classifier for layer in _first_layer(body, one)]
    around = body.get_submodule(next(n for n, m in body.named_modules() if m is classifier).rpartition(".")[0])
    for one in (classifier, around):
        if hasattr(one, "bn") and hasattr(one, "linear"):  # a norm and a layer in one: LeViT's classifier
            return [one.bn]
    return [m for m in classifier.modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d))][-1:]


def as_embedding(seen, embedding):
    """What several classifiers see as one vector: side by side, or where they vote on one image, the mean."""
    wide = torch.cat(seen, dim=1)
    return wide if wide.shape == embedding.shape else torch.stack(seen).mean(0)


def assert_near(found, want, within=1e-6):
    assert found.shape == want.shape
    assert float((found - want).norm()) <= within * float(want.norm())


def test_the_matrix_has_every_family_of_both_libraries():
    assert {"cnn", "vit", "hybrid", "mlp", "ssm"} == set(FAMILIES)
    assert sum(not keys.get("slow") for keys in ARCHITECTURES.values()) >= 40


@pytest.mark.parametrize("name", MATRIX)
def test_promises(name):
    keys = ARCHITECTURES[name]
    card = card_of(name, keys["size"], keys.get("args"))
    backbone = load_backbone(card)
    assert backbone.card.family == keys["family"]
    assert backbone.weights_digest == load_backbone(card).weights_digest
    assert failed(check(alive(backbone))) == {}


@pytest.mark.parametrize("name", MATRIX)
def test_embedding_is_what_the_classifier_sees(name):
    backbone = alive(load(name))
    images = noise(backbone)
    with torch.no_grad():
        features, alone = backbone(images, maps=True), backbone(images)
    assert torch.equal(features.embedding, alone.embedding)
    if hasattr(backbone.body, "forward_head") and not hasattr(backbone.body, "get_classifier"):
        with torch.no_grad():
            last = backbone.body.forward_features(images)  # an encoder without a head
        return assert_near(features.embedding, last.mean((1, 2)))
    seen = what_classifiers_see(backbone, images)
    assert_near(features.embedding, as_embedding(seen, features.embedding))
    return None


# -- one architecture of every file of timm's -------------------------------------------------------------------------

SIZES = ["test", "atto", "femto", "pico", "nano", "xxs", "xxtiny", "xx", "t", "ti", "tiny", "xs", "extra"]
SIZES += ["s", "small", "m", "medium", "b", "base"]


# HaloNet's blocks of 8 want its whole size; the library's own DeepSeek encoder, compared with, whole patches of 14.
SIDES = {"byoanet": 256, "deepseek_vit": 126}


def smallest(module):
    """By its name, one of the smallest architectures in a file of timm's; None where there are none."""

    def rank(name):
        words = [SIZES.index(word) for word in re.split(r"[_\d]+", name) if word in SIZES]
        number = re.search(r"\d+", name)
        return min(words, default=len(SIZES)), int(number.group()) if number else 0, len(name), name

    return min(timm.list_models(module=module), key=rank, default=None)


@pytest.mark.slow
@pytest.mark.parametrize("module", timm.list_modules())
def test_one_architecture_of_every_module_of_timm(module):
    model = smallest(module)
    if model is None:
        pytest.skip(f"{module} defines no architecture")
    config = timm.models.get_pretrained_cfg(model)
    native = config.input_size[-1]
    # Networks of 299 px lose so much at their borders that smaller images leave no map.
    side = native if native == 299 else min(native, 256 if config.fixed_input_size else SIDES.get(module, 128))
    card = card_of(f"timm/{model}", side)
    backbone = alive(load_backbone(card))
    assert backbone.card.family in FAMILIES
    points = check(backbone)
    print(f"\n{model} at {side} px:", *[f"{p.name}: {p.detail}" for p in points if p.state == "n/a"], sep="\n  ")
    assert failed(points) == {}
    images = noise(backbone)
    with torch.no_grad():
        features = backbone(images, maps=bool(backbone.levels))
    if hasattr(backbone.body, "get_classifier"):
        seen = what_classifiers_see(backbone, images)
        assert_near(features.embedding, as_embedding(seen, features.embedding), within=1e-5)
