"""Query probes: what attention over tokens can find that their mean cannot, and which blocks are looked at."""

import numpy as np
import pytest
import torch
from backbench.backbones import load_backbone
from backbench.backbones.blocks import spaced
from backbench.tasks import Dataset, Split, find_task
from backbench.tasks.classification.query_probe import Queries
from torch import nn

TASK = find_task("query-probe")
GRID, WIDTH = 4, 8


class Given:
    """A context whose tokens, of the last of two blocks, are the splits' own images; the first block's are noise."""

    device, seed = "cpu", 0

    def __init__(self, *blocks):
        self.blocks = blocks

    def tokens(self, _backbone, split, grid, layers):
        assert (grid, layers) == (GRID, len(self.blocks))
        noise = torch.randn(len(split), WIDTH, GRID, GRID, generator=torch.Generator().manual_seed(len(split)))
        tokens = {"first": noise.half(), "last": torch.as_tensor(split.images).half()}
        return {block: tokens[block] for block in self.blocks}

    def generator(self):
        return torch.Generator().manual_seed(self.seed)

    def progress(self, *_):
        pass


def split_of(count, seed):
    """Tokens of noise; in one place of each image a strong mark, then its class; the mean over places hides it."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    x = rng.normal(0, 1, (count, WIDTH, GRID**2))
    x[:, 0] = -3
    x[np.arange(count), :, rng.integers(0, GRID**2, count)] = 0
    at = rng.integers(0, GRID**2, count)
    x[np.arange(count), 0, at], x[np.arange(count), 1, at] = 6, 4 * (2 * labels - 1)
    targets = np.where(np.arange(count) % 10 == 0, -1, labels) if seed == 0 else labels
    images = x.reshape(count, WIDTH, GRID, GRID).astype(np.float32)
    return Split(images, targets, f"{seed}", [f"{seed}-{i}" for i in range(count)])


def marked():
    sizes = {"train": 400, "val": 100, "test": 200}
    splits = {
        name: (lambda count=count, seed=seed: split_of(count, seed)) for seed, (name, count) in enumerate(sizes.items())
    }
    return Dataset("marked", "classification", ["a", "b"], splits)


def test_queries_find_the_place_that_tells():
    data = marked()
    settings = {"grid": GRID, "learning_rate": [0.01], "epochs": 30}

    def run(*blocks):
        return TASK.run(None, data, TASK.recipe(settings | {"layers": len(blocks)}), Given(*blocks))

    outcome, again = run("first", "last"), run("first", "last")
    assert all((column == again.predictions[name]).all() for name, column in outcome.predictions.items())
    assert TASK.measure(outcome.predictions, data).scores(np.ones(200))["top1"] > 95
    assert outcome.chosen["blocks"] == ["first", "last"]
    only_noise = run("first")
    assert TASK.measure(only_noise.predictions, data).scores(np.ones(200))["top1"] < 65


def test_a_probe_is_attention_of_one_head_with_keys_and_values_folded_in():
    torch.manual_seed(0)
    probe, tokens = Queries([WIDTH], 3, 5), torch.randn(2, WIDTH, 9)
    nn.init.normal_(probe.head.weight)
    places = nn.functional.layer_norm(tokens.mT, (WIDTH,))
    heads = nn.functional.scaled_dot_product_attention(probe.queries[0].expand(2, -1, -1), places, places)
    assert torch.allclose(probe([tokens]), probe.head(heads.flatten(1)), atol=1e-5)


@pytest.mark.parametrize(
    ("blocks", "count", "want"),
    [(12, 4, [3, 6, 9, 12]), (5, 4, [1, 2, 4, 5]), (3, 4, [1, 2, 3]), (24, 1, [24]), (16, 3, [5, 11, 16])],
)
def test_blocks_at_equal_distances(blocks, count, want):
    assert spaced([str(i + 1) for i in range(blocks)], count) == [str(i) for i in want]


def test_it_runs_on_a_network(digits, context):
    backbone, data = load_backbone("mini/vit-supervised"), digits
    recipe = TASK.recipe({"grid": 4, "epochs": 3, "learning_rate": [0.003], "weight_decay": [0.01]})
    outcome = TASK.run(backbone, data, recipe, context)
    assert outcome.chosen["blocks"] == ["blocks.0", "blocks.1", "blocks.3", "blocks.4"]
    scores = TASK.measure(outcome.predictions, data).scores(np.ones(len(data["test"])))
    assert scores["top1"] > 50
