"""The fast path: quick decoding and half precision, used only where the features come out the same."""

import numpy as np
import pytest
import torch
from backbench import load_backbone
from backbench.backbones import BadInput, Loading
from backbench.tasks import Bank, Split, extraction, fast
from backbench.tasks.datasets.pictures import Pictures
from backbench.tasks.entry import Entry
from PIL import Image
from sklearn.datasets import load_sample_images

QUICK = Loading("bfloat16", channels_last=True, decoder="fast")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Forty pictures of two tints, JPEG and PNG, small and large."""
    folder, labels = tmp_path_factory.mktemp("photos"), np.arange(40) % 2
    sources = [Image.fromarray(image) for image in load_sample_images().images]
    paths = []
    for i, label in enumerate(labels):
        cut = sources[i % 3 % 2].resize((300 + 20 * i, 260), Image.Resampling.BICUBIC, (5 * i, 2 * i, 5 * i + 300, 300))
        tinted = Image.blend(cut, Image.new("RGB", cut.size, ("red", "blue")[label]), 0.3)
        paths.append(folder / f"{i}.{'png' if i % 5 == 0 else 'jpg'}")
        (tinted.convert("L") if i % 7 == 0 else tinted).save(paths[-1])
    return Split(Pictures(paths), labels, "photos", [path.name for path in paths])


class Counted:
    """Counts the images that pass through a network."""

    def __init__(self, backbone):
        self.images = 0
        backbone.register_forward_pre_hook(self.see)

    def see(self, _module, args):
        self.images += len(args[0])


@pytest.mark.parametrize("name", ["mini/cnn-supervised", "mini/vit-supervised"])
def test_seen_to_be_near_once_then_used(tmp_path, photos, name):
    backbone, store, stages = load_backbone(name, precision="bfloat16", decoder="fast"), Bank(tmp_path), set()
    passed = Counted(backbone)
    found = store.features(backbone, photos, "embedding", progress=lambda stage, *_: stages.add(stage))
    assert found.computed == passed.images == 3 * len(photos)  # fast and plain to compare, then those that are kept
    assert len(stages) == 3
    plain = Bank(tmp_path).features(load_backbone(name), photos, "embedding").tensors["embedding"]
    assert torch.cosine_similarity(found.tensors["embedding"], plain).min() > 0.999
    assert not torch.equal(found.tensors["embedding"], plain)
    # Another split of another process: what was seen is remembered.
    assert Bank(tmp_path).features(backbone, photos.take(7), "embedding").computed == 7


class Off:
    """A network whose features are others as soon as it computes in half precision."""

    def __init__(self, make_backbone, off):
        self.backbone = make_backbone(size=32)
        plain = self.backbone.extract

        def extract(images, **asked):
            features = plain(images, **asked)
            if torch.is_autocast_enabled("cpu") and features.embedding is not None:
                features.embedding = off(features.embedding)
            return features

        self.backbone.extract = extract
        self.backbone.load_as(QUICK)


def mirrored_in_a_few(rows):
    return torch.cat([-rows[:1], rows[1:]])


def test_where_the_cosine_is_too_low_it_is_refused_once_and_for_all(tmp_path, make_backbone, photos):
    backbone = Off(make_backbone, mirrored_in_a_few).backbone
    passed = Counted(backbone)
    for _ in range(2):
        with pytest.raises(BadInput, match=r"tiny: .* least cosine is -1\.\d+, asked is 0\.999 .*--fast") as error:
            Bank(tmp_path).features(backbone, photos, "embedding")
        assert "\n" not in str(error.value)
        assert passed.images == 2 * len(photos)
    assert not list(Entry.all(tmp_path))
    assert backbone.loading == QUICK


def test_where_a_probe_scores_otherwise_it_is_refused(tmp_path, monkeypatch, make_backbone, photos):
    monkeypatch.setattr(fast, "COSINE", -1.0)
    backbone = Off(make_backbone, torch.neg).backbone
    with pytest.raises(BadInput, match=r"a probe scores \d+\.\d % in place of \d+\.\d %, asked is 0\.1 points"):
        Bank(tmp_path).features(backbone, photos, "embedding")


def test_verdicts_that_are_not_numbers_are_no_verdicts():
    assert fast.Verdict(4, float("nan"), None, None).fault
    assert fast.Verdict(4, 0.9999, None, None).fault is None
    assert fast.Verdict(4, 0.9999, 90.0, 90.05).fault is None
    assert fast.Verdict(4, 0.9999, 90.0, 89.0).fault


@pytest.mark.parametrize("targets", [None, ["a caption"] * 40, np.zeros((40, 3), np.int8)])
def test_without_labels_the_cosine_alone_decides(tmp_path, make_backbone, photos, targets):
    unlabelled = Split(photos.images, targets, "unlabelled")
    assert Bank(tmp_path).features(make_backbone().load_as(QUICK), unlabelled, "embedding").computed == 120


def test_maps_are_decoded_fast_as_well(context, make_backbone, photos):
    backbone = make_backbone(size=32).load_as(Loading(decoder="fast"))
    quick = context.maps(backbone, photos, 64)
    plain = context.maps(make_backbone(size=32), photos, 64)
    for a, b in zip(quick, plain, strict=True):
        assert torch.allclose(a.float(), b.float(), atol=0.1)
    assert context.images == 4 * len(photos)


def test_files_are_read_through_rows_and_broken_ones_are_named(tmp_path, make_backbone, photos):
    backbone = make_backbone(size=32).load_as(Loading(decoder="fast"))
    transform = backbone.transform.__class__.of(backbone.input, decoder="fast")
    some = photos.take(9).take(4)
    for i in range(4):
        direct = transform.pixels(some.images[i])
        assert (extraction.pixels_of(some.images, i, transform).int() - direct.int()).abs().max() <= 8
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(photos.images.encoded(1)[:2000])
    with pytest.raises(BadInput, match=r"broken\.jpg: cannot be decoded"):
        extraction.pixels_of(Pictures([broken]), 0, transform)
    with pytest.raises(BadInput, match=r"gone\.jpg: no such image file"):
        extraction.pixels_of(Pictures([tmp_path / "gone.jpg"]), 0, transform)
