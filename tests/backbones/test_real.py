"""Real weights, where they are at hand: they load whole through cards, and see what their sources say they see."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from backbench.backbones import find_backbone, load_backbone
from backbench.backbones.check import check
from PIL import Image

pytestmark = pytest.mark.real

HALF = "mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]"
IMAGENET = "mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]"
CARDS = {  # file of weights → the card's own lines, and the width of the embedding
    "mobilenetv2_100_imagenet/mobilenetv2_100_224_fp16.pth": (
        "source: timm\nmodel: mobilenetv2_100\nmodel_args: {pad_type: same}\n"
        f"input: {{size: 224, {HALF}, interpolation: bilinear}}\n",
        1280,
    ),
    "squeezenet1_0_imagenet/squeezenet1_0_imagenet_fp16.pth": (
        f"source: torchvision\nmodel: squeezenet1_0\ninput: {{size: 224, {IMAGENET}}}\n",
        512,
    ),
    "mobilenetv1_025_imagenet/mobilenetv1_025_128_fp16.pth": (
        "source: python\nmodel: net.py:make\nmodel_args: {width: 0.25}\nhead: classifier\n"
        f"input: {{size: 128, {HALF}}}\n",
        256,
    ),
    "mobilenetv1_050_imagenet/mobilenetv1_050_160_fp16.pth": (
        "source: python\nmodel: net.py:make\nmodel_args: {width: 0.5}\nhead: classifier\n"
        f"input: {{size: 160, {HALF}}}\n",
        512,
    ),
    "mobilenetv1_025_vww/mobilenetv1_025_vww96_fp16.pth": (
        "source: python\nmodel: net.py:persons\nhead: classifier\n"
        "input: {size: 96, mean: [0, 0, 0], std: [1, 1, 1], interpolation: bilinear, fit: squash}\n",
        256,
    ),
}
# timm has this network at full width only by name.
NET = """
from timm.models.efficientnet import _gen_mobilenet_v1
from torch import nn

def make(width):
    return _gen_mobilenet_v1("mobilenetv1_100", width, pad_type="same")

def persons():
    return _gen_mobilenet_v1("mobilenetv1_100", 0.25, num_classes=2, pad_type="same", act_layer=nn.ReLU)
"""
# ImageNet-1k classes of each of the sixteen categories in which Geirhos et al. 2019 (arXiv 1811.12231) asked people.
SIXTEEN = {
    "airplane": "404",
    "bear": "294-297",
    "bicycle": "444 671",
    "bird": "8 10-16 18-20 22-24 80-83 87-96 98-100 127-133 135-145",
    "boat": "472 554 625 814 914",
    "bottle": "440 720 737 898 899 901 907",
    "car": "436 511 817",
    "cat": "281-286",
    "chair": "423 559 765 857",
    "clock": "409 530 892",
    "dog": "152-191 193-203 205-226 228-241 243-250 252-257 259 261-263 265-268",
    "elephant": "385 386",
    "keyboard": "508 878",
    "knife": "499",
    "oven": "766",
    "truck": "555 569 656 675 717 734 864 867",
}


@pytest.fixture
def card(real_data, tmp_path):
    """Makes a card for a file of weights: its path."""

    def make(weights):
        (tmp_path / "net.py").write_text(NET)
        path = tmp_path / "card.yaml"
        path.write_text(CARDS[weights][0] + f"checkpoint: {real_data / 'weights' / weights}\n")
        return path

    return make


def stored(real_data: Path, weights: str) -> dict[str, torch.Tensor]:
    found = torch.load(real_data / "weights" / weights, weights_only=True)
    return {name: tensor.float() for name, tensor in found.items()}


@pytest.mark.parametrize("weights", CARDS)
def test_real_weights_load_and_keep_every_promise(weights, real_data, card):
    path = card(weights)
    assert [point for point in check(path) if not point.passed] == []
    backbone = load_backbone(path)
    assert backbone.embed_dim == CARDS[weights][1]
    own, file = backbone.body.state_dict(), stored(real_data, weights)
    left_out = {name for name in file if name not in own}
    assert {name.partition(".")[0] for name in left_out} == {"classifier"}
    assert all(torch.equal(own[name], file[name]) for name in file.keys() - left_out)


@pytest.mark.parametrize("weights", [name for name in CARDS if "mobilenet" in name])
def test_the_embedding_is_what_the_classifier_sees(weights, real_data, card):
    import timm
    from timm.models.efficientnet import _gen_mobilenet_v1

    width = 0.5 if "050" in weights else 0.25
    if "mobilenetv2" in weights:
        whole = timm.create_model("mobilenetv2_100", pad_type="same")
    elif "vww" in weights:
        options = {"num_classes": 2, "pad_type": "same", "act_layer": torch.nn.ReLU}
        whole = _gen_mobilenet_v1("mobilenetv1_100", width, **options)
    else:
        whole = _gen_mobilenet_v1("mobilenetv1_100", width, pad_type="same")
    whole.load_state_dict(stored(real_data, weights))
    whole.eval()
    backbone = load_backbone(card(weights))
    images = torch.randn(4, 3, backbone.input.size, backbone.input.size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        embedding, logits = backbone(images).embedding, whole(images)
        assert torch.allclose(embedding, whole.forward_head(whole.forward_features(images), pre_logits=True), atol=1e-6)
        assert torch.allclose(whole.classifier(embedding), logits, atol=1e-5)


def test_persons_are_found_as_its_source_says(real_data, card):
    """SOURCE.md: 84.3 % person or not on 89 images (persons over none or at least 5 % of it); 0.72 and 0.94 right."""
    weights = "mobilenetv1_025_vww/mobilenetv1_025_vww96_fp16.pth"
    backbone, head = load_backbone(card(weights)), stored(real_data, weights)
    images, persons = [], []
    coco = real_data / "datasets" / "coco_ccby_subset"
    for folder in ("train2017", "val2017"):
        data = json.loads((coco / "annotations" / f"instances_{folder}.json").read_text())
        person = next(c["id"] for c in data["categories"] if c["name"] == "person")
        for image in data["images"]:
            area = sum(
                a["area"] for a in data["annotations"] if (a["image_id"], a["category_id"]) == (image["id"], person)
            )
            share = area / (image["width"] * image["height"])
            if share == 0 or share >= 0.05:
                images.append(backbone.transform(Image.open(coco / folder / image["file_name"])))
                persons.append(share > 0)
    with torch.no_grad():
        logits = backbone(torch.stack(images)).embedding @ head["classifier.weight"].T + head["classifier.bias"]
    said, truth = logits.argmax(1).numpy().astype(bool), np.array(persons)
    assert len(truth) == 89
    assert round(100 * (said == truth).mean(), 1) == 84.3
    assert round(said[truth].mean(), 2) == 0.72
    assert round(1 - said[~truth].mean(), 2) == 0.94


@pytest.mark.parametrize(
    ("weights", "by_shape", "by_texture", "bias"),
    [
        ("squeezenet1_0_imagenet/squeezenet1_0_imagenet_fp16.pth", 15.1, 38.8, 28.1),
        ("mobilenetv2_100_imagenet/mobilenetv2_100_224_fp16.pth", 14.5, 49.6, 22.6),
    ],
)
def test_imagenet_weights_decide_by_texture_as_their_source_says(weights, by_shape, by_texture, bias, real_data, card):
    """SOURCE.md of texture_vs_shape: 601 cue-conflict images, classes averaged into sixteen categories."""
    backbone, head = load_backbone(card(weights)), stored(real_data, weights)
    files = sorted((real_data / "datasets/texture_vs_shape/stimuli/style-transfer-preprocessed-224").rglob("*.jpg"))
    logits = []
    for start in range(0, len(files), 64):
        images = torch.stack([backbone.transform(Image.open(f)) for f in files[start : start + 64]])
        with torch.no_grad():
            features = backbone(images, maps="squeezenet" in weights)
            if "squeezenet" in weights:  # its classifier is a convolution, then ReLU and the mean over places
                weight, bias_ = head["classifier.1.weight"], head["classifier.1.bias"]
                logits.append(torch.nn.functional.conv2d(features.maps[-1], weight, bias_).relu().mean((2, 3)))
            else:
                logits.append(features.embedding @ head["classifier.weight"].T + head["classifier.bias"])
    probabilities = torch.cat(logits).softmax(1)
    means = torch.stack([probabilities[:, classes(text)].mean(1) for text in SIXTEEN.values()], dim=1)
    said = np.array(list(SIXTEEN))[means.argmax(1).numpy()]
    shape, texture = (np.array([re.findall(r"[a-z]+", f.stem)[part] for f in files]) for part in (0, 1))
    conflict = shape != texture
    shape_right, texture_right = (said[conflict] == cue[conflict] for cue in (shape, texture))
    assert conflict.sum() == 601
    assert round(100 * shape_right.mean(), 1) == by_shape
    assert round(100 * texture_right.mean(), 1) == by_texture
    assert round(100 * shape_right.sum() / (shape_right.sum() + texture_right.sum()), 1) == bias


def classes(text: str) -> list[int]:
    """`"8 10-12"` → [8, 10, 11, 12]."""
    ends = [[int(end) for end in part.split("-")] for part in text.split()]
    return [index for pair in ends for index in range(pair[0], pair[-1] + 1)]


def test_the_wrong_statistics_are_another_identity(card):
    path = card(next(iter(CARDS)))
    right = find_backbone(path).digest()
    path.write_text(path.read_text().replace("0.5, 0.5, 0.5", "0.4, 0.5, 0.5"))
    assert find_backbone(path).digest() != right
