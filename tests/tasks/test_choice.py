"""The learning rate that validation data choose."""

import pytest
from backbench.tasks.training.choice import best_rate
from backbench.tasks.training.loop import Diverged, Trained
from hypothesis import given
from hypothesis import strategies as st

RATES = st.lists(st.sampled_from([1e-4, 1e-3, 1e-2, 1e-1]), min_size=1, unique=True)


def training(scores):
    """Trainings whose last score is that of their rate; None: it diverges."""
    asked = []

    def train_at(rate):
        asked.append(rate)
        if scores[rate] is None:
            raise Diverged(f"at {rate:g}")
        return Trained(None, [{"val": 99.0}, {"val": scores[rate]}])

    return train_at, asked


@given(RATES, st.data())
def test_the_best_last_score_chooses_and_of_equals_the_lower_rate(rates, data):
    scores = {rate: data.draw(st.sampled_from([None, 1.0, 2.0, 3.0])) for rate in rates}
    train_at, asked = training(scores)
    there = sorted((-score, rate) for rate, score in scores.items() if score is not None)
    if not there:
        with pytest.raises(Diverged, match=f"at {min(rates):g}"):
            best_rate(rates, train_at, "val", compare=True)
        return
    best, chosen = best_rate(rates, train_at, "val", compare=True)
    assert sorted(asked) == sorted(rates)
    assert (best, chosen["val"]) == (there[0][1], -there[0][0])
    assert chosen["learning_rate"] == best
    assert chosen.get("diverged", []) == sorted(rate for rate, score in scores.items() if score is None)


def test_without_a_choice_nothing_is_trained():
    train_at, asked = training({0.1: 1.0})
    assert best_rate([0.1], train_at, "val", compare=False) == (0.1, {"learning_rate": 0.1})
    assert asked == []
    assert best_rate([0.1], train_at, "val", compare=True) == (0.1, {"learning_rate": 0.1, "val": 1.0})
    assert asked == [0.1]
