"""Many processes write at once, some of them die: nothing is lost, nothing is there twice, nothing is half there."""

import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from functools import cache

import pytest
from backbench.leaderboard import Result, Store
from backbench.leaderboard.rows import insert_new, row_of
from backbench.leaderboard.tables import results
from sqlalchemy import text

WRITERS, ROWS = 8, 500

# Reads records, and lets processes write them in batches, all at once, into a store that need not be there yet.
# Prints how many records were new to each.
WRITE = """
import json, os, sys
from backbench.leaderboard import Result, Store
where, writers, batch, shared = sys.argv[1], *map(int, sys.argv[2:])
records = [Result.from_json(line) for line in sys.stdin]
ready, go = os.pipe()
told, tell = os.pipe()
for writer in range(writers):
    if not os.fork():
        os.close(go)
        mine = records[writer:] + records[:writer] if shared else records[writer::writers]
        os.read(ready, 1)
        store = Store(where, pooled=True)
        new = sum(store.add_all(mine[i:i + batch]) for i in range(0, len(mine), batch))
        os.write(tell, f"{new}\\n".encode())
        os._exit(0)
os.close(go)
codes = [os.wait()[1] for _ in range(writers)]
os.close(tell)
print(os.read(told, 1000).decode() if not any(codes) else codes)
"""

# Begins to write, says so, and waits to be killed.
DIE = """
import sys, time
from backbench.leaderboard import Result, Store
from backbench.leaderboard.rows import insert_new, row_of
from backbench.leaderboard.tables import results
store = Store(sys.argv[1])
first, *rest = [Result.from_json(line) for line in sys.stdin]
store.add(first)
with store.change() as connection:
    insert_new(connection, results, [row_of(r) for r in rest])
    print("inside", flush=True)
    time.sleep(600)
"""


@cache
def records(content, count):
    """Results of as many cells, cheaply."""
    plain, created = content(), datetime(2026, 1, 1, tzinfo=UTC)
    return [Result.of(**plain | {"seed": i, "cell_id": f"{i:08x}"}, created=created) for i in range(count)]


def write(where, found, writers, batch, shared=False):
    """How many of the records were new to each of the writers."""
    words = [sys.executable, "-c", WRITE, str(where), str(writers), str(batch), str(int(shared))]
    lines = "\n".join(r.to_json() for r in found)
    done = subprocess.run(words, input=lines, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


@pytest.mark.parametrize("batch", [25, pytest.param(1, marks=pytest.mark.slow)])
def test_processes_that_write_at_once_lose_nothing(database, content, batch):
    found = records(content, WRITERS * ROWS)
    assert write(database, found, WRITERS, batch) == WRITERS * [ROWS]
    store = Store(database)
    assert {m.id for m in store.marks()} == {r.id for r in found}
    assert store.revision() == WRITERS * ROWS // batch
    assert store.some([r.id for r in found[::97]]) == found[::97]
    assert len(store.cells()) == len(found)


def test_processes_that_write_the_same_add_it_once(database, content):
    found = records(content, 60)
    assert sum(write(database, found, writers=4, batch=7, shared=True)) == 60
    assert sorted(m.id for m in Store(database).marks()) == sorted(r.id for r in found)


def test_a_killed_writer_leaves_nothing_half_done(database, content):
    found = records(content, 20)
    words = [sys.executable, "-c", DIE, str(database)]
    writer = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    writer.stdin.write("\n".join(r.to_json() for r in found))
    writer.stdin.close()
    assert writer.stdout.readline() == "inside\n"
    store = Store(database)
    assert store.all() == found[:1]  # readers do not wait for it
    os.kill(writer.pid, signal.SIGKILL)
    assert writer.wait(60) == -signal.SIGKILL
    writer.stdout.close()
    assert store.add_all(found[10:]) == 10
    assert {m.id for m in store.marks()} == {r.id for r in (found[0], *found[10:])}
    assert store.revision() == 2


def test_who_saw_a_revision_sees_all_that_was_changed_by_then(database, content):
    """Changes that overlap in time are put in a row: the later one waits for the earlier, and has the higher number."""
    first, second = records(content, 2)
    store, other = Store(database), Store(database)
    waiting = threading.Thread(target=other.add, args=[second])
    with store.change() as connection:
        insert_new(connection, results, [row_of(first)])
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        assert (store.revision(), store.marks()) == (0, [])
    waiting.join(60)
    assert (store.revision(), len(store.marks())) == (2, 2)


def test_readers_never_find_less_than_the_revision_says(database, content):
    """Every change adds one record, so whoever reads the revision first finds at least as many records."""
    found, store = records(content, 120), Store(database, pooled=True)
    lines = iter(found)
    lock = threading.Lock()

    def add():
        while True:
            with lock:
                one = next(lines, None)
            if one is None:
                return
            store.add(one)

    writers = [threading.Thread(target=add) for _ in range(3)]
    for writer in writers:
        writer.start()
    seen = []
    while any(writer.is_alive() for writer in writers):
        seen.append((store.revision(), len(store.marks())))
    assert all(revision <= count for revision, count in seen)
    assert len({revision for revision, _ in seen}) > 3  # it did read in between
    assert (store.revision(), len(store.marks())) == (120, 120)
    with store.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM results")) == 120
    store.engine.dispose()
