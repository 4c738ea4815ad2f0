"""backbench: one gauntlet for every pretrained vision backbone."""

from types import ModuleType
from typing import Any

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


class Called(ModuleType):
    """`backbench.leaderboard` is a room and a function: whoever has imported the room can call it all the same."""

    def __call__(self, *args, **options):
        """What the function of the same name gives."""
        function: Any = __getattr__(self.__name__.rpartition(".")[2])
        return function(*args, **options)
