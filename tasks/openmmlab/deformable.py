"""Deformable convolution (arXiv 1703.06211), modulated (arXiv 1811.11168), and attention (arXiv 2010.04159).

As `mmcv._ext` has them: results are written into the tensors that mmcv gives. `columns` and `ones` are the room that
its own operators work in.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .gate import COMPILED, openmmlab
from .precision import wide

TORCHVISION = torch.ops.torchvision


class Geometry(NamedTuple):
    """How the kernel goes over the map, in torchvision's order; `offset_groups`: parts of channels that move alike."""

    stride_h: int
    stride_w: int
    pad_h: int
    pad_w: int
    dilation_h: int
    dilation_w: int
    groups: int
    offset_groups: int

    @classmethod
    def plain(cls, *, dH, dW, padH, padW, dilationH, dilationW, group, deformable_group, **_: int) -> "Geometry":
        """From the keywords of `deform_conv_…`."""
        return cls(dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)

    @classmethod
    def modulated(
        cls, *, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group, **_: int
    ) -> "Geometry":
        """From the keywords of `modulated_deform_conv_…`."""
        return cls(stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)


def deform_conv_forward(
    input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor, **geometry: int
) -> None:
    """Fills `output` (B, O, h, w) from maps (B, C, H, W), weights (O, C / groups, kH, kW), offsets (B, 2gk, h, w)."""
    _convolve(input, weight, offset, None, None, output, Geometry.plain(**geometry))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **geometry: int,
) -> None:
    """Fills `grad_input` and `grad_offset`."""
    grads = _gradients(grad_output, input, weight, offset, None, Geometry.plain(**geometry))
    grad_input.copy_(grads[0])
    grad_offset.copy_(grads[2])


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    scale: float,
    **geometry: int,
) -> None:
    """Adds `scale` times the weights' gradient, which does not depend on the weights, to `grad_weight`."""
    grads = _gradients(grad_output, input, grad_weight, offset, None, Geometry.plain(**geometry))
    grad_weight.add_(grads[1], alpha=scale)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    with_bias: bool,
    **geometry: int,
) -> None:
    """Fills `output` (B, O, h, w); `mask` (B, gk, h, w) weighs what each place of the kernel sees."""
    _convolve(input, weight, offset, mask, bias if with_bias else None, output, Geometry.modulated(**geometry))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    with_bias: bool,
    **geometry: int,
) -> None:
    """Fills the gradients of everything that is learned."""
    grads = _gradients(grad_output, input, weight, offset, mask, Geometry.modulated(**geometry))
    for given, grad in zip((grad_input, grad_weight, grad_offset, grad_mask), grads, strict=False):
        given.copy_(grad)
    if with_bias:
        grad_bias.copy_(grads[4])


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """(B, queries, heads * D) of values (B, keys, heads, D) at locations (B, queries, heads, levels, points, 2).

    mmcv has this in plain torch for the CPU; on a GPU it asks the extension, which gives the same.
    """
    attention = openmmlab("mmcv.ops.multi_scale_deform_attn").multi_scale_deformable_attn_pytorch
    return attention(value, value_spatial_shapes, sampling_locations, attention_weights)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Fills the gradients of values, locations and weights."""
    with torch.enable_grad():
        values, places, weights = (x.detach().requires_grad_() for x in (value, sampling_locations, attention_weights))
        output = ms_deform_attn_forward(
            values, value_spatial_shapes, value_level_start_index, places, weights, im2col_step
        )
        grads = torch.autograd.grad(output, (values, places, weights), grad_output)
    for given, grad in zip((grad_value, grad_sampling_loc, grad_attn_weight), grads, strict=True):
        given.copy_(grad)


def _convolve(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    output: Tensor,
    geometry: Geometry,
) -> None:
    if offset.shape[-2:] != output.shape[-2:]:
        raise NotImplementedError(
            f"mmcv's deformable convolution with offsets of {tuple(offset.shape[-2:])} for an output of "
            f"{tuple(output.shape[-2:])}, as DyHead has it, is not among torchvision's; {COMPILED}"
        )
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    tensors = (input, weight, offset, _mask(input, mask), bias)
    output.copy_(TORCHVISION.deform_conv2d(*map(wide, tensors), *geometry, mask is not None))


def _gradients(
    grad: Tensor, input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, geometry: Geometry
) -> tuple[Tensor, ...]:
    """Of input, weight, offset, mask and bias."""
    tensors = (grad, input, weight, offset, _mask(input, mask), weight.new_zeros(len(weight)))
    return TORCHVISION._deform_conv2d_backward(*map(wide, tensors), *geometry, mask is not None)


def _mask(input: Tensor, mask: Tensor | None) -> Tensor:
    """torchvision wants a tensor where there is none."""
    return input.new_zeros(len(input), 1) if mask is None else mask
