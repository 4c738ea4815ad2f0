"""The board, and one backbone's results, in the formats of others: a file a format, all deterministic, keys stable."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
