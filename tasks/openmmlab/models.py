"""mmdet's detectors and mmseg's segmenters on any backbone: their own configs, with ours in place of ResNet.

Images are RGB and at most `size` pixels wide and high, and are padded to that.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...backbones import Backbone
from ..detection.recipe import GROUPS, DetectorRecipe
from ..segmentation.recipe import SegmenterRecipe
from ..training.dense_recipe import DenseRecipe, map_shapes
from .backbone import SCOPE, register
from .gate import openmmlab

STRIDES = (4, 8, 16, 32)  # of the pyramids that both libraries' heads are made for
PROPOSALS = 1000  # regions that the box head looks at, in mmdet's own configs
GROUP_NORM = {"type": "GN", "num_groups": GROUPS}  # a process may see few regions, or none
FINEST = 7  # cells of its level that a region spans at least, where anchors span one


def detector(backbone: Backbone, classes: int, size: int, recipe: DetectorRecipe, *, masks: bool) -> dict[str, Any]:
    """The config of Cascade R-CNN (arXiv 1712.00726), Faster R-CNN (arXiv 1506.01497), with `masks` their masked
    kin, or RetinaNet (arXiv 1708.02002).
    """
    name = {
        "cascade-rcnn": f"cascade-{'mask-' if masks else ''}rcnn_r50_fpn",
        "faster-rcnn": f"{'mask' if masks else 'faster'}-rcnn_r50_fpn",
        "retinanet": "retinanet_r50_fpn",
    }[recipe.detector]
    model = _config("mmdet", name)
    model.data_preprocessor.update(_statistics(backbone), pad_mask=masks, pad_size_divisor=size)
    levels, shapes = _maps(backbone, size)
    model.backbone = _backbone(backbone, levels, size, recipe)
    finest = 1 if recipe.detector == "retinanet" else 0  # its pyramid begins at stride 8
    if [backbone.levels[level].stride for level in levels] == list(STRIDES):
        model.neck.update(in_channels=[channels for channels, _ in shapes], out_channels=recipe.width)
    else:
        model.neck = _pyramid(shapes, size, recipe.width, STRIDES[finest:], model.neck.num_outs)
    (_one_stage if recipe.detector == "retinanet" else _two_stages)(model, classes, recipe)
    return model


def segmenter(backbone: Backbone, classes: int, size: int, recipe: SegmenterRecipe) -> dict[str, Any]:
    """The config of UPerNet (arXiv 1807.10221) with mmseg's auxiliary FCN head, or of mmseg's FCN (arXiv 1411.4038) for
    maps of several strides, which concatenates them.

    BatchNorms are those of one process.
    """
    model = _config("mmseg", {"upernet": "upernet_r50", "fcn": "fcn_hr18"}[recipe.head])
    square = {"size": (size, size)}
    model.data_preprocessor.update(_statistics(backbone), **square, test_cfg=square)
    levels, shapes = _maps(backbone, size)
    model.pretrained = None
    model.backbone = _backbone(backbone, levels, size, recipe)
    channels = [channels for channels, _ in shapes]
    if len(shapes) == 1:
        model.neck, channels = _pyramid(shapes, size, recipe.width, STRIDES, len(STRIDES)), [recipe.width] * 4
    shared = {"num_classes": classes, "norm_cfg": {"type": f"{SCOPE}.BatchNorm"}}
    model.decode_head.update(shared, in_channels=channels, in_index=list(range(len(channels))), channels=recipe.width)
    # Else a picture would count the less, the more of it is padding.
    model.decode_head.loss_decode.avg_non_ignore = True
    if recipe.head == "upernet" and recipe.auxiliary:
        second = max(len(channels) - 2, 0)  # the last but one, of stride 16 in the usual four
        model.auxiliary_head.update(shared, in_channels=channels[second], in_index=second, channels=recipe.width // 2)
        model.auxiliary_head.loss_decode.update(avg_non_ignore=True, loss_weight=recipe.auxiliary)
    else:
        model.auxiliary_head = None
    if recipe.inference == "slide":
        step = recipe.step(size)
        model.test_cfg = {"mode": "slide", "crop_size": (size, size), "stride": (step, step)}
    return model


def _two_stages(model: Any, classes: int, recipe: DetectorRecipe) -> None:
    heads, width = model.roi_head, recipe.width
    model.rpn_head.update(in_channels=width, feat_channels=width)
    model.rpn_head.anchor_generator.scales = [recipe.cells]
    cut = [(heads.bbox_roi_extractor, recipe.box_cells)]
    for head in _each(heads.bbox_head):
        head.update(in_channels=width, num_classes=classes)
        head.update(fc_out_channels=recipe.box_width, roi_feat_size=recipe.box_cells)
        if recipe.box_layers:
            head.update(type="ConvFCBBoxHead", num_shared_convs=recipe.box_layers, num_shared_fcs=1)
            head.update(conv_out_channels=width, norm_cfg=GROUP_NORM, reg_class_agnostic=False)
        if recipe.box_loss == "giou":
            head.reg_decoded_bbox = True
            head.loss_bbox = {"type": "GIoULoss", "loss_weight": 10.0}
    if "mask_head" in heads:
        cut.append((heads.mask_roi_extractor, recipe.mask_cells))
        heads.mask_head.update(in_channels=width, conv_out_channels=recipe.mask_width)
        heads.mask_head.update(num_classes=classes, num_convs=recipe.mask_layers)
    for extractor, cells in cut:
        extractor.update(out_channels=width, finest_scale=FINEST * recipe.cells)
        extractor.roi_layer.output_size = cells
    model.train_cfg.rpn.sampler.num = recipe.anchor_samples
    for stage in _each(model.train_cfg.rcnn):
        stage.sampler.num = recipe.samples
        if "mask_size" in stage:
            stage.mask_size = 2 * recipe.mask_cells
    for found in (model.train_cfg.rpn_proposal, model.test_cfg.rpn):
        for key in ("nms_pre", "max_per_img"):  # some are twice as many in training
            found[key] = found[key] * recipe.proposals // PROPOSALS


def _one_stage(model: Any, classes: int, recipe: DetectorRecipe) -> None:
    model.bbox_head.update(num_classes=classes, in_channels=recipe.width, feat_channels=recipe.width)
    model.bbox_head.anchor_generator.octave_base_scale = recipe.cells / 2


def _each(parts: Any) -> list[Any]:
    """A cascade has a list of what others have once."""
    return parts if isinstance(parts, list) else [parts]


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
    return {"mean": mean, "std": std, "bgr_to_rgb": False}


def _backbone(backbone: Backbone, levels: Sequence[int], size: int, recipe: DenseRecipe) -> dict[str, Any]:
    return {
        "type": f"{SCOPE}.Backbone",
        "backbone": backbone,
        "levels": levels,
        "trainable": recipe.trainable,
        "drop_path": recipe.drop_path,
        "norm_eval": recipe.norm_eval,
        "window": (recipe.window, size) if recipe.window else None,
    }


def _pyramid(
    shapes: Sequence[tuple[int, int]], size: int, width: int, strides: Sequence[int], levels: int
) -> dict[str, Any]:
    pyramid = {"shapes": shapes, "size": size, "strides": strides, "width": width, "extra": levels - len(strides)}
    return {"type": f"{SCOPE}.Pyramid", **pyramid}


def _maps(backbone: Backbone, size: int) -> tuple[list[int], list[tuple[int, int]]]:
    """Places of the maps to be used, and channels and side of each, for images of `size` pixels."""
    # A stem's map is finer than anything that the heads are made for, and as large as all the others together.
    levels = [place for place, level in enumerate(backbone.levels) if level.stride >= STRIDES[0]]
    shapes = map_shapes(backbone, size)
    return levels, [shapes[place] for place in levels]
