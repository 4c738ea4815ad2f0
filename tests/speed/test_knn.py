"""k-NN search beside faiss's flat index and scikit-learn's brute force, at the size of a small ImageNet."""

import faiss
import numpy as np
import pytest
import torch
from backbench.tasks.neighbours import nearest
from sklearn.neighbors import NearestNeighbors

QUERIES, GALLERY, WIDTH = 10_000, 50_000, 384
CLOSE = 1e-6  # cosines that differ by less are a tie in float32


@pytest.fixture(scope="module")
def rows():
    """Noisy points around a hundred centres, of unit length: rivals need not normalise them."""
    rng = torch.Generator().manual_seed(0)
    centres = torch.randn(100, WIDTH, generator=rng)

    def drawn(count):
        near = centres[torch.randint(100, (count,), generator=rng)]
        return torch.nn.functional.normalize(near + torch.randn(count, WIDTH, generator=rng))

    return drawn(QUERIES), drawn(GALLERY)


def same_but_for_ties(ours, theirs) -> float:
    """Share of queries whose sets of neighbours are equal; where they are not, the last ones are as near."""
    (cosines, rows), (others, other_rows) = ours, theirs
    np.testing.assert_allclose(cosines, others, atol=CLOSE)  # rank by rank
    differ = [set(a) != set(b) for a, b in zip(rows.tolist(), other_rows.tolist(), strict=True)]
    return 1 - float(np.mean(differ))


@pytest.mark.speed
@pytest.mark.parametrize("k", [20, 200])
def test_search(k, rows, interleaved, report):
    queries, gallery = rows
    found = {}

    def ours():
        found["ours"] = tuple(t.numpy() for t in nearest(queries, gallery, k))

    def flat():
        index = faiss.IndexFlatIP(WIDTH)
        index.add(gallery.numpy())
        found["faiss"] = index.search(queries.numpy(), k)

    def brute():
        near = NearestNeighbors(n_neighbors=k, algorithm="brute", metric="cosine").fit(gallery.numpy())
        distances, indices = near.kneighbors(queries.numpy())
        found["sklearn"] = 1 - distances, indices

    mine, faiss_took = interleaved(ours, flat, rounds=4)
    (sklearn_took,) = interleaved(brute, rounds=1)
    for name, took, bar in [("faiss", faiss_took, 1.0), ("sklearn", sklearn_took, 4.0)]:
        same = same_but_for_ties(found["ours"], found[name])
        report(
            measure=f"k-NN, 50,000 x 384 gallery, 10,000 queries, k = {k}",
            against={"faiss": "faiss-cpu IndexFlatIP", "sklearn": "scikit-learn brute"}[name],
            ours=mine,
            theirs=took,
            bar=f"≥ {bar:g}x",
            held=f"cosines within {CLOSE:g} rank by rank, {same:.2%} of the sets equal",
        )
        assert same > 0.999
        assert took / mine >= bar
