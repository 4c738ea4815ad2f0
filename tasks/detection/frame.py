"""Between an image's own pixels and the letterboxed ones that the network saw."""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...backbones import Backbone, Letterbox
from ..context import Context
from ..datasets import Objects, Split, rle
from ..training.dense_recipe import input_size
from ..training.scenes import Scenes
from .recipe import DetectorRecipe
from .regions import Detections, image_size


def scenes_of(backbone: Backbone, split: Split, recipe: DetectorRecipe, context: Context, masks: bool) -> Scenes:
    """The images of a split to be trained on, with what detectors learn from."""
    letterbox = Letterbox.of(backbone.input, input_size(backbone, recipe.size), backbone.loading.decoder)
    whole, boxed = partial(whole_target, split, masks), partial(boxed_target, split, letterbox, masks)
    return Scenes(split, letterbox, recipe, whole, boxed, context.seed)


def whole_target(split: Split, masks: bool, row: int) -> dict[str, Tensor]:
    """Boxes, labels and masks (k, H, W) uint8 of an image's objects in its own pixels, no crowds."""
    objects = split.targets[row]
    single = _single(objects)
    target = {
        "boxes": torch.from_numpy(np.asarray(objects.boxes, np.float32).reshape(-1, 4)[single]),
        "labels": torch.from_numpy(np.asarray(objects.labels, np.int64)[single]),
    }
    return target | ({"masks": torch.from_numpy(objects.masks[single].astype(np.uint8))} if masks else {})


def boxed_target(split: Split, letterbox: Letterbox, masks: bool, row: int) -> dict[str, Tensor]:
    """The same in letterboxed pixels."""
    objects = split.targets[row]
    return targets_in(objects, image_size(split, row, objects), letterbox, masks)


def boxes_in(objects: Objects, size: tuple[int, int], letterbox: Letterbox) -> np.ndarray:
    """(k, 4) boxes of the objects that are no crowd, in letterboxed pixels."""
    return np.asarray(objects.boxes, np.float32).reshape(-1, 4)[_single(objects)] * _factors(size, letterbox)


def targets_in(objects: Objects, size: tuple[int, int], letterbox: Letterbox, masks: bool) -> dict[str, Tensor]:
    """What heads learn from: boxes, labels and masks (k, side, side) uint8 in letterboxed pixels, no crowds."""
    single = _single(objects)
    target = {
        "boxes": torch.from_numpy(boxes_in(objects, size, letterbox)),
        "labels": torch.from_numpy(np.asarray(objects.labels, np.int64)[single]),
    }
    if masks and objects.masks is not None:
        width, height = letterbox.inner(size[1], size[0])
        shapes = torch.from_numpy(objects.masks[single].astype(np.float32))
        if (height, width) != tuple(size) and len(shapes):
            shapes = F.interpolate(shapes[None], size=(height, width), mode="area")[0].round()
        padding = (0, letterbox.size - shapes.shape[-1], 0, letterbox.size - shapes.shape[-2])
        target["masks"] = F.pad(shapes.byte(), padding)
    return target


def detections_out(found: dict[str, Tensor], size: tuple[int, int], letterbox: Letterbox) -> Detections:
    """What the heads found, in the image's own pixels and cut at its edges; what lies in the padding is dropped."""
    height, width = size
    boxes = found["boxes"].cpu().numpy() / _factors(size, letterbox)
    boxes = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
    keep = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(1))
    masks = None
    if "masks" in found:
        pasted = [_paste(found["masks"][k, 0].cpu(), boxes[k], size) for k in keep.tolist()]
        masks = rle.encode(np.stack(pasted)) if pasted else []
    labels, scores = found["labels"].cpu().numpy(), found["scores"].cpu().numpy()
    return Detections(boxes[keep], labels[keep], scores[keep], size, masks)


def _paste(mask: Tensor, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool of a mask (m, m) of probabilities within a box."""
    x0, y0, x1, y1 = box.tolist()
    left, top = int(np.ceil(x0)), int(np.ceil(y0))
    right, bottom = min(int(x1) + 1, size[1]), min(int(y1) + 1, size[0])
    # torchvision's mask targets are sampled where a pixel is its index, not its centre: read them back in the same way.
    xs = (torch.arange(left, right) - x0) / (x1 - x0) * 2 - 1
    ys = (torch.arange(top, bottom) - y0) / (y1 - y0) * 2 - 1
    grid = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1)
    inside = F.grid_sample(mask[None, None], grid[None], padding_mode="border", align_corners=False)[0, 0]
    whole = np.zeros(size, bool)
    whole[top:bottom, left:right] = (inside > 0.5).numpy()
    return whole


def _single(objects: Objects) -> np.ndarray:
    return np.ones(len(objects.labels), bool) if objects.crowd is None else ~np.asarray(objects.crowd, bool)


def _factors(size: tuple[int, int], letterbox: Letterbox) -> np.ndarray:
    """Letterboxed pixels per pixel, for x1, y1, x2, y2."""
    width, height = letterbox.inner(size[1], size[0])
    return np.array([width / size[1], height / size[0]] * 2, np.float32)
