"""`compare A B --errors`: two real backbones on the embedded data, from the predictions that their runs stored."""

import json

import pytest
from backbench.benchmarks.cli import code


@pytest.fixture(scope="module")
def home_of_two(tmp_path_factory):
    """A home in which two backbones answered to 120 scenes."""
    home = tmp_path_factory.mktemp("errors")
    names = ["--backbone", "mini/cnn-supervised", "--backbone", "mini/cnn-random"]
    assert code(["run", "knn", "--dataset", "digit-scenes", "--limit", "120", *names, "--home", str(home)]) == 0
    return home


@pytest.fixture
def say(home_of_two, capsys):
    """Runs a command on that home, in this process: exit code, stdout, stderr."""

    def call(*words):
        exit_code = code([*words, "--home", str(home_of_two)])
        return exit_code, *capsys.readouterr()

    return call


def test_two_backbones(say):
    words = ["compare", "mini/cnn-supervised", "mini/cnn-random", "--errors"]
    (row,) = json.loads(say(*words, "--format", "json")[1])
    assert (row["task"], row["dataset"], row["examples"]) == ("knn", "digit-scenes", 120)
    assert row["a"] > row["b"]
    # By its definition, from what the same row says.
    a, b, agree = row["a"] / 100, row["b"] / 100, row["agreement"] / 100
    expected = a * b + (1 - a) * (1 - b)
    assert row["kappa"] == pytest.approx((agree - expected) / (1 - expected))
    assert row["low"] <= row["kappa"] <= row["high"] < 1
    assert 0 < row["classwise_js"] < row["interclass_js"]
    table = say(*words)[1]
    assert "a = mini/cnn-supervised, b = mini/cnn-random: error consistency" in " ".join(table.split())
    assert f"{row['kappa']:.3f}" in table


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mini/cnn-random"], "name two different backbones or more"),
        (["mini/cnn-random", "mini/cnn-random"], "name two different backbones or more"),
        (["mini/cnn-random", "mini/cnn-supervise"], "did you mean 'mini/cnn-supervised'"),
        (["mini/cnn-random", "mini/cnn-supervised", "--plot", "a.svg"], "leave out --plot or --errors"),
        (["mini/cnn-random", "mini/cnn-supervised", "--format", "html"], "--format html: use table, json"),
    ],
)
def test_what_is_not_compared(say, words, said):
    exit_code, _, err = say("compare", *words, "--errors")
    assert (exit_code, len(err.splitlines())) == (2, 1)
    assert said in err
