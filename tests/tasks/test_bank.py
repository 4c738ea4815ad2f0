"""The bank: once through the network, the same bits for any number of threads, and never a wrong feature."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from backbench.backbones import BackboneCard, BadInput, Letterbox, NotApplicable, load_backbone
from backbench.tasks import Bank, bank, extraction, load_dataset
from backbench.tasks.threads import one_thread
from safetensors.torch import load_file

HERE = Path(__file__).parent


def entries(folder):
    return sorted(p.parent for p in folder.glob("*/*/index.json"))


def bits(found):
    return {name: t.numpy().tobytes() for name, t in found.tensors.items()}


def test_features_are_those_of_the_backbone(tmp_path, make_backbone, make_split):
    backbone, split = make_backbone(text=True), make_split(150, 0)
    images = torch.stack([backbone.transform(i) for i in split.images])
    with torch.inference_mode():
        expected = backbone(images, maps=True, projection=True)
    store = Bank(tmp_path)
    found = {what: store.features(backbone, split, what) for what in ("embedding", "projection", "maps")}
    torch.testing.assert_close(found["embedding"].tensors["embedding"], expected.embedding)
    torch.testing.assert_close(found["projection"].tensors["projection"], expected.projection)
    for i, level in enumerate(expected.maps):
        kept = found["maps"].tensors[f"map{i}"]
        assert kept.dtype == torch.float16
        torch.testing.assert_close(kept, level.half())
    assert list(found["maps"].tensors) == ["map0", "map1"]


def test_an_image_goes_through_once_and_text_rides_along(tmp_path, make_backbone, make_split):
    split, seen = make_split(70, 0), []
    first = Bank(tmp_path).features(make_backbone(text=True), split, "embedding", progress=lambda *a: seen.append(a))
    assert first.computed == 70
    assert [(done, total) for _, done, total in seen] == [(64, 70), (70, 70)]
    again = Bank(tmp_path)  # another process
    assert again.features(make_backbone(text=True), split, "projection").computed == 0
    assert bits(again.features(make_backbone(text=True), split, "embedding")) == bits(first)
    assert len(entries(tmp_path)) == 1


def test_whatever_differs_has_an_entry_of_its_own(tmp_path, make_backbone, make_split):
    split, backbone, store = make_split(8, 0), make_backbone(), Bank(tmp_path)
    asked = [
        (backbone, split, "embedding", backbone.transform),
        (make_backbone(seed=1), split, "embedding", backbone.transform),
        (backbone, make_split(8, 1), "embedding", backbone.transform),
        (backbone, split.take(7), "embedding", backbone.transform),
        (backbone, split, "embedding", replace(backbone.transform, crop=0.9)),
        (backbone, split, "embedding", replace(backbone.transform, std=(0.4, 0.5, 0.5))),
        (backbone, split, "maps", backbone.transform),
        (backbone, split, "maps", Letterbox.of(backbone.input, 16)),
        (backbone, split, "maps", Letterbox.of(backbone.input, 24)),
    ]
    for count, (network, images, what, transform) in enumerate(asked, 1):
        assert store.features(network, images, what, transform=transform).computed == len(images)
        assert len(entries(tmp_path)) == count


def test_a_weight_changed_by_a_bit_is_another_backbone(make_backbone, make_split):
    one, other = make_backbone(), make_backbone()
    other.body[0].weight.data[0, 0, 0, 0] += 1e-7
    keys = [bank.ingredients(b, make_split(4, 0), "embedding", b.transform, "cpu") for b in (one, other)]
    assert {k for k in keys[0] if keys[0][k] != keys[1][k]} == {"weights"}


def test_a_new_library_is_another_key(monkeypatch, make_backbone, make_split):
    def made_of():
        return bank.ingredients(make_backbone(), make_split(4, 0), "embedding", make_backbone().transform, "cpu")

    before = made_of()
    monkeypatch.setattr(bank, "_version", lambda name: "999")
    assert made_of() != before


@pytest.mark.parametrize("what", ["embedding", "maps"])
def test_bits_do_not_hang_on_threads(tmp_path, monkeypatch, make_backbone, make_split, what):
    split, found = make_split(300, 0), []
    for workers, threads in ((1, 1), (2, 2), (5, 1)):
        monkeypatch.setattr(extraction, "cores", lambda n=workers: n)
        torch.set_num_threads(threads)
        try:
            found.append(bits(Bank(tmp_path / str(workers)).features(make_backbone(), split, what)))
        finally:
            torch.set_num_threads(1)
    assert found[0] == found[1] == found[2]


def test_threads_are_left_as_they_were(tmp_path, make_backbone, make_split):
    before = torch.get_num_threads()
    Bank(tmp_path).features(make_backbone(), make_split(8, 0), "embedding")
    assert torch.get_num_threads() == before


def test_files_are_plain_safetensors_and_mapped_not_read(tmp_path, make_backbone, make_split):
    split = make_split(20, 0)
    tensors = Bank(tmp_path).features(make_backbone(), split, "maps").tensors
    (entry,) = entries(tmp_path)
    for name, tensor in tensors.items():
        assert torch.equal(load_file(entry / f"{name}.safetensors")[name], tensor)
        assert tensor.data_ptr() % 64 == 0
    mapped = Path("/proc/self/maps")
    if mapped.exists():
        assert str(entry / "map0.safetensors") in mapped.read_text()


@pytest.mark.parametrize("harm", ["flip", "cut", "gone", "index-cut", "index-flip", "index-gone", "grown"])
def test_a_harmed_entry_is_made_again(tmp_path, make_backbone, make_split, harm):
    split = make_split(40, 0)
    good = Bank(tmp_path).features(make_backbone(), split, "embedding")
    expected = bits(good)
    del good
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
    again = Bank(tmp_path).features(make_backbone(), split, "embedding")
    assert bits(again) == expected
    assert again.computed == (40 if harm != "index-flip" else again.computed)
    assert Bank(tmp_path).features(make_backbone(), split, "embedding").computed == 0


def test_every_flipped_bit_of_the_index_is_noticed_or_harmless(tmp_path, make_backbone, make_split):
    split = make_split(4, 0)
    expected = bits(Bank(tmp_path).features(make_backbone(), split, "embedding"))
    file = entries(tmp_path)[0] / "index.json"
    whole, rng = file.read_bytes(), random.Random(1)
    for _ in range(60):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
        assert bits(Bank(tmp_path).features(make_backbone(), split, "embedding")) == expected
        file = entries(tmp_path)[0] / "index.json"


def test_features_that_are_not_finite_name_the_image(tmp_path, make_backbone, make_split):
    split = make_split(70, 0, noise=1)
    images = split.images.copy()
    images[66] = 255
    with pytest.raises(BadInput, match=r"tiny: the embedding of image 0-66 is not finite") as error:
        Bank(tmp_path).features(make_backbone(broken=True), replace(split, images=images), "embedding")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("*/*.part"))
    assert not entries(tmp_path)


def test_huge_activations_of_maps_saturate(tmp_path, make_backbone, make_split):
    backbone = make_backbone()
    backbone.body[0].weight.data *= 1e6
    found = Bank(tmp_path).features(backbone, make_split(4, 0), "maps").tensors["map0"]
    assert found.isfinite().all()
    assert found.abs().max() == torch.finfo(torch.float16).max


def test_what_is_not_there_is_said(tmp_path, make_backbone, make_split):
    with pytest.raises(NotApplicable, match="no text tower"):
        Bank(tmp_path).features(make_backbone(), make_split(4, 0), "projection")
    empty = replace(make_split(4, 0), images=[], targets=np.array([]))
    with pytest.raises(BadInput, match="split is empty"):
        Bank(tmp_path).features(make_backbone(), empty, "embedding")


CHILD = """
import runpy, sys, time
from pathlib import Path
here, folder, pause = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
names = runpy.run_path(here + "/conftest.py")
from backbench.tasks import Bank

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


def child(folder, pause):
    command = [sys.executable, "-c", CHILD, str(HERE), str(folder), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def test_killed_in_the_middle_nothing_reads_as_complete(tmp_path, make_backbone, make_split):
    process = child(tmp_path, 0.01)
    assert process.stdout
    assert process.stdout.readline().strip() == "64"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not entries(tmp_path)
    assert list(tmp_path.glob("*/*.part"))
    found = Bank(tmp_path).features(
        make_backbone(), make_split(400, 0), "embedding"
    )  # the lock is free, the rest is cleared
    assert found.computed == 400
    assert not list(tmp_path.glob("*/*.part"))
    assert bits(found) == bits(Bank(tmp_path / "other").features(make_backbone(), make_split(400, 0), "embedding"))


def test_two_processes_compute_once(tmp_path, make_backbone, make_split):
    processes = [child(tmp_path, 0.002) for _ in range(2)]
    computed = sorted(int(p.communicate()[0].split()[-1]) for p in processes)
    assert computed == [0, 400]
    assert Bank(tmp_path).features(make_backbone(), make_split(400, 0), "embedding").computed == 0


@pytest.mark.speed
def test_overhead_over_a_bare_loop(tmp_path, monkeypatch):
    """Processor seconds on one thread, side by side with nothing but transform and network on the same batches."""
    size = {"size": 64, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    backbone = load_backbone(BackboneCard(source="timm", model="resnet10t", pretrained=False, input=size))
    split = load_dataset("digit-scenes", "classification")["train"].take(640)
    monkeypatch.setattr(extraction, "cores", lambda: 1)
    ratios = []
    for turn in range(3):
        with one_thread(), torch.inference_mode():
            start = time.process_time()
            for i in range(0, len(split), 64):
                backbone(torch.stack([backbone.transform(split.images[j]) for j in range(i, i + 64)]))
            bare = time.process_time() - start
        start = time.process_time()
        Bank(tmp_path / str(turn)).features(backbone, split, "embedding")
        ratios.append((time.process_time() - start) / bare)
    print("bank / bare loop:", *(f"{r:.3f}" for r in ratios))
    assert min(ratios) < 1.1
