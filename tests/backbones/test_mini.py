"""The embedded default's promises: honest splits, repeatable scenes, small files, networks that leave no trace."""

import json
import struct

import numpy as np
import pytest
import torch
from backbench.backbones.mini import networks, objectives, pretrain
from backbench.backbones.mini.scenes import SHIFTS, SPLITS, compose, digit_pool

NAMES = list(networks.SPECS)
PIXEL_FIELDS = ("images", "instances", "labels", "samples", "boxes")


def embed(network, scenes):
    with torch.inference_mode():
        return torch.cat([network(part) for part in objectives.pixels(scenes).split(250)]).numpy()


def test_pools_share_no_digit():
    pools = [digit_pool(split) for split in SPLITS]
    ids = np.concatenate([pool.ids for pool in pools])
    assert len(set(ids.tolist())) == len(ids) == 1797
    pixels = [{image.tobytes() for image in pool.images} for pool in pools]
    assert len(set.union(*pixels)) == sum(map(len, pixels))  # nor a copy of one under another id


@pytest.mark.parametrize("split", SPLITS)
def test_pools_are_stratified(split):
    pool = digit_pool(split)
    shares = np.bincount(pool.labels, minlength=10) / len(pool.labels)
    assert abs(len(pool.ids) - SPLITS[split]) <= 5
    assert shares.min() > 0.08
    assert shares.max() < 0.12


@pytest.mark.parametrize("name", pretrain.PLANS)
def test_pretraining_sees_pretraining_digits_only(name, monkeypatch):
    seen = []

    def spy(*args, **kwargs):
        scenes = compose(*args, **kwargs)
        seen.append(scenes.samples)
        return scenes

    monkeypatch.setattr(objectives, "compose", spy)
    monkeypatch.setattr(pretrain.PLANS[name].objective, "batch", 16)
    pretrain.pretrain(name, steps=2, log=lambda line: None)
    assert set(np.concatenate(seen).ravel().tolist()) <= set(digit_pool("pretrain").ids.tolist())


@pytest.mark.parametrize("shift", [None, *SHIFTS])
def test_same_seed_same_bytes(shift):
    first, again = (compose(digit_pool("val"), 70, seed=3, shift=shift) for _ in range(2))
    other = compose(digit_pool("val"), 70, seed=4, shift=shift)
    assert all(getattr(first, f).tobytes() == getattr(again, f).tobytes() for f in PIXEL_FIELDS)
    assert first.captions == again.captions
    assert first.images.tobytes() != other.images.tobytes()


@pytest.mark.parametrize("shift", SHIFTS)
def test_shifted_twins_show_the_same_digits(shift):
    plain, shifted = (compose(digit_pool("test"), 64, seed=0, shift=s) for s in (None, shift))
    assert (plain.samples == shifted.samples).all()
    assert (plain.images != shifted.images).any((1, 2, 3)).all()


def test_splits_share_no_layout():
    one, other = (compose(digit_pool(split), 64, seed=0) for split in ("train", "test"))
    assert (one.boxes != other.boxes).any(axis=(1, 2)).all()


@pytest.mark.parametrize(("size", "digits"), [(64, (1, 1)), (96, (2, 5)), (96, (0, 3))])
def test_boxes_are_tight_and_fields_agree(size, digits):
    scenes = compose(digit_pool("train"), 100, seed=1, size=size, digits=digits)
    assert scenes.images.shape == (100, size, size, 3)
    counts = (scenes.labels >= 0).sum(1)
    assert counts.min() >= digits[0]
    assert counts.max() <= digits[1]
    for instances, labels, samples, boxes in zip(
        scenes.instances, scenes.labels, scenes.samples, scenes.boxes, strict=True
    ):
        for k, (label, sample, box) in enumerate(zip(labels, samples, boxes, strict=True)):
            lines, columns = np.nonzero(instances == k + 1)
            if label < 0:
                assert len(lines) == 0
                assert sample == -1
                assert not box.any()
            else:
                assert label == digit_pool("train").labels[digit_pool("train").ids == sample]
                assert box.tolist() == [columns.min(), lines.min(), columns.max() + 1, lines.max() + 1]


def test_asked_samples_are_shown_in_different_scenes():
    pool = digit_pool("test")
    first, second = (compose(pool, 50, seed=s, samples=np.arange(50)) for s in (1, 2))
    assert (first.samples[:, 0] == pool.ids[:50]).all()
    assert (second.samples == first.samples).all()
    assert (first.images != second.images).any((1, 2, 3)).all()


def test_unknown_and_empty_scenes():
    scribbles = compose(digit_pool("val"), 40, seed=0, glyph="scribble")
    assert (scribbles.labels == -1).all()
    assert (scribbles.samples == -1).all()
    assert scribbles.boxes.any((1, 2)).all()
    empty = compose(digit_pool("val"), 40, seed=0, digits=(0, 0))
    assert empty.labels.shape == (40, 0)
    assert not empty.instances.any()
    assert compose(digit_pool("val"), 0, seed=0).images.shape == (0, 64, 64, 3)


def test_captions_name_the_digit_and_use_known_words_only():
    scenes = compose(digit_pool("train"), 500, seed=0)
    words = [set(caption.split()) for caption in scenes.captions]
    assert all(networks.NUMBERS[label] in said for said, label in zip(words, scenes.labels[:, 0], strict=True))
    assert set.union(*words) <= set(networks.VOCABULARY)


@pytest.mark.parametrize(
    "bad", [{"shift": "fog"}, {"glyph": "letter"}, {"samples": np.arange(3)}, {"digits": (2, 1)}, {"seed": -1}]
)
def test_bad_arguments_are_refused(bad):
    with pytest.raises(ValueError, match=r"."):
        compose(digit_pool("val"), 4, **{"seed": 0, **bad})


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="cnn-random"):
        networks.build("resnet")
    with pytest.raises(ValueError, match="pretrain"):
        digit_pool("holdout")


@pytest.mark.parametrize("name", NAMES)
def test_files_are_small_half_precision_and_say_where_they_come_from(name):
    path = networks.WEIGHTS / f"{name}.safetensors"
    assert path.stat().st_size <= 1_000_000
    with path.open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    facts = header.pop("__metadata__")
    assert facts["method"] == networks.SPECS[name].method
    assert facts["script"].startswith("python -m backbench.backbones.mini.pretrain")
    assert {tensor["dtype"] for tensor in header.values()} == {"F16"}


@pytest.mark.parametrize("name", NAMES)
def test_networks_leave_the_random_state_alone_and_repeat_themselves(name):
    scenes = compose(digit_pool("val"), 8, seed=0)
    before = torch.random.get_rng_state()
    networks.build(name)
    network = networks.load(name)
    assert torch.equal(before, torch.random.get_rng_state())
    assert not network.training
    first, again = embed(network, scenes), embed(networks.load(name), scenes)
    assert np.isfinite(first).all()
    assert first.std(0).max() > 0
    assert (first == again).all()
    larger = compose(digit_pool("val"), 2, seed=0, size=96, digits=(2, 4))
    assert embed(network, larger).shape == (2, first.shape[1])


def test_random_network_is_what_its_seed_gives():
    stored, fresh = networks.load("cnn-random").state_dict(), networks.build("cnn-random").state_dict()
    assert all(torch.equal(stored[k], v.half().float()) for k, v in fresh.items() if v.is_floating_point())


def test_text_tower_ignores_unknown_words():
    text = networks.load("cnn-image-text").encode_text
    with torch.inference_mode():
        assert torch.allclose(text(["the digit Seven"]), text(["seven"]), atol=1e-5)
        assert torch.isfinite(text(["", "zebra"])).all()


def probe_hits(network):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, test = compose(digit_pool("train"), 3000, seed=0), compose(digit_pool("test"), 1000, seed=0)
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    probe.fit(embed(network, train), train.labels[:, 0])
    return probe.predict(embed(network, test)) == test.labels[:, 0]


@pytest.mark.slow
def test_rerunning_a_script_gives_the_shipped_score(tmp_path, monkeypatch):
    pretrain.main(["cnn-supervised", "--output", str(tmp_path)])
    shipped = probe_hits(networks.load("cnn-supervised"))
    monkeypatch.setattr(networks, "WEIGHTS", tmp_path)
    again = probe_hits(networks.load("cnn-supervised"))
    draws = np.random.default_rng(0).integers(len(shipped), size=(1000, len(shipped)))
    low, high = np.quantile(shipped[draws].mean(1), (0.025, 0.975))
    assert low <= again.mean() <= high
