"""Non-maximum suppression under mmcv's own functions, against plain loops over the definitions."""

import math

import numpy as np
import pytest
import torch
from backbench.tasks.openmmlab.gate import openmmlab
from hypothesis import assume, given, settings
from hypothesis import strategies as st

pytest.importorskip("mmengine")

coordinates = st.integers(0, 12)
box = st.tuples(coordinates, coordinates, st.integers(1, 8), st.integers(1, 8))


@st.composite
def detections(draw, least=0):
    """(n, 4) boxes on a coarse grid, so that many overlaps lie exactly on a threshold, and (n,) different scores."""
    boxes = draw(st.lists(box, min_size=least, max_size=12))
    scores = draw(st.permutations(range(1, len(boxes) + 1)))
    xywh = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1), torch.tensor(scores) / 16


def iou(a, b, offset=0):
    """In float32 throughout, as the compiled operators compute it."""
    f = np.float32
    width = max(f(0), min(f(a[2]), f(b[2])) - max(f(a[0]), f(b[0])) + f(offset))
    height = max(f(0), min(f(a[3]), f(b[3])) - max(f(a[1]), f(b[1])) + f(offset))
    area_a, area_b = ((f(x[2]) - f(x[0]) + f(offset)) * (f(x[3]) - f(x[1]) + f(offset)) for x in (a, b))
    return f(width * height) / f(area_a + area_b - width * height)


thresholds = st.sampled_from([0.1, 0.3, 1 / 3, 0.5, 0.7])


@given(detections(), thresholds, st.sampled_from([0, 1]))
@settings(max_examples=50)
def test_nms_keeps_what_no_better_box_overlaps(found, threshold, offset):
    boxes, scores = found
    order = np.argsort(-scores.numpy(), kind="stable")
    kept = []
    for i in order:
        if all(iou(boxes[i].numpy(), boxes[k].numpy(), offset) <= np.float32(threshold) for k in kept):
            kept.append(int(i))
    dets, indices = openmmlab("mmcv.ops").nms(boxes, scores, threshold, offset=offset)
    assert indices.tolist() == kept
    assert torch.equal(dets, torch.cat([boxes, scores[:, None]], dim=1)[kept])


@pytest.mark.parametrize(("part", "threshold"), [(3, 0.3), (6, 0.6), (7, 0.7)])
def test_an_overlap_of_just_the_threshold_is_not_above_it(part, threshold):
    boxes = torch.tensor([[0.0, 0, 10, 1], [0, 0, part, 1]])
    _, indices = openmmlab("mmcv.ops").nms(boxes, torch.tensor([0.9, 0.8]), threshold)
    assert indices.tolist() == [0, 1]
    groups = openmmlab("mmcv.ops").nms_match(torch.cat([boxes, torch.tensor([[0.9], [0.8]])], dim=1), threshold)
    assert [group.tolist() for group in groups] == [[0, 1]]  # here it is enough


def test_nms_of_half_precision_and_a_score_threshold():
    boxes = torch.tensor([[0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]]).half()
    scores = torch.tensor([0.5, 0.9, 0.3, 0.01]).half()
    dets, indices = openmmlab("mmcv.ops").nms(boxes, scores, 0.5, score_threshold=0.05)
    assert indices.tolist() == [1, 2]
    assert dets.dtype == torch.float16


@given(detections(), thresholds, st.sampled_from(["naive", "linear", "gaussian"]), st.sampled_from([0, 1]))
@settings(max_examples=50)
def test_soft_nms_lowers_scores_of_what_the_best_overlaps(found, threshold, method, offset):
    boxes, scores = found
    sigma, least = 0.5, 0.04
    left, chosen = {i: float(s) for i, s in enumerate(scores)}, []
    while left:
        best = max(left, key=lambda i: left[i])
        # Which of two equal scores comes first is nobody's to say.
        assume(all(left[best] - left[i] > 1e-6 for i in left if i != best))
        chosen.append((best, left.pop(best)))
        for i in list(left):
            overlap = iou(boxes[best].numpy(), boxes[i].numpy(), offset)
            near = overlap >= np.float32(threshold)
            factor = {"naive": 0.0 if near else 1.0, "linear": 1 - overlap if near else 1.0}.get(method)
            left[i] *= math.exp(-(float(overlap) ** 2) / sigma) if factor is None else float(factor)
            assume(abs(left[i] - least) > 1e-6)  # nor which way the last bit rounds
            if left[i] < least:
                del left[i]
    dets, indices = openmmlab("mmcv.ops").soft_nms(boxes, scores, threshold, sigma, least, method, offset)
    assert indices.tolist() == [i for i, _ in chosen]
    assert torch.equal(dets[:, :4], boxes[indices])
    assert dets[:, 4].tolist() == pytest.approx([s for _, s in chosen], abs=1e-6)


@given(detections(), thresholds)
@settings(max_examples=50)
def test_nms_match_gives_each_kept_box_those_it_suppresses(found, threshold):
    boxes, scores = found
    groups, gone = [], set()
    order = np.argsort(-scores.numpy(), kind="stable").tolist()
    for place, i in enumerate(order):
        if i in gone:
            continue
        rest = [j for j in order[place + 1 :] if j not in gone]
        taken = [j for j in rest if iou(boxes[i].numpy(), boxes[j].numpy()) >= np.float32(threshold)]
        gone.update(taken)
        groups.append([i, *taken])
    found_groups = openmmlab("mmcv.ops").nms_match(torch.cat([boxes, scores[:, None]], dim=1), threshold)
    assert [group.tolist() for group in found_groups] == groups


def test_batched_nms_keeps_classes_apart():
    ops = openmmlab("mmcv.ops")
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [1, 0, 10, 10]])
    scores, classes = torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 1, 0])
    _, kept = ops.batched_nms(boxes, scores, classes, {"type": "nms", "iou_threshold": 0.5})
    assert kept.tolist() == [0, 1]
    _, kept = ops.batched_nms(boxes, scores, classes, {"type": "soft_nms", "iou_threshold": 0.5, "method": "naive"})
    assert kept.tolist() == [0, 1]
