"""The store, in a SQLite file and in PostgreSQL: what goes in comes out once, and what was done to it is known."""

import sqlite3
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from backbench.backbones import BadInput
from backbench.leaderboard import Store
from backbench.leaderboard import store as keeping
from backbench.leaderboard.database import Database
from backbench.leaderboard.published import Figure, Source
from backbench.leaderboard.result import LARGEST, Identity
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

ANY = st.text(st.characters() | st.characters(categories=["Cs"]))  # halves of characters too


@pytest.fixture
def store(database):
    return Store(database)


def figure(name="net", value=50.0, source="a-table", file="table.csv", dataset="imagenet", digest="0"):
    origin = Source(name=source, title="A table", files={"table.csv": digest * 64, "other.csv": "1" * 64})
    return Figure(
        backbone=Identity(name=name, card={}),
        task="linear-probe",
        family="classification",
        dataset=dataset,
        metric="top1",
        unit="%",
        higher_is_better=True,
        range_low=0.0,
        range_high=100.0,
        value=value,
        file=file,
        source=origin,
    )


def test_adding_twice_changes_nothing(store, result):
    first, second = result(), result(seed=1)
    for r in (first, second, first, first):
        store.add(r)
    assert sorted(r.id for r in store.all()) == sorted([first.id, second.id])
    assert store.by_id(first.id) == first
    revision = store.revision()
    assert store.add_all([second, result(seed=2), first, result(seed=2)]) == 1
    assert (store.add_all([first, second]), store.add_all([])) == (0, 0)
    assert store.revision() == revision + 1


def test_by_cell_gives_the_newest(store, result):
    old = result(code_version="1", created=datetime(2026, 1, 1, tzinfo=UTC))
    new = result(code_version="2", created=datetime(2026, 1, 1, 0, 0, 0, 5000, tzinfo=UTC))
    assert old.cell_id == new.cell_id
    for r in (new, old):
        store.add(r)
    assert store.by_cell(old.cell_id) == new
    assert store.by_cell("0" * 24) is None
    assert store.cells() == {old.cell_id}
    assert store.all() == [old, new]
    store.withdraw(new.id, "wrong transform", by="ada")
    assert store.by_cell(old.cell_id) == old
    store.withdraw(old.id, "the same", by="ada")
    assert store.by_cell(old.cell_id) is None
    assert store.cells() == set()


def test_prefixes(store, result):
    store.add_all([result(seed=seed) for seed in range(40)])  # more than there are hex digits: some first one is shared
    known = store.all()[0]
    assert store.by_id(known.id[:12].upper()) == known
    with pytest.raises(BadInput, match=r"^40 results start with ''.*, …; type more") as error:
        store.by_id("")
    assert "\n" not in str(error.value)
    with pytest.raises(BadInput, match="did you mean"):
        store.by_id(known.id[:-1] + ("0" if known.id[-1] != "0" else "1"))
    for wild in (
        "%",
        "_",
        known.id[:3] + "%",
        known.id[:3] + "_" * 13,
        "zzz",
        "' OR 1=1 --",
        "\0",
        "\\",
        "é",
        "\ud800",
    ):
        with pytest.raises(BadInput, match="no result") as error:
            store.by_id(wild)
        assert len(str(error.value).splitlines()) == 1


def test_some_keep_the_order_asked_for(store, result, monkeypatch):
    monkeypatch.setattr(keeping, "AT_ONCE", 2)
    records = [result(seed=seed) for seed in range(5)]
    store.add_all(records)
    store.withdraw(records[3].id, "a test", by="ada")
    wanted = [records[i] for i in (3, 0, 4, 0)]
    assert store.some([r.id for r in wanted]) == wanted
    assert store.some([]) == []
    with pytest.raises(BadInput, match="no result 'ffff'"):
        store.some([records[0].id, "ffff"])


def test_trust_stands_beside_the_record(store, result):
    first, second = result(), result(seed=1, trust="rescored")
    store.add_all([first, second])
    before = store.revision()
    store.set_trust(first.id, "contested", by="verifier", detail={"then": 62.0, "now": 41.5})
    assert store.revision() > before
    assert {m.id: m.trust for m in store.marks()} == {first.id: "contested", second.id: "rescored"}
    assert store.by_id(first.id) == first.model_copy(update={"trust": "contested"})
    store.add(first)
    assert store.by_id(first.id).trust == "contested"
    [event] = store.history(first.id)
    assert (event.by, event.action, event.subject) == ("verifier", "trust", first.id)
    assert event.detail == {"from": "reported", "to": "contested", "then": 62.0, "now": 41.5}
    assert abs((datetime.now(UTC) - datetime.fromisoformat(event.at)).total_seconds()) < 60
    with pytest.raises(BadInput, match="did you mean 'rescored'"):
        store.set_trust(first.id, "rescore", by="x", detail={})
    with pytest.raises(BadInput, match="no result 'feed'"):
        store.set_trust("feed", "rescored", by="x", detail={})


def test_withdrawn_results_stay_in_the_history(store, result):
    first, second = result(), result(seed=1)
    store.add_all([first, second])
    seen = [store.revision()]
    store.withdraw(first.id, "wrong labels", by="ada")
    seen.append(store.revision())
    assert store.all() == [second]
    assert store.by_id(first.id) == first
    assert [(m.id, m.withdrawn) for m in store.marks() if m.withdrawn] == [(first.id, "wrong labels")]
    with pytest.raises(BadInput, match="withdrawn already: wrong labels"):
        store.withdraw(first.id, "again", by="ada")
    store.add(first)
    assert store.all() == [second]
    store.restore(first.id, by="bob")
    seen.append(store.revision())
    assert {r.id for r in store.all()} == {first.id, second.id}
    with pytest.raises(BadInput, match="was not withdrawn"):
        store.restore(first.id, by="bob")
    with pytest.raises(BadInput, match="say why"):
        store.withdraw(first.id, " ", by="ada")
    for refused in (store.withdraw, store.restore):
        with pytest.raises(BadInput, match="no result '0'"):
            refused("0", *(["reason"] if refused == store.withdraw else []), by="ada")
    assert [(e.action, e.by, e.detail) for e in store.history(first.id)] == [
        ("withdraw", "ada", {"reason": "wrong labels"}),
        ("restore", "bob", {"reason": "wrong labels"}),
    ]
    assert store.revision() == seen[-1]  # what was refused changed nothing
    assert seen == sorted(set(seen))


def test_an_error_undoes_a_change(store, result):
    store.add(result())
    before = store.revision()

    def fail():
        with store.change() as connection:
            connection.execute(text("DELETE FROM results"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (len(store.all()), store.revision()) == (1, before)
    store.log("ada", "token created", "ci", {"scopes": ["submit"]})
    assert store.revision() == before  # the log is no result
    assert [e.subject for e in store.history()] == ["ci"]


def test_two_stores_are_told_apart(tmp_path, database):
    first, again, other = Store(database), Store(database), Store(tmp_path / "other.db")
    assert first.identity == again.identity != other.identity
    assert len(first.identity) == 32


def test_figures_of_a_source_are_replaced_whole(store, result, monkeypatch):
    monkeypatch.setattr(keeping, "AT_ONCE", 2)
    store.add(result())
    old = [figure(f"net{i}", float(i)) for i in range(5)]
    other = [figure(f"net{i}", 10.0, source="another-table") for i in range(2)]
    assert store.put_figures(old) == (5, 0)
    assert store.put_figures(other) == (2, 0)
    before = store.revision()
    assert store.put_figures(old[::-1]) == (0, 0)
    assert store.revision() == before
    assert sorted(store.figure_ids()) == sorted(f.id for f in old + other)
    assert {f.id: f for f in store.figures()} == {f.id: f for f in old + other}
    assert {f.id: f for f in store.figures("another-table")} == {f.id: f for f in other}
    assert store.figures("a-table", known={f.id for f in old[1:]}) == old[:1]
    assert [s.name for s in store.sources()] == ["a-table", "another-table"]
    newer = [figure(f"net{i}", float(i), digest="a") for i in range(3, 8)]
    assert store.put_figures(newer) == (3, 3)
    assert store.revision() > before
    assert {f.id: f for f in store.figures("a-table")} == {f.id: f for f in newer}
    assert store.sources()[0] == newer[0].source
    with pytest.raises(BadInput, match="another source"):
        store.put_figures([old[0], other[0]])
    with pytest.raises(BadInput, match="did you mean 'a-table'"):
        store.remove_figures("a-tabel")
    assert store.remove_figures("a-table") == 5
    assert (store.figures("a-table"), store.sources()) == ([], [other[0].source])
    assert len(store.all()) == 1


def test_records_over_the_limit_are_refused(store, result):
    many = (LARGEST - 5000) // 9003  # texts of 9000 characters, as JSON has them
    fits = result(recipe={"notes": many * ["x" * 9000]})
    assert store.add_all([fits]) == 1
    assert store.by_id(fits.id) == fits
    with pytest.raises(BadInput, match=r"^result \w{16}: 4,\d\d\d,\d\d\d bytes of JSON; at most 4,194,304"):
        store.add_all([result(), result(recipe={"notes": (many + 2) * ["x" * 9000]})])
    assert store.all() == [fits]  # all or none
    with pytest.raises(BadInput, match="at most"):
        store.put_figures([figure().model_copy(update={"dataset": "x" * LARGEST})])


def test_sql_in_names_stays_text(store, content, result):
    name = "'); DROP TABLE results; --\"\\%s :x {0}"
    record = result(backbone=content()["backbone"] | {"name": name}, seed=2**40)
    store.add(record)
    store.withdraw(record.id, "'; DELETE FROM results; --", by=name)
    store.restore(record.id, by="' OR '1'='1")
    assert store.all() == [record]
    assert [e.by for e in store.history(record.id)] == [name, "' OR '1'='1"]
    assert store.history(name) == []
    assert store.put_figures([figure(name=name)]) == (1, 0)
    assert store.figures()[0].backbone.name == name
    with pytest.raises(BadInput, match="no published table"):
        store.remove_figures("' OR '1'='1")


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ANY, ANY, ANY, st.dictionaries(ANY, st.integers() | ANY | st.none()))
def test_the_log_gives_back_what_it_was_told(store, by, action, subject, detail):
    try:
        store.log(by, action[:40], subject, detail)
    except BadInput:  # PostgreSQL has no NUL in a text, and nothing keeps half a character
        assert any(c == "\0" or "\ud800" <= c <= "\udfff" for c in by + action + subject)
    else:
        found = store.history(subject)[-1]
        assert (found.by, found.action, found.subject, found.detail) == (by, action[:40], subject, detail)


def test_a_broken_record_is_named(store, result):
    store.add(result())
    with store.begin() as connection:
        connection.execute(text("UPDATE results SET json = replace(json, '62.0', '63.0')"))
    with pytest.raises(BadInput, match=rf"result {result().id}.*was changed"):
        store.all()


def test_a_second_opening_sees_the_first_one(tmp_path, result):
    store = Store(tmp_path / "new folder" / "what? #1.db")
    store.add(result())
    assert Store(store.path).all() == store.all()
    assert Store(f"sqlite:///{store.path}".replace("?", "%3F")).all() == store.all()
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_pool_keeps_connections_and_no_pool_none(database):
    for pooled, kept in ((True, 1), (False, 0)):
        found = Database(database, pooled=pooled)
        for _ in range(3):
            with found.begin() as connection:
                connection.execute(text("SELECT 1"))
        assert getattr(found.engine.pool, "checkedin", lambda: 0)() == kept
        found.engine.dispose()


def test_the_store_leaves_torch_alone():
    heavy = "{'torch', 'timm', 'pyarrow', 'sklearn', 'psycopg'}"
    code = f"import sys, backbench.leaderboard.store; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
