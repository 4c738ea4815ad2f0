"""Handing results in: the bundle and its signature, what a receiver asks of it, and what becomes of it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
