import types

from .backbones import load_backbone as load_backbone
from .benchmarks import leaderboard as leaderboard
from .benchmarks import run as run

class Called(types.ModuleType): ...
