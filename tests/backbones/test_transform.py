"""Preprocessing, pixel for pixel against the libraries that the weights come from."""

import io

import numpy as np
import open_clip
import pytest
import torch
import torchvision
from backbench.backbones import Input, Letterbox, Transform
from backbench.backbones.sources.facts import crop_of
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, JpegImagePlugin
from timm.data import create_transform
from torchvision.transforms.v2.functional import InterpolationMode

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MODES = {"nearest": InterpolationMode.NEAREST, "bilinear": InterpolationMode.BILINEAR}
MODES |= {"bicubic": InterpolationMode.BICUBIC, "lanczos": InterpolationMode.LANCZOS}


def photo(width, height, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(20, 150),
    height=st.integers(20, 150),
    size=st.integers(16, 96),
    crop=st.sampled_from([1.0, 0.95, 0.9, 0.875, 0.8]),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
    fit=st.sampled_from(["crop", "squash"]),
)
def test_equals_timm_s_eval_transform(width, height, size, crop, interpolation, fit):
    ours = Transform.of(Input(size=size, mean=MEAN, std=STD, interpolation=interpolation, crop=crop, fit=fit))
    mode = "center" if fit == "crop" else "squash"
    theirs = create_transform(
        size, mean=MEAN, std=STD, interpolation=interpolation, crop_pct=crop, crop_mode=mode, is_training=False
    )
    image = photo(width, height)
    assert torch.allclose(ours(image), theirs(image), atol=1e-6)


@pytest.mark.parametrize(
    "name", ["resnet50", "efficientnet_b1", "vit_b_16", "swin_v2_t", "convnext_tiny", "inception_v3"]
)
def test_equals_torchvision_s_presets(name):
    from backbench.backbones import find_backbone
    from backbench.backbones.sources import torchvision as source

    card = find_backbone(f"torchvision/{name}")
    ours = Transform.of(card.input.over(source.describe(card).input))
    theirs = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    for image in (photo(333, 250), photo(224, 224), photo(100, 300)):
        assert torch.allclose(ours(image), theirs(image), atol=1e-6)


@pytest.mark.parametrize("name", ["open_clip/ViT-B-32@laion2b_s34b_b79k", "open_clip/ViT-B-16-SigLIP@webli"])
def test_equals_open_clip_s(name):
    from backbench.backbones import find_backbone
    from backbench.backbones.sources import open_clip as source

    card = find_backbone(name)
    ours = Transform.of(card.input.over(source.describe(card).input))
    architecture, _, tag = card.model.partition("@")
    config = open_clip.get_pretrained_cfg(architecture, tag)
    theirs = open_clip.image_transform(
        ours.size, False, config["mean"], config["std"], config["resize_mode"], config["interpolation"]
    )
    for image in (photo(333, 250), photo(100, 300)):
        assert torch.allclose(ours(image), theirs(image), atol=1e-6)


@given(st.integers(8, 1024), st.integers(0, 300))
def test_crop_of_gives_back_the_resized_side(size, more):
    crop = crop_of(size, size + more)
    assert 0 < crop <= 1
    assert int(size / crop) == size + more


def test_any_kind_of_image():
    transform = Transform.of(Input(size=16, mean=MEAN, std=STD))
    rgb = photo(40, 30)
    for image in (rgb.convert("L"), rgb.convert("P"), rgb.convert("RGBA"), rgb.convert("CMYK"), np.asarray(rgb)):
        assert transform(image).shape == (3, 16, 16)
        assert transform(image).dtype == torch.float32
    clear = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    assert torch.equal(transform.pixels(clear), torch.full((3, 16, 16), 255, dtype=torch.uint8))  # laid on white


@given(st.integers(5, 90), st.integers(5, 90), st.integers(16, 64))
def test_letterbox_keeps_the_whole_image(width, height, size):
    box = Letterbox.of(Input(size=8, mean=(0.0,) * 3, std=(1.0,) * 3), size)
    pixels = box.pixels(Image.new("RGB", (width, height), "white"))
    scale = box.scale(width, height)
    assert pixels.shape == (3, size, size)
    white = (pixels == 255).all(0)
    assert white.sum() == max(1, round(width * scale)) * max(1, round(height * scale))
    assert white[0, 0]


def drawn(width, height, seed=0):
    """A smooth picture, as photographs are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def as_jpeg(image):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92)
    return file.getvalue()


@settings(max_examples=40)
@given(
    width=st.integers(20, 900),
    height=st.integers(20, 900),
    size=st.integers(64, 160),  # at a few pixels the rest of a JPEG's last block, which a reduced scale keeps, tells
    crop=st.sampled_from([1.0, 0.9, 0.7, 1.5]),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]),
    fit=st.sampled_from(["crop", "squash", "letterbox"]),
    mode=st.sampled_from(["RGB", "L"]),
)
def test_the_fast_decoder_sees_nearly_the_same(width, height, size, crop, interpolation, fit, mode):
    input = Input(size=size, mean=MEAN, std=STD, interpolation=interpolation, crop=crop)
    if fit == "letterbox":
        plain, fast = (Letterbox.of(input, size, decoder) for decoder in ("pil", "fast"))
    else:
        input = input.model_copy(update={"fit": fit})
        plain, fast = (Transform.of(input, decoder) for decoder in ("pil", "fast"))
    data = as_jpeg(drawn(width, height).convert(mode))
    picture = Image.open(io.BytesIO(data))
    wanted = plain.pixels(picture).int()
    for image in (data, picture, np.array(picture.convert("RGB"))):
        found = fast.pixels(image)
        assert found.shape == wanted.shape
        assert found.is_contiguous()
        # Whole pixels move where the nearest one is taken of another grid; all else is a matter of rounding.
        off = (found.int() - wanted).abs().float()
        assert off.mean() < (12 if interpolation == "nearest" else 3)


def test_the_fast_decoder_takes_large_files_at_a_reduced_scale(monkeypatch):
    data, scales = as_jpeg(drawn(1600, 1200)), []
    draft = JpegImagePlugin.JpegImageFile.draft
    monkeypatch.setattr(
        JpegImagePlugin.JpegImageFile, "draft", lambda self, *a: [draft(self, *a), scales.append(self.size)][0]
    )
    Transform.of(Input(size=128, mean=MEAN, std=STD), "fast").pixels(data)
    assert scales == [(400, 300)]


@pytest.mark.parametrize("kind", ["PNG", "CMYK"])
def test_the_fast_decoder_refuses_what_it_would_not_decode_alike(kind):
    file = io.BytesIO()
    picture = drawn(60, 50)
    picture.save(file, "PNG") if kind == "PNG" else picture.convert("CMYK").save(file, "JPEG")
    with pytest.raises(ValueError, match=f"not an RGB or grey JPEG but .*{'PNG' if kind == 'PNG' else 'CMYK'}"):
        Transform.of(Input(size=32, mean=MEAN, std=STD), "fast").pixels(file.getvalue())


def test_identity_tells_transforms_apart():
    base = Input(size=64, mean=MEAN, std=STD)
    changes = [
        {"size": 65},
        {"mean": STD},
        {"std": MEAN},
        {"interpolation": "bilinear"},
        {"crop": 0.9},
        {"fit": "squash"},
    ]
    seen = [Letterbox.of(base, 64, decoder).identity for decoder in ("pil", "fast")]
    seen.append(Transform.of(base, "fast").identity)
    seen += [Transform.of(base.model_copy(update=change)).identity for change in ({}, *changes)]
    assert len({str(identity) for identity in seen}) == len(changes) + 4
