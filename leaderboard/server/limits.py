"""How much one caller may ask for: a token bucket each, in bounded memory."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock


@dataclass(frozen=True)
class Limits:
    """What a server takes on. `upload`: bytes of a bundle; `reads`, `changes`: requests a minute of one caller."""

    upload: int = 256 * 1024**2
    reads: int = 3000
    changes: int = 120
    queued: int = 32  # submissions waiting to be checked
    checkers: int = 1  # processes that check them
    seconds: float = 600.0  # for the check of one submission


class RateLimit:
    """`per_minute` requests of each caller, as many at once at most. Remembers the `most` callers seen last."""

    def __init__(self, per_minute: int, most: int = 10_000, clock: Callable[[], float] = time.monotonic):
        self._size, self._most, self._clock = per_minute, most, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # caller → requests left, at what time
        self._lock = Lock()

    def wait(self, caller: str) -> float:
        """Takes one request from the caller's bucket and gives 0, or takes none and gives the seconds until it may."""
        now, rate = self._clock(), self._size / 60
        with self._lock:
            left, then = self._left.pop(caller, (float(self._size), now))
            left = min(self._size, left + rate * (now - then))
            enough = left >= 1
            self._left[caller] = (left - enough, now)
            if len(self._left) > self._most:
                self._left.popitem(last=False)
        return 0.0 if enough else (1 - left) / rate
