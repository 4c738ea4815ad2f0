"""An estimate counts what the bank will hold: the same kinds of features, the same bytes an image."""

import time

import numpy as np
import pytest
from backbench import load_backbone
from backbench.backbones import Letterbox
from backbench.benchmarks import estimate
from backbench.benchmarks.estimate import Asked
from backbench.tasks import Bank, Split
from backbench.tasks.entry import Entry, Index
from backbench.tasks.extraction import Grid

SECOND = 0.001


@pytest.mark.parametrize(
    ("asked", "how"),
    [
        (Asked("vectors", None, None), {"what": "embedding"}),
        (Asked("maps", None, 96), {"what": "maps", "box": 96}),
        (Asked("layers", None, None), {"what": "layers"}),
        (Asked("tokens", Grid(4, 2), None), {"what": "tokens", "grid": Grid(4, 2)}),
    ],
)
def test_bytes_of_an_image_are_those_of_the_bank(tmp_path, asked, how):
    backbone = load_backbone("mini/vit-supervised")
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    box = {"transform": Letterbox.of(backbone.input, how["box"])} if "box" in how else {}
    Bank(tmp_path).features(backbone, Split(images, None, "x"), how["what"], grid=how.get("grid"), **box)
    [entry] = Entry.all(tmp_path)
    index = Index.read(entry.place)
    assert index
    assert Asked.of(index) == asked
    seconds, size = estimate._image(backbone, asked, "cpu")
    assert seconds > 0
    assert size == sum(file.row for file in index.files.values())


def test_the_network_s_time_is_not_counted_twice(tmp_path, tiny, monkeypatch):
    from backbench.benchmarks.plan import find_backbones, plan, resolve

    monkeypatch.setattr(estimate, "compute", lambda cell, job, *_: _as_if_run(job, 10 * cell.limit))
    monkeypatch.setattr(estimate, "_image", lambda *_: (SECOND, 8))
    [cell] = plan(resolve("knn"), find_backbones([str(tiny)]), tmp_path, limit=100)
    [row] = estimate.estimate_cells([cell], tmp_path, "cpu")
    assert row["images"] == 300
    assert row["seconds"] == pytest.approx(300 * SECOND, abs=0.3)


def _as_if_run(job, rows):
    """What a cell leaves behind that pushed `rows` images through and did nothing else, after the time for it."""
    time.sleep(rows * SECOND)
    entry = Entry(job.home / "features" / "00" / ("0" * 64))
    entry.place.mkdir(parents=True)
    made_of = {"transform": {}, "what": "vectors", "grid": None}
    Index(made_of, {"backbone": "tiny", "split": "", "what": "embedding"}, rows, 32).write(entry.place)
