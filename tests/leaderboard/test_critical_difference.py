"""Friedman, Nemenyi and the picture: against Demšar's own numbers, against scipy, and as drawn."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from backbench.backbones import BadInput
from backbench.leaderboard import critical_difference, write_difference_picture
from backbench.leaderboard.friedman import CriticalDifference, of_scores
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import chi2, rankdata

NETS = ["mini/cnn-supervised", "mini/vit-supervised", "mini/vit-contrastive", "mini/cnn-random"]


@pytest.mark.parametrize(("k", "q"), [(3, 2.343), (4, 2.569), (5, 2.728), (8, 3.031), (10, 3.164)])
def test_the_distance_is_that_of_demsars_table(k, q):
    """q at 0.05 of table 5a in Demšar 2006, printed with three digits."""
    found = of_scores(np.random.default_rng(0).normal(size=(k, 14)), [str(i) for i in range(k)], range(14))
    assert found.distance == pytest.approx(q * np.sqrt(k * (k + 1) / (6 * 14)), abs=0.001)


@settings(max_examples=30, deadline=None)
@given(st.tuples(st.integers(3, 6), st.integers(2, 7)).flatmap(lambda s: arrays(float, s, elements=st.integers(0, 3))))
def test_friedman_ranks_and_groups_are_as_defined(scores):
    k, n = scores.shape
    found = of_scores(scores, [f"net{i}" for i in range(k)], [f"task{j}" for j in range(n)])
    ranks = np.array([rankdata(-column) for column in scores.T])
    mean = ranks.mean(axis=0)
    assert found.ranks == pytest.approx(sorted(mean))
    assert found.names == tuple(sorted((f"net{i}" for i in range(k)), key=lambda name: (mean[int(name[3:])], name)))
    # Conover 1999, §5.8: the statistic with its correction for ties.
    square, middle = (ranks**2).sum(), n * k * (k + 1) ** 2 / 4
    if square == middle:
        assert found.p == 1
    else:
        statistic = (k - 1) * (((ranks.sum(axis=0) - n * (k + 1) / 2) ** 2).sum()) / (square - middle)
        assert found.p == pytest.approx(chi2.sf(statistic, k - 1), abs=1e-9)
    runs = [range(i, j) for i in range(k) for j in range(i + 2, k + 1)]
    near = [r for r in runs if found.ranks[r[-1]] - found.ranks[r[0]] < found.distance]
    largest = tuple(r for r in near if not any(r != o and o.start <= r.start and r.stop <= o.stop for o in near))
    assert found.groups == (largest if found.p < 0.05 else (range(k),))


def test_of_a_board_it_takes_the_tasks_that_all_have(board):
    found = critical_difference(board, [*NETS, NETS[0]])
    ranked = [c.key for c in board.columns if c.ranked]
    assert found.tasks == tuple(ranked)
    assert set(found.names) == set(NETS)
    assert found.names[-1] == "mini/cnn-random"
    rows = {row.backbone: row for row in board.rows}
    places = [rankdata([-rows[name].cells[key].value for name in NETS]) for key in ranked]
    assert dict(zip(found.names, found.ranks, strict=True)) == pytest.approx(
        dict(zip(NETS, np.mean(places, axis=0), strict=True))
    )


def test_what_it_cannot_be_said_of(board):
    with pytest.raises(BadInput, match=r"2 backbones with 8 ranked tasks in common: .* takes 3 and 2"):
        critical_difference(board, NETS[:2])
    with pytest.raises(BadInput, match=r"no backbone on this board 'mini/cnn-randon'.*mini/cnn-random"):
        critical_difference(board, [*NETS, "mini/cnn-randon"])
    with pytest.raises(BadInput, match="with 1 ranked tasks"):
        critical_difference(board.only("retrieval"), NETS)


def invented(k=9, tasks=12, name="timm/some_network_{}_patch16_224.augreg"):
    scores = np.linspace(3, 0, k)[:, None] + np.random.default_rng(2).normal(size=(k, tasks))
    return of_scores(scores, [name.format(i) for i in range(k)], [f"t{j}" for j in range(tasks)])


@pytest.mark.parametrize(("suffix", "magic"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_a_picture_by_its_suffix_twice_the_same(tmp_path, suffix, magic):
    for name in ("a", "b"):
        write_difference_picture(invented(), tmp_path / "new" / f"{name}.{suffix}")
    one, other = (tmp_path / "new" / f"{name}.{suffix}" for name in ("a", "b"))
    assert one.read_bytes() == other.read_bytes()
    assert one.read_bytes().startswith(magic)


@pytest.mark.parametrize(
    "found",
    [
        invented(),
        invented(3, 2, "x"),
        invented(26, 30, "{}"),
        invented(5, 9, "a very long name of a network, with <b>tags</b> & $math$, no. {}" + "w" * 70),
        invented(6, 9, "{}" + "i" * 90),
    ],
    ids=["usual", "three", "many", "long", "narrow-letters"],
)
def test_labels_never_overlap_and_stay_inside(found):
    from backbench.leaderboard.difference_picture import _picture
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = _picture(found)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [(t.get_text(), t.get_window_extent(canvas.get_renderer())) for t in figure.axes[0].texts]
    for name in found.names:
        assert any(name in words for words, _ in boxes)
    for i, (words, box) in enumerate(boxes):
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y0 >= 0
        assert box.y1 <= figure.bbox.y1
        for other, theirs in boxes[:i]:
            assert not box.overlaps(theirs), (words, other)


def test_bars_join_the_groups_and_never_touch():
    from backbench.leaderboard.difference_picture import AXIS, BAR, _picture

    found = invented(12, 30)
    bars = [line.get_xydata() for line in _picture(found).axes[0].lines if line.get_color() == BAR]
    assert len(bars) == len(found.groups) > 2
    inch = AXIS / (len(found.names) - 1)
    for bar, group in zip(bars, found.groups, strict=True):
        assert bar[1, 0] - bar[0, 0] == pytest.approx((found.ranks[group[-1]] - found.ranks[group[0]]) * inch + 0.1)
    for i, bar in enumerate(bars):
        for other in bars[:i]:
            assert bar[0, 1] != other[0, 1] or bar[0, 0] > other[1, 0] or other[0, 0] > bar[1, 0]


def test_the_picture_says_what_it_shows(tmp_path):
    nothing = CriticalDifference(("a", "b", "c"), (1.8, 2.0, 2.2), ("s", "t"), 0.4, 2.3, (range(3),))
    write_difference_picture(nothing, tmp_path / "a.svg")
    said = " ".join(re.findall(r"<!--(.*?)-->", (tmp_path / "a.svg").read_text()))
    assert "Friedman's test finds no difference among them (p = 0.4)" in said
    assert "critical difference 2.30" not in said  # longer than the axis
    ElementTree.parse(tmp_path / "a.svg")


def test_where_a_picture_cannot_go(tmp_path):
    with pytest.raises(BadInput, match=r"--plot .*a\.gif: name a file that ends in \.svg, \.pdf, \.png"):
        write_difference_picture(invented(), tmp_path / "a.gif")
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="--plot"):
        write_difference_picture(invented(), tmp_path / "file" / "a.svg")
