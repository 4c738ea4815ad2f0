"""The curve of a training as a line of text, and read back from a folder."""

import json

from backbench.tasks.training.curve import BARS, LONGEST, read_curves, sparkline, told
from hypothesis import given
from hypothesis import strategies as st

numbers = st.lists(st.floats(-1e6, 1e6), max_size=100)


@given(numbers)
def test_bars_are_as_high_as_the_values(values):
    line = sparkline(values)
    assert len(line) == min(len(values), LONGEST)
    heights = [BARS.index(bar) for bar in line]
    if len(values) <= LONGEST:
        rising = sorted(range(len(values)), key=values.__getitem__)
        assert [heights[i] for i in rising] == sorted(heights)
    if len(set(values)) > 1 and len(values) <= LONGEST:
        assert {0, len(BARS) - 1} <= set(heights)


def test_the_least_and_the_largest():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == BARS
    assert sparkline([2, 2, 2]) == BARS[0] * 3
    assert sparkline([]) == ""


def test_a_curve_is_read_up_to_where_it_was_cut_short(tmp_path):
    rows = [{"epoch": e, "loss": 2.0 / e, "val_top1": 10.0 * e} for e in (1, 2, 3)]
    for name, text in (("whole", rows), ("short", rows[:2])):
        (tmp_path / "training" / name).mkdir(parents=True)
        lines = "".join(json.dumps(row) + "\n" for row in text) + ('{"epoch": 3, "lo' if name == "short" else "")
        (tmp_path / "training" / name / "curve.jsonl").write_text(lines)
    found = read_curves(tmp_path)
    assert found == {"whole": rows, "short": rows[:2]}
    assert told(found["whole"])["val_top1"].endswith("10 → 30")
    assert told([]) == {}
    assert read_curves(tmp_path / "nowhere") == {}
