"""Where a classifier looks: heat maps of images, by gradients (Grad-CAM) and by attention (rollout).

Grad-CAM (Selvaraju et al. 2017) by captum: the channels of a block's map weighted by the mean gradient of a class's
logit, positive parts. Attention rollout (Abnar & Zuidema 2020): the mean head's attention of all blocks, each with half
a residual connection, multiplied; of the class token, or the mean over places where there is none.
"""

import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn

from ...backbones import Backbone
from ...backbones.errors import NotApplicable
from ..ood.adversarial import PixelClassifier


def grad_cam(classifier: PixelClassifier, pixels: Tensor, classes: Tensor, block: str, relu: bool = True) -> Tensor:
    """(B, H, W) how much each place of a block's map speaks for `classes` (B,), of `pixels` (B, 3, S, S) in 0…1."""
    at = nn.Identity()  # what captum watches: the map, as a copy, for the next layer may write over what it gets
    pixels = pixels.detach().requires_grad_()
    with classifier.backbone.seen_as_map(block, pixels, lambda map: at(map).clone()):
        found = LayerGradCam(classifier, at).attribute(pixels, classes, relu_attributions=relu)
    assert isinstance(found, Tensor)
    return found[:, 0].detach()


def last_seen(classifier: PixelClassifier, pixels: Tensor, classes: Tensor, grid: int) -> str:
    """The last block whose map has `grid` places each way and on whose places the logits depend: in the very last one
    of a ViT with a class token they depend on that token alone. Where there is none, the last block of all.

    Raises NotApplicable where tokens are not the image row by row.
    """
    blocks = classifier.backbone.blocks
    for block in reversed(blocks):
        map = grad_cam(classifier, pixels, classes, block, relu=False)
        if min(map.shape[1:]) >= grid and map.any():
            return block
    return blocks[-1]


def rollout(backbone: Backbone, images: Tensor) -> Tensor:
    """(B, H, W) how much of each place attention carries into the embedding, of `images` ready for the backbone.

    Raises NotApplicable unless the same tokens attend to all others in every block.
    """
    found = backbone.attention(images, lambda map: map)
    kinds = {(map.weights.shape, map.prefix, map.grid) for map in found.values()}
    if len(kinds) > 1 or len(found) < len(backbone.blocks) or any(map.weights.shape[1] > 1 for map in found.values()):
        raise NotApplicable(f"{backbone.name} has no attention over all places in every block, so none to roll out")
    [(shape, prefix, grid)] = kinds
    flow = torch.eye(shape[-1], device=images.device).expand(len(images), -1, -1)
    for map in found.values():
        flow = (map.weights[:, 0].mean(dim=1) + torch.eye(shape[-1], device=images.device)) / 2 @ flow
    out = flow[:, 0] if prefix else flow.mean(dim=1)
    return out[:, prefix:].unflatten(1, grid)
