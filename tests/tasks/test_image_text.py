"""Image-text retrieval against a plain ranking of every pair."""

import numpy as np
import pytest
import torch
from backbench.backbones import BadInput, NotApplicable
from backbench.tasks import Dataset, Split, estimate, find_task, read_predictions, write_predictions
from backbench.tasks.retrieval import image_text
from torch.nn.functional import normalize

TASK = find_task("image-text-retrieval")
WORDS = ("red", "green", "blue", "dim")


def pairs(counts=(2, 1, 0, 3, 1, 2, 1, 1, 1, 2, 1, 1), seed=0):
    """Images of single colours, each with some captions that name their strongest channel, or not."""
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 255, (len(counts), 1, 1, 3)).repeat(16, 1).repeat(16, 2).astype(np.uint8)
    captions = [[f"a {WORDS[rng.integers(4)]} thing, {i}.{j}" for j in range(count)] for i, count in enumerate(counts)]
    ids = [f"p{i}" for i in range(len(counts))]
    split = Split(pictures, captions, f"pairs-{counts}-{seed}", ids)
    return Dataset("pairs", "pairs", (), {"test": lambda: split})


def recalls(backbone, data, context):
    """All six, from the full ranking of every pair; of equal similarities the earlier first."""
    test = data["test"]
    images = normalize(context.projections(backbone, test).double())
    owner = [i for i, captions in enumerate(test.targets) for _ in captions]
    texts = normalize(backbone.embed_text([c for captions in test.targets for c in captions]).double())
    similar = (images @ texts.T).float()
    found = {}
    for k in (1, 5, 10):
        asked = sorted(set(owner))
        first = similar.sort(dim=1, descending=True, stable=True).indices[:, :k].tolist()
        found[f"image_to_text_at_{k}"] = np.mean([any(owner[j] == i for j in first[i]) for i in asked])
        first = similar.T.sort(dim=1, descending=True, stable=True).indices[:, :k].tolist()
        found[f"text_to_image_at_{k}"] = np.mean([owner[j] in first[j] for j in range(len(owner))])
    return found


@pytest.mark.parametrize("seed", range(5))
def test_recalls_are_those_of_the_full_ranking(seed, make_backbone, context):
    backbone, data = make_backbone(text=True), pairs(seed=seed)
    TASK.check_data(data)
    found = TASK.measure(TASK.run(backbone, data, TASK.recipe(), context).predictions, data).scores(np.ones(12))
    expected = recalls(backbone, data, context)
    assert {name: found[name] for name in expected} == pytest.approx({n: 100 * v for n, v in expected.items()})
    assert found["mean_recall"] == pytest.approx(100 * np.mean(list(expected.values())))


def test_weights_are_of_images_with_their_captions(make_backbone, context):
    data = pairs()
    predictions = TASK.run(make_backbone(text=True), data, TASK.recipe(), context).predictions
    predictions["text_to_image"][3][:] = [1, 12, 12]
    predictions["image_to_text"][3] = 1
    weights = np.zeros(12)
    weights[3], weights[2] = 2, 5  # the image without captions asks for nothing
    found = TASK.measure(predictions, data).scores(weights)
    assert (found["image_to_text_at_1"], found["text_to_image_at_1"]) == pytest.approx((100, 100 / 3))
    weights[3] = 0
    assert set(TASK.measure(predictions, data).scores(weights).values()) == {0}


def test_repeats_and_scores_from_stored_predictions(make_backbone, context, tmp_path, monkeypatch):
    data, seen = pairs(), []
    monkeypatch.setattr(image_text, "BATCH", 5)
    context.progress = lambda *step: seen.append(step)
    outcome = TASK.run(make_backbone(text=True), data, TASK.recipe(), context)
    assert [step[1:] for step in seen if "texts" in step[0]] == [(5, 16), (10, 16), (15, 16), (16, 16)]
    found = estimate(TASK.measure(outcome.predictions, data))
    assert list(found) == list(TASK.scores)
    write_predictions(outcome.predictions, tmp_path / "p.parquet")
    assert estimate(TASK.measure(read_predictions(tmp_path / "p.parquet"), data)) == found


@pytest.mark.parametrize(
    ("column", "row", "value"),
    [
        ("image_to_text", 0, 0),
        ("image_to_text", 0, 16),  # of 16 captions two are its own: the better one is 15th at worst
        ("image_to_text", 2, 1),  # has none
        ("text_to_image", 0, [1]),
        ("text_to_image", 0, [1, 13]),
        ("text_to_image", 0, [0, 1]),
    ],
)
def test_impossible_ranks_are_refused(column, row, value, make_backbone, context):
    data = pairs()
    predictions = TASK.run(make_backbone(text=True), data, TASK.recipe(), context).predictions
    predictions[column][row] = value
    with pytest.raises(BadInput, match=f"image p{row}: ranks"):
        TASK.measure(predictions, data)


def test_images_without_any_caption_are_refused(make_backbone, context):
    with pytest.raises(BadInput, match="has a caption"):
        TASK.run(make_backbone(text=True), pairs((0, 0)), TASK.recipe(), context)


def test_a_text_that_breaks_the_text_tower_is_named(make_backbone, context):
    backbone = make_backbone(text=True)
    backbone.encode_text = lambda texts: torch.tensor([[float("nan") if "3.1" in t else 1.0] * 3 for t in texts])
    with pytest.raises(BadInput, match=r"tiny: the embedding of the text 'a \w+ thing, 3.1' is not finite"):
        TASK.run(backbone, pairs(), TASK.recipe(), context)


def test_a_backbone_without_text_does_not_apply(make_backbone):
    with pytest.raises(NotApplicable, match="no text tower"):
        TASK.check_backbone(make_backbone())
