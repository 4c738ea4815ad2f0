"""RoIAlign (He et al. 2017, arXiv 1703.06870) and RoIPool (Girshick 2015, arXiv 1504.08083) as `mmcv._ext` has them.

Regions are (k, 5): the image's place in the batch, then xyxy in pixels of the network's input. Results are written into
the tensors that mmcv gives, as its own operators do.
"""

import torch
from torch import Tensor

from .gate import COMPILED
from .precision import wide

TORCHVISION = torch.ops.torchvision
MAX = 0  # mmcv's number of RoIAlign's other pooling


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fills `output` (k, C, height, width) from maps (B, C, H, W): means of bilinear samples in each cell."""
    if pool_mode == MAX:
        raise NotImplementedError(f"mmcv's roi_align with pool_mode='max' is not among torchvision's; {COMPILED}")
    input = wide(input)
    cells = (spatial_scale, aligned_height, aligned_width)
    output.copy_(TORCHVISION.roi_align(input, rois.to(input.dtype), *cells, sampling_ratio, aligned))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fills `grad_input` (B, C, H, W) from `grad_output` (k, C, height, width)."""
    grad = wide(grad_output)
    cells = (spatial_scale, aligned_height, aligned_width)
    grad_input.copy_(
        TORCHVISION._roi_align_backward(grad, rois.to(grad.dtype), *cells, *grad_input.shape, sampling_ratio, aligned)
    )


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Fills `output` (k, C, height, width) with the largest value of each cell, `argmax` with its place in the map."""
    input = wide(input)
    values, places = TORCHVISION.roi_pool(input, rois.to(input.dtype), spatial_scale, pooled_height, pooled_width)
    output.copy_(values)
    argmax.copy_(places)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Fills `grad_input` (B, C, H, W) from `grad_output` (k, C, height, width)."""
    grad = wide(grad_output)
    cells = (spatial_scale, pooled_height, pooled_width)
    grad_input.copy_(TORCHVISION._roi_pool_backward(grad, rois.to(grad.dtype), argmax, *cells, *grad_input.shape))
