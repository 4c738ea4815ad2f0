"""Learned queries that attend to the tokens of several blocks of a frozen network, and a linear head on what they find.

After Visual Query Tuning (Tu et al. 2023, arXiv 2212.03220). That adds its queries to the tokens of a block and reads
them through the block's own frozen keys and values, so for transformers alone; here a query is compared with the
block's output itself, which every network has. As query and head are free, that is attention of one head with learned
keys and values, which are folded into them (attentive probing, arXiv 2202.03026).
"""

from collections.abc import Sequence
from itertools import product

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..datasets import Split
from ..task import Needs, Outcome, Task, TaskRecipe
from ..threads import one_thread
from .accuracy import ACCURACY, accuracy, ranked, top1


class QueryProbeRecipe(TaskRecipe):
    """`layers`: blocks at equal distances, the last among them; `queries` a block; `grid` of its tokens, each way.

    AdamW with a cosine schedule; `learning_rate` and `weight_decay` are chosen from on validation data.
    """

    layers: int = Field(default=4, ge=1)
    queries: int = Field(default=4, ge=1)
    grid: int = Field(default=7, ge=1, le=14)
    epochs: int = Field(default=10, ge=1)
    batch: int = Field(default=128, ge=1)
    learning_rate: tuple[PositiveFloat, ...] = Field(default=(1e-3, 5e-3), min_length=1)
    weight_decay: tuple[NonNegativeFloat, ...] = Field(default=(1e-2, 1.0), min_length=1)


class QueryProbe(Task):
    """Accuracy of the head at the settings that validation chose, trained again on training and validation data."""

    name, family, version = "query-probe", "classification", 1
    needs = Needs(data="classification", layers=True)
    scores = ACCURACY
    Recipe = QueryProbeRecipe

    def run(self, backbone, data, recipe, context):
        tokens = {
            name: context.tokens(backbone, data[name], recipe.grid, recipe.layers) for name in ("train", "val", "test")
        }
        blocks = list(tokens["train"])
        train, val = (Tokens([tokens[name]], [data[name]], blocks) for name in ("train", "val"))
        tried = {}
        settings = list(product(sorted(recipe.learning_rate), sorted(recipe.weight_decay, reverse=True)))
        for step, (rate, decay) in enumerate(settings):
            probe = fit(train, len(data.classes), recipe, rate, decay, context)
            tried[rate, decay] = top1(answers(probe, val, recipe.batch, context.device), val.labels)
            context.progress("fitting the queries", step + 1, len(settings) + 1)
        rate, decay = best = max(settings, key=lambda setting: tried[setting])  # of equals, the gentlest
        both = Tokens([tokens["train"], tokens["val"]], [data["train"], data["val"]], blocks)
        probe = fit(both, len(data.classes), recipe, rate, decay, context)
        test = Tokens([tokens["test"]], [data["test"]], blocks, labelled=False)
        found = answers(probe, test, recipe.batch, context.device).softmax(dim=1)
        context.progress("fitting the queries", len(settings) + 1, len(settings) + 1)
        chosen = {"learning_rate": rate, "weight_decay": decay, "val_top1": 100 * tried[best], "blocks": blocks}
        return Outcome(ranked(found, data["test"]), chosen)

    def measure(self, predictions, data):
        return accuracy(predictions, data["test"])


class Tokens:
    """The tokens of some blocks and `labels` of the images of splits that have one, read as they are asked for."""

    def __init__(self, tokens: Sequence[dict[str, Tensor]], splits: Sequence[Split], blocks, labelled: bool = True):
        self.parts = [[part[block] for block in blocks] for part in tokens]
        labels = [torch.as_tensor(split.targets) for split in splits]
        rows = [torch.nonzero((y >= 0) | (not labelled))[:, 0] for y in labels]
        self.labels = torch.cat([y[kept] for y, kept in zip(labels, rows, strict=True)])
        self.part = torch.repeat_interleave(torch.tensor([len(kept) for kept in rows]))
        self.row = torch.cat(rows)

    def __getitem__(self, index: Tensor) -> list[Tensor]:
        """[(b, C, places) float32, …], one a block, of the images at `index` (b,)."""
        part, row, found = self.part[index], self.row[index], []
        for block in range(len(self.parts[0])):
            tokens = torch.empty(len(index), *self.parts[0][block].shape[1:])
            for number, one in enumerate(self.parts):
                tokens[part == number] = one[block][row[part == number]].float()
            found.append(tokens.flatten(2))
        return found


class Queries(nn.Module):
    """(b, classes) logits of tokens [(b, C, places), …]: each block's queries, side by side, into one linear layer."""

    def __init__(self, widths: Sequence[int], queries: int, classes: int):
        super().__init__()
        self.queries = nn.ParameterList([nn.Parameter(torch.randn(queries, width)) for width in widths])
        self.head = nn.Linear(queries * sum(widths), classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Sequence[Tensor]) -> Tensor:
        """Attention over the places of each block, its tokens normalised as LayerNorm does."""
        found = []
        for query, block in zip(self.queries, tokens, strict=True):
            # (x - mean) / spread, without a normalised copy of all tokens.
            variance, mean = torch.var_mean(block, dim=1, keepdim=True, correction=0)
            scale = (variance + 1e-5).rsqrt()
            likeness = (query @ block - query.sum(1, keepdim=True) * mean) * scale
            share = (likeness / block.shape[1] ** 0.5).softmax(dim=-1) * scale
            found.append((share @ block.mT - (share * mean).sum(-1, keepdim=True)).flatten(1))
        return self.head(torch.cat(found, dim=1))


def fit(data: Tokens, classes: int, recipe: QueryProbeRecipe, rate: float, decay: float, context) -> Queries:
    """The probe after `recipe.epochs`, from the start and in the order that the cell's seed gives."""
    generator = context.generator()
    with one_thread(), torch.random.fork_rng():
        torch.manual_seed(context.seed)
        widths = [block.shape[1] for block in data.parts[0]]
        probe = Queries(widths, recipe.queries, classes).to(context.device)
        optimiser = torch.optim.AdamW(probe.parameters(), lr=rate, weight_decay=decay)
        steps = recipe.epochs * -(-len(data.labels) // recipe.batch)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for _ in range(recipe.epochs):
            for index in torch.randperm(len(data.labels), generator=generator).split(recipe.batch):
                logits = probe([block.to(context.device) for block in data[index]])
                optimiser.zero_grad()
                cross_entropy(logits, data.labels[index].to(context.device)).backward()
                optimiser.step()
                schedule.step()
    return probe


def answers(probe: Queries, data: Tokens, batch: int, device: str) -> Tensor:
    """(n, classes) float64 logits of all images, in order."""
    with one_thread(), torch.inference_mode():
        parts = torch.arange(len(data.labels)).split(batch)
        return torch.cat([probe([b.to(device) for b in data[index]]).double().cpu() for index in parts])
