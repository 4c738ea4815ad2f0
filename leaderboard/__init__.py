"""Floor 3: the result record, its store, the ranking, the comparison, and the board as table, data and page."""

import sys

import lazy_loader

from .. import Called

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
sys.modules[__name__].__class__ = Called
