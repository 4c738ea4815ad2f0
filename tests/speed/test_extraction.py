"""Extraction into the bank, plain and fast, beside a bare loop over the same JPEG files with the same network."""

import numpy as np
import pytest
import torch
from backbench.backbones import BackboneCard, Loading, load_backbone
from backbench.backbones.loading import half_precision
from backbench.tasks import Bank, Split, extraction
from backbench.tasks.datasets.pictures import Pictures
from backbench.tasks.entry import Entry
from backbench.tasks.extraction import batch_size
from backbench.tasks.fast import COSINE, _probe
from backbench.tasks.threads import one_thread
from PIL import Image
from sklearn.datasets import load_sample_images

COUNT, CLASSES = 40, 4
STATISTICS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "interpolation": "bicubic", "crop": 0.875}

pytestmark = pytest.mark.speed


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """JPEG files of 500 x 375, cut from two photographs; a class is a tint."""
    folder, draw = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    sources = [Image.fromarray(image) for image in load_sample_images().images]
    paths, labels = [], np.arange(COUNT) % CLASSES
    for i, label in enumerate(labels):
        left, top = draw.integers(0, 300), draw.integers(0, 170)
        cut = sources[i % 2].resize((500, 375), Image.Resampling.BICUBIC, (left, top, left + 340, top + 255))
        tint = Image.new("RGB", cut.size, tuple(np.eye(4, 3, dtype=int)[label] * 255))
        paths.append(folder / f"{i}.jpg")
        Image.blend(cut, tint, 0.25).save(paths[-1], quality=90)
    return Split(Pictures(paths), labels, "photos", [path.name for path in paths])


def loaded(model, **loading):
    card = BackboneCard(source="timm", model=model, name=model, pretrained=False, input={"size": 224, **STATISTICS})
    backbone = load_backbone(card, **loading)
    assert backbone.weights_digest  # taken once, as the network is loaded
    return backbone


def bare(backbone, split):
    """Decode and compute, batch after batch, and nothing else: PIL, the transform, timm's own network."""
    rows, batch = [], batch_size(backbone.input.size, "cpu")
    paths, body = split.images.paths, backbone.body
    with one_thread(), torch.inference_mode():
        for i in range(0, len(paths), batch):
            images = torch.stack([backbone.transform(Image.open(path).convert("RGB")) for path in paths[i : i + batch]])
            rows.append(body.forward_head(body.forward_features(images), pre_logits=True))
    return torch.cat(rows)


def emptied(folder):
    for entry in Entry.all(folder):
        assert entry.remove()


@pytest.mark.parametrize("model", ["resnet18", "vit_small_patch16_224"])
def test_cold_extraction(model, photos, tmp_path, monkeypatch, interleaved, report):
    monkeypatch.setattr(extraction, "cores", lambda: 1)  # as the bare loop: two threads on one core cost more of both
    backbone, kept = loaded(model), {}

    def ours():
        kept["ours"] = Bank(tmp_path).features(backbone, photos, "embedding").tensors["embedding"].clone()
        emptied(tmp_path)

    def theirs():
        kept["theirs"] = bare(backbone, photos)

    mine, other = interleaved(ours, theirs, rounds=4)
    report(
        measure=f"cold extraction + bank, {model}",
        against="bare decode + model loop",
        ours=mine,
        theirs=other,
        bar="<= 1.05 of its time",
        held="bit-equal",
    )
    assert torch.equal(kept["ours"], kept["theirs"])
    assert mine <= 1.05 * other


@pytest.mark.skipif(half_precision("cpu") is None, reason="this processor has no bfloat16 units (avx512_bf16, amx)")
@pytest.mark.parametrize("model", ["resnet50", "vit_small_patch16_224"])
def test_fast_path(model, photos, tmp_path, monkeypatch, interleaved, report):
    monkeypatch.setattr(extraction, "cores", lambda: 1)
    plain = loaded(model)
    how = Loading.fast("cpu")
    quick, kept = loaded(model, precision=how.precision, channels_last=True, decoder="fast"), {}
    assert quick.loading == how
    Bank(tmp_path).features(quick, photos, "embedding")  # sees, once, that it is near enough
    emptied(tmp_path)

    def ours():
        found = Bank(tmp_path).features(quick, photos, "embedding")
        assert found.computed == COUNT
        kept["ours"] = found.tensors["embedding"].clone()
        del found
        emptied(tmp_path)

    def theirs():
        kept["theirs"] = bare(plain, photos)

    mine, other = interleaved(ours, theirs, rounds=4)
    cosine = torch.cosine_similarity(kept["ours"], kept["theirs"]).min().item()
    of_plain, of_fast = _probe(kept["theirs"].double(), kept["ours"].double(), photos.targets)
    report(
        measure=f"fast path, {model}",
        against="bare fp32 loop with PIL",
        ours=mine,
        theirs=other,
        bar=">= 2.5x",
        held=f"cosine {cosine:.5f}, probe {of_fast:.1f} / {of_plain:.1f} %",
    )
    assert cosine >= COSINE
    assert abs(of_plain - of_fast) <= 0.1
    assert other >= 2.5 * mine
