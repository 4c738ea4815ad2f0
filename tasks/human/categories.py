"""From ImageNet-1k's 1000 classes to 16 entry-level categories (Geirhos et al. 2018, 2019).

Which class is in which category: Geirhos et al. 2021, github.com/bethgelab/model-vs-human, `human_categories.py`. The
decision is theirs too: the category with the highest mean probability over its classes.
"""

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor

CLASSES = 1000  # of ImageNet-1k, in the order of their WordNet ids
CATEGORIES = {
    "airplane": "404",
    "bear": "294-297",
    "bicycle": "444 671",
    "bird": "8 10-16 18-20 22-24 80-83 87-96 98-100 127-133 135-145",
    "boat": "472 554 625 814 914",
    "bottle": "440 720 737 898 899 901 907",
    "car": "436 511 817",
    "cat": "281-286",
    "chair": "423 559 765 857",
    "clock": "409 530 892",
    "dog": "152-191 193-203 205-226 228-241 243-250 252-257 259 261-263 265-268",
    "elephant": "385 386",
    "keyboard": "508 878",
    "knife": "499",
    "oven": "766",
    "truck": "555 569 656 675 717 734 864 867",
}


def members(category: str) -> list[int]:
    """The numbers of the ImageNet-1k classes of a category. Raises KeyError."""
    spans = [span.partition("-") for span in CATEGORIES[category].split()]
    return [i for first, _, last in spans for i in range(int(first), int(last or first) + 1)]


def decisions(logits: Tensor, groups: Sequence[Sequence[int]]) -> Tensor:
    """(n,) the group of columns of logits (n, C) with the highest mean probability; of equals, the first."""
    # The softmax's denominator is the same for all groups, so no class outside of them takes part.
    means = [logits[:, list(group)].double().logsumexp(dim=1) - log(len(group)) for group in groups]
    return torch.stack(means, dim=1).argmax(dim=1)
