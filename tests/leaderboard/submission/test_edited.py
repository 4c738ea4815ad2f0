"""An edited score is caught whenever its predictions are there; random harm is refused, never a crash."""

import random
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from backbench.backbones.errors import BadInput
from backbench.leaderboard import Store
from backbench.leaderboard.submission import Refused, Truth, inspect, receive
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

TASKS = ("knn", "retrieval", "zero-shot", "semantic-segmentation", "detection")
QUIET = {"deadline": None, "derandomize": True, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@settings(max_examples=15, **QUIET)
@given(data=st.data())
def test_an_edit_of_any_score_or_interval_is_caught(data, forge, sender):
    """Of the smallest part that counts: a billionth of what the score says."""
    task = data.draw(st.sampled_from(TASKS))
    forged = forge(task)
    record = forged.record(task)
    name = data.draw(st.sampled_from(sorted(record["scores"])))
    score = record["scores"][name]
    part = data.draw(st.sampled_from(["value", "low", "high"]))
    before = score[part]
    by = data.draw(st.floats(1e-9, 0.5) | st.just(1e-9))
    score[part] = before + data.draw(st.sampled_from([-1, 1])) * by * max(abs(before), 1e-3)
    assume(score["low"] <= score["value"] <= score["high"])
    assume(score["range_low"] <= score["low"] and score["high"] <= score["range_high"])
    assume(score[part] != before)
    id = forged.put(record)
    with TemporaryDirectory() as folder:
        archive = Path(folder) / "b.zip"
        archive.write_bytes(forged.seal().zip())
        found = inspect(archive, Truth(sender)).findings
    assert len(found) == 1
    assert found[0].startswith(f"results/{id}.json: scores.{name}.{part}: ")
    assert "does not follow from its predictions" in found[0]


def test_an_edit_with_its_interval_is_caught_and_nothing_is_kept(forge, receiver, store, tmp_path):
    """As in a submission that was made up: half a point more, with an interval that fits."""
    forged = forge(*TASKS)
    record = forged.record("retrieval")
    for part in ("value", "low", "high"):
        record["scores"]["map"][part] = min(100.0, record["scores"]["map"][part] + 0.5)
    forged.put(record)
    (tmp_path / "b.zip").write_bytes(forged.seal().zip())
    with pytest.raises(Refused, match=r"^results/\w+\.json: scores\.map\.\w+: .* does not follow"):
        receive(tmp_path / "b.zip", store, receiver, "mallory")
    assert store.all() == []


@pytest.mark.parametrize("seed", range(30))
def test_flipped_and_missing_bytes_are_refused(seed, forge, receiver):
    """Anything that a bad disk, a bad line or a fuzzer may do ends in one line, or in what was sent."""
    rng = random.Random(seed)
    forged = forge("knn")
    if seed % 3 == 0:  # within a file, digests and signature renewed: only what is read of it can tell
        name = rng.choice(sorted(forged.files))
        forged.files[name] = harmed(rng, forged.files[name])
        data = forged.seal().zip()
    else:
        data = harmed(rng, forged.seal().zip())
    (receiver / "b.zip").write_bytes(data)
    store = Store(receiver / "leaderboard.db")
    said = None
    try:
        receive(receiver / "b.zip", store, receiver, "line")
    except BadInput as error:
        said = str(error)
    if said is None:  # what was harmed is nothing that is read, such as a zip's dates
        assert [kept.trust for kept in store.all()] == ["rescored"]
    else:
        assert said.isprintable()
        assert store.all() == []


def harmed(rng, data):
    """Some bytes other, some gone, or the end gone."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        kind = rng.random()
        if not data:
            break
        at = rng.randrange(len(data))
        if kind < 0.6:
            data[at] ^= 1 << rng.randrange(8)
        elif kind < 0.75:
            del data[at : at + rng.randrange(1, 64)]
        elif kind < 0.9:
            data[at:at] = rng.randbytes(rng.randrange(1, 64))
        else:
            del data[at:]
    return bytes(data)


@pytest.mark.slow
def test_two_thousand_harmed_bundles(forge, receiver):
    for seed in range(30, 2030):
        test_flipped_and_missing_bytes_are_refused(seed, forge, receiver)
        (receiver / "leaderboard.db").unlink()
