"""Cache isolation: two things that differ in one of all that decides a feature never share an entry."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from backbench.backbones import Letterbox, Loading
from backbench.backbones.card import Checkpoint
from backbench.backbones.reading import digest
from backbench.tasks import Bank, bank, load_dataset
from backbench.tasks.datasets import DatasetCard
from backbench.tasks.extraction import Grid
from PIL import Image


@pytest.fixture
def photos(tmp_path):
    """`photos(edit)`: class folders of six images as a data set, after `edit(folder)` has changed a file."""

    def build(edit=lambda folder: None):
        folder = tmp_path / "photos"
        for split in ("train", "test"):
            for i in range(6):
                path = folder / split / f"c{i % 2}" / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                noise = np.random.default_rng([i, split == "test"]).integers(0, 256, (20, 20, 3), dtype=np.uint8)
                Image.fromarray(noise).save(path)
        edit(folder)
        card = DatasetCard.model_validate(
            {
                "name": "photos",
                "kind": "classification",
                "source": "imagefolder",
                "path": str(folder),
                "splits": {"train": {"images": "train"}, "test": {"images": "test"}},
            }
        )
        return load_dataset(card, "classification")

    return build


def pixel(folder):
    path = folder / "train" / "c0" / "0.png"
    changed = np.asarray(Image.open(path)).copy()
    changed[3, 3, 0] ^= 1
    Image.fromarray(changed).save(path)


def weight(backbone):
    backbone.body[0].weight.data[0, 0, 0, 0] += 1e-7


def card(**changes):
    return lambda backbone: setattr(backbone, "card", backbone.card.model_copy(update=changes))


def loading(**changes):
    return lambda backbone: backbone.load_as(Loading(**changes))


ON_BACKBONES = {
    "weights": weight,
    "revision": card(checkpoint=Checkpoint(path="hf://org/net/w.safetensors@v2", sha256="0" * 64)),
    "pooling": card(pool="avg"),
    "precision": loading(precision="bfloat16"),
    "memory format": loading(channels_last=True),
    "decoder": loading(decoder="fast"),
}
ON_TRANSFORMS = {
    "mean": {"mean": (0.4, 0.5, 0.5)},
    "std": {"std": (0.4, 0.5, 0.5)},
    "interpolation": {"interpolation": "bilinear"},
    "crop": {"crop": 0.9},
    "fit": {"fit": "squash"},
    "size": {"size": 24},
}


@pytest.mark.parametrize("change", [*ON_BACKBONES, *ON_TRANSFORMS, "data file", "split", "limit", "library", "device"])
def test_one_change_is_another_entry(tmp_path, monkeypatch, make_backbone, photos, change):
    store, data, backbone = Bank(tmp_path / "features"), photos(), make_backbone()
    assert store.features(backbone, data["train"], "embedding").computed == 6
    split, transform = data["train"], None
    if change in ON_BACKBONES:
        backbone = make_backbone()
        ON_BACKBONES[change](backbone)
    elif change in ON_TRANSFORMS:
        transform = replace(backbone.transform, **ON_TRANSFORMS[change])
    elif change == "data file":
        split = photos(pixel)["train"]
    elif change == "split":
        split = data["test"]
    elif change == "limit":
        split = data["train"].take(5)
    elif change == "library":
        monkeypatch.setattr(bank, "_version", lambda name: "999" if name == "timm" else "1")
    else:
        monkeypatch.setattr(bank, "_device", lambda device: "cpu of another kind")
    found = store.features(backbone, split, "embedding", transform=transform)
    assert found.computed >= len(split)
    # The first entry is still there and still the first's.
    monkeypatch.undo()
    assert store.features(make_backbone(), photos()["train"], "embedding").computed == 0


def test_what_is_asked_for_is_another_entry(tmp_path, make_split):
    from backbench import load_backbone

    store, backbone, split = Bank(tmp_path), load_backbone("mini/vit-masked"), make_split(3, 0)
    box = Letterbox.of(backbone.input, 96)
    asked = [
        {"what": "embedding"},
        {"what": "maps"},
        {"what": "maps", "transform": box},
        {"what": "maps", "transform": replace(box, decoder="fast")},
        {"what": "layers"},
        {"what": "tokens", "grid": Grid(2, 1)},
        {"what": "tokens", "grid": Grid(4, 1)},
        {"what": "tokens", "grid": Grid(4, 2)},
    ]
    for _ in range(2):
        shapes = [{n: t.shape for n, t in store.features(backbone, split, **how).tensors.items()} for how in asked]
    assert shapes[1] != shapes[2]
    assert [store.features(backbone, split, **how).computed for how in asked] == [0] * len(asked)
    assert len(list(tmp_path.glob("*/*/index.json"))) == len(asked)


def leaves(value, path=()):
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    else:
        yield path


def changed(value, path):
    if not path:
        return f"{value}?"
    return value | {path[0]: changed(value[path[0]], path[1:])}


def test_every_ingredient_is_part_of_the_key(make_backbone, make_split):
    backbone = make_backbone().load_as(Loading("bfloat16", channels_last=True))
    made_of = bank.ingredients(backbone, make_split(4, 0), "tokens", backbone.transform, "cpu", Grid(4, 2))
    paths = list(leaves(made_of))
    assert len(paths) > 20
    keys = {digest(changed(made_of, path)) for path in paths}
    assert len(keys | {digest(made_of)}) == len(paths) + 1


def test_a_weight_changed_by_a_bit_is_another_backbone(make_backbone, make_split):
    one, other = make_backbone(), make_backbone()
    weight(other)
    keys = [bank.ingredients(b, make_split(4, 0), "embedding", b.transform, "cpu") for b in (one, other)]
    assert {k for k in keys[0] if keys[0][k] != keys[1][k]} == {"weights"}
    assert torch.equal(one.body[2].weight, other.body[2].weight)
