"""One good bundle of five tasks, made by a real run, and what an attacker needs to make others of it."""

import copy
import hashlib
import io
import json
import os
import re
import resource
import shutil
import sys
import time
import zipfile
from datetime import UTC, datetime

import pytest
from backbench.benchmarks.runner import run
from backbench.benchmarks.submit import bundle
from backbench.leaderboard import Store
from backbench.leaderboard.cells import cell_id, column_id
from backbench.leaderboard.submission import Manifest, Refused, Truth, inspect, key_of, receive
from backbench.leaderboard.tables import checks, submissions
from backbench.tasks import find_dataset, find_task
from filelock import FileLock
from sqlalchemy import func, select

SUITE = """description: five tasks
entries:
  - {task: knn, dataset: digit-scenes}
  - {task: zero-shot, dataset: digit-scenes, ranked: false}
  - {task: retrieval, dataset: digit-scenes}
  - {task: semantic-segmentation, dataset: digit-scenes, recipe: {epochs: 1}}
  - {task: detection, dataset: digit-scenes, recipe: {epochs: 1}}
"""
STAMPS = ("id", "trust", "created")
SECONDS = 20  # of the slowest refusal, on a busy machine
BYTES = 96 << 20  # by which the process may grow meanwhile; every bomb is larger


@pytest.fixture(scope="session")
def sender(tmp_path_factory):
    """A home in which five tasks were run on a few images, with their bundle in `good`; shared by test processes."""
    base = tmp_path_factory.getbasetemp()
    home = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "sender"
    with FileLock(f"{home}.lock"):
        if not (home / "good" / "manifest.json").is_file():
            home.mkdir()
            (home / "five.yaml").write_text(SUITE)
            report = run(str(home / "five.yaml"), ["mini/cnn-image-text"], limit=24, home=home)
            assert not report.failed
            _, seen = bundle(report.cells[0].card, "five", report, home, home / "good")
            assert [checked.trust for checked in seen.checked] == ["rescored"] * 5
    return home


@pytest.fixture
def receiver(sender, tmp_path):
    """The home of a board; which fingerprints its data has is known from before, as on any machine after a day."""
    home = tmp_path / "receiver"
    home.mkdir()
    shutil.copy(sender / "fingerprints.json", home)
    return home


@pytest.fixture
def store(receiver):
    """The store of the board."""
    return Store(receiver / "leaderboard.db")


class Forged:
    """A bundle in memory: files by name, changed as an attacker would, sealed again with the attacker's own key."""

    def __init__(self, good, key, tasks):
        names = sorted(p.relative_to(good).as_posix() for p in good.rglob("*") if p.is_file())
        self.files = {name: (good / name).read_bytes() for name in names}
        self.manifest = json.loads(self.files.pop("manifest.json"))
        self.key = key
        for id, record in self.records().items():
            if record["task"]["name"] not in tasks:
                del self.files[f"results/{id}.json"], self.files[f"predictions/{id}.parquet"]
        self.raw = None  # the text of a manifest that is none

    def records(self):
        """Records by id."""
        return {n[8:-5]: json.loads(t) for n, t in self.files.items() if n.startswith("results/")}

    def record(self, task="knn"):
        """The record of a task."""
        return next(copy.deepcopy(r) for r in self.records().values() if r["task"]["name"] == task)

    def put(self, record, *, cell=False, id=True, text=None):
        """Takes the place of the record of the same task, under its new id; `cell`: with a cell id that fits it."""
        old = record["id"]
        if cell:
            record["cell_id"] = cell_of(record)
        if id:
            content = {k: v for k, v in record.items() if k not in STAMPS}
            plain = json.dumps(content, sort_keys=True, separators=(",", ":"))
            record["id"] = hashlib.sha256(plain.encode()).hexdigest()[:16]
        del self.files[f"results/{old}.json"]
        self.files[f"results/{record['id']}.json"] = (text or json.dumps(record)).encode()
        if (data := self.files.pop(f"predictions/{old}.parquet", None)) is not None:
            self.files[f"predictions/{record['id']}.parquet"] = data
        return record["id"]

    def predictions(self, record, data):
        """Other predictions for a record, which says so."""
        self.files[f"predictions/{record['id']}.parquet"] = data
        record["predictions"]["sha256"] = hashlib.sha256(data).hexdigest()
        return self.put(record)

    def listed(self):
        """What the manifest says of the files."""
        return {n: {"sha256": hashlib.sha256(d).hexdigest(), "bytes": len(d)} for n, d in sorted(self.files.items())}

    def seal(self, **said):
        """A fresh manifest: digests and signature are renewed; `said` is changed in it before it is signed."""
        self.manifest |= {"files": self.listed(), "created": datetime.now(UTC).isoformat()} | said
        content = {k: v for k, v in self.manifest.items() if k not in ("signature", "submitter")}
        try:
            self.manifest = Manifest.of(self.key, **content).model_dump(mode="json")
        except ValueError:  # it would not pass: then it is not signed either
            self.manifest = content | {"submitter": "0" * 64, "signature": "0" * 128}
        return self

    def zip(self, extra=()):
        """The bytes of the archive; `extra`: more entries, (name or ZipInfo, data)."""
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("manifest.json", self.raw if self.raw is not None else json.dumps(self.manifest))
            for name, data in self.files.items():
                archive.writestr(name, data)
            for name, data in extra:
                archive.writestr(name, data)
        return held.getvalue()


def cell_of(record):
    """The id of the cell that a record describes."""
    task, told, network = find_task(record["task"]["name"]), record["dataset"], record["backbone"]
    column = column_id(task, find_dataset("digit-scenes"), told["fingerprints"], record["recipe"], told["limit"])
    return cell_id(column, network["card_digest"], record["seed"], network.get("loading", {}))


@pytest.fixture
def forge(sender, tmp_path):
    """`forge()`: a copy of the good bundle, of the tasks asked for, to be changed; its key is not the sender's."""

    def make(*tasks):
        return Forged(sender / "good", key_of(tmp_path / "attacker"), tasks or ("knn", "retrieval"))

    return make


def peak():
    """Bytes that this process has held at once so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@pytest.fixture(scope="session")
def warm(sender):
    """What any receiver has read before: its libraries and its own data."""
    assert not inspect(sender / "good", Truth(sender)).findings


@pytest.fixture
def refused(warm, receiver, store):
    """`refused(archive, line)`: it is, by one line, in bounded time and memory, and nothing is left but a line in the
    log."""

    def check(archive, line, **options):
        before, started, held = sorted(p.name for p in receiver.iterdir()), time.process_time(), peak()
        with pytest.raises(Refused) as refused:
            receive(archive, store, receiver, "mallory", **options)
        assert time.process_time() - started < SECONDS
        assert peak() - held < BYTES
        said = str(refused.value)
        assert re.match(line, said), said
        assert said.isprintable()
        assert len(said) < 800
        assert refused.value.findings[0] in said
        assert store.all() == []
        with store.begin() as connection:
            for table in (submissions, checks):
                assert connection.scalar(select(func.count()).select_from(table)) == 0
        assert [event.action for event in store.history()] == ["refused"]
        assert sorted(p.name for p in receiver.iterdir()) == before

    return check
