"""Which weights of a backbone are trained, in which mode its modules run, and where whole paths are dropped."""

import copy
import re

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map_only
from torchvision.ops import StochasticDepth

from ...backbones import Backbone, Loading, NotApplicable


def check_trainable(choice: str) -> str:
    """`full`, `frozen` or `last-N`. Raises ValueError."""
    if not re.fullmatch(r"full|frozen|last-[1-9]\d*", choice):
        raise ValueError(f"{choice!r} is none of full, frozen and last-N (such as last-4)")
    return choice


def trainable_copy(
    backbone: Backbone, choice: str, drop_path: float = 0.0, *, maps: bool = False
) -> tuple[Backbone, int]:
    """A copy of a backbone in which the chosen weights can be trained, and how many of its blocks drop paths.

    The backbone itself stays as it is. Raises NotApplicable.
    """
    made = copy.deepcopy(backbone)
    vars(made).pop("weights_digest", None)  # it will have other weights
    made.load_as(Loading())  # what was compiled is the other's pass
    set_trainable(made, choice, maps=maps)
    dropping = set_drop_path(made.image_tower, drop_path) if drop_path else 0
    return made.load_as(backbone.loading), dropping


def set_trainable(backbone: Backbone, choice: str, *, maps: bool = False) -> None:
    """Lets the chosen weights be trained and no others: all that the embedding (or the `maps`) hang on, none, or the
    last N blocks.

    With the last N blocks goes all that comes after them. Raises NotApplicable where there are fewer blocks.
    """
    names, cut = backbone.blocks if choice.startswith("last-") else [], None
    if choice.startswith("last-"):
        last = int(choice.removeprefix("last-"))
        if last > len(names):
            raise NotApplicable(f"{backbone.name} has {len(names)} blocks, too few for trainable: {choice}; say full")
        cut = names[-last]
    trained = set() if choice == "frozen" else _reached(backbone, cut, maps)
    for name, parameter in backbone.body.named_parameters():
        parameter.requires_grad_(name in trained)


def keep_statistics(network: nn.Module) -> None:
    """Batch norm in eval mode: its running statistics stay as they are."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def train_mode(module: nn.Module, inherited: bool = False) -> None:
    """Training mode where weights are trained, eval mode (batch norm, dropout) where all are frozen.

    A module without weights goes with the one around it.
    """
    weights = [p.requires_grad for p in module.parameters()]
    module.training = any(weights) if weights else inherited
    for child in module.children():
        train_mode(child, module.training)


def set_drop_path(tower: nn.Module, rate: float) -> int:
    """Stochastic depth (Huang et al. 2016) at a rate that rises linearly with depth to `rate`; how many blocks have it.

    A block has a place for it: timm and transformers name it `drop_path`, torchvision has a module of its own.
    """
    places = [(module, _places(module)) for module in tower.modules()]
    places = [(module, names) for module, names in places if names]
    for (module, names), drop in zip(places, torch.linspace(0, rate, len(places)).tolist(), strict=True):
        for name in names:
            old = getattr(module, name)
            setattr(
                module, name, StochasticDepth(drop, old.mode) if isinstance(old, StochasticDepth) else DropPath(drop)
            )
    return len(places)


def _places(module: nn.Module) -> list[str]:
    empty = [name for name, value in vars(module).items() if value is None]  # timm's ResNets without one
    named = [name for name in (*dict(module.named_children()), *empty) if name.startswith("drop_path")]
    return named + [name for name, child in module.named_children() if isinstance(child, StochasticDepth)]


def _reached(backbone: Backbone, cut: str | None, maps: bool) -> set[str]:
    """Names of the weights that the gradient of embedding or maps reaches when it stops before the block `cut`."""

    entering: list[Tensor] = []

    def cut_off(tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        if tensor.is_floating_point():
            entering.append(tensor.requires_grad_())
        return tensor

    def stop(_module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        return tree_map_only(Tensor, cut_off, (args, kwargs))

    def hangs_on_the_cut(tensor: Tensor) -> bool:
        grads = torch.autograd.grad(tensor.sum(), entering, allow_unused=True, retain_graph=True)
        return any(grad is not None for grad in grads)

    weights = {name: p for name, p in backbone.body.named_parameters() if p.requires_grad}
    example = next(backbone.parameters(), torch.zeros(()))
    side = backbone.input.size
    images = torch.zeros(2, 3, side, side, device=example.device, dtype=example.dtype)
    hook = backbone.body.get_submodule(cut).register_forward_pre_hook(stop, with_kwargs=True) if cut else None
    try:
        with torch.enable_grad():
            features = backbone.eval()(images, embedding=not maps, maps=maps)
        asked = [t for t in (features.embedding, *features.maps) if t is not None and t.requires_grad]
        if entering:  # maps of earlier blocks reach earlier weights
            asked = [t for t in asked if hangs_on_the_cut(t)]
        if not weights or not asked:
            what = "maps" if maps else "embedding"
            raise NotApplicable(f"{backbone.name} gives its {what} no gradient, so it cannot be trained")
        grads = torch.autograd.grad([t.sum() for t in asked], list(weights.values()), allow_unused=True)
    finally:
        if hook:
            hook.remove()
    return {name for name, grad in zip(weights, grads, strict=True) if grad is not None}
