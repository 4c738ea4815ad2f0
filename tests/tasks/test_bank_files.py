"""What may befall the files of the bank: harm, kills, other processes, and a bound on their size."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from backbench.tasks import Bank, bank
from backbench.tasks.entry import Entry, Index, prune

HERE = Path(__file__).parent


def entries(folder):
    return sorted(p.parent for p in folder.glob("*/*/index.json"))


def bits(found):
    return {name: t.numpy().tobytes() for name, t in found.tensors.items()}


def files(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def rows(folder, make_backbone, split, **how):
    return Bank(folder).features(make_backbone(), split, "embedding", **how)


@pytest.mark.parametrize("harm", ["flip", "cut", "gone", "index-cut", "index-flip", "index-gone", "grown"])
def test_a_harmed_entry_is_made_again(tmp_path, make_backbone, make_split, harm):
    split = make_split(40, 0)
    expected = bits(rows(tmp_path, make_backbone, split))
    (entry,) = entries(tmp_path)
    file = entry / ("index.json" if harm.startswith("index") else "embedding.safetensors")
    data = bytearray(file.read_bytes())
    if harm.endswith("flip"):
        data[random.Random(0).randrange(len(data) // 2, len(data) - 20)] ^= 4
    elif harm == "grown":
        data += b"\0" * 8
    else:
        data = data[: len(data) // 2]
    file.unlink()
    if not harm.endswith("gone"):
        file.write_bytes(data)
    again = rows(tmp_path, make_backbone, split)
    assert bits(again) == expected
    assert again.computed == 40
    assert rows(tmp_path, make_backbone, split).computed == 0


def test_no_random_harm_goes_unnoticed(tmp_path, monkeypatch, make_backbone, make_split):
    monkeypatch.setattr(bank, "SHARD", 1)
    split, rng = make_split(150, 0), random.Random(1)
    expected = bits(Bank(tmp_path).features(make_backbone(), split, "maps"))
    (entry,) = entries(tmp_path)
    whole = files(entry)
    for _ in range(60):
        name = rng.choice(sorted(whole))
        data, at = bytearray(whole[name]), rng.randrange(len(whole[name]))
        kind = rng.choice(["flip", "cut", "zero"])
        if kind == "flip":
            data[at] ^= 1 << rng.randrange(8)
        elif kind == "cut":
            del data[at:]
        else:
            length = rng.randrange(1, 200)
            data[at : at + length] = bytes(len(data[at : at + length]))
        (entry / name).unlink()
        (entry / name).write_bytes(data)
        found = Bank(tmp_path).features(make_backbone(), split, "maps")
        assert bits(found) == expected
        assert found.computed == (150 if data != whole[name] else 0)
        assert files(entry) == whole


CHILD = """
import runpy, sys, time
from pathlib import Path
here, folder, pause, shard = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
names = runpy.run_path(here + "/conftest.py")
from backbench.tasks import Bank, bank
bank.SHARD = shard

class Slow:
    def __init__(self, images): self.images = images
    def __len__(self): return len(self.images)
    def __getitem__(self, i):
        time.sleep(pause)
        return self.images[i]

from dataclasses import replace
split = names["squares"](400, 0)
found = Bank(folder).features(names["Tiny"](), replace(split, images=Slow(split.images)), "embedding",
                              progress=lambda what, done, total: print(done, flush=True))
print("computed", found.computed, flush=True)
"""


def child(folder, pause, shard):
    command = [sys.executable, "-c", CHILD, str(HERE), str(folder), str(pause), str(shard)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def killed_after(folder, count, shard=1):
    process = child(folder, 0.005, shard)
    assert process.stdout
    for line in process.stdout:
        if int(line) >= count:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_what_was_killed_goes_on_at_the_last_durable_shard(tmp_path, monkeypatch, make_backbone, make_split):
    monkeypatch.setattr(bank, "SHARD", 1)
    killed_after(tmp_path / "killed", 192)
    assert not any(entry.finished for entry in Entry.all(tmp_path / "killed"))
    shown, split = [], make_split(400, 0)
    found = rows(tmp_path / "killed", make_backbone, split, progress=lambda *a: shown.append(a[1]))
    assert found.computed <= 400 - 192
    assert shown[0] > 192
    rows(tmp_path / "quiet", make_backbone, split)
    assert not list((tmp_path / "killed").glob("*/*.part"))
    # Not a byte differs from a run that nobody disturbed, index included.
    assert files(entries(tmp_path / "killed")[0]) == files(entries(tmp_path / "quiet")[0])


@pytest.mark.parametrize(
    "harm", ["flip in the first", "flip in the second", "torn", "other size of shards", "no index"]
)
def test_only_what_is_durable_is_gone_on_from(tmp_path, monkeypatch, make_backbone, make_split, harm):
    monkeypatch.setattr(bank, "SHARD", 1)
    split, batches = make_split(200, 0), 0

    def stop(what, done, total):
        if done >= 128:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rows(tmp_path, make_backbone, split, progress=stop)
    (entry,) = Entry.all(tmp_path)
    assert not entry.finished
    tensor = entry.place / "embedding.safetensors"
    data = bytearray(tensor.read_bytes())
    index = Index.read(entry.place)
    assert index
    assert len(index.files["embedding"].sha256) == 2
    if harm.startswith("flip"):
        batches = harm.endswith("second")
        data[index.files["embedding"].size(64 * batches) + 100] ^= 1
    elif harm == "torn":
        batches = 2
        data += b"part of a row"
    elif harm == "no index":
        (entry.place / "index.json").write_text("{")
    tensor.write_bytes(data)
    if harm == "other size of shards":
        monkeypatch.setattr(bank, "SHARD", 2)
    found = rows(tmp_path, make_backbone, split)
    assert found.computed == 200 - 64 * batches
    assert bits(found) == bits(rows(tmp_path / "quiet", make_backbone, split))


def test_all_rows_durable_but_not_moved_into_place(tmp_path, make_backbone, make_split):
    split = make_split(70, 0)
    expected = bits(rows(tmp_path, make_backbone, split))
    (place,) = entries(tmp_path)
    place.rename(f"{place}.part")
    found = rows(tmp_path, make_backbone, split)
    assert found.computed == 0
    assert bits(found) == expected


def test_two_processes_compute_once(tmp_path, make_backbone, make_split):
    processes = [child(tmp_path, 0.002, 32) for _ in range(2)]
    computed = sorted(int(p.communicate()[0].split()[-1]) for p in processes)
    assert computed == [0, 400]
    assert rows(tmp_path, make_backbone, make_split(400, 0)).computed == 0


def test_least_recently_used_goes_first_and_nothing_in_use(tmp_path, make_backbone, make_split):
    splits = [make_split(50, seed) for seed in range(3)]
    for split in splits:
        rows(tmp_path, make_backbone, split)
        time.sleep(0.02)
    reader = Bank(tmp_path)
    kept = reader.features(make_backbone(), splits[0], "embedding")  # the oldest is now the newest
    size = next(Entry.all(tmp_path)).size
    removed, spared = prune(tmp_path, to=2 * size + size // 2)
    assert (len(removed), spared) == (1, 0)
    assert rows(tmp_path, make_backbone, splits[1]).computed == 50  # it was that one
    removed, spared = prune(tmp_path, to=0)
    assert (len(removed), spared) == (2, 1)
    expected = bits(kept)
    del reader
    assert prune(tmp_path, to=0)[1] == 0
    assert bits(kept) == expected  # what was mapped stays readable
    assert not list(Entry.all(tmp_path))


def test_prune_by_age_and_by_backbone(tmp_path, make_backbone, make_split):
    rows(tmp_path, make_backbone, make_split(8, 0))
    (entry,) = Entry.all(tmp_path)
    os.utime(entry.place / "index.json", (1e9, 1e9))
    assert prune(tmp_path, before=1e9 - 1) == ([], 0)
    assert prune(tmp_path, backbone="another") == ([], 0)
    assert prune(tmp_path, before=1e9 + 1, backbone="another") == ([], 0)
    assert prune(tmp_path, before=1e9 + 1, backbone="tiny") == ([entry], 0)


def test_a_bank_keeps_within_its_limit(tmp_path, make_backbone, make_split):
    rows(tmp_path, make_backbone, make_split(50, 0))
    size = next(Entry.all(tmp_path)).size
    for seed in range(1, 5):
        Bank(tmp_path, limit=2 * size + size // 2).features(make_backbone(), make_split(50, seed), "embedding")
        time.sleep(0.02)
    assert len(list(Entry.all(tmp_path))) == 2
    assert rows(tmp_path, make_backbone, make_split(50, 4)).computed == 0
    assert rows(tmp_path, make_backbone, make_split(50, 1)).computed == 50


def test_nothing_is_removed_while_it_is_made(tmp_path, make_backbone, make_split):
    seen = []

    def during(what, done, total):
        seen.append(prune(tmp_path, to=0))

    assert rows(tmp_path, make_backbone, make_split(100, 0), progress=during).computed == 100
    assert seen == [([], 1)] * 2


MEMORY = """
import runpy, sys
from pathlib import Path
names = runpy.run_path(sys.argv[1] + "/conftest.py")
from backbench.tasks import Bank, Split
import numpy as np

class Lazy:
    def __len__(self): return int(sys.argv[3])
    def __getitem__(self, i): return np.full((64, 64, 3), i % 256, np.uint8)

def held():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))

peak = 0
def watch(*_):
    global peak
    peak = max(peak, held())

tiny = names["Tiny"](size=64)
found = Bank(Path(sys.argv[2])).features(tiny, Split(Lazy(), None, sys.argv[3]), "maps", progress=watch)
float(found.tensors["map0"][::7].float().sum())
watch()
print(peak, sum(t.numel() * t.element_size() for t in found.tensors.values()) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc")
def test_memory_does_not_grow_with_the_data(tmp_path):
    peaks, sizes = [], []
    for count in (1024, 8192):  # by 1,024 both threads' buffers have their size
        command = [sys.executable, "-c", MEMORY, str(HERE), str(tmp_path), str(count)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        peak, size = map(int, done.stdout.split())
        peaks.append(peak)
        sizes.append(size)
    assert sizes[1] == 8 * sizes[0]
    assert peaks[1] - peaks[0] < (sizes[1] - sizes[0]) / 4
