"""Opening a store: what is made, what is brought up from an older version, what is refused, and in which words."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from backbench.backbones import BadInput, Unavailable
from backbench.leaderboard import Result, Store, tables
from backbench.leaderboard import database as opening
from backbench.leaderboard.database import Database
from backbench.leaderboard.tables import SCHEMA, moment
from filelock import FileLock
from sqlalchemy import inspect, select, text
from sqlalchemy.exc import IntegrityError

RECORDS = sorted((Path(__file__).parent / "records").glob("version-1-*.json"))
FIRST = """
CREATE TABLE schema (version INTEGER NOT NULL, PRIMARY KEY (version));
CREATE TABLE results (
    id VARCHAR(16) NOT NULL, cell_id VARCHAR(64) NOT NULL, task VARCHAR NOT NULL, dataset VARCHAR NOT NULL,
    backbone VARCHAR NOT NULL, seed INTEGER NOT NULL, created VARCHAR NOT NULL, json TEXT NOT NULL, PRIMARY KEY (id));
CREATE INDEX ix_results_backbone ON results (backbone);
CREATE INDEX ix_results_cell_id ON results (cell_id);
CREATE INDEX ix_results_task ON results (task);
INSERT INTO schema (version) VALUES (1);
"""


@pytest.fixture
def old(tmp_path, content):
    """A file as the first backbench wrote it, with records of that time, one that was rescored, and a broken one."""
    path = tmp_path / "old.db"
    records = [Result.from_json(record.read_text(), where=record.name) for record in RECORDS]
    records.append(Result.of(**content(seed=7), trust="rescored"))
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(FIRST)
        for r in records:
            row = (r.id, r.cell_id, r.task.name, r.dataset.name, r.backbone.name, r.seed, r.created.isoformat())
            connection.execute("INSERT INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, r.to_json()))
        connection.execute("INSERT INTO results VALUES ('f00', 'c', 't', 'd', 'b', 0, '2026', 'no JSON')")
    connection.close()
    return path, records


def test_an_old_file_is_brought_up_with_all_that_is_in_it(old):
    path, records = old
    store = Store(path)
    assert RECORDS
    assert {r.id: r for r in store.some([r.id for r in records])} == {r.id: r for r in records}
    assert [(m.trust, m.withdrawn) for m in store.marks()].count(("rescored", None)) == 1
    assert len(store.marks()) == len(records) + 1
    with pytest.raises(BadInput, match="result f00: not valid JSON"):
        store.all()
    store.withdraw("f00", "no record at all", by="ada")
    assert {r.id for r in store.all()} == {r.id for r in records}
    assert (store.revision(), len(store.identity)) == (1, 32)
    assert Store(path).identity == store.identity


def test_old_and_new_tables_are_the_same(old, database):
    path, _ = old
    for where in (path, database):
        with Store(where).begin() as connection:
            found = inspect(connection)
            assert set(found.get_table_names()) == set(tables.tables.tables)
            for name, table in tables.tables.tables.items():
                columns = {c["name"]: c["nullable"] for c in found.get_columns(name)}
                assert columns == {c.name: c.nullable for c in table.columns}
                assert found.get_pk_constraint(name)["constrained_columns"] == [c.name for c in table.primary_key]
                indexed = {c for i in found.get_indexes(name) if not i["unique"] for c in i["column_names"]}
                assert indexed == {c.name for c in table.columns if c.index}


def test_what_must_not_be_there_twice(old, database):
    path, _ = old
    row = {"received": moment(), "by": "ada", "backbone": "net", "suite": "quick", "state": "queued", "detail": {}}
    token = {"scopes": "submit", "created": moment()}
    for where in (path, database):
        store = Store(where)
        with store.begin() as connection:
            connection.execute(tables.tokens.insert().values(name="a", sha256="0" * 64, **token))
            for id, digest in (("1", "0" * 64), ("2", None), ("3", None)):
                connection.execute(tables.submissions.insert().values(id=id, digest=digest, **row))
        for again in (
            tables.tokens.insert().values(name="b", sha256="0" * 64, **token),
            tables.tokens.insert().values(name="a", sha256="1" * 64, **token),
            tables.submissions.insert().values(id="4", digest="0" * 64, **row),
            tables.submissions.insert().values(id="1", digest="1" * 64, **row),
        ):
            with pytest.raises(IntegrityError), store.begin() as connection:
                connection.execute(again)
        with store.begin() as connection:
            found = connection.execute(select(tables.submissions).order_by("id")).all()
        assert [(r.id, r.detail, r.digest) for r in found] == [("1", {}, "0" * 64), ("2", {}, None), ("3", {}, None)]


@pytest.mark.parametrize("broken", [0, 5])
def test_a_step_that_fails_leaves_the_old_file_as_it_was(old, monkeypatch, broken):
    path, records = old
    statements = tables.MIGRATIONS[1].split(";")
    half = ";".join([*statements[:broken], "CREATE TABLE results (id INTEGER)"])
    monkeypatch.setattr(tables, "MIGRATIONS", (tables.MIGRATIONS[0], half))
    with pytest.raises(BadInput, match="not a backbench leaderboard"):
        Store(path)
    monkeypatch.undo()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT version FROM schema").fetchall() == [(1,)]
        assert len(connection.execute("SELECT * FROM results").fetchall()) == len(records) + 1
    assert len(Store(path).marks()) == len(records) + 1


def test_a_newer_store_is_refused(database):
    with Store(database).begin() as connection:
        connection.execute(text("UPDATE schema SET version = 99"))
    with pytest.raises(BadInput, match=rf"newer backbench \(tables of version 99, this one knows {SCHEMA}\); upgrade"):
        Store(database)


def test_other_files_are_refused(tmp_path):
    notes = tmp_path / "notes.db"
    notes.write_text("this is not a database, and long enough that nobody takes it for an empty one" * 9)
    with pytest.raises(BadInput, match=r"notes\.db: not a backbench leaderboard \(file is not a database\)"):
        Store(notes)
    with pytest.raises(BadInput, match=r"notes\.db/x\.db: .*name a file in a folder you can write"):
        Store(notes / "x.db")
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(Unavailable, match=r"folder\.db: unable to open"):
        Store(tmp_path / "folder.db")


def test_other_programs_tables_are_left_alone(database):
    where = Database.__new__(Database)
    url = opening._url(database if isinstance(database, str) else str(database))
    where.name, where.engine = "somebody's", opening._engine(url, "somebody's", False)
    with where.begin() as connection:
        connection.execute(text("CREATE TABLE results (id INTEGER PRIMARY KEY, name TEXT)"))
    with pytest.raises(BadInput, match="not a backbench leaderboard"):
        Store(database)
    with where.begin() as connection:
        assert inspect(connection).get_table_names() == ["results"]
        assert [c["name"] for c in inspect(connection).get_columns("results")] == ["id", "name"]


def test_a_lock_that_is_never_given_back(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "PATIENCE", 0.1)
    path = tmp_path / "leaderboard.db"
    with FileLock(f"{path}.lock"), pytest.raises(Unavailable, match=r"another process keeps its lock, .*\.lock"):
        Store(path)


def test_a_writer_that_never_ends(tmp_path, monkeypatch, result):
    store = Store(tmp_path / "leaderboard.db")
    monkeypatch.setattr(opening, "PATIENCE", 0.1)
    other = Store(store.path)
    with store.change(), pytest.raises(Unavailable, match=r"leaderboard\.db: database is locked"):
        other.add(result())
    other.add(result())


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://me:secret@host/db", "no kind of database 'mysql'; known: postgresql, sqlite"),
        ("postgres://me:secret@host/db", "did you mean 'postgresql'"),
        ("postgresql+psycopg2://me:secret@host/db", "the driver here is psycopg; write postgresql://"),
        ("postgresql://me:secret@host:port/db", "not the URL of a database; write it like postgresql://user:password@"),
        ("postgresql:/me:secret@host/db", "not the URL of a database"),
        ("postgresql://me:sec@secret@host/db", "@ is %40"),
        ("sqlite://", "name a file"),
        ("sqlite:///:memory:", "name a file"),
        ("sqlite:///file:secret?mode=memory", "name a file"),
        ("sqlite:///secret.db?timeout=1", "name a file"),
        ("sqlite://secret/results.db", "name a file"),
    ],
)
def test_wrong_urls(tmp_path, monkeypatch, url, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=r"^--database \w+(\+\w+)?:…: ") as error:
        Store(url)
    assert said in str(error.value)
    assert "secret" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ["localhost:9/db", "nowhere.invalid/db", "/db?host=/no/such/folder"])
def test_servers_that_cannot_be_reached(address):
    pytest.importorskip("psycopg")
    with pytest.raises(Unavailable, match=r"^postgresql://ada:\*\*\*@") as error:
        Store(f"postgresql://ada:secret@{address}")
    assert "secret" not in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_what_a_server_refuses(postgres, postgres_server):
    import psycopg

    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS guarded")
        connection.execute("CREATE ROLE guarded LOGIN PASSWORD 'right'")
    guarded = postgres.replace("test@", "guarded:wrong@")
    absent = postgres_server.format("absent")
    for url, said in (
        (guarded, "password authentication failed"),
        (guarded.replace(":wrong", ""), "password"),
        (absent, 'database "absent" does not exist'),
        (guarded.replace("wrong", "right"), "permission denied"),  # for making tables
        (f"{postgres}&sslmode=sometimes", "invalid sslmode value"),
        (f"{postgres}&password=wrong&colour=red", "colour"),
    ):
        with pytest.raises(BadInput, match=said) as error:
            Store(url)
        assert "wrong" not in str(error.value)
        assert len(str(error.value).splitlines()) == 1


def test_a_reader_without_the_right_to_write(postgres, result):
    import psycopg

    Store(postgres).add(result())
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS reader")
        connection.execute("CREATE ROLE reader LOGIN")
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    store = Store(postgres.replace("test@", "reader@"))
    assert store.all() == [result()]
    with pytest.raises(BadInput, match="permission denied"):
        store.add(result(seed=1))
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("DROP OWNED BY reader")


def test_without_psycopg(tmp_path):
    code = "import sys; sys.modules['psycopg'] = None; from backbench.leaderboard import Store; Store(sys.argv[1])"
    words = [sys.executable, "-c", code, "postgresql://ada:secret@localhost/db"]
    said = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path).stderr.strip().splitlines()
    assert said[-1].endswith("//ada:***@localhost/db: PostgreSQL needs psycopg: pip install 'backbench[serve]'")
    assert "secret" not in said[-1]


def test_forked_processes_do_not_share_connections(database, result):
    store = Store(database, pooled=True)
    store.add(result())
    for seed in range(1, 4):
        child = os.fork()
        if not child:
            store.add(result(seed=seed))
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert len(store.all()) == seed + 1
    store.engine.dispose()
