"""Leave one domain out: a linear probe trained on all domains but one, tested on that one, for each in turn.

The protocol of PACS (Li et al. 2017) and DomainBed (Gulrajani and Lopez-Paz 2021): the strength is chosen on images
of the domains that were trained on. A fifth of these is kept for the clean score, a tenth for the choice.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from ...backbones.errors import BadInput
from ..classification.accuracy import check_ids, names, top1
from ..classification.linear_probe import LinearProbeRecipe, best_probe
from ..datasets import Dataset, Split
from ..measure import Measure
from ..task import Needs, Outcome, Task
from .shift import Shift, shift_scores, short, under_shift
from .shift_picture import shift_picture
from .splits import apart, group_of_each, together

TENTHS = 10
VAL, TEST = (4,), (2, 7)  # of the tenths


class HeldOutDomain(Task):
    """`top1:NAME` is on all images of the domain that was held out, `clean_top1:NAME` of the same probe on others."""

    name, family, version = "held-out-domain", "ood", 1
    needs = Needs(data="classification", splits=("domain:*",))
    scores = shift_scores("top1", own=True)
    Recipe = LinearProbeRecipe

    def check_data(self, data):
        super().check_data(data)
        if len(self.splits(data)) < 2:
            raise BadInput(f"dataset {data.name}: {self.name} needs two domains or more: splits named domain:…")

    def run(self, backbone, data, recipe, context):
        domains, parts, chosen = self.splits(data), {}, {}
        features = {name: context.embeddings(backbone, data[name]) for name in domains}
        tenths = {name: tenth_of_each(data[name]) for name in domains}
        for held in domains:
            others = [name for name in domains if name != held]

            def of(kept: Sequence[int], others: list[str] = others):
                rows = {n: np.flatnonzero(np.isin(tenths[n], kept) & (data[n].targets >= 0)) for n in others}
                labels = np.concatenate([data[n].targets[rows[n]] for n in others])
                return torch.cat([features[n][rows[n]] for n in others]), torch.as_tensor(labels)

            train = of([t for t in range(TENTHS) if t not in VAL + TEST])
            probe, c, highest = best_probe(train, of(VAL), len(data.classes), top1, recipe, context)
            chosen[short(held)] = {"c": c, "val_top1": 100 * highest}
            parts[held] = answers(probe, features[held], names(data[held]))
            clean = [answers(probe, features[n][rows], names(data[n])[rows]) for n, rows in kept(data, others)]
            parts[f"clean {held}"] = {column: np.concatenate([p[column] for p in clean]) for column in clean[0]}
        return Outcome(together(parts), chosen)

    def measure(self, predictions, data):
        domains = self.splits(data)
        start = dict(zip(domains, np.cumsum([0, *(len(data[name]) for name in domains)]).tolist(), strict=False))
        found = apart(predictions, [part for name in domains for part in (name, f"clean {name}")])
        right, where = {}, {}
        for held in domains:
            others = kept(data, [name for name in domains if name != held])
            for part, pieces in ((held, [(held, np.arange(len(data[held])))]), (f"clean {held}", others)):
                where[part] = np.concatenate([start[name] + rows for name, rows in pieces])
                labels = np.concatenate([np.asarray(data[name].targets)[rows] for name, rows in pieces])
                ids = np.concatenate([names(data[name])[rows] for name, rows in pieces])
                check_ids(found[part]["id"], Split(labels, labels, "", ids.tolist()))
                right[part] = 100.0 * (found[part]["predicted"] == labels)

        def score(part: str, weights: np.ndarray) -> tuple[float, bool]:
            seen = weights[where[part]].sum()
            return float(weights[where[part]] @ right[part] / max(seen, 1e-12)), seen > 0

        def scores(weights: np.ndarray) -> dict[str, float]:
            shifts = []
            for held in domains:
                (value, seen), (clean, known) = score(held, weights), score(f"clean {held}", weights)
                shifts.append(Shift(short(held), value, clean, seen and known, own=True))
            return under_shift("top1", float(np.mean([shift.clean for shift in shifts])), shifts)

        return Measure(sum(len(data[name]) for name in domains), scores, group_of_each(data, domains))

    def picture(self, predictions, data):
        return shift_picture(self.measure(predictions, data), "top1", "A linear probe on domains it has not seen")


def answers(probe, features, ids) -> dict[str, np.ndarray]:
    """The class of the highest logit of each image, under its id."""
    return {"id": ids, "predicted": probe.logits(features).argmax(dim=1).numpy().astype(np.int32)}


def kept(data: Dataset, domains: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    """The images of each domain that are kept for the clean score."""
    return [(name, np.flatnonzero(np.isin(tenth_of_each(data[name]), TEST))) for name in domains]


def tenth_of_each(split: Split) -> np.ndarray:
    """(n,) 0…9, evenly spread over the images, which are often sorted by class; groups as wholes, by their names."""
    if split.groups is None:
        return np.arange(len(split)) % TENTHS
    names, of = np.unique(split.groups.astype(str), return_inverse=True)
    return np.array([hashlib.sha256(name.encode()).digest()[0] % TENTHS for name in names])[of]
