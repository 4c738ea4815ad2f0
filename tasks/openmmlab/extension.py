"""What stands in for `mmcv._ext` where mmcv is not compiled: the operators of mmdet's and mmseg's usual models.

Any other name is there too, since mmcv looks all of them up when it is imported, and says when called what is missing.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from .deformable import deform_conv_backward_input as deform_conv_backward_input
from .deformable import deform_conv_backward_parameters as deform_conv_backward_parameters
from .deformable import deform_conv_forward as deform_conv_forward
from .deformable import modulated_deform_conv_backward as modulated_deform_conv_backward
from .deformable import modulated_deform_conv_forward as modulated_deform_conv_forward
from .deformable import ms_deform_attn_backward as ms_deform_attn_backward
from .deformable import ms_deform_attn_forward as ms_deform_attn_forward
from .focal_loss import sigmoid_focal_loss_backward as sigmoid_focal_loss_backward
from .focal_loss import sigmoid_focal_loss_forward as sigmoid_focal_loss_forward
from .gate import COMPILED, openmmlab
from .regions import roi_align_backward as roi_align_backward
from .regions import roi_align_forward as roi_align_forward
from .regions import roi_pool_backward as roi_pool_backward
from .regions import roi_pool_forward as roi_pool_forward
from .suppression import nms as nms
from .suppression import nms_match as nms_match
from .suppression import softnms as softnms


def get_compiler_version() -> str:
    """What mmcv reports as the compiler of its operators."""
    return "none (backbench's operators, on torchvision)"


def get_compiling_cuda_version() -> str:
    """What mmcv reports as the CUDA of its operators."""
    return "not available"


def __getattr__(name: str) -> Callable[..., NoReturn]:
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*_: object, **__: object) -> NoReturn:
        raise NotImplementedError(
            f"mmcv's operator {name!r} ({_used_by(name)}) does not run without compiling; {COMPILED}"
        )

    return missing


def _used_by(name: str) -> str:
    """The modules of `mmcv.ops` that ask for an operator."""
    files = sorted(Path(openmmlab("mmcv").__file__).parent.glob("ops/*.py"))
    users = [f"mmcv.ops.{file.stem}" for file in files if f"'{name}'" in file.read_text(encoding="utf-8")]
    return f"used by {', '.join(users)}" if users else "used by no module of mmcv.ops"
