"""Outputs of named modules, caught while a batch passes through a network."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from threading import get_ident
from typing import Any

from torch import Tensor, nn


def copied(_name: str, output: Any) -> Any:
    """The output itself; a tensor as a copy, as the next layer may be an activation that writes over what it gets."""
    return output.clone() if isinstance(output, Tensor) else output


@contextmanager
def catch(
    body: nn.Module, names: Iterable[str], into: dict[str, Any], keep: Callable[[str, Any], Any] = copied
) -> Iterator[None]:
    """Inside, `keep(name, output)` of the modules called `names` is put `into` by name, from this thread alone."""
    # The feature bank runs several batches through one network at once, each in a thread with hooks of its own.
    thread = get_ident()
    with ExitStack() as hooks:
        for name in names:

            def hook(_module, _inputs, output, name=name):
                if get_ident() == thread:
                    into[name] = keep(name, output)

            hooks.enter_context(body.get_submodule(name).register_forward_hook(hook))
        yield
