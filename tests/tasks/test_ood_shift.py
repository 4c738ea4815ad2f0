"""Shifts of some classes and of whole domains: answers among those classes, each beside its own clean counterpart."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from backbench.backbones import BadInput
from backbench.tasks import (
    Context,
    Dataset,
    Split,
    estimate,
    find_task,
    load_dataset,
    read_predictions,
    write_predictions,
)
from backbench.tasks.classification.linear_probe import chosen_probe
from backbench.tasks.datasets import find_dataset
from backbench.tasks.ood.held_out_domain import TEST, tenth_of_each
from PIL import Image

CLASSES = ("red", "green", "blue", "grey")


@pytest.fixture
def some(make_split):
    """Squares of which one shift has only the first and the third class."""

    def few(accepted=None):
        labels = np.tile([0, 2], 15)
        split = make_split(30, 6, noise=250, labels=labels)
        return Split(split.images, labels, "few", split.ids, accepted=accepted, among=(0, 2))

    splits = {"train": (80, 3), "val": (30, 4), "test": (50, 5)}
    made = {name: partial(make_split, *how, noise=200) for name, how in splits.items()}
    made |= {"shift:loud": partial(make_split, 40, 7, noise=300), "shift:few": few}
    several = made | {"shift:few": partial(few, [(0, 2)] * 30)}
    return tuple(Dataset("some", "classification", CLASSES, each) for each in (made, several))


def test_some_classes_are_answered_among_themselves_and_stand_beside_clean_images_of_them(
    some, make_backbone, context, tmp_path
):
    task, (data, _) = find_task("ood-shift"), some
    backbone = make_backbone()
    predictions = task.run(backbone, data, task.recipe(), context).predictions
    write_predictions(predictions, tmp_path / "p.parquet")
    found = task.measure(read_predictions(tmp_path / "p.parquet"), data).scores(np.ones(50 + 40 + 30))
    probe, _ = chosen_probe(backbone, data, task.recipe(), context)

    def top1(split, rows, among):
        logits = probe.logits(context.embeddings(backbone, split))[rows][:, among]
        return 100 * (np.array(among)[logits.argmax(dim=1).numpy()] == np.asarray(split.targets)[rows]).mean()

    every, labels = [0, 1, 2, 3], np.asarray(data["test"].targets)
    expected = {
        "clean_top1": top1(data["test"], slice(None), every),
        "top1:loud": top1(data["shift:loud"], slice(None), every),
        "top1:few": top1(data["shift:few"], slice(None), [0, 2]),
        "clean_top1:few": top1(data["test"], torch.as_tensor(np.isin(labels, (0, 2))), [0, 2]),
    }
    shifted = (expected["top1:loud"] + expected["top1:few"]) / 2
    before = (expected["clean_top1"] + expected["clean_top1:few"]) / 2
    expected |= {"shift_top1": shifted, "relative_drop": 100 * (before - shifted) / before}
    assert found == pytest.approx(expected)
    assert expected["clean_top1:few"] > expected["clean_top1"]
    few = predictions["split"] == "shift:few"
    assert set(predictions["classes"][few][:, :2].ravel()) == {0, 2}
    assert (predictions["probabilities"][few][:, 2:] == 0).all()


def test_a_fine_tuned_network_is_the_one_of_finetune(some, make_backbone, context, tmp_path):
    """Its answers to a shift are those that `finetune` gives where the shift is the test split."""
    shift, plain = find_task("finetune-shift"), find_task("finetune")
    how = {"epochs": 2, "batch": 20, "head": "xavier", "learning_rate": 0.01, "mixup": 0}
    (data, _), backbone = some, make_backbone()

    def scores(task, data, name):
        outcome = task.run(backbone, data, task.recipe(how), Context(context.bank, tmp_path / name))
        measure = task.measure(outcome.predictions, data)
        return measure.scores(np.ones(measure.examples))

    found = scores(shift, data, "shift")
    for name, score in (("test", "clean_top1"), ("shift:loud", "top1:loud")):
        splits = {"train": lambda: data["train"], "val": lambda: data["val"], "test": partial(data.__getitem__, name)}
        alone = Dataset("alone", "classification", CLASSES, splits)
        assert found[score] == pytest.approx(scores(plain, alone, name.replace(":", "-"))["top1"])
    assert "top1:few" in found
    assert found["clean_top1"] > 25


def test_the_picture_shows_each_shift_beside_its_clean_images(some, make_backbone, context):
    task, (data, _) = find_task("ood-shift"), some
    predictions = task.run(make_backbone(), data, task.recipe(), context).predictions
    [axes] = task.picture(predictions, data).axes[:1]
    scores = task.measure(predictions, data).scores(np.ones(50 + 40 + 30))
    order = sorted(("loud", "few"), key=lambda name: scores[f"top1:{name}"])
    assert [label.get_text() for label in axes.get_yticklabels()] == order
    clean = {"loud": scores["clean_top1"], "few": scores["clean_top1:few"]}
    ends = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 2 and line.get_color() == "#bbbbbb"]
    assert [list(x) for x in ends] == [[clean[name], scores[f"top1:{name}"]] for name in order]


def test_a_clean_image_counts_for_both_of_its_scores_at_once(some, make_backbone, context):
    task, (data, _) = find_task("ood-shift"), some
    predictions = task.run(make_backbone(), data, task.recipe(), context).predictions
    measure, weights = task.measure(predictions, data), np.ones(120)
    weights[:50] = 0
    weights[0] = 5  # the first clean image alone is seen, which is red
    found = measure.scores(weights)
    first = {name: predictions["classes"][predictions["split"] == name][0, 0] == 0 for name in ("test", "clean:few")}
    assert found["clean_top1"] == 100 * first["test"]
    assert found["clean_top1:few"] == 100 * first["clean:few"]
    for name, one in estimate(measure).items():
        assert task.metric(name).low <= one.low <= one.value <= one.high <= task.metric(name).high


def test_where_several_classes_are_right_any_of_them_is(some, make_backbone, context):
    task, (plain, several) = find_task("ood-shift"), some
    predictions = task.run(make_backbone(), plain, task.recipe(), context).predictions
    assert task.measure(predictions, plain).scores(np.ones(120))["top1:few"] < 100
    assert task.measure(predictions, several).scores(np.ones(120))["top1:few"] == 100


def test_predictions_in_another_order_are_refused(some, make_backbone, context):
    task, (data, _) = find_task("ood-shift"), some
    predictions = task.run(make_backbone(), data, task.recipe(), context).predictions
    order = np.r_[50:90, :50, 90 : len(predictions["id"])]
    with pytest.raises(BadInput, match="predictions are not those of test, shift:loud, shift:few, clean:few"):
        task.measure({n: v[order] for n, v in predictions.items()}, data)
    with pytest.raises(BadInput, match="split shift:few: predictions are for"):
        task.measure({n: v[predictions["split"] != "shift:few"] for n, v in predictions.items()}, data)


# -- cards ---------------------------------------------------------------------------------------------------------


def folders(root, names, count=2):
    for k, name in enumerate(names):
        for i in range(count):
            path = root / name / f"{name}_{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (20 * k, 40 * i, 3)).save(path)


CARD = """\
kind: classification
source: imagefolder
splits: {{train: train, test: train, "shift:some": {spec}}}
license: none
"""
WNIDS = ["n001", "n002", "n003", "n004"]


@pytest.fixture
def opened(tmp_path):
    """`opened("{images: …}")`: the shifted split of a data set of four classes."""

    def made(spec):
        folders(tmp_path / "train", WNIDS)
        (tmp_path / "card.yaml").write_text(CARD.format(spec=spec))
        data = load_dataset(tmp_path / "card.yaml", "classification")
        assert data.classes == tuple(WNIDS)
        assert data["test"].among is None
        return data["shift:some"]

    return made


def test_a_shift_of_some_classes_has_their_numbers(opened, tmp_path):
    folders(tmp_path / "r", ["n002", "n004"])
    split = opened("r")
    assert split.among == (1, 3)
    assert split.targets.tolist() == [1, 1, 3, 3]
    assert split.take(1).among == (1, 3)  # fewer images do not make it easier


def test_class_folders_may_be_called_by_numbers(opened, tmp_path):
    folders(tmp_path / "v2", ["0", "1", "2", "3"], 1)
    split = opened("{images: v2, class_folders: number}")
    assert split.among is None
    assert [*zip(split.ids, split.targets.tolist(), strict=True)] == [(f"{k}/{k}_0.png", k) for k in range(4)]
    folders(tmp_path / "v2", ["4"], 1)
    with pytest.raises(BadInput, match="4: there are 4 classes, from 0 on"):
        opened("{images: v2, class_folders: number}")
    (tmp_path / "v2" / "4").rename(tmp_path / "v2" / "cats")
    with pytest.raises(BadInput, match="cats is not the number of a class"):
        opened("{images: v2, class_folders: number}")


def objectnet(root):
    folders(root / "images", ["air_freshener", "chair", "helmet"])
    mappings = {
        "folder_to_objectnet_label.json": {"air_freshener": "Air freshener", "chair": "Chair", "helmet": "Helmet"},
        "objectnet_to_imagenet_1k.json": {"Chair": "rocking chair, rocker; folding chair", "Helmet": "crash helmet"},
        "pytorch_to_imagenet_2012_id.json": {"0": 2, "1": 0, "2": 1, "3": 3},
    }
    (root / "mappings").mkdir(exist_ok=True)
    for name, content in mappings.items():
        (root / "mappings" / name).write_text(json.dumps(content))
    labels = "folding chair\ncrash helmet\ntench, Tinca tinca\nrocking chair, rocker\n"
    (root / "mappings" / "imagenet_to_label_2012_v2").write_text(labels)


def test_objectnets_objects_are_several_of_imagenets_classes_or_none(opened, tmp_path):
    objectnet(tmp_path)
    spec = "{images: images, class_folders: mappings}"
    split = opened(spec)
    assert split.ids == ["chair/chair_0.png", "chair/chair_1.png", "helmet/helmet_0.png", "helmet/helmet_1.png"]
    assert [tuple(right) for right in split.accepted] == [(1, 3), (1, 3), (2,), (2,)]
    assert split.among == (1, 2, 3)
    (tmp_path / "mappings" / "objectnet_to_imagenet_1k.json").write_text('{"Chair": "stool"}')
    with pytest.raises(BadInput, match="imagenet_to_label_2012_v2 has no line 'stool'"):
        opened(spec)
    (tmp_path / "mappings" / "objectnet_to_imagenet_1k.json").write_text("[1]")
    with pytest.raises(BadInput, match="these are not ObjectNet's mappings"):
        opened(spec)


@pytest.mark.parametrize("name", ["a", "r"])
def test_timms_subsets_are_what_folders_of_their_classes_give(name, tmp_path):
    """With the class folders of ImageNet-A and -R, the mask is the one that published figures were taken with."""
    from importlib.resources import files

    told = files("timm") / "data" / "_info"
    wnids = (told / "imagenet_synsets.txt").read_text().split()
    subset = (told / f"imagenet_{name}_synsets.txt").read_text().split()
    for wnid in wnids:
        (tmp_path / "imagenet-1k" / "train" / wnid).mkdir(parents=True)
    folders(tmp_path / f"imagenet-{name}", subset, 1)
    card = find_dataset(f"imagenet-{name}").model_copy(update={"folder": tmp_path / f"imagenet-{name}"})
    (tmp_path / "imagenet-1k" / "val").mkdir()
    split = load_dataset(card, "classification")[f"shift:{name}"]
    assert list(split.among) == [int(i) for i in (told / f"imagenet_{name}_indices.txt").read_text().split()]


# -- domains -------------------------------------------------------------------------------------------------------


@pytest.fixture
def domains(make_split):
    levels = {"domain:calm": (60, 1, 100), "domain:loud": (50, 2, 200), "domain:wild": (40, 3, 350)}
    splits = {name: partial(make_split, n, seed, noise=noise) for name, (n, seed, noise) in levels.items()}
    return Dataset("domains", "classification", CLASSES, splits)


def test_each_domain_is_held_out_in_turn(domains, make_backbone, context, tmp_path):
    task, backbone = find_task("held-out-domain"), make_backbone()
    task.check_data(domains)
    outcome = task.run(backbone, domains, task.recipe(), context)
    write_predictions(outcome.predictions, tmp_path / "p.parquet")
    predictions = read_predictions(tmp_path / "p.parquet")
    measure = task.measure(predictions, domains)
    found = measure.scores(np.ones(150))
    # The domain that is held out, as shift of a data set whose splits are cut from the others.
    rows = {name: tenth_of_each(domains[name]) for name in domains.split_names}
    for held in domains.split_names:
        others = [name for name in domains.split_names if name != held]

        def cut(tenths, others=others):
            parts = [(domains[n], np.flatnonzero(np.isin(rows[n], tenths))) for n in others]
            images = np.concatenate([np.asarray(s.images)[r] for s, r in parts])
            labels = np.concatenate([np.asarray(s.targets)[r] for s, r in parts])
            return Split(images, labels, f"{others} {tenths}", [str(i) for i in range(len(labels))])

        splits = {"train": partial(cut, (0, 1, 3, 5, 6, 8, 9)), "val": partial(cut, (4,)), "test": partial(cut, TEST)}
        alone = Dataset("alone", "classification", CLASSES, splits | {"shift:held": partial(domains.__getitem__, held)})
        shift = find_task("ood-shift")
        made = shift.run(backbone, alone, shift.recipe(), context).predictions
        scores = shift.measure(made, alone).scores(np.ones(len(alone["test"]) + len(domains[held])))
        name = held.partition(":")[2]
        assert found[f"top1:{name}"] == pytest.approx(scores["shift_top1"])
        assert found[f"clean_top1:{name}"] == pytest.approx(scores["clean_top1"])
    assert found["shift_top1"] == pytest.approx(np.mean([found[f"top1:{n}"] for n in ("calm", "loud", "wild")]))
    assert set(outcome.chosen) == {"calm", "loud", "wild"}
    for name, one in estimate(measure).items():
        assert task.metric(name).low <= one.low <= one.value <= one.high <= task.metric(name).high
    with pytest.raises(BadInput, match="predictions row 0 is for image"):
        task.measure(predictions | {"id": np.roll(predictions["id"], 1)}, domains)


def test_one_domain_is_too_few(domains):
    alone = Dataset("alone", "classification", CLASSES, {"domain:calm": partial(domains.__getitem__, "domain:calm")})
    with pytest.raises(BadInput, match="dataset alone: held-out-domain needs two domains or more"):
        find_task("held-out-domain").check_data(alone)


def test_groups_stay_whole_and_every_tenth_is_a_tenth(make_split):
    split = make_split(2000, 0)
    assert np.bincount(tenth_of_each(split)).tolist() == [200] * 10
    groups = np.arange(2000) // 4
    grouped = tenth_of_each(Split(split.images, split.targets, "g", split.ids, groups))
    assert all(len(set(grouped[groups == g])) == 1 for g in range(500))
    assert np.bincount(grouped, minlength=10).min() > 100


def test_digit_scenes_have_domains_of_different_hands():
    data = load_dataset("digit-scenes", "classification")
    find_task("held-out-domain").check_data(data)
    hands = [set(data[name].groups) for name in find_task("held-out-domain").splits(data)]
    assert len(hands) == 3
    assert sum(map(len, hands)) == len(set().union(*hands))
