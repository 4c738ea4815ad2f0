"""Networks that timm builds for one size of images, at other sizes."""

from copy import copy
from typing import Any

from timm.models import get_model_input_config
from torch import nn


def for_size(tower: Any, size: tuple[int, int]) -> Any:
    """`tower`, or where its position tables are made for another size (BEiT, MaxViT), as timm makes it for `size`.

    That is a copy which shares all weights, buffers and hooks with the tower but the resized tables, made for this
    pass alone: the tower stays as it is, whatever other threads do with it. Resized tables get no gradient.
    """
    if getattr(tower, "dynamic_img_size", False) or not hasattr(tower, "set_input_size"):
        return tower
    made_for = get_model_input_config(tower)
    if not made_for["fixed_input_size"] or tuple(made_for["input_size"][1:]) == size:
        return tower
    resized: Any = _sharing(tower, {})
    resized.set_input_size(img_size=size)
    return resized


def _sharing(module: nn.Module, made: dict[nn.Module, nn.Module]) -> nn.Module:
    """A tree of modules of its own, with the tensors and hooks of `module`'s."""
    if module not in made:
        made[module] = twin = copy(module)
        for own in ("_parameters", "_buffers", "_non_persistent_buffers_set"):
            setattr(twin, own, copy(getattr(module, own)))
        children = module._modules.items()
        twin._modules = {name: None if child is None else _sharing(child, made) for name, child in children}
    return made[module]
