"""Outputs of named modules, caught while a batch passes through a network."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from threading import get_ident
from typing import Any

from torch import Tensor, nn


@contextmanager
def catch(body: nn.Module, names: Iterable[str], into: dict[str, Any]) -> Iterator[None]:
    """Inside, the outputs of the modules called `names` are put `into` by name as they come, from this thread alone."""
    # The feature bank runs several batches through one network at once, each in a thread with hooks of its own.
    thread = get_ident()
    with ExitStack() as hooks:
        for name in names:

            def keep(_module, _inputs, output, name=name):
                if get_ident() == thread:
                    # A copy: the next layer may be an activation that writes over what it gets.
                    into[name] = output.clone() if isinstance(output, Tensor) else output

            hooks.enter_context(body.get_submodule(name).register_forward_hook(keep))
        yield
