"""`backbench show DATASET`: what a person can act on."""

import json

import pytest
from backbench.backbones import find_backbone
from backbench.benchmarks.cli import looking
from backbench.benchmarks.plan import plan
from backbench.benchmarks.suite import Entry, Suite
from backbench.tasks.datasets import find_dataset
from PIL import Image


@pytest.fixture
def shown(capsys, home):
    def show(name, format="table", at=home):
        looking.show(name, format, at)
        return capsys.readouterr().out

    return show


def test_a_local_data_set_says_what_is_missing_where_it_goes_and_where_it_comes_from(shown, home):
    text = shown("fgvc-aircraft")
    root = home / "data" / "fgvc-aircraft"
    assert f"Needed in {root}:" in text
    assert text.count("MISSING") == 4
    for said in ("3,334", "The authors' training", "https://www.robots.ox.ac.uk/~vgg", f"ln -s /where/it/is {root}"):
        assert said in text
    (root / "images").mkdir(parents=True)
    assert shown("fgvc-aircraft").count("MISSING") == 4  # an empty folder is none
    Image.new("RGB", (2, 2)).save(root / "images" / "0.jpg")
    for name in ("train", "val", "test"):
        (root / f"images_variant_{name}.txt").write_text("0 A\n")
    text = shown("fgvc-aircraft")
    assert text.count("  there") == 4
    assert "MISSING" not in text
    assert "Where it is to be had" not in text


def test_another_home_is_another_place(shown, tmp_path):
    other = tmp_path / "elsewhere"
    assert f"Needed in {other / 'data' / 'cub-200'}:" in shown("cub-200", at=other)


def test_a_combined_data_set_says_what_the_others_need(shown, home):
    text = shown("sim10k-to-cityscapes")
    assert f"Needed in {home / 'data'}:" in text
    assert "MISSING  sim10k/VOC2012/JPEGImages" in text
    assert "split test of cityscapes" in text
    assert "backbench show" in text
    assert "ln -s" not in text


def test_a_hub_data_set_says_whether_it_is_in_the_cache(shown, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    name, commit = "timm/eurosat-rgb", "b4e28552cd5f3932b6abc37eb20d3e84901ad728"
    assert f"not in the cache yet  {name}@{commit}" in shown("eurosat")
    folder = tmp_path / "datasets" / "timm___eurosat-rgb" / "default" / "0.0.0" / commit
    folder.mkdir(parents=True)
    assert f"in the cache  {name}@{commit}" in shown("eurosat")
    assert "not in the cache" not in shown("eurosat")
    folder.rmdir()
    (tmp_path / "hub" / "datasets--timm--eurosat-rgb" / "snapshots" / commit).mkdir(parents=True)
    assert "not in the cache" not in shown("eurosat")


def test_the_embedded_data_set_needs_nothing(shown):
    text = shown("digit-scenes")
    assert "Nothing is needed" in text
    assert json.loads(shown("digit-scenes", "json"))["inventory"]["missing"] == 0


def test_json_has_the_card_and_its_inventory(shown, home):
    facts = json.loads(shown("roxford5k", "json"))
    assert facts["splits"]["query:hard"]["split"] == "hard"
    assert facts["inventory"]["where"] == str(home / "data" / "roxford5k")
    files = {file["file"]: file for file in facts["inventory"]["files"]}
    assert files["gnd_roxford5k.mat"] == {"file": "gnd_roxford5k.mat", "there": False, "splits": list(facts["splits"])}
    assert facts["inventory"]["missing"] == 2


def test_a_card_of_ones_own_is_shown_too(shown, tmp_path):
    card = tmp_path / "mine.yaml"
    card.write_text("kind: classification\nsource: imagefolder\nsplits: {test: pictures}\n")
    text = shown(str(card))
    assert f"Needed in {tmp_path}:\n  MISSING  pictures" in text


def test_descriptions_and_names_change_ids_of_tasks_with_words_alone(home, tmp_path):
    """A cell's id is the hash of what can change its score, and a k-NN is asked no word."""

    def columns(card):
        entries = (Entry(task="knn", dataset="digit-scenes"), Entry(task="zero-shot", dataset="digit-scenes"))
        suite = Suite(name="s", description="d", backbones=("mini/cnn-image-text",), entries=entries)
        backbones = [find_backbone("mini/cnn-image-text")]
        return [cell.column for cell in plan(suite, backbones, home, limit=20, dataset=card)]

    card = find_dataset("digit-scenes")
    before = columns(card)
    for change in ({"descriptions": {}}, {"class_names": tuple("abcdefghij")}):
        after = columns(card.model_copy(update=change))
        assert after[0] == before[0]
        assert after[1] != before[1]


def test_a_plan_looks_for_files_in_its_own_home(home, tmp_path):
    """`--home` moves the data, too; the files of the other home are not read."""
    root = tmp_path / "other" / "data" / "instre-s1" / "INSTRE-S1"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for i in range(5):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(root / name / f"{i}.jpg")
    suite = Suite(
        name="s",
        description="d",
        backbones=("mini/cnn-random",),
        entries=(Entry(task="retrieval", dataset="instre-s1"),),
    )
    [cell] = plan(suite, [find_backbone("mini/cnn-random")], tmp_path / "other")
    assert {"query", "gallery"} <= cell.fingerprints.keys()
    assert (tmp_path / "other" / "files.db").exists()
    assert not (home / "files.db").exists()
