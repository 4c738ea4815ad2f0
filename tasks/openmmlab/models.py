"""mmdet's Cascade (Mask) R-CNN and mmseg's UPerNet on any backbone: their own configs, with ours in place of ResNet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ...backbones import Backbone
from .backbone import SCOPE, register
from .gate import openmmlab

STRIDES = (4, 8, 16, 32)  # of the pyramids that both libraries' heads are made for


def cascade_rcnn(
    backbone: Backbone, classes: int, size: int, *, masks: bool, frozen: bool, width: int = 256
) -> dict[str, Any]:
    """The config of Cascade R-CNN (arXiv 1712.00726), with `masks` Cascade Mask R-CNN; `width`: the pyramid's channels.

    Images are BGR and at most `size` pixels wide and high, and are padded to that.
    """
    model = _config("mmdet", f"cascade-{'mask-' if masks else ''}rcnn_r50_fpn")
    model.data_preprocessor.update(_statistics(backbone), pad_mask=masks, pad_size_divisor=size)
    levels, shapes = _maps(backbone, size)
    model.backbone = _backbone(backbone, levels, frozen, norm_eval=True)
    if [backbone.levels[level].stride for level in levels] == list(STRIDES):
        channels = [channels for channels, _ in shapes]
        model.neck = {"type": "FPN", "in_channels": channels, "out_channels": width, "num_outs": len(STRIDES) + 1}
    else:
        model.neck = _pyramid(shapes, size, width, extra=1)
    model.rpn_head.update(in_channels=width, feat_channels=width)
    heads = model.roi_head
    heads.bbox_roi_extractor.out_channels = width
    for head in heads.bbox_head:
        head.update(in_channels=width, num_classes=classes)
    if masks:
        heads.mask_roi_extractor.out_channels = width
        heads.mask_head.update(in_channels=width, conv_out_channels=width, num_classes=classes)
    return model


def upernet(backbone: Backbone, classes: int, size: int, *, frozen: bool, width: int = 512) -> dict[str, Any]:
    """The config of UPerNet (arXiv 1807.10221) with mmseg's auxiliary FCN head; `width`: channels of its decoder.

    Images are BGR and at most `size` pixels wide and high, and are padded to that. Its BatchNorms are those of one
    process: `sync_bn: torch` in the runner's config changes them where there are several.
    """
    model = _config("mmseg", "upernet_r50")
    square = {"size": (size, size)}
    model.data_preprocessor.update(_statistics(backbone), **square, test_cfg=square)
    levels, shapes = _maps(backbone, size)
    model.pretrained = None
    model.backbone = _backbone(backbone, levels, frozen, norm_eval=False)
    channels = [channels for channels, _ in shapes]
    if len(shapes) == 1:
        model.neck, channels = _pyramid(shapes, size, width, extra=0), [width] * len(STRIDES)
    auxiliary = max(len(channels) - 2, 0)  # the last but one, of stride 16 in the usual four
    shared = {"num_classes": classes, "norm_cfg": {"type": "BN"}}
    model.decode_head.update(shared, in_channels=channels, in_index=list(range(len(channels))), channels=width)
    model.auxiliary_head.update(shared, in_channels=channels[auxiliary], in_index=auxiliary, channels=width // 2)
    return model


def _config(package: str, name: str) -> Any:
    """The model of a base config that comes with a package."""
    folder = Path(openmmlab(package).__file__).parent / ".mim" / "configs" / "_base_" / "models"
    openmmlab(f"{package}.models")
    register()
    model = openmmlab("mmengine.config").Config.fromfile(folder / f"{name}.py").model
    model["_scope_"] = package  # where the names in it are looked up, whoever builds it
    return model


def _statistics(backbone: Backbone) -> dict[str, Any]:
    """What a preprocessor does to pixels of 0 to 255: as the card says."""
    mean, std = ([255 * part for part in parts] for parts in (backbone.input.mean, backbone.input.std))
    return {"mean": mean, "std": std, "bgr_to_rgb": True}


def _backbone(backbone: Backbone, levels: Sequence[int], frozen: bool, norm_eval: bool) -> dict[str, Any]:
    return {
        "type": f"{SCOPE}.Backbone",
        "backbone": backbone,
        "levels": levels,
        "frozen": frozen,
        "norm_eval": norm_eval,
    }


def _pyramid(shapes: Sequence[tuple[int, int]], size: int, width: int, extra: int) -> dict[str, Any]:
    pyramid = {"shapes": shapes, "size": size, "strides": STRIDES, "width": width, "extra": extra}
    return {"type": f"{SCOPE}.Pyramid", **pyramid}


@torch.no_grad()
def _maps(backbone: Backbone, size: int) -> tuple[list[int], list[tuple[int, int]]]:
    """Places of the maps to be used, and channels and side of each, for images of `size` pixels."""
    device = next(backbone.parameters()).device
    maps = backbone.eval()(torch.zeros(1, 3, size, size, device=device), embedding=False, maps=True).maps
    # A stem's map is finer than anything that the heads are made for, and as large as all the others together.
    levels = [place for place, level in enumerate(backbone.levels) if level.stride >= STRIDES[0]]
    return levels, [(maps[place].shape[1], maps[place].shape[-1]) for place in levels]
