"""A file of the user's own, run as if it were alone: its neighbours import, and its words stay off our stdout."""

import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock, get_ident
from types import ModuleType
from typing import Any

from torch import OutOfMemoryError, nn

from ..card import BackboneCard
from ..errors import BadInput, NotApplicable, Unavailable, did_you_mean, unknown

# A stranger's module may keep things on itself between its layers, and there is but one table of modules.
ONE_AT_A_TIME = RLock()
PACKAGE = "_own_code"  # what the user's file belongs to, so that `from .blocks import …` finds what lies beside it


class OwnCode:
    """The code behind a python card. Raises BadInput where the card's `model` names no function of a file."""

    def __init__(self, card: BackboneCard):
        self.name = card.name
        file, colon, self.factory = card.model.rpartition(":")
        if not colon or not self.factory.isidentifier() or not file.endswith(".py"):
            raise BadInput(f"{card.name}: model: {card.model!r}: write file.py:function")
        self.path = (card.folder / file).resolve()
        if not self.path.is_file():
            beside = [p.name for p in self.path.parent.glob("*.py")] if self.path.parent.is_dir() else []
            raise BadInput(f"{card.name}: model: no such file: {self.path}{did_you_mean(self.path.name, beside)}")
        package = ModuleType(PACKAGE)
        package.__path__ = [str(self.path.parent)]
        self._modules = {PACKAGE: package}
        # Only what the code imports from beside itself is its own: other files there are nobody's business.
        self._own = {PACKAGE, *(Path(name).parts[0].removesuffix(".py") for name in card.files())}
        self._own.discard(__name__.partition(".")[0])

    def __deepcopy__(self, memo: Any) -> "OwnCode":
        return self  # a copy of a network has weights of its own, and the same code

    def make(self, args: dict[str, Any]) -> nn.Module:
        """The network: what the function returns when it is given `args`. Raises BadInput."""
        with self.running():
            importlib.invalidate_caches()
            spec = importlib.util.spec_from_file_location(f"{PACKAGE}.{self.path.stem}", self.path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module  # as an import does: dataclasses look themselves up there
            spec.loader.exec_module(module)
            made = getattr(module, self.factory, None)
            if not callable(made):
                functions = [name for name, value in vars(module).items() if callable(value)]
                raise unknown("function", self.factory, functions, where=f"{self.name}: {self.path}")
            network = made if isinstance(made, nn.Module) else made(**args)
        if not isinstance(network, nn.Module):
            got = f"the class {network.__name__}" if isinstance(network, type) else type(network).__name__
            raise BadInput(
                f"{self.name}: {self.path.name}:{self.factory} returned {got}, not a torch.nn.Module; "
                "return the network"
            )
        return network

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around a call into the code. What it raises becomes a BadInput of one line that names the user's own."""
        with ONE_AT_A_TIME, self._neighbours(), _words_aside():
            try:
                yield
            except (BadInput, NotApplicable, Unavailable, OutOfMemoryError):
                raise
            except (Exception, SystemExit) as error:  # a script that reads its arguments when imported exits
                text = " ".join(str(error).split())[:300]
                hint = "; install it, or put it beside the file" if isinstance(error, ModuleNotFoundError) else ""
                raise BadInput(f"{self.name}: {self._line_of(error)}: {type(error).__name__}: {text}{hint}") from error

    @contextmanager
    def _neighbours(self) -> Iterator[None]:
        # Another card's helpers, or an installed package, may have the same names: each sees its own, and others again
        # theirs once this is over. The code's own modules are kept, as it may import in the middle of a pass.
        hidden, before = self._taken_out(), set(sys.modules)
        sys.modules.update(self._modules)
        sys.path.insert(0, str(self.path.parent))
        try:
            yield
        finally:
            sys.path.remove(str(self.path.parent))
            self._own |= {name for name in set(sys.modules) - before if self._lies_beside(name)}  # by a name made up
            self._modules = self._taken_out()
            sys.modules.update(hidden)

    def _taken_out(self) -> dict[str, ModuleType]:
        names = [name for name in list(sys.modules) if name.partition(".")[0] in self._own]
        return {name: sys.modules.pop(name) for name in names}

    def _lies_beside(self, name: str) -> bool:
        # Not somewhere below: an environment with all its packages may be in the same folder.
        file = Path(getattr(sys.modules.get(name), "__file__", None) or "/")
        return (file.parent if file.name == "__init__.py" else file).parent == self.path.parent and "." not in name

    def _line_of(self, error: BaseException) -> str:
        if isinstance(error, SyntaxError) and error.filename:
            return f"{error.filename}:{error.lineno}"
        below = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(f"{self.path.parent}/")]
        own = [frame for frame in below if "site-packages" not in frame.filename]
        return f"{own[-1].filename}:{own[-1].lineno}" if own else str(self.path)


@contextmanager
def _words_aside() -> Iterator[None]:
    """Inside, what this thread's python prints goes to stderr; stdout is for results, and for other threads as it was.

    What C code writes of its own accord is not caught: that would take the whole process's stdout away.
    """
    before = sys.stdout
    if before is ASIDE:  # a call within a call
        yield
        return
    ASIDE.stdout, ASIDE.thread = before, get_ident()
    sys.stdout = ASIDE  # pyright: ignore[reportAttributeAccessIssue] - it quacks
    try:
        yield
    finally:
        sys.stdout = before


class _Aside:
    """Stdout for all threads but one. There is one of it, never freed: another thread's `print` may be holding it
    without counting it as its own (CPython's gh-130163), and would crash on one that is gone."""

    stdout: Any = None
    thread = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr if get_ident() == self.thread else self.stdout, name)


ASIDE = _Aside()
