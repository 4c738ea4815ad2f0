"""Every packaged card: whole, pinned or with a place for its files, and reading a miniature in its authors' layout."""

import io
import json
import re

import numpy as np
import pytest
from backbench.backbones import BadInput
from backbench.tasks import list_datasets, load_dataset
from backbench.tasks.datasets import Judgement, find_dataset
from backbench.tasks.datasets.hub import COMMIT
from backbench.tasks.datasets.inventory import inventory
from PIL import Image

CARDS = {card.name: card for card in list_datasets()}
DENSE = [name for name, card in CARDS.items() if {"detection", "segmentation"} & set(card.kind)]  # test_dense_cards.py
MOVED = [  # test_shift_cards.py
    name
    for name, card in CARDS.items()
    if card.kind == ("classification",) and any(split.startswith(("shift:", "domain:")) for split in card.splits)
]
ELSEWHERE = {*DENSE, *MOVED}
LOCAL = [n for n, card in CARDS.items() if card.source not in ("hub", "digit-scenes") and n not in ELSEWHERE]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BACKBENCH_HOME", str(tmp_path))
    return tmp_path


def picture(path, shade=0, size=(12, 10)):
    """An image whose pixels say which it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade % 256, shade // 256, 7)).save(path)


def lines(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")


# -- miniatures ----------------------------------------------------------------------------------------------------


WNIDS = [f"n{i:08d}" for i in range(1000)]


def imagenet(root):
    """One training image a class (ten of the first), one validation image in the first two classes."""
    for i, wnid in enumerate(WNIDS):
        (root / "train" / wnid).mkdir(parents=True)
        (root / "val" / wnid).mkdir(parents=True)
        if i < 3:
            for k in range(10):
                picture(root / "train" / wnid / f"{wnid}_{k}.JPEG", k)
    picture(root / "val" / WNIDS[1] / "ILSVRC2012_val_00000001.JPEG", 1)
    picture(root / "val" / WNIDS[0] / "ILSVRC2012_val_00000002.JPEG", 2)
    lines(root / "1percent.txt", f"{WNIDS[0]}_3.JPEG", f"{WNIDS[2]}_7.JPEG")
    lines(root / "10percent.txt", *(f"{WNIDS[c]}_{k}.JPEG" for c in range(3) for k in range(4)))
    (root / "real.json").write_text(json.dumps([[1, 5], []]))
    told = {
        "initial_annots": {
            "ILSVRC2012_val_00000001.JPEG": {"correct": [WNIDS[1], WNIDS[7]], "wrong": [WNIDS[3]]},
            "ILSVRC2012_val_00000002.JPEG": {"correct": [WNIDS[0]]},
        },
        "problematic_images": {"ILSVRC2012_val_00000002.JPEG": "blurred"},
    }
    (root / "human_accuracy_v3.0.0.json").write_text(json.dumps(told))


def aircraft(root):
    for number, split in enumerate(("train", "val", "test")):
        images = [f"{1000000 + 10 * number + k:07d}" for k in range(3)]
        for k, image in enumerate(images):
            picture(root / "images" / f"{image}.jpg", k)
        variants = ("707-320", "Challenger 600", "An-12")
        lines(root / f"images_variant_{split}.txt", *(f"{i} {v}" for i, v in zip(images, variants, strict=True)))


def chexpert(root):
    head = "Path,Sex,Age,Frontal/Lateral,AP/PA,Cardiomegaly,Edema,Consolidation,Atelectasis,Pleural Effusion"
    rows = {
        "train": [
            ("train/patient00001/study1/view1_frontal.jpg", "Frontal", "-1.0,-1.0,-1.0,-1.0,-1.0"),
            ("train/patient00001/study1/view2_lateral.jpg", "Lateral", "1.0,1.0,1.0,1.0,1.0"),
            ("train/patient00002/study1/view1_frontal.jpg", "Frontal", ",1.0,0.0,,"),
        ],
        "valid": [("valid/patient64541/study1/view1_frontal.jpg", "Frontal", "0.0,0.0,1.0,0.0,1.0")],
    }
    for split, listed in rows.items():
        written = [f"CheXpert-v1.0-small/{p},Male,60,{view},AP,{labels}" for p, view, labels in listed]
        lines(root / "CheXpert-v1.0-small" / f"{split}.csv", head, *written)
        for number, (path, _, _) in enumerate(listed):
            picture(root / "CheXpert-v1.0-small" / path, number)


def nih(root):
    rows = {
        "train": ["00000001_000.png 0 1 0 0 0 0 0 0 0 0 0 0 0 0", "00000001_001.png 0 1 0 0 0 0 0 0 0 0 1 0 0 0"],
        "val": ["00000002_000.png 0 0 0 0 0 0 0 0 0 0 0 0 0 0"],
        "test": ["00000003_000.png 0 0 0 0 0 0 0 0 0 0 0 0 0 1", "00000003_003.png 0 0 0 1 0 0 0 0 0 0 0 0 0 1"],
    }
    for split, listed in rows.items():
        lines(root / f"{split}_official.txt", *listed)
        for number, row in enumerate(listed):
            picture(root / "images" / row.split()[0], number)


def class_folders(root, classes, count, suffix=".jpg"):
    for c, name in enumerate(classes):
        for k in range(count):
            picture(root / name / f"{k:03d}{suffix}", 100 * c + k)
            (root / name / f"{k:03d}.txt").write_text("1 2 3 4")


def inat(root):
    species = ["00000_Animalia_Annelida_A_B_C_Lumbricus_terrestris", "00001_Plantae_B_C_D_E_Quercus_robur"]
    class_folders(root / "train", species, 6)
    class_folders(root / "val", species, 7)


def cub(root):
    listed, is_train = [], []
    for c, name in enumerate(["001.Black_footed_Albatross", "002.Laysan_Albatross"]):
        for k in reversed(range(10)):  # the authors' list is not sorted by name
            image = f"{name}/{name[4:]}_{k:04d}_{c}.jpg"
            picture(root / "images" / image, 100 * c + k)
            number = len(listed) + 1
            listed.append(f"{number} {image}")
            is_train.append(f"{number} {int(k < 5)}")
    lines(root / "images.txt", *listed)
    lines(root / "train_test_split.txt", *is_train)


def landmarks(root):
    ids = {"index": ["0a1b2c", "0a9999", "ffee00"], "test": ["123abc", "456def", "789aaa"]}
    for part, names in ids.items():
        for k, i in enumerate(names):
            picture(root / part / i[0] / i[1] / i[2] / f"{i}.jpg", k)
    lines(root / "index.csv", "id", *ids["index"])
    solution = ["id,images,Usage", "123abc,0a1b2c ffee00,Public", "456def,None,Ignored", "789aaa,0a9999,Private"]
    lines(root / "retrieval_solution_v2.1.csv", *solution)


def revisited(root, place="oxford"):
    from scipy.io import savemat

    gallery, queries = [f"{place}_{i:06d}" for i in range(6)], ["all_souls_000013", "keble_000245"]
    for k, name in enumerate(gallery + queries):
        picture(root / "jpg" / f"{name}.jpg", k, (40, 30))
    entry = np.dtype([(name, object) for name in ("bbx", "easy", "hard", "junk")])
    truth = np.zeros((1, 2), entry)
    truth[0, 0] = (np.array([[2.0, 3.0, 22.4, 13.0]]), np.array([[1, 3]]), np.array([[2]]), np.array([[6]]))
    truth[0, 1] = (np.array([[0.0, 0.0, 40.0, 30.0]]), np.zeros((0, 0)), np.array([[5, 4]]), np.zeros((0, 0)))
    cells = {"imlist": np.array(gallery, object), "qimlist": np.array(queries, object), "gnd": truth}
    savemat(root / ("gnd_roxford5k.mat" if place == "oxford" else "gnd_rparis6k.mat"), cells)


def copydays(root):
    for k, group in enumerate(("2000", "2001")):
        picture(root / "original" / f"{group}00.jpg", k)
        for copy in (1, 2):
            picture(root / "strong" / f"{group}{copy:02d}.jpg", 10 * k + copy)


def karpathy(root, file, folders, splits):
    images = []
    for number, split in enumerate(splits):
        name = f"{number:012d}.jpg"
        one = {"filename": name, "imgid": number, "split": split}
        one |= {"filepath": folders[number % 2]} if folders else {}
        told = [{"raw": f"Caption {k} of {number}.", "tokens": ["caption"]} for k in range(5)]
        images.append(one | {"sentences": told})
        picture(root / one.get("filepath", "flickr30k-images") / name, number)
    (root / file).write_text(json.dumps({"images": images, "dataset": "x"}))


def one_shot(root):
    for run in ("run01", "run02"):
        rows = []
        for k in range(1, 21):
            match = (7 * k) % 20 + 1
            for part, name in (("training", f"class{k:02d}"), ("test", f"item{k:02d}")):
                picture(root / "all_runs" / run / part / f"{name}.png", k)
            rows.append(f"{run}/test/item{k:02d}.png {run}/training/class{match:02d}.png")
        lines(root / "all_runs" / run / "class_labels.txt", *rows)


def alphabets(root):
    for alphabet in ("Balinese", "Latin"):
        for c in (1, 2):
            for k in range(1, 6):
                picture(root / "images_background_small1" / alphabet / f"character{c:02d}" / f"{c:04d}_{k:02d}.png", k)


def shape_and_texture(root):
    """One image a set and class, and one person's answer to each."""
    sets = {
        "style-transfer-preprocessed-512": ("style-transfer-512-nomask-experiment", "{0}7-dog1.png"),
        "edges": ("edge-experiment", "{0}4.png"),
        "filled-silhouettes": ("silhouette-filled-experiment", "{0}10.png"),
    }
    for folder, (experiment, image) in sets.items():
        rows = ["subj,session,trial,rt,object_response,category,condition,imagename"]
        for c in find_dataset("texture-vs-shape").classes:
            picture(root / "stimuli" / folder / c / image.format(c))
            rows.append(f"subject-01,1,{len(rows)},0.5,dog,{c},0,{len(rows):04}_s5n_s01_0_{c}_00_{image.format(c)}")
        lines(root / "raw-data" / experiment / f"{experiment}_subject-01_session_1.csv", *rows)


MINIATURES = {
    "imagenet-1k": imagenet,
    "imagenet-real": imagenet,
    "imagenet-multilabel": imagenet,
    "imagenet-1k-1pct": imagenet,
    "imagenet-1k-10pct": imagenet,
    "fgvc-aircraft": aircraft,
    "chexpert": chexpert,
    "nih-chestx-ray14": nih,
    "inat-2021": inat,
    "cub-200": cub,
    "objectnet": lambda root: class_folders(root / "images", ["air_freshener", "alarm_clock"], 52, ".png"),
    "instre-s1": lambda root: class_folders(root / "INSTRE-S1", ["01a_canada_book", "01b_mug"], 10),
    "google-landmarks-v2": landmarks,
    "roxford5k": revisited,
    "rparis6k": lambda root: revisited(root, "paris"),
    "copydays": copydays,
    "flickr30k": lambda root: karpathy(root, "dataset_flickr30k.json", None, ["train", "val", "test", "test"]),
    "coco-captions": lambda root: karpathy(
        root, "dataset_coco.json", ["train2014", "val2014"], ["train", "restval", "val", "test"]
    ),
    "omniglot-one-shot": one_shot,
    "omniglot-small1": alphabets,
    "texture-vs-shape": shape_and_texture,
}
SIZES = {
    "imagenet-1k": {"train": 30, "test": 2},
    "imagenet-real": {"test": 2},
    "imagenet-multilabel": {"test": 2},
    "imagenet-1k-1pct": {"train": 2, "test": 2},
    "imagenet-1k-10pct": {"train": 11, "val": 1, "test": 2},
    "fgvc-aircraft": {"train": 3, "val": 3, "test": 3},
    "chexpert": {"train": 2, "test": 1},
    "nih-chestx-ray14": {"train": 2, "val": 1, "test": 2},
    "inat-2021": {"train": 12, "test": 14, "gallery": 8, "query": 2},
    "cub-200": {"train": 9, "val": 1, "test": 10, "gallery": 16, "query": 4},
    "objectnet": {"gallery": 80, "query": 20},
    "instre-s1": {"gallery": 16, "query": 4},
    "google-landmarks-v2": {"query": 2, "gallery": 3},
    "roxford5k": {"query": 2, "query:easy": 2, "query:hard": 2, "gallery": 6},
    "rparis6k": {"query": 2, "query:easy": 2, "query:hard": 2, "gallery": 6},
    "copydays": {"query": 4, "gallery": 2},
    "flickr30k": {"train": 1, "val": 1, "test": 2},
    "coco-captions": {"train": 2, "val": 1, "test": 1},
    "omniglot-one-shot": {"support": 40, "query": 40},
    "omniglot-small1": {"gallery": 16, "query": 4},
    "texture-vs-shape": {"cue-conflict": 16, "edges": 16, "silhouettes": 16},
}


@pytest.fixture
def small(home):
    """`small(name)`: the miniature of a packaged data set where its card expects it, and the card."""

    def make(name):
        card = find_dataset(name)
        MINIATURES[name](card.root)
        return card

    return make


# -- all cards -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CARDS)
def test_a_card_says_whose_it_is_and_what_its_splits_are(name):
    card = CARDS[name]
    assert card.description
    assert card.license
    assert card.citation
    assert card.protocol
    assert name == "digit-scenes" or card.homepage
    if card.source == "hub":
        assert COMMIT.fullmatch(card.hub)
    whole = {"train", "val", "test"} <= card.splits.keys() or "query" in card.splits or name == "digit-scenes"
    whole = whole or "cue-conflict" in card.splits or all(split.startswith("domain:") for split in card.splits)
    assert whole or name in {spec.card for other in CARDS.values() for spec in other.splits.values()}  # parts of others


def test_every_local_card_has_a_miniature():
    assert set(LOCAL) == set(MINIATURES) == set(SIZES)


@pytest.mark.parametrize("name", LOCAL)
def test_a_miniature_in_the_authors_layout_is_read_by_its_card_as_it_is(small, name):
    card = small(name)
    assert inventory(card)["missing"] == 0
    data = {kind: load_dataset(card, kind) for kind in card.kind}
    for split, size in SIZES[name].items():
        kind = "retrieval" if split in ("query", "gallery") and "retrieval" in data else card.kind[0]
        made = data[kind][split]
        assert len(made) == len(made.targets) == len(made.ids) == len(set(made.ids)) == size
        for i in range(len(made)):
            assert made.images[i].mode == "RGB"


@pytest.mark.parametrize("name", LOCAL)
def test_without_its_files_one_line_says_where_they_go_and_where_they_come_from(home, name):
    card = find_dataset(name)
    assert inventory(card)["missing"] == len(inventory(card)["files"]) > 0
    kind = card.kind[-1]
    with pytest.raises(BadInput) as error:
        load_dataset(card, kind)[list(card.splits)[-1]]
    said = str(error.value)
    assert "\n" not in said
    assert str(home / "data") in said
    assert card.homepage in said
    assert f"backbench show {name}" in said


# -- what each layout means ----------------------------------------------------------------------------------------


def test_imagenet_has_names_and_prompts_of_open_clip(small):
    data = load_dataset(small("imagenet-1k"), "classification")
    assert (len(data.classes), data.classes[:2], len(data.prompts)) == (1000, ("tench", "goldfish"), 80)
    assert all("{}" in prompt for prompt in data.prompts)
    assert data["test"].targets.tolist() == [0, 1]


def test_reassessed_and_multi_labels_are_those_of_each_image(small):
    real = load_dataset(small("imagenet-real"), "classification")["test"]
    by_name = {i.rsplit("/")[-1]: a for i, a in zip(real.ids, real.accepted, strict=True)}
    assert by_name == {"ILSVRC2012_val_00000001.JPEG": [1, 5], "ILSVRC2012_val_00000002.JPEG": []}
    several = load_dataset("imagenet-multilabel", "classification")["test"]
    assert dict(zip(several.ids, several.accepted, strict=True)) == {
        f"{WNIDS[0]}/ILSVRC2012_val_00000002.JPEG": [],  # named as problematic
        f"{WNIDS[1]}/ILSVRC2012_val_00000001.JPEG": [1, 7],
    }
    plain = load_dataset("imagenet-1k", "classification")["test"]
    assert len({plain.fingerprint, real.fingerprint, several.fingerprint}) == 3
    assert plain.accepted is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[[1]]", "tells of 1 images, split test of imagenet-real has 2"),
        ("[[1], [1000]]", "1000 is none of the 1000 classes"),
        ("[[1], 3]", "a list of classes is needed, got 3"),
        ("3", "a list of lists of class numbers"),
        ("[", "cannot be read as json"),
        ('{"ILSVRC2012_val_00000001.JPEG": ["cat"]}', "is none of the 1000 classes"),
    ],
)
def test_labels_that_do_not_fit(small, content, said):
    card = small("imagenet-real")
    (card.root / "real.json").write_text(content)
    with pytest.raises(BadInput, match=said):
        load_dataset(card, "classification")["test"]


def test_subsets_of_imagenet_are_the_listed_images_and_nothing_else(small):
    card = small("imagenet-1k-10pct")
    data = load_dataset(card, "classification")
    ids = {*data["train"].ids, *data["val"].ids}
    assert ids == {f"{WNIDS[c]}/{WNIDS[c]}_{k}.JPEG" for c in range(3) for k in range(4)}
    lines(card.root / "10percent.txt", f"{WNIDS[0]}_3.JPEG", f"{WNIDS[0]}_99.JPEG")
    with pytest.raises(BadInput, match=rf"splits.train.list: 1 of 2 are missing: {WNIDS[0]}_99"):
        load_dataset(card, "classification")["train"]


def test_a_variant_may_have_a_space_and_all_splits_number_classes_alike(small):
    data = load_dataset(small("fgvc-aircraft"), "classification")
    assert data.classes == ("707-320", "An-12", "Challenger 600")
    assert [data[name].targets.tolist() for name in data.split_names] == [[0, 2, 1]] * 3


def test_uncertain_findings_count_as_the_protocol_says(small):
    data = load_dataset(small("chexpert"), "multilabel")
    assert data.classes == ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
    train = data["train"]  # frontal views only
    assert train.targets.tolist() == [[0, 1, 0, 1, 0], [0, 1, 0, 0, 0]]
    assert train.targets.dtype == np.int8
    assert train.groups.tolist() == ["patient00001", "patient00002"]
    assert data["test"].targets.tolist() == [[0, 0, 1, 0, 1]]


def test_no_patient_is_in_training_and_validation(small):
    card = small("chexpert")
    file = card.root / "CheXpert-v1.0-small" / "train.csv"
    for number in range(2, 52):  # fifty more patients, two images each
        for study in (1, 2):
            image = f"CheXpert-v1.0-small/train/patient{number:05d}/study{study}/view1_frontal.jpg"
            if not (card.root / image).exists():
                picture(card.root / image, number)
                with file.open("a") as table:
                    table.write(f"{image},Male,60,Frontal,AP,,,,,\n")
    data = load_dataset(card, "multilabel")
    train, val = (set(data[name].groups) for name in ("train", "val"))
    assert (len(train), len(val), len(data["train"]), len(data["val"])) == (50, 1, 99, 2)
    assert not train & val


def test_a_finding_that_is_no_presence_is_refused(small):
    card = small("chexpert")
    file = card.root / "CheXpert-v1.0-small" / "valid.csv"
    file.write_text(file.read_text().replace("0.0,1.0,0.0,1.0", "0.0,maybe,0.0,1.0"))
    with pytest.raises(BadInput, match=r"column 'Consolidation' has 'maybe'; say in `value_map`"):
        load_dataset(card, "multilabel")["test"]


def test_the_first_fifth_of_a_class_by_name_are_queries(small):
    cub = load_dataset(small("cub-200"), "retrieval")
    assert cub.classes == ("Black footed Albatross", "Laysan Albatross")
    assert sorted(re.findall(r"_(\d{4})_", " ".join(cub["query"].ids))) == ["0000", "0000", "0001", "0001"]
    assert not set(cub["query"].ids) & set(cub["gallery"].ids)
    inat = load_dataset(small("inat-2021"), "retrieval")
    assert inat.classes == ("Lumbricus terrestris", "Quercus robur")
    assert [i.rsplit("/")[-1] for i in inat["query"].ids] == ["000.jpg"] * 2  # of five, not of seven
    assert {i.rsplit("/")[-1] for i in inat["gallery"].ids} == {f"{k:03d}.jpg" for k in range(1, 5)}


def test_a_radiograph_has_its_findings_and_its_patient(small):
    test = load_dataset(small("nih-chestx-ray14"), "multilabel")["test"]
    assert [np.flatnonzero(row).tolist() for row in test.targets] == [[13], [3, 13]]
    assert [*test.groups] == ["00000003"] * 2


def test_landmarks_name_their_answers(small):
    data = load_dataset(small("google-landmarks-v2"), "retrieval")
    assert data["query"].ids == ["123abc", "789aaa"]
    assert data["query"].judgements == [Judgement(("0a1b2c", "ffee00")), Judgement(("0a9999",))]
    assert data["gallery"].judgements is None


def test_setups_of_revisited_oxford_differ_in_answers_and_junk(small):
    data = load_dataset(small("roxford5k"), "retrieval")
    names = [f"oxford_{i:06d}" for i in range(6)]
    assert data["gallery"].ids == names
    first = {name: data[name].judgements[0] for name in ("query:easy", "query", "query:hard")}
    assert first == {  # MATLAB counts from 1
        "query:easy": Judgement((names[0], names[2]), (names[1], names[5])),
        "query": Judgement((names[0], names[2], names[1]), (names[5],)),
        "query:hard": Judgement((names[1],), (names[0], names[2], names[5])),
    }
    assert data["query:easy"].judgements[1] == Judgement((), (names[4], names[3]))
    assert [data["query"].images[i].size for i in (0, 1)] == [(20, 10), (40, 30)]  # cut out by its box


def test_a_pickle_is_never_read(small):
    card = small("roxford5k")
    (card.root / "gnd_roxford5k.mat").rename(card.root / "gnd_roxford5k.pkl")
    with pytest.raises(BadInput, match=r"gnd_roxford5k.pkl: is a pickle.* put gnd_roxford5k.mat beside it"):
        load_dataset(card, "retrieval")["query"]


@pytest.mark.parametrize("content", [b"", b"junk", b"MATLAB 7.3 MAT-file, Platform: x" + b" " * 200])
def test_a_ground_truth_of_something_else(small, content):
    card = small("roxford5k")
    (card.root / "gnd_roxford5k.mat").write_bytes(content)
    with pytest.raises(BadInput, match=r"gnd_roxford5k.mat: cannot be read as MATLAB's"):
        load_dataset(card, "retrieval")["query"]


def test_copies_belong_to_their_original(small):
    data = load_dataset(small("copydays"), "retrieval")
    assert data.classes == ("2000", "2001")
    assert data["query"].targets.tolist() == [0, 0, 1, 1]
    assert data["gallery"].targets.tolist() == [0, 1]


def test_captions_go_with_their_images(small):
    data = load_dataset(small("coco-captions"), "pairs")
    assert data["train"].ids == ["train2014/000000000000.jpg", "val2014/000000000001.jpg"]
    assert data["test"].targets == [[f"Caption {k} of 3." for k in range(5)]]
    assert load_dataset(small("flickr30k"), "pairs")["test"].ids == ["000000000002.jpg", "000000000003.jpg"]


def test_one_shot_runs_match_as_the_authors_say(small):
    data = load_dataset(small("omniglot-one-shot"), "episodes")
    support, query = data["support"], data["query"]
    assert support.targets.tolist() == [*range(20)] * 2
    assert query.targets.tolist() == [(7 * k) % 20 for k in range(1, 21)] * 2
    assert [*query.groups] == ["run01"] * 20 + ["run02"] * 20 == [*support.groups]


def test_characters_of_two_alphabets_are_not_one(small):
    data = load_dataset(small("omniglot-small1"), "retrieval")
    assert data.classes == tuple(f"{a}/character0{c}" for a in ("Balinese", "Latin") for c in (1, 2))


# -- the hub -------------------------------------------------------------------------------------------------------


def test_hub_cards_read_tables_as_the_hub_has_them(tmp_path, monkeypatch):
    """A Parquet table with the columns and splits that each card names, in the place of the download."""
    from backbench.tasks.datasets import hub
    from datasets import ClassLabel, Dataset, Features, config
    from datasets import Image as Picture

    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(hub, "reachable", lambda host: True)
    for card in CARDS.values():
        if card.source != "hub":
            continue
        image, label = (card.columns.get(what, what) for what in ("image", "label"))
        count = len(card.classes or card.class_names) if not isinstance(card.class_names, str) else 1000
        names = list(card.classes) or [f"class_{i}" for i in range(count or 102)]
        buffer = io.BytesIO()
        Image.new("RGB", (6, 5), (9, 9, 9)).save(buffer, "png")
        rows = {image: [{"bytes": buffer.getvalue(), "path": None}] * 100, label: [*range(10)] * 10}
        table = Dataset.from_dict(rows, Features({image: Picture(), label: ClassLabel(names=names)}))
        asked = []
        monkeypatch.setattr(hub, "_load", lambda path, table=table, asked=asked, **what: asked.append(what) or table)
        data = load_dataset(card, "classification")
        assert sum(len(data[name]) for name in ("train", "val")) in (100, 200)
        assert data["test"].images[0].size == (6, 5)
        assert len(data.classes) == len(names)
        assert {what["revision"] for what in asked} == {card.hub.partition("@")[2]}
