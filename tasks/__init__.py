"""Floor 2: data sets, the feature bank, and one adapter a task."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
