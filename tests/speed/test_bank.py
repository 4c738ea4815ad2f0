"""Writing and reading the bank's files, with digests and fsync, beside one .pt file an image."""

from functools import partial

import pytest
import torch
from backbench.tasks import bank
from backbench.tasks.entry import Entry, Index

ROWS, WIDTH, BATCH = 4000, 384, 64

pytestmark = pytest.mark.speed


@pytest.fixture(scope="module")
def features():
    return torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(0))


def test_write_and_read(tmp_path, features, interleaved, report):
    store, made_of = bank.Bank(tmp_path / "bank"), {"rows": ROWS}
    entry = store._entry(bank.digest(made_of))
    entry.place.parent.mkdir(parents=True)
    (tmp_path / "images").mkdir()

    def write():
        if entry.place.exists():
            assert entry.remove()
        index = Index(made_of, {"backbone": "none"}, ROWS, bank.SHARD * BATCH)
        assert bank._make(entry, index, lambda start: ({"x": rows} for rows in features.split(BATCH))) == ROWS

    def write_files():
        for i in range(ROWS):
            torch.save(features[i].clone(), tmp_path / "images" / f"{i}.pt")

    ours, theirs = interleaved(write, write_files, rounds=3)
    tell = partial(report, against="one .pt file an image", held="digests and fsync; a flipped byte is detected")
    tell(measure="bank write", ours=ours, theirs=theirs, bar=">= 20x")

    found = {}

    def read():
        found["ours"] = bank.Bank(tmp_path / "bank")._read(entry)["x"]
        found["sum"] = found["ours"].sum()

    def read_files():
        found["theirs"] = torch.stack([torch.load(tmp_path / "images" / f"{i}.pt") for i in range(ROWS)])
        found["sum"] = found["theirs"].sum()

    ours_read, theirs_read = interleaved(read, read_files, rounds=3)
    tell(measure="bank read", ours=ours_read, theirs=theirs_read, bar=">= 50x")
    assert torch.equal(found["ours"], features)
    assert torch.equal(found["theirs"], features)

    path = entry.place / "x.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert bank.Bank(tmp_path / "bank")._read(Entry(entry.place)) is None
    assert theirs >= 20 * ours
    assert theirs_read >= 50 * ours_read
