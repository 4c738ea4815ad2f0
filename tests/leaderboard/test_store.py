"""The store: what goes in comes out once, whoever writes at the same time."""

import sqlite3
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from backbench.backbones import BadInput
from backbench.leaderboard import Result, Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "new folder" / "leaderboard.db")


def test_adding_twice_changes_nothing(store, result):
    first, second = result(), result(seed=1)
    for r in (first, second, first, first):
        store.add(r)
    assert sorted(r.id for r in store.all()) == sorted([first.id, second.id])
    assert store.by_id(first.id) == first


def test_by_cell_gives_the_newest(store, result):
    old = result(code_version="1", created=datetime(2026, 1, 1, tzinfo=UTC))
    new = result(code_version="2", created=datetime(2026, 1, 2, tzinfo=UTC))
    assert old.cell_id == new.cell_id
    for r in (new, old):
        store.add(r)
    assert store.by_cell(old.cell_id) == new
    assert store.by_cell("0" * 24) is None
    assert store.cells() == {old.cell_id}
    assert store.all() == [old, new]


def test_prefixes(store, result):
    for seed in range(40):  # more than there are hex digits: some first digit is shared
        store.add(result(seed=seed))
    known = store.all()[0]
    assert store.by_id(known.id[:12].upper()) == known
    with pytest.raises(BadInput, match=r"results start with ''.*, …; type more") as error:
        store.by_id("")
    assert "\n" not in str(error.value)
    with pytest.raises(BadInput, match="did you mean"):
        store.by_id(known.id[:-1] + ("0" if known.id[-1] != "0" else "1"))
    for wild in ("%", "_", "zzz"):
        with pytest.raises(BadInput, match=f"no result '{wild}'"):
            store.by_id(wild)


def test_a_second_opening_sees_the_first_one(store, result):
    store.add(result())
    assert Store(store.path).all() == store.all()
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_other_files_are_refused(tmp_path, store):
    text = tmp_path / "notes.db"
    text.write_text("this is not a database, and long enough that nobody takes it for an empty one" * 9)
    with pytest.raises(BadInput, match=r"notes\.db: not a backbench leaderboard"):
        Store(text)
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE schema SET version = 99")
    with pytest.raises(BadInput, match="version 99"):
        Store(store.path)


def test_a_broken_record_is_named(store, result):
    store.add(result())
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE results SET json = replace(json, '62.0', '63.0')")
    with pytest.raises(BadInput, match=rf"leaderboard\.db: result {result().id}.*was changed"):
        store.all()


WRITER = """
import sys
from backbench.leaderboard import Result, Store
print("ready", flush=True)
for line in sys.stdin:
    Store(sys.argv[1]).add(Result.from_json(line))
"""


def test_processes_write_at_once(tmp_path, content):
    """Four processes open a store that is not there yet, at the same moment, and write what overlaps."""
    records = [
        Result.of(**content(seed=seed), created=datetime(2026, 1, 1, tzinfo=UTC)).to_json() for seed in range(24)
    ]
    path = tmp_path / "leaderboard.db"
    command = [sys.executable, "-c", WRITER, str(path)]
    writers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for w in writers:
        assert w.stdout.readline() == "ready\n"
    for i, w in enumerate(writers):
        w.stdin.write("\n".join(records[4 * i : 4 * i + 12]))
        w.stdin.close()
    assert [w.wait(60) for w in writers] == [0] * 4
    assert sorted(r.to_json() for r in Store(path).all()) == sorted(records)


def test_the_store_leaves_torch_alone():
    heavy = "{'torch', 'timm', 'pyarrow', 'sklearn'}"
    code = f"import sys, backbench.leaderboard.store; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
