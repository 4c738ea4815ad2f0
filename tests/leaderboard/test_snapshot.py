"""The snapshot: the store's results in columns, renewed when the store changes, never wrong when the file is."""

import pytest
from backbench.leaderboard import Board, Store, headline_columns
from backbench.leaderboard.published import Figure
from backbench.leaderboard.snapshot import Snapshot


@pytest.fixture
def store(tmp_path, gauntlet):
    found = Store(tmp_path / "leaderboard.db")
    found.add_all(gauntlet[:20])
    return found


@pytest.fixture
def opened(store, tmp_path):
    """Opens the snapshot of a store, this one unless another is given."""
    return lambda of=store: Snapshot.of_store(of, tmp_path / "kept")


def same(one: Snapshot, other: Snapshot) -> bool:
    columns = headline_columns(one)
    assert headline_columns(other) == columns
    return Board.of(one, columns).rows == Board.of(other, columns).rows and one.ids.tolist() == other.ids.tolist()


def figure(name="arch.tag", value=70.0, **change):
    facts = {"name": name, "card": {"family": "cnn"}, "parameters": 1000}
    source = {"name": "a-table", "title": "A table", "files": {"table.csv": "0" * 64}}
    return Figure(
        backbone=facts,
        source=source,
        file="table.csv",
        **{"task": "classification", "family": "classification", "dataset": "imagenet-1k", "metric": "top1"},
        **{"unit": "%", "higher_is_better": True, "range_low": 0.0, "range_high": 100.0, "value": value} | change,
    )


def test_a_store_and_its_results_give_the_same(store, opened, gauntlet, tmp_path):
    assert same(opened(), Snapshot.of(gauntlet[:20]))
    assert (tmp_path / "kept" / "results.arrow").is_file()
    assert same(opened(), Snapshot.of(gauntlet[:20]))


def test_it_is_read_while_nothing_changed_and_renewed_by_what_is_new(store, opened, gauntlet, monkeypatch):
    opened()
    read = []
    some = Store.some
    monkeypatch.setattr(Store, "some", lambda self, ids: read.extend(ids) or some(self, ids))
    opened()
    assert read == []
    store.add_all(gauntlet)
    assert same(opened(), Snapshot.of(gauntlet))
    assert sorted(read) == sorted(r.id for r in gauntlet[20:])


def test_trust_and_withdrawals_arrive(store, opened, gauntlet):
    opened()
    first, second = gauntlet[0].id, gauntlet[1].id
    store.set_trust(first, "rescored", "somebody", {})
    store.withdraw(second, "a wrong checkpoint", "somebody")
    found = opened()
    trusts = dict(zip(found.ids.tolist(), found.trust.tolist(), strict=True))
    assert second.encode() not in trusts
    board = Board.of(found, headline_columns(found))
    assert {cell.trust for row in board.rows for cell in row.cells.values() if first in cell.results} == {"rescored"}
    store.restore(second, "somebody")
    assert second.encode() in opened().ids.tolist()


@pytest.mark.parametrize("harm", [b"", b"no arrow", None])
def test_a_harmed_file_is_made_anew(store, opened, gauntlet, tmp_path, harm):
    opened()
    path = tmp_path / "kept" / "results.arrow"
    path.write_bytes(path.read_bytes()[:200] if harm is None else harm)
    assert same(opened(), Snapshot.of(gauntlet[:20]))


def test_the_file_of_another_store_is_not_taken(store, opened, gauntlet, tmp_path):
    opened()
    other = Store(tmp_path / "other.db")
    other.add_all(gauntlet[30:50])
    assert same(opened(other), Snapshot.of(gauntlet[30:50]))


def test_where_nothing_can_be_written_it_is_read_from_the_store(store, opened, gauntlet, tmp_path):
    (tmp_path / "kept").write_text("a file where the folder would be")
    for _ in range(2):
        assert same(opened(), Snapshot.of(gauntlet[:20]))


def test_intervals_are_drawn_once_and_never_taken_from_a_harmed_file(store, opened, gauntlet, tmp_path, monkeypatch):
    from backbench.leaderboard import kept, ranking

    drawn = []
    monkeypatch.setattr(kept, "rank", lambda *a, **k: (drawn.append(a[1] is not None), ranking.rank(*a, **k))[1])
    columns = headline_columns(gauntlet[:20])
    complete = [c for c in columns if c.task in {"linear-probe", "knn"}]
    fresh = Board.of(gauntlet[:20], complete).rows
    assert any(row.standing.rank_low != row.standing.rank_high for row in fresh if row.standing)
    drawn.clear()
    assert Board.of(opened(), complete).rows == fresh
    assert Board.of(opened(), complete).rows == fresh
    assert drawn == [True, False]
    [path] = (tmp_path / "kept").glob("*.npy")
    path.write_bytes(path.read_bytes()[:300])
    assert Board.of(opened(), complete).rows == fresh
    assert drawn == [True, False, True]
    assert Board.of(opened(), complete, seed=1).rows != fresh


def test_an_empty_store_is_an_empty_snapshot(tmp_path):
    empty = Store(tmp_path / "empty.db")
    for _ in range(2):
        assert len(Snapshot.of_store(empty, tmp_path / "empty")) == 0


def test_published_figures_stand_apart_from_runs(store, opened, gauntlet):
    figures = [figure(f"net{i}", float(v)) for i, v in enumerate((70, 80, 60))]
    store.put_figures(figures)
    found = opened()
    assert same(found, Snapshot.of(gauntlet[:20], figures))
    assert {c.task for c in headline_columns(found)} == {r.task.name for r in gauntlet[:20]}
    columns = headline_columns(found, source="a-table")
    board = Board.of(found, columns, source="a-table")
    assert [r.backbone for r in board.rows] == ["net1", "net0", "net2"]
    first = board.rows[0]
    assert (first.standing.rank, first.standing.rank_low, first.standing.ties) == (1, None, ())
    assert (first.cells["classification"].low, first.trust, first.weights_digest) == (None, "published", None)
    store.remove_figures("a-table")
    assert len(opened()) == 20
