"""The learning rate: one training a rate, and the one whose weights validation data like best."""

from collections.abc import Callable, Sequence
from typing import Any

from .loop import Diverged, Trained
from .plan import departures


def best_rate(
    rates: Sequence[float], train_at: Callable[[float], Trained], score: str, *, compare: bool
) -> tuple[float, dict[str, Any]]:
    """The rate at whose last epoch `score` (in the curve, higher is better) is highest, and what is to be told of it.

    Of equals it is the lower. One rate alone is trained only to `compare`. Diverged is raised where all rates diverge.
    """
    rates = sorted(set(rates))
    if len(rates) == 1 and not compare:
        return rates[0], {"learning_rate": rates[0]}
    found: dict[float, float] = {}
    diverged: dict[float, Diverged] = {}
    for rate in rates:
        try:
            found[rate] = train_at(rate).curve[-1][score]
        except Diverged as error:
            diverged[rate] = error
    if not found:
        raise diverged[rates[0]]
    best = max(found, key=found.__getitem__)  # the first of equals
    return best, {"learning_rate": best, score: found[best]} | ({"diverged": list(diverged)} if diverged else {})


def best_training(
    rates: Sequence[float], train_at: Callable[[float], Trained], score: str
) -> tuple[Trained, dict[str, Any]]:
    """The training at the `best_rate`, read back where it was compared; what was chosen, and not done as asked."""
    rate, chosen = best_rate(rates, train_at, score, compare=False)
    done = train_at(rate)
    return done, chosen | departures(done)
