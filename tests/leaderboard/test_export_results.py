"""One backbone's results as hubs and collections take them: through their own readers, against their own schema."""

import json
from collections import Counter
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
import yaml
from backbench.backbones import BadInput
from backbench.leaderboard import Board, headline_columns
from backbench.leaderboard.export import as_eval_results, as_every_eval_ever, as_model_index
from huggingface_hub import ModelCard, ModelCardData, parse_eval_result_entries
from jsonschema import Draft7Validator

NAME = "mini/cnn-supervised"
HUB = {"digit-scenes": "someone/digit-scenes@5503434ddd753f426f4b38109466949a1217c2bb"}
SCHEMA = json.loads((Path(__file__).parent / "every_eval_ever" / "eval.schema.json").read_text(encoding="utf-8"))


@pytest.fixture
def seeds(result):
    """Three seeds of two tasks, in no order."""
    values = {"knn": (50.0, 52.0, 57.0), "retrieval": (30.0, 31.0, 35.0)}
    found = [result(NAME, task, value=v, seed=i) for task, own in values.items() for i, v in enumerate(own)]
    return [found[i] for i in (4, 1, 0, 5, 2, 3)]


def test_a_model_card_reads_its_model_index(seeds):
    text = as_model_index(seeds, HUB)
    card = ModelCard(f"---\n{text}---\n# A model\n")
    assert isinstance(card.data, ModelCardData)
    assert card.data.model_name == NAME
    entries = {(e.metric_config, e.metric_type): e for e in card.data.eval_results}
    assert Counter(task for task, _ in entries) == {"knn": 2, "retrieval": 2}
    top1 = entries["knn", "top1"]
    assert top1.metric_value == pytest.approx(53.0)
    assert (top1.task_type, top1.dataset_type) == ("image-classification", "someone/digit-scenes")
    assert top1.dataset_revision == HUB["digit-scenes"].partition("@")[2]
    assert top1.metric_args["seeds"] == [0, 1, 2]
    assert set(top1.metric_args["results"]) == {r.id for r in seeds if r.task.name == "knn"}
    assert ModelCardData(model_name=NAME, eval_results=card.data.eval_results).to_yaml() + "\n" == text


def test_a_mean_over_seeds_is_the_boards(seeds):
    card = ModelCard(f"---\n{as_model_index(seeds)}---\n")
    board = Board.of(seeds, headline_columns(seeds))
    for entry in card.data.eval_results:
        if entry.metric_type != "loss":
            cell = board.rows[0].cells[entry.metric_config]
            assert np.allclose([entry.metric_value, *entry.metric_args["interval"]], [cell.value, cell.low, cell.high])


def test_scores_of_single_labels_stay_in_the_record(result, content):
    scores = content()["scores"]
    one = result(scores=scores | {"top1:cat": scores["top1"]})
    assert "top1:cat" not in as_model_index([one])
    assert "top1:cat" in next(iter(as_every_eval_ever([one]).values()))


@pytest.mark.parametrize("write", [as_model_index, as_every_eval_ever, lambda found: as_eval_results(found, HUB)])
def test_the_order_of_results_changes_nothing(seeds, write):
    assert write(seeds) == write(seeds[::-1])


def test_the_hub_reads_eval_results(seeds):
    files = as_eval_results(seeds, HUB)
    assert list(files) == ["digit-scenes.yaml"]
    entries = parse_eval_result_entries(yaml.safe_load(files["digit-scenes.yaml"]))
    assert [(e.dataset_id, e.task_id) for e in entries] == [("someone/digit-scenes", t) for t in ("knn", "retrieval")]
    assert [e.value for e in entries] == pytest.approx([53.0, 32.0])
    assert entries[0].dataset_revision == HUB["digit-scenes"].partition("@")[2]
    assert entries[0].date == "2026-01-01T00:00:00+00:00"
    assert "mean of 3 seeds" in entries[0].notes
    assert all(r.id in entries[0].notes for r in seeds if r.task.name == "knn")


def test_eval_results_are_of_data_on_the_hub_alone(seeds, result, content):
    with pytest.raises(BadInput, match="data sets on the Hugging Face hub alone, not digit-scenes; use model-index"):
        as_eval_results(seeds, {})
    data = content()["dataset"] | {"name": "my own/photos"}
    assert list(as_eval_results([*seeds, result(dataset=data)], HUB)) == ["digit-scenes.yaml"]
    assert list(as_eval_results([result(dataset=data)], {"my own/photos": "me/photos"})) == ["my-own-photos.yaml"]


@pytest.mark.parametrize("hub", [{}, HUB, {"digit-scenes": "someone/digit-scenes"}])
def test_every_eval_ever_takes_our_records(seeds, hub):
    """Its schema 0.3.0, from its package (MIT); the same files also pass the package's own validator."""
    files = as_every_eval_ever(seeds, hub)
    assert len(files) == len(seeds)
    for path, text in files.items():
        data, collection, developer, model, name = path.split("/")
        assert (data, collection, f"{developer}/{model}") == ("data", "backbench", NAME)
        assert UUID(name.removesuffix(".json")).version == 4
        record = json.loads(text)
        Draft7Validator(SCHEMA).validate(record)
        assert record["schema_version"] == SCHEMA["version"]
        assert record["model_info"]["id"] == NAME
        source = record["evaluation_results"][0]["source_data"]
        assert source["source_type"] == ("hf_dataset" if hub else "other")
    assert not Draft7Validator(SCHEMA).is_valid(record | {"evaluation_results": [{}]})


def test_every_score_of_a_record_is_there_with_its_interval(seeds):
    by_id = {r.id: r for r in seeds}
    for text in as_every_eval_ever(seeds).values():
        record = json.loads(text)
        result = by_id[record["source_metadata"]["additional_details"]["result"]]
        assert len(record["evaluation_results"]) == len(result.scores)
        for one, (name, score) in zip(record["evaluation_results"], result.scores.items(), strict=True):
            ends = one["score_details"]["uncertainty"]["confidence_interval"]
            assert one["metric_config"]["metric_name"] == name
            assert (one["score_details"]["score"], ends["lower"], ends["upper"]) == (score.value, score.low, score.high)
            assert one["metric_config"]["lower_is_better"] is not score.higher_is_better


def test_a_score_that_rounding_pushed_out_of_its_range_is_put_back(result, content):
    scores = content()["scores"]
    scores["top1"] |= {"value": 100.00000000000001, "high": 100.00000000000001}
    record = json.loads(next(iter(as_every_eval_ever([result(scores=scores)]).values())))
    assert record["evaluation_results"][0]["score_details"]["score"] == 100


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("timm/vit_small_patch16_224.dino", "timm/vit_small_patch16_224.dino"),
        ("open_clip/ViT-B-32@laion2b_s34b_b79k", "open_clip/ViT-B-32@laion2b_s34b_b79k"),
        ("transformers/facebook/dinov2-small", "transformers/facebook_dinov2-small"),
        ("my-network", "local/my-network"),
        ("../../etc/passwd", "unnamed/etc_passwd"),
        ("con/nul", "con_/nul_"),
        ('a<b>:"|?*/模型', "a_b/unnamed"),
    ],
)
def test_a_name_becomes_two_folders_on_every_system(result, name, folder):
    [path] = as_every_eval_ever([result(name)])
    assert path.startswith(f"data/backbench/{folder}/")
