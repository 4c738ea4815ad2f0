"""Load, rank and intervals of 10,000 and 100,000 results, beside pandas, polars, SQL and a folder of JSON files.

The rivals give point ranks alone (z-score by family, overall, Borda); ours 95 % intervals and tied groups as well.
"""

import json
import sqlite3
from collections import defaultdict
from hashlib import sha256

import numpy as np
import pandas as pd
import polars as pl
import pytest
from backbench.leaderboard import Board, Result, Store, headline_columns
from backbench.leaderboard.ranking import DRAWS, rank
from backbench.leaderboard.selection import select
from backbench.leaderboard.snapshot import Snapshot

FAMILIES = ("classification", "detection", "segmentation", "ood", "retrieval")
COLUMNS = 30
SIZES = {333: 0.005, 3_333: 0.025}  # backbones (times 30 columns: 10,000 and 100,000 results) → seconds, the bar
COLD = 0.1  # seconds, for both
CLOSE = 1e-8  # overall scores that differ by less are the same

SQL = """
WITH moments AS (
    SELECT task, avg(value) AS mean, sqrt(avg(value * value) - avg(value) * avg(value)) AS spread
    FROM results GROUP BY task),
by_family AS (
    SELECT backbone, family, avg((value - mean) / spread) AS z
    FROM results JOIN moments USING (task) GROUP BY backbone, family),
places AS (
    SELECT backbone, sum(place) AS borda FROM (
        SELECT backbone, rank() OVER (PARTITION BY task ORDER BY value) - 1 AS place FROM results) GROUP BY backbone)
SELECT backbone, avg(z), borda FROM by_family JOIN places USING (backbone) GROUP BY backbone ORDER BY avg(z) DESC
"""


def sha(text):
    return sha256(text.encode()).hexdigest()


def record(backbone, column, value, half):
    """A valid result, of a network and scores that are invented."""
    score = {"value": value, "low": value - half, "high": value + half, "unit": "%", "higher_is_better": True}
    return Result.of(
        cell_id=sha(f"{backbone} {column}")[:24],
        backbone={
            "name": f"net-{backbone:04}",
            "card": {"family": "cnn", "pretraining": {"method": "supervised", "data": "imagenet-1k"}},
            "card_digest": sha(f"card {backbone}"),
            "weights_digest": sha(f"weights {backbone}"),
            "parameters": 10**6 + backbone,
            "embed_dim": 512,
            "transform": {"size": 224},
        },
        task={"name": f"task-{column:02}", "family": FAMILIES[column % 5], "version": 1, "headline": "top1"},
        dataset={"name": "data", "kind": "any", "fingerprints": {"test": sha("test")}, "sizes": {}, "limit": None},
        recipe={"epochs": 10},
        seed=0,
        chosen={},
        scores={"top1": score | {"range_low": 0.0, "range_high": 100.0}},
        cost={"seconds": 1.0, "images": 1000, "peak_memory_mb": 100.0, "device": "cpu"},
        environment={"python": "3.11"},
        code_version="0.1.0",
        predictions={"path": "runs/a/predictions.parquet", "sha256": sha("rows"), "rows": 1000},
    )


@pytest.fixture(scope="module", params=SIZES, ids=lambda backbones: f"{backbones * COLUMNS}")
def shelves(request, tmp_path_factory):
    """The same results as our store, as a parquet file, in a plain SQL table and, if not too many, as JSON files."""
    folder, backbones = tmp_path_factory.mktemp("board"), request.param
    rng = np.random.default_rng(0)
    levels = 60 + 12 * rng.standard_normal((backbones, 1)) + 4 * rng.standard_normal((backbones, COLUMNS))
    values, half = levels.clip(5, 95), rng.uniform(0.3, 3, (backbones, COLUMNS))
    found = [record(b, c, float(values[b, c]), float(half[b, c])) for b in range(backbones) for c in range(COLUMNS)]
    store = Store(folder / "leaderboard.db")
    store.add_all(found)
    Snapshot.of_store(store, folder / "kept")
    rows = [(r.backbone.name, r.task.name, r.task.family, r.headline.value) for r in found]
    table = pd.DataFrame(rows, columns=["backbone", "task", "family", "value"])
    table.to_parquet(folder / "results.parquet")
    with sqlite3.connect(folder / "plain.db") as plain:
        table.to_sql("results", plain, index=False)
    if backbones == min(SIZES):
        (folder / "files").mkdir()
        for result in found:
            (folder / "files" / f"{result.id}.json").write_text(result.to_json())
    return folder, backbones


def in_pandas(folder):
    table = pd.read_parquet(folder / "results.parquet")
    scores = table.pivot(index="backbone", columns="task", values="value")
    families = table.drop_duplicates("task").set_index("task")["family"]
    z = (scores - scores.mean()) / scores.std(ddof=0)
    overall = z.T.groupby(families).mean().T.mean(axis=1)
    borda = (scores.rank(method="min") - 1).sum(axis=1)
    return dict(zip(overall.index, zip(overall, borda, strict=True), strict=True))


def in_polars(folder):
    value = pl.col("value")
    table = pl.read_parquet(folder / "results.parquet").with_columns(
        z=(value - value.mean().over("task")) / value.std(ddof=0).over("task"),
        place=value.rank("min").over("task") - 1,
    )
    overall = table.group_by("backbone", "family").agg(pl.col("z").mean()).group_by("backbone").agg(pl.col("z").mean())
    borda = table.group_by("backbone").agg(pl.col("place").sum())
    return {name: (z, place) for name, z, place in overall.join(borda, on="backbone").iter_rows()}


def in_sql(folder):
    with sqlite3.connect(folder / "plain.db") as plain:
        return {name: (z, borda) for name, z, borda in plain.execute(SQL)}


def in_json_files(folder):
    columns, families = defaultdict(dict), {}
    for path in (folder / "files").iterdir():
        row = json.loads(path.read_text())
        task = row["task"]["name"]
        families[task] = row["task"]["family"]
        columns[task][row["backbone"]["name"]] = row["scores"][row["task"]["headline"]]["value"]
    names = sorted(next(iter(columns.values())))
    scores = np.array([[column[name] for column in columns.values()] for name in names])
    z = (scores - scores.mean(0)) / scores.std(0)
    of = np.array([families[task] for task in columns])
    overall = np.mean([z[:, of == family].mean(1) for family in set(families.values())], axis=0)
    borda = scores.argsort(0).argsort(0).sum(1)
    return dict(zip(names, zip(overall, borda, strict=True), strict=True))


def board_of(snapshot):
    return Board.of(snapshot, headline_columns(snapshot))


@pytest.mark.speed
def test_load_rank_and_intervals(shelves, interleaved, report):
    folder, backbones = shelves
    store, bar = Store(folder / "leaderboard.db"), SIZES[backbones]
    held = Snapshot.of_store(store, folder / "kept")
    board = board_of(held)  # draws, once; kept beside the snapshot

    def warm():
        board_of(Snapshot.of_store(store, folder / "kept"))

    def cold():
        board_of(Snapshot.of_store(Store(folder / "leaderboard.db"), folder / "kept"))

    rivals = {"pandas on parquet": in_pandas, "polars on parquet": in_polars, "SQL in SQLite": in_sql}
    if (folder / "files").is_dir():
        rivals["a folder of JSON files"] = in_json_files
    took, took_cold, took_held, *others = interleaved(
        warm, cold, lambda: board_of(held), *(lambda f=f: f(folder) for f in rivals.values()), rounds=7
    )

    ours = {row.backbone: row.standing for row in board.rows}
    for rival in rivals.values():
        theirs = rival(folder)
        assert theirs.keys() == ours.keys()
        for name, (overall, _) in theirs.items():
            assert abs(ours[name].overall - overall) < CLOSE
    assert all(s.rank_low <= s.rank <= s.rank_high for s in ours.values())

    measure = f"board of {backbones * COLUMNS:,} results"
    facts = {"held": "overall scores equal; our intervals were drawn before", "measure": measure}
    for name, seconds in zip(rivals, others, strict=True):
        report(**facts, against=name, ours=took, theirs=seconds, bar="none")
    report(**facts, against=f"the bar, warm: {bar:g} s", ours=took, theirs=bar, bar="≥ 1x")
    report(**facts, against=f"the bar, opened anew: {COLD:g} s", ours=took_cold, theirs=COLD, bar="≥ 1x")
    report(**facts, against="the snapshot held", ours=took, theirs=took_held, bar="none")
    assert took <= bar
    assert took_cold <= COLD


@pytest.mark.speed
def test_parts(shelves, interleaved, report):
    """Where the time goes: shares of a board whose intervals are drawn anew, nothing being kept."""
    folder, backbones = shelves
    store = Store(folder / "leaderboard.db")
    held = Snapshot.of_store(store, folder / "kept")
    columns = headline_columns(held)
    found = select(held, columns)
    table, families = (found.value, found.low, found.high), [c.family for c in columns]
    parts = {
        "load the snapshot": lambda: Snapshot.of_store(store, folder / "kept"),
        "find the columns": lambda: headline_columns(held),
        "select": lambda: select(held, columns),
        "rank without intervals": lambda: rank(found.value, None, None, families),
        "board, intervals kept": lambda: Board.of(held, columns),
        "rows as objects": lambda: Board.of(held, columns).rows,
        "rank, 1000 draws": lambda: rank(*table, families),
    }
    Board.of(held, columns)
    took = interleaved(*parts.values(), rounds=3)
    for name, seconds in zip(parts, took, strict=True):
        whole = took[0] + took[1] + took[2] + took[-1]
        measure = f"{backbones * COLUMNS:,} results: {name}"
        report(measure=measure, against="load, select, draw", ours=seconds, theirs=whole, bar="none", held="one part")
    assert took[0] < took[-1]


@pytest.mark.speed
@pytest.mark.parametrize(("backbones", "columns"), [(3_333, 30), (1_000, 100)])
def test_ranking_alone(backbones, columns, interleaved, report):
    """Ranks without intervals beside pandas on the same array; with intervals beside the drawing of normals alone."""
    rng = np.random.default_rng(0)
    scores = 60 + 12 * rng.standard_normal((backbones, 1)) + 4 * rng.standard_normal((backbones, columns))
    half, families = rng.uniform(0.3, 3, scores.shape), [FAMILIES[j % 5] for j in range(columns)]
    table, of = pd.DataFrame(scores), pd.Series(families)

    def theirs():
        z, place = (table - table.mean()) / table.std(ddof=0), table.rank(ascending=False)
        overall, mean_rank = (t.T.groupby(of).mean().T.mean(axis=1) for t in (z, place))
        return overall.to_numpy(), mean_rank.to_numpy(), (backbones - place).sum(axis=1).to_numpy()

    def normals():
        own = np.random.Generator(np.random.SFC64(0))
        for _ in range(0, DRAWS, 10):
            for _ in range(columns):
                own.standard_normal((10, backbones), dtype=np.float32)

    found, (overall, mean_rank, borda) = rank(scores, None, None, families), theirs()
    np.testing.assert_allclose(found.overall, overall, atol=CLOSE)
    np.testing.assert_allclose(found.mean_rank, mean_rank)
    np.testing.assert_allclose(found.borda, borda)
    plain, by_pandas = interleaved(lambda: rank(scores, None, None, families), theirs)
    whole, drawing = interleaved(lambda: rank(scores, scores - half, scores + half, families), normals, rounds=2)
    measure = f"ranking of {backbones:,} × {columns}"
    report(measure=measure, against="pandas", ours=plain, theirs=by_pandas, bar="≥ 1x", held="scores and ranks equal")
    facts = {"measure": f"{measure}, {DRAWS} draws", "against": "drawing the normals", "held": "intervals and ties"}
    report(**facts, ours=whole, theirs=drawing, bar="≥ 0.25x")
    assert plain <= by_pandas
    assert whole <= 4 * drawing
