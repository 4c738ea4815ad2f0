"""The one gate to OpenMMLab: no other module imports mm*, and nothing is imported before somebody asks.

mmcv-lite, which installs everywhere as a wheel, lacks only the compiled module `mmcv._ext`: `extension.py` stands in
for it. Where an mmcv is installed whose operators are compiled, those are used.
"""

import sys
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from ...backbones import Unavailable

WHEELS = {"mmengine": "0.10.7", "mmcv-lite": "2.1.0", "mmdet": "3.3.0", "mmsegmentation": "1.2.2"}
BUILT = {"mmengine": "0.10.7", "mmcv": "2.1.0", "mmdet": "3.3.0", "mmsegmentation": "1.2.2"}
# The maintained fork takes the same import names, so it must never lie beside the originals.
FORKED = {
    "onedl-mmengine": "0.10.12",
    "onedl-mmcv": "2.3.6",
    "onedl-mmdetection": "3.5.1",
    "onedl-mmsegmentation": "1.4.2",
}
KNOWN = (WHEELS, BUILT, FORKED)
INSTALL = "pip install 'backbench[openmmlab]'"
COMPILED = "docker/README.md in the repository says how to compile mmcv"


def openmmlab(module: str) -> Any:
    """A module of OpenMMLab by its full name, say `mmdet.models`. Raises Unavailable where the extra is not there."""
    _open()
    return import_module(module)


@cache
def _open() -> None:
    _check_versions()
    import_module("mmcv")
    try:
        import_module("mmcv._ext")
    except ModuleNotFoundError:
        from . import extension

        sys.modules["mmcv._ext"] = extension
    except ImportError as error:  # its symbols are those of the torch that it was compiled for
        reason = " ".join(str(error).split())[:100]
        raise Unavailable(
            f"mmcv was compiled for another torch than {torch.__version__} ({reason}); {COMPILED}"
        ) from None


def installed() -> dict[str, str]:
    """Versions of what there is of OpenMMLab, by the names of the distributions."""
    return {name: there for stack in KNOWN for name in stack if (there := _version(name))}


def _check_versions() -> None:
    """Raises Unavailable unless what is installed is one of the known sets, whole and unmixed."""
    found = installed()
    if found in KNOWN:
        return
    if not found:
        raise Unavailable(f"OpenMMLab is not installed: {INSTALL}")
    told, wanted = (", ".join(f"{n} {v}" for n, v in stack.items()) for stack in (found, WHEELS))
    raise Unavailable(f"OpenMMLab: installed is {told}; what works together is {wanted}: {INSTALL}")


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
