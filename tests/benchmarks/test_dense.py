"""The dense suite, whole, once: every engine trains, and what it trains tells pretrained networks from random ones."""

import pytest
from backbench.benchmarks.suite import find_suite
from backbench.leaderboard import Store
from backbench.tasks import find_task

SUITE = find_suite("dense")
PRETRAINED = ("cnn-supervised", "vit-supervised", "vit-contrastive", "vit-masked", "cnn-image-text")


def test_the_suite_has_every_engine_and_both_ways_of_training():
    recipes = [find_task(entry.task).recipe(entry.recipe) for entry in SUITE.entries]
    assert {getattr(recipe, "engine", None) for recipe in recipes} == {None, "torchvision", "torch", "mmdet", "mmseg"}
    assert {recipe.trainable for recipe in recipes} == {"full", "frozen"}


@pytest.fixture(scope="module")
def scores(command, tmp_path_factory):
    """scores[column][backbone], the headline of each cell: twenty minutes of work."""
    home = tmp_path_factory.mktemp("dense")
    ended = command("run", "dense", home=home, timeout=6000)
    assert ended.code == 0, ended.err
    table = {key: {} for key in SUITE.keys}
    for result in Store(home / "leaderboard.db").all():
        for key, entry in zip(SUITE.keys, SUITE.entries, strict=True):
            recipe = find_task(entry.task).recipe(entry.recipe).model_dump(mode="json")
            if (result.task.name, result.recipe) == (entry.task, recipe):
                table[key][result.backbone.name.removeprefix("mini/")] = result.headline
    return table


@pytest.mark.slow
@pytest.mark.parametrize("column", [key for key in SUITE.keys if key != "finetune"])
def test_pretraining_beats_random_weights(scores, column):
    """Beyond both 95 % intervals. A classifier trained end to end makes up for what a poor pretraining left out."""
    random = scores[column]["cnn-random"]
    assert [name for name in PRETRAINED if scores[column][name].low > random.high] == list(PRETRAINED)
