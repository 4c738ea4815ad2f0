"""The cards of shifted test sets and of domains: each reads a miniature in its authors' layout, as it is."""

import json

import pytest
from backbench.backbones import BadInput
from backbench.tasks import find_task, list_datasets, load_dataset
from backbench.tasks.datasets import find_dataset
from backbench.tasks.datasets.inventory import inventory
from PIL import Image

WNIDS = [f"n{i:08d}" for i in range(1000)]
NAMES = [
    card.name
    for card in list_datasets()
    if card.kind == ("classification",) and any(split.startswith(("shift:", "domain:")) for split in card.splits)
]
SUBSETS = {"imagenet-r": "imagenet-r", "imagenet-a": "imagenet-a", "imagenet-sketch": "imagenet-sketch/sketch"}
V2 = "imagenet-v2/imagenetv2-matched-frequency-format-val"
DOMAINS = {
    "pacs": ("photo", "art_painting", "cartoon", "sketch"),
    "domainnet": ("clipart", "infograph", "painting", "quickdraw", "real", "sketch"),
}
SIZES = {
    "imagenet-v2": {"shift:v2": 1000},
    "imagenet-r": {"shift:r": 6},
    "imagenet-a": {"shift:a": 6},
    "imagenet-sketch": {"shift:sketch": 6},
    "imagenet-to-objectnet": {"shift:objectnet": 3},
    "imagenet-shifts": {"shift:v2": 1000, "shift:r": 6, "shift:a": 6, "shift:sketch": 6},
    "visda-2017": {"train": 34, "val": 2, "test": 4, "shift:real": 6},
    "pacs": dict.fromkeys(("domain:photo", "domain:art-painting", "domain:cartoon", "domain:sketch"), 6),
    "domainnet": {f"domain:{name}": 6 for name in DOMAINS["domainnet"]},
}


def folders(root, names, count=3):
    for k, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (8, 8), (k % 256, k // 256, i)).save(root / name / f"{i}.png")


def objectnet(root):
    folders(root / "images", ["air_freshener", "chair"])
    mappings = {
        "folder_to_objectnet_label.json": {"air_freshener": "Air freshener", "chair": "Chair"},
        "objectnet_to_imagenet_1k.json": {"Chair": "label 5; label 2"},
        "pytorch_to_imagenet_2012_id.json": {str(i): i for i in range(1000)},
    }
    (root / "mappings").mkdir()
    for name, content in mappings.items():
        (root / "mappings" / name).write_text(json.dumps(content))
    (root / "mappings" / "imagenet_to_label_2012_v2").write_text("".join(f"label {i}\n" for i in range(1000)))


@pytest.fixture
def small(home):
    """`small(name)`: the miniature of a packaged data set where its card expects it, and the card."""

    def make(name):
        card = find_dataset(name)
        if name in DOMAINS:
            for domain in DOMAINS[name]:
                folders(card.root / domain, ["dog", "horse"])
        elif name == "visda-2017":
            folders(card.root / "train", ["aeroplane", "truck"], 20)
            folders(card.root / "validation", ["aeroplane", "truck"])
        else:
            for part in ("train", "val"):
                folders(card.root / "imagenet-1k" / part, WNIDS[:3], 4)
            for wnid in WNIDS[3:]:
                (card.root / "imagenet-1k" / "train" / wnid).mkdir()
            for place in SUBSETS.values():
                folders(card.root / place, WNIDS[:4:2])
            folders(card.root / V2, map(str, range(1000)), 1)
            objectnet(card.root / "objectnet")
        return card

    return make


def test_every_card_has_a_miniature():
    assert set(NAMES) == set(SIZES)


@pytest.mark.parametrize("name", NAMES)
def test_a_miniature_in_the_authors_layout_is_read_by_its_card_as_it_is(small, name):
    card = small(name)
    assert inventory(card)["missing"] == 0
    data = load_dataset(card, "classification")
    task = find_task("held-out-domain" if name in DOMAINS else "ood-shift")
    task.check_data(data)
    for split, size in SIZES[name].items():
        made = data[split]
        assert len(made) == len(made.targets) == len(set(made.ids)) == size
        assert made.images[size - 1].mode == "RGB"
    among = {split: data[split].among for split in SIZES[name] if split.startswith("shift:")}
    few = {
        "shift:r": (0, 2),
        "shift:a": (0, 2),
        "shift:sketch": (0, 2),
        "shift:objectnet": (2, 5),
        "shift:real": (0, 11),
    }
    assert among == {split: few.get(split) for split in among}
    if name.startswith("imagenet"):
        assert data.classes[0] == "tench"
        assert data["test"].targets.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_folders_of_numbers_are_not_in_the_order_of_their_names(small):
    v2 = load_dataset(small("imagenet-v2"), "classification")["shift:v2"]
    assert v2.targets.tolist() == list(range(1000))
    assert v2.ids[9:12] == ["9/0.png", "10/0.png", "11/0.png"]


@pytest.mark.parametrize("name", NAMES)
def test_without_its_files_one_line_says_where_they_go_and_where_they_come_from(home, name):
    card = find_dataset(name)
    assert inventory(card)["missing"] == len(inventory(card)["files"]) > 0
    with pytest.raises(BadInput) as error:
        load_dataset(card, "classification")[list(card.splits)[-1]]
    said = str(error.value)
    assert "\n" not in said
    assert str(home / "data") in said
    assert card.homepage in said
    assert f"backbench show {name}" in said
