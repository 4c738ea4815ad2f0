"""Operators under mmcv's own functions: values against loops over the formulas, gradients against finite steps."""

from math import ceil, floor

import pytest
import torch
from backbench.tasks.openmmlab.gate import openmmlab
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torchvision.ops import sigmoid_focal_loss

pytest.importorskip("mmengine")


def ops():
    return openmmlab("mmcv.ops")


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def bilinear(m, y, x):
    """(C,) of a map (C, H, W) at a place, zero outside of it."""
    total = m.new_zeros(m.shape[0])
    y0, x0 = (floor(v.item() if isinstance(v, torch.Tensor) else v) for v in (y, x))
    for i, j in ((y0, x0), (y0, x0 + 1), (y0 + 1, x0), (y0 + 1, x0 + 1)):
        if 0 <= i < m.shape[1] and 0 <= j < m.shape[2]:
            total = total + m[:, i, j] * (1 - abs(y - i)) * (1 - abs(x - j))
    return total


# -- RoIAlign, RoIPool ---------------------------------------------------------------------------------------------


def slow_roi_align(maps, rois, size, scale, samples, aligned):
    height, width = maps.shape[-2:]
    rows = []
    for image, *corners in rois.tolist():
        x1, y1, x2, y2 = (c * scale - (0.5 if aligned else 0) for c in corners)
        across, down = (x2 - x1, y2 - y1) if aligned else (max(x2 - x1, 1.0), max(y2 - y1, 1.0))
        cell_w, cell_h = across / size, down / size
        n_x, n_y = (samples or ceil(cell_w)), (samples or ceil(cell_h))
        for py in range(size):
            for px in range(size):
                total = maps.new_zeros(maps.shape[1])
                for iy in range(n_y):
                    for ix in range(n_x):
                        y = y1 + cell_h * (py + (iy + 0.5) / n_y)
                        x = x1 + cell_w * (px + (ix + 0.5) / n_x)
                        if not (-1 <= y <= height and -1 <= x <= width):
                            continue  # a pixel further out there is nothing
                        inside = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
                        total = total + bilinear(maps[int(image)], *inside)
                rows.append(total / max(n_x * n_y, 1))
    return arranged(rows, maps, size)


def arranged(rows, maps, size):
    """(k, C, size, size) of k * size * size rows (C,); on the graph of `maps` even where none of them is used."""
    rows = torch.stack(rows) if rows else maps.new_zeros(0, maps.shape[1])
    return rows.reshape(-1, size, size, maps.shape[1]).permute(0, 3, 1, 2) + 0 * maps.sum()


corner = st.floats(-12, 40, width=32)
regions = st.lists(
    st.tuples(st.integers(0, 1), corner, corner, st.floats(0, 40, width=32), st.floats(0, 40, width=32)), max_size=3
)


@given(regions, st.sampled_from([0, 1, 2]), st.booleans())
@settings(max_examples=30)
def test_roi_align_is_the_mean_of_bilinear_samples(regions, samples, aligned):
    rois = torch.tensor([[i, x, y, x + w, y + h] for i, x, y, w, h in regions], dtype=torch.float64).reshape(-1, 5)
    maps = random(2, 3, 7, 6).requires_grad_()
    slow = slow_roi_align(maps, rois, 2, 0.25, samples, aligned)
    fast = ops().roi_align(maps, rois, 2, 0.25, samples, "avg", aligned)
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-5)
    weights = random(*fast.shape, seed=1)
    of_fast, of_slow = (torch.autograd.grad((f * weights).sum(), maps)[0] for f in (fast, slow))
    torch.testing.assert_close(of_fast, of_slow, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    maps, rois = random(1, 2, 8, 8).to(dtype), torch.tensor([[0, 1.0, 1.0, 20.0, 25.0]])
    found = ops().roi_align(maps, rois.to(dtype), 3, 0.25)
    assert found.dtype == dtype
    assert torch.equal(found, ops().roi_align(maps.float(), rois, 3, 0.25).to(dtype))


def slow_roi_pool(maps, rois, size, scale):
    height, width = maps.shape[-2:]
    rows = []
    for image, *corners in rois.tolist():
        x1, y1, x2, y2 = (floor(abs(c * scale) + 0.5) * (1 if c >= 0 else -1) for c in corners)  # halves go outwards
        cell_w, cell_h = max(x2 - x1 + 1, 1) / size, max(y2 - y1 + 1, 1) / size
        for py in range(size):
            for px in range(size):
                top, bottom = floor(py * cell_h) + y1, ceil((py + 1) * cell_h) + y1
                left, right = floor(px * cell_w) + x1, ceil((px + 1) * cell_w) + x1
                top, bottom = (min(max(v, 0), height) for v in (top, bottom))
                left, right = (min(max(v, 0), width) for v in (left, right))
                cell = maps[int(image), :, top:bottom, left:right].flatten(1)
                rows.append(cell.amax(1) if cell.shape[1] else maps.new_zeros(maps.shape[1]))
    return arranged(rows, maps, size)


@given(regions)
@settings(max_examples=30)
def test_roi_pool_is_the_largest_of_each_cell(regions):
    # On quarters, so that no rounding decides which cells there are.
    rois = [[i, *(round(4 * v) / 4 for v in (x, y, x + w, y + h))] for i, x, y, w, h in regions]
    rois = torch.tensor(rois, dtype=torch.float64).reshape(-1, 5)
    maps = random(2, 2, 7, 6).requires_grad_()
    slow, fast = slow_roi_pool(maps, rois, 2, 0.25), ops().roi_pool(maps, rois, 2, 0.25)
    torch.testing.assert_close(fast, slow)
    weights = random(*fast.shape, seed=1)
    of_fast, of_slow = (torch.autograd.grad((f * weights).sum(), maps)[0] for f in (fast, slow))
    torch.testing.assert_close(of_fast, of_slow)


def test_regions_have_the_gradients_of_finite_differences():
    maps = random(2, 2, 5, 6).requires_grad_()
    rois = torch.tensor([[1, 0.6, 1.1, 17.0, 14.3], [0, -3, -4, 30, 40]], dtype=torch.float64)
    assert gradcheck(lambda m: ops().roi_align(m, rois, (2, 3), 0.25, 2), (maps,))
    assert gradcheck(lambda m: ops().roi_pool(m, rois, (2, 3), 0.25), (maps,))


def test_no_region_gives_no_output_and_no_gradient():
    maps = random(1, 2, 5, 5).requires_grad_()
    for pool in (ops().roi_align, ops().roi_pool):
        found = pool(maps, torch.zeros(0, 5, dtype=torch.float64), 3, 0.25)
        assert found.shape == (0, 2, 3, 3)
        assert not torch.autograd.grad(found.sum(), maps)[0].any()


# -- deformable convolution ----------------------------------------------------------------------------------------


def slow_deformable(maps, offset, mask, weight, stride, padding, dilation, groups, offset_groups):
    batch, _, height, width = maps.shape
    outputs, _, kernel_h, kernel_w = weight.shape
    out_h, out_w = (
        (side + 2 * pad - gap * (k - 1) - 1) // step + 1
        for side, pad, gap, k, step in zip(
            (height, width), padding, dilation, (kernel_h, kernel_w), stride, strict=True
        )
    )
    result = []
    for b in range(batch):
        for y in range(out_h):
            for x in range(out_w):
                seen = []  # (channels,) for each place of the kernel
                for k in range(kernel_h * kernel_w):
                    row = y * stride[0] - padding[0] + (k // kernel_w) * dilation[0]
                    column = x * stride[1] - padding[1] + (k % kernel_w) * dilation[1]
                    parts = []
                    for g, part in enumerate(maps[b].chunk(offset_groups)):
                        at = 2 * (g * kernel_h * kernel_w + k)
                        value = bilinear(part, row + offset[b, at, y, x], column + offset[b, at + 1, y, x])
                        parts.append(value * mask[b, at // 2, y, x] if mask is not None else value)
                    seen.append(torch.cat(parts))
                seen = torch.stack(seen, dim=1).chunk(groups)  # of each group (channels / groups, k)
                kernels = weight.flatten(2).chunk(groups)
                result.append(torch.cat([(w * s).sum((1, 2)) for w, s in zip(kernels, seen, strict=True)]))
    return torch.stack(result).reshape(batch, out_h, out_w, outputs).permute(0, 3, 1, 2)


GEOMETRIES = {
    "plain": {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1, "offset_groups": 1},
    "all uneven": {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2), "groups": 2, "offset_groups": 2},
}


def convolution(geometry):
    """Maps (2, 4, 5, 6), offsets, masks, weights (2, 4 / groups, 3, 2) and biases; offsets are off the pixels' grid."""
    sides = zip((5, 6), geometry["padding"], geometry["dilation"], (3, 2), geometry["stride"], strict=True)
    out = [(side + 2 * pad - gap * (k - 1) - 1) // step + 1 for side, pad, gap, k, step in sides]
    places = 6 * geometry["offset_groups"]
    offset = random(2, 2 * places, *out, seed=1)
    offset = offset.floor() + 0.2 + 0.6 * torch.rand(offset.shape, generator=torch.Generator().manual_seed(2)).double()
    mask = random(2, places, *out, seed=3).sigmoid()
    weight = random(2, 4 // geometry["groups"], 3, 2, seed=4)
    return [t.requires_grad_() for t in (random(2, 4, 5, 6), offset, mask, weight, random(2, seed=5))]


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_deformable_convolutions_see_the_shifted_places(geometry):
    maps, offset, mask, weight, bias = convolution(geometry)
    words = [geometry[name] for name in ("stride", "padding", "dilation", "groups", "offset_groups")]
    cases = {
        "plain": (
            ops().deform_conv2d(maps, offset, weight, *words),
            slow_deformable(maps, offset, None, weight, **geometry),
            (maps, offset, weight),
        ),
        "modulated": (
            ops().modulated_deform_conv2d(maps, offset, mask, weight, bias, *words),
            slow_deformable(maps, offset, mask, weight, **geometry) + bias[:, None, None],
            (maps, offset, mask, weight, bias),
        ),
    }
    for fast, slow, learned in cases.values():
        torch.testing.assert_close(fast, slow)
        weights = random(*fast.shape, seed=6)
        of_fast, of_slow = (torch.autograd.grad((f * weights).sum(), learned) for f in (fast, slow))
        torch.testing.assert_close(of_fast, of_slow)


def test_deformable_convolutions_have_the_gradients_of_finite_differences():
    geometry = GEOMETRIES["all uneven"]
    maps, offset, mask, weight, bias = convolution(geometry)
    words = [geometry[name] for name in ("stride", "padding", "dilation", "groups", "offset_groups")]
    assert gradcheck(lambda *t: ops().deform_conv2d(*t, *words), (maps, offset, weight), fast_mode=True)
    learned = (maps, offset, mask, weight, bias)
    assert gradcheck(lambda *t: ops().modulated_deform_conv2d(*t, *words), learned, fast_mode=True)
    assert gradcheck(lambda *t: ops().modulated_deform_conv2d(*t, None, *words), learned[:4], fast_mode=True)


def test_offsets_of_another_size_are_told_of():
    with pytest.raises(NotImplementedError, match="DyHead"):
        ops().deform_conv2d(random(1, 2, 6, 6), random(1, 18, 6, 6), random(2, 2, 3, 3), 2, 1)


# -- the focal loss ------------------------------------------------------------------------------------------------


@given(st.integers(0, 9), st.integers(1, 5), st.sampled_from([0.0, 1.5, 2.0]), st.sampled_from([0.25, 0.6]))
def test_focal_loss_is_torchvisions(count, classes, gamma, alpha):
    logits = (4 * random(count, classes)).requires_grad_()
    target = torch.arange(count) % (classes + 1)  # the last is the background
    truth = torch.nn.functional.one_hot(target, classes + 1)[:, :-1].double()
    theirs = sigmoid_focal_loss(logits, truth, alpha, gamma)
    ours = ops().sigmoid_focal_loss(logits, target, gamma, alpha, None, "none")
    torch.testing.assert_close(ours, theirs)
    weights = random(count, classes, seed=1)
    of_ours, of_theirs = (torch.autograd.grad((loss * weights).sum(), logits)[0] for loss in (ours, theirs))
    torch.testing.assert_close(of_ours, of_theirs)


def test_focal_loss_of_sure_logits_is_finite():
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    loss = ops().sigmoid_focal_loss(logits, torch.tensor([0, 0]), 2.0, 0.25, None, "none")
    assert torch.isfinite(loss).all()
    assert torch.isfinite(torch.autograd.grad(loss.sum(), logits)[0]).all()
    assert loss[0].tolist() == [0, 0]


def test_focal_loss_has_the_gradient_of_finite_differences():
    target = torch.tensor([0, 2, 3])
    for reduction in ("sum", "mean"):
        assert gradcheck(lambda x, r=reduction: ops().sigmoid_focal_loss(x, target, 2.0, 0.25, None, r),
                         (random(3, 3).requires_grad_(),))  # fmt: skip


# -- deformable attention ------------------------------------------------------------------------------------------


def slow_attention(values, shapes, places, weights):
    batch, _, heads, width = values.shape
    rows = []
    for b in range(batch):
        for q in range(places.shape[1]):
            for h in range(heads):
                total, start = values.new_zeros(width), 0
                for level, (height, across) in enumerate(shapes.tolist()):
                    m = values[b, start : start + height * across, h].T.reshape(width, height, across)
                    start += height * across
                    for point, share in zip(places[b, q, h, level], weights[b, q, h, level], strict=True):
                        total = total + share * bilinear(m, point[1] * height - 0.5, point[0] * across - 0.5)
                rows.append(total)
    return torch.stack(rows).reshape(batch, -1, heads * width)


def test_deformable_attention_is_the_weighted_sum_of_samples():
    attention = openmmlab("mmcv.ops.multi_scale_deform_attn").MultiScaleDeformableAttnFunction
    shapes = torch.tensor([[3, 4], [2, 2]])
    values = random(2, 16, 2, 3).requires_grad_()
    places = torch.rand(2, 3, 2, 2, 2, 2, generator=torch.Generator().manual_seed(1)).double() * 1.4 - 0.2
    places, weights = places.requires_grad_(), random(2, 3, 2, 2, 2, seed=2).softmax(-1).requires_grad_()
    learned = (values, places, weights)

    def fast(values, places, weights):
        return attention.apply(values, shapes, torch.tensor([0, 12]), places, weights, 64)

    slow = slow_attention(values, shapes, places, weights)
    torch.testing.assert_close(fast(*learned), slow)
    mix = random(*slow.shape, seed=3)
    of_fast, of_slow = (torch.autograd.grad((f * mix).sum(), learned) for f in (fast(*learned), slow))
    torch.testing.assert_close(of_fast, of_slow)
    assert gradcheck(fast, learned, fast_mode=True)


# -- what is missing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: ops().PSAMask("collect", (3, 3))(torch.rand(1, 9, 3, 3)), "psamask_forward.*mmcv.ops.psa_mask"),
        (lambda: ops().box_iou_rotated(torch.rand(1, 5), torch.rand(1, 5)), "box_iou_rotated"),
        (lambda: ops().roi_align(torch.rand(1, 1, 4, 4), torch.rand(1, 5), 2, 1.0, 0, "max"), "pool_mode='max'"),
        (
            lambda: ops().sigmoid_focal_loss(torch.rand(1, 2), torch.tensor([0]), 2.0, 0.25, torch.ones(2)),
            "class weights",
        ),
    ],
)
def test_what_does_not_run_uncompiled_says_so(call, told):
    with pytest.raises(NotImplementedError, match=f"{told}.*docker/README.md"):
        call()
