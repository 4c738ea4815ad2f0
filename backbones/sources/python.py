"""python: any module from a file of the user's own. Code runs here, and only because they named their file."""

import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from threading import RLock
from typing import Any

from torch import Tensor, nn

from ..card import BackboneCard, Input
from ..catching import catch
from ..checkpoint import load_checkpoint
from ..errors import BadInput, did_you_mean, unknown
from ..interface import Backbone, Features
from .facts import Facts
from .tokens import pool_tokens


def find(model: str) -> str:
    """Never: a python backbone needs a card. Raises BadInput."""
    raise BadInput(f"python/{model}: a python backbone needs a card (.yaml) that names its file and its `input`")


def describe(card: BackboneCard) -> Facts:
    """Nothing but what the card says."""
    return Facts()


def build(card: BackboneCard, input: Input) -> Backbone:
    """The backbone that the factory in the card's file makes. Raises BadInput naming the user's line that failed."""
    path, factory = _parts(card)
    with _own_modules(path), redirect_stdout(sys.stderr):
        body = _call(card, path, factory)
    if not isinstance(body, nn.Module):
        raise BadInput(f"{card.name}: {card.model} returned {type(body).__name__}, not a torch.nn.Module")
    modules = dict(body.named_modules())
    for key, name in [("head", card.head), *(("levels", level) for level in card.levels)]:
        if name is not None and name not in modules:
            raise BadInput(f"{card.name}: {key}: no module {name!r} in {card.model}{did_you_mean(name, modules)}")
    if card.head:
        body.set_submodule(card.head, nn.Identity())
    if card.checkpoint:
        load_checkpoint(card, body, heads=(card.head,) if card.head else ())
    return PythonBackbone(card, input, body)


def _parts(card: BackboneCard) -> tuple[Path, str]:
    file, colon, factory = card.model.rpartition(":")
    if not colon or not factory.isidentifier() or not file.endswith(".py"):
        raise BadInput(f"{card.name}: model: {card.model!r}: write file.py:function")
    path = (card.folder / file).resolve()
    if not path.is_file():
        beside = [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise BadInput(f"{card.name}: model: no such file: {path}{did_you_mean(path.name, beside)}")
    return path, factory


def _call(card: BackboneCard, path: Path, factory: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"_backbone_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not callable(getattr(module, factory, None)):
            functions = [name for name, value in vars(module).items() if callable(value)]
            raise unknown("function", factory, functions, where=f"{card.name}: {path}")
        return getattr(module, factory)(**card.model_args)
    except BadInput:
        raise
    except Exception as error:
        lines = [
            frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent == path.parent
        ]
        line = f"{lines[-1].filename}:{lines[-1].lineno}" if lines else path
        raise BadInput(f"{card.name}: {line}: {type(error).__name__}: {' '.join(str(error).split())}") from error


@contextmanager
def _own_modules(path: Path) -> Iterator[None]:
    """Inside, files beside `path` can be imported; then they are forgotten: another card's may have the same names."""
    folder, before = str(path.parent), set(sys.modules)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        for name in set(sys.modules) - before:
            if (getattr(sys.modules[name], "__file__", None) or "").startswith(folder + "/"):
                del sys.modules[name]


# A stranger's module may keep things on itself between its layers, and there is but one stdout to redirect.
ONE_AT_A_TIME = RLock()


class PythonBackbone(Backbone):
    """A module whose output is the embedding, or a map or tokens to be pooled; `levels` are caught on the way."""

    def extract(self, images: Tensor, *, embedding: bool, maps: bool, projection: bool) -> Features:
        """One pass, with the outputs of the modules in the card's `levels` caught on the way."""
        caught: dict[str, Any] = {}
        with ONE_AT_A_TIME, catch(self.body, self.card.levels if maps else (), caught), redirect_stdout(sys.stderr):
            output = self.body(images)
        found = [self._map(name, caught.get(name)) for name in self.card.levels] if maps else []
        return Features(embedding=self._pool(output) if embedding else None, maps=found)

    def _pool(self, output: Any) -> Tensor:
        pool = self.card.pool
        if not isinstance(output, Tensor) or output.ndim not in (2, 3, 4):
            got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise BadInput(f"{self.name}: {self.card.model} gives {got}; an embedding is a tensor (B, D)")
        if output.ndim == 3:
            if pool == "auto":
                raise BadInput(
                    f"{self.name}: {self.card.model} gives tokens {tuple(output.shape)}; say `pool: cls` or mean"
                )
            return pool_tokens(output, int(pool.startswith("cls")), pool, self.name)
        if pool not in ("auto", "mean"):
            raise BadInput(
                f"{self.name}: pool: {pool!r} is for tokens (B, N, D), this network gives {tuple(output.shape)}"
            )
        return output if output.ndim == 2 else output.mean((2, 3))

    def _map(self, name: str, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise BadInput(f"{self.name}: levels: {name!r} gives {got}; a feature map is a tensor (B, C, H, W)")
        return output
