"""Classes as the means of their examples (Snell et al. 2017, without any training)."""

from torch import Tensor
from torch.nn.functional import normalize

from ..threads import one_thread


def nearest_means(x: Tensor, y: Tensor, queries: Tensor) -> Tensor:
    """(q, C) float64 cosines of queries (q, D) to the means of the unit vectors of features x (n, D) of each class.

    Labels y (n,) are 0…C-1, each with an example.
    """
    with one_thread():
        x = normalize(x.double())
        sums = x.new_zeros(int(y.max()) + 1, x.shape[1]).index_add_(0, y, x)
        return normalize(queries.double()) @ normalize(sums).T
