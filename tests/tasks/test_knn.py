"""Nearest neighbours against brute force, and the weighted vote against scikit-learn."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from backbench.tasks import find_task, neighbours
from backbench.tasks.classification.knn import vote
from backbench.tasks.neighbours import nearest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier
from torch.nn.functional import normalize

TASK = find_task("knn")


def brute(queries, gallery, k):
    """float64 cosines rounded to float32, by a stable sort of each whole row."""
    cosines = (normalize(queries.double()) @ normalize(gallery.double()).T).float()
    found = cosines.sort(dim=1, descending=True, stable=True)
    return found.values[:, :k], found.indices[:, :k]


@pytest.fixture
def small_blocks(monkeypatch):
    def set_sizes(rows, queries):
        monkeypatch.setattr(neighbours, "ROWS", rows)
        monkeypatch.setattr(neighbours, "QUERIES", queries)
        monkeypatch.setattr(neighbours, "TOGETHER", 3 * queries)

    return set_sizes


# Rows of ±1, 16 wide: norms are 4, so cosines are exact and many are equal.
signs = st.builds(
    lambda seed, rows, width: torch.from_numpy(np.random.default_rng(seed).choice([-1.0, 1.0], (rows, width))).float(),
    st.integers(0, 99),
    st.integers(1, 90),
    st.just(16),
)


@settings(max_examples=50)
@given(signs, signs, st.integers(1, 100), st.integers(1, 40), st.integers(1, 20), st.lists(st.integers(0, 90)))
def test_ties_go_to_the_lower_position_in_blocks_and_parts_of_any_size(queries, gallery, k, rows, step, cuts):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"ROWS": rows, "QUERIES": step, "TOGETHER": 3 * step}.items():
            patch.setattr(neighbours, name, value)
        found = nearest(queries, torch.tensor_split(gallery, sorted(c for c in cuts if c <= len(gallery))), k)
    for ours, theirs in zip(found, brute(queries, gallery, k), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


KINDS = {
    "spread": lambda x: x,
    "all one way": lambda x: x * 0.01 + 1,  # cosines between 0.9998 and 1: far closer than bfloat16 tells
    "positive": lambda x: x.relu(),
    "doubled": lambda x: torch.cat([x[: len(x) // 2]] * 2),
    "by likeness": lambda x: x[x[:, 0].argsort()],
    "huge and tiny": lambda x: x * 10 ** torch.linspace(-15, 15, len(x))[:, None],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 20, 700])
def test_neighbours_are_those_of_brute_force(kind, k):
    rng = torch.Generator().manual_seed(k)
    gallery, queries = torch.randn(9000, 48, generator=rng), torch.randn(70, 48, generator=rng)
    gallery, queries = KINDS[kind](gallery), KINDS[kind](queries)
    cosines, rows = nearest(queries, gallery, k)
    exact = normalize(queries.double()) @ normalize(gallery.double()).T
    torch.testing.assert_close(cosines.double(), exact.gather(1, rows), rtol=0, atol=3e-7)
    assert (cosines.diff(dim=1) <= 0).all()
    assert all(len(set(row)) == k for row in rows.tolist())
    left_out = exact.scatter(1, rows, -2).amax(dim=1)
    assert (left_out <= cosines[:, -1] + 3e-7).all()  # nothing better was missed, but for rounding
    equal = cosines.diff(dim=1) == 0
    assert (rows.diff(dim=1)[equal] > 0).all()


def test_neither_blocks_nor_parts_nor_cores_nor_company_change_a_bit(small_blocks, monkeypatch):
    rng = torch.Generator().manual_seed(0)
    gallery, queries = torch.randn(3000, 100, generator=rng), torch.randn(300, 100, generator=rng)
    expected = nearest(queries, gallery, 40)
    monkeypatch.setattr(neighbours, "screening", lambda: torch.float32)
    monkeypatch.setattr(neighbours, "cores", lambda: 1)
    small_blocks(77, 13)
    found = nearest(queries, [gallery[:1], gallery[1:1200], gallery[1200:]], 40)
    alone = [torch.cat(x) for x in zip(*(nearest(q, gallery, 40) for q in queries[:20, None]), strict=True)]
    for i in (0, 1):
        assert torch.equal(found[i], expected[i])
        assert torch.equal(alone[i], expected[i][:20])


def test_the_threads_of_the_process_are_put_back():
    before = torch.get_num_threads()
    nearest(torch.ones(1, 3), torch.ones(2, 3), 1)
    assert torch.get_num_threads() == before


MEMORY = """
import sys, threading, time
import numpy as np, torch
from backbench.tasks.neighbours import nearest

def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) / 1024

def peak(rows):
    gallery = torch.from_numpy(np.memmap(sys.argv[1], np.float32, "c", shape=(rows, 256)))
    seen, going = [anonymous()], True
    def watch():
        while going:
            seen.append(anonymous())
            time.sleep(0.001)
    thread = threading.Thread(target=watch)
    thread.start()
    nearest(queries, gallery, 20)
    going = False
    thread.join()
    return max(seen)

queries = torch.randn(600, 256)
peak(12_000)
print(peak(24_000), peak(192_000))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads /proc")
def test_memory_does_not_grow_with_a_mapped_gallery(tmp_path):
    path = tmp_path / "gallery.bin"
    some = np.random.default_rng(0).standard_normal((8000, 256), dtype=np.float32)
    with path.open("wb") as file:
        for _ in range(24):
            file.write(some)
    call = [sys.executable, "-c", MEMORY, str(path)]
    # What an allocator keeps for later is not what we hold: large blocks go back at once.
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
    done = subprocess.run(call, capture_output=True, text=True, check=True, env=env)
    once, eightfold = map(float, done.stdout.split())
    assert eightfold < once + 20  # the files are 25 and 197 MB


def blobs(seed, count=200):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, count)
    return (rng.normal(size=(4, 8))[y] + rng.normal(size=(count, 8))).astype(np.float32), y


@pytest.mark.parametrize("k", [1, 5, 30, 1000])
@pytest.mark.parametrize("temperature", [0.02, 0.07, 1])
def test_votes_are_scikit_learns(k, temperature):
    (x, y), (queries, _) = blobs(4), blobs(5, count=50)
    cosines, rows = nearest(torch.tensor(queries), torch.tensor(x), k)
    shares = vote(cosines, torch.tensor(y)[rows], 4, k, temperature)
    reference = KNeighborsClassifier(min(k, len(x)), metric="cosine", weights=lambda d: np.exp(-d / temperature))
    expected = reference.fit(x.astype(float), y).predict_proba(queries.astype(float))
    np.testing.assert_allclose(shares.numpy(), expected, atol=1e-4 * k**0 if temperature < 0.05 else 1e-5)


def test_a_zero_embedding_still_gets_a_vote():
    cosines, rows = nearest(torch.zeros(1, 3), torch.eye(3), 3)
    shares = vote(cosines, torch.tensor([0, 1, 1])[rows], 2, 3, 0.07)
    torch.testing.assert_close(shares, torch.tensor([[1 / 3, 2 / 3]], dtype=torch.double))


def test_votes_of_the_far_and_the_cold_do_not_vanish():
    shares = vote(torch.tensor([[-0.9, -0.95]]), torch.tensor([[1, 0]]), 2, 2, 1e-4)
    torch.testing.assert_close(shares, torch.tensor([[0.0, 1.0]], dtype=torch.double))


def test_k_and_temperature_are_chosen_on_validation_and_searched_once(
    make_backbone, squares_data, context, monkeypatch
):
    searched = []
    module = sys.modules["backbench.tasks.classification.knn"]
    monkeypatch.setattr(module, "nearest", lambda *a: searched.append(a[2]) or nearest(*a))
    data = squares_data()
    chosen = TASK.run(make_backbone(), data, TASK.recipe({"k": [3, 1, 50]}), context).chosen
    assert searched == [50, chosen["k"]]
    tried = {
        (k, t): TASK.run(make_backbone(), data, TASK.recipe({"k": k, "temperature": t}), context).chosen["val_top1"]
        for k in (1, 3, 50)
        for t in (0.2, 0.07, 0.02)
    }
    best = max(tried, key=lambda s: tried[s])
    assert (chosen["k"], chosen["temperature"]) == best
    assert chosen["val_top1"] == tried[best]


def test_more_neighbours_than_images(make_backbone, squares_data, context):
    data = squares_data().limited(3)
    outcome = TASK.run(make_backbone(), data, TASK.recipe({"k": 500}), context)
    assert outcome.chosen["k"] == 500
    assert np.isfinite(outcome.predictions["probabilities"]).all()
