"""Hostile records and predictions: each is refused with one line that names the file and the field."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

# Records: what is changed in the one of k-NN, before everything is renewed --------------------------------------------


def at(path, value, **options):
    """Puts a value into the record at a path such as scores.top1.unit; `cell`: and renews the cell's id."""

    def change(forged):
        record = forged.record()
        *keys, last = path.split(".")
        inner = record
        for key in keys:
            inner = inner[key]
        if callable(value):
            inner[last] = value(inner[last])
        else:
            inner[last] = value
        forged.put(record, **options)
        forged.seal()

    return change


def drop(path, **options):
    def change(forged):
        record = forged.record()
        *keys, last = path.split(".")
        inner = record
        for key in keys:
            inner = inner[key]
        del inner[last]
        forged.put(record, **options)
        forged.seal()

    return change


def text(old, new):
    """Changes the record's text, which may then be no JSON."""

    def change(forged):
        record = forged.record()
        said = json.dumps(record)
        assert old in said
        forged.put(record, text=said.replace(old, new, 1))
        forged.seal()

    return change


def same_cell(forged):
    record = forged.record()
    again = json.loads(json.dumps(record))
    again["cost"]["seconds"] += 1
    data = forged.files[f"predictions/{record['id']}.parquet"]
    held = forged.files[f"results/{record['id']}.json"]
    id = forged.put(again)
    forged.files |= {f"results/{record['id']}.json": held, f"predictions/{record['id']}.parquet": data}
    assert id != record["id"]
    forged.seal()


def both(path, value):
    """As `at`, with the whole score moved: value and interval."""

    def change(forged):
        record = forged.record()
        for part in ("value", "low", "high"):
            record["scores"][path][part] = value(record["scores"][path][part])
        forged.put(record)
        forged.seal()

    return change


def undeclared(forged):
    del forged.files[f"predictions/{forged.record()['id']}.parquet"]
    forged.seal()


def declared_but_there(forged):
    forged.seal(unverified={forged.record()["id"]: "lost"})


def stray(forged):
    forged.files["predictions/0123456789abcdef.parquet"] = b"PAR1"
    forged.seal()


def renamed(forged):
    record = forged.record()
    forged.files["results/0123456789abcdef.json"] = forged.files.pop(f"results/{record['id']}.json")
    forged.files["predictions/0123456789abcdef.parquet"] = forged.files.pop(f"predictions/{record['id']}.parquet")
    forged.seal()


R = r"results/\w+\.json: "
RECORDS = {
    "NaN": (text('"value": ', '"value": NaN, "was": '), R + r"\$: not valid JSON: NaN is not a number"),
    "infinity": (text('"seconds": ', '"seconds": 1e999, "was": '), R + r"cost\.seconds: inf is not a finite number"),
    "text for a number": (at("scores.top1.value", lambda v: str(v)), R + r"scores\.top1\.value: "),
    "true for a number": (at("scores.top1.low", True), R + r"scores\.top1\.low: "),
    "wrong unit": (at("scores.top1.unit", "points"), R + r"scores\.top1\.unit: 'points', knn declares '%'"),
    "share for percent": (
        both("top1", lambda v: v / 100),
        R + r"scores\.top1\.value: .* does not follow from its predictions",
    ),
    "wrong range": (at("scores.top1.range_high", 99.5), R + r"scores\.top1(\.range_high)?: "),
    "direction": (
        at("scores.nll.higher_is_better", True),
        R + r"scores\.nll\.higher_is_better: True, knn declares False",
    ),
    "over 100 percent": (at("scores.top1.high", 120.0), R + r"scores\.top1: .* leaves the metric's range"),
    "value off its interval": (at("scores.top1.value", -1.0), R + r"scores\.top1: the value -1\.0 lies outside"),
    "made-up score": (at("scores", lambda s: s | {"f1": s["top1"]}), R + r"scores\.f1: there is no score 'f1'"),
    "score of other data": (
        at("scores", lambda s: s | {"real_top1": s["top1"]}),
        R + r"scores\.real_top1: its predictions give no such score",
    ),
    "hidden score": (drop("scores.ece"), R + r"scores\.ece: is missing, its predictions give"),
    "edited score": (both("top1", lambda v: v + 1e-6 if v < 99 else v), R + r"scores\.top1\.value: .* does not follow"),
    "edited interval": (at("scores.top1.high", lambda v: v - 1e-6), R + r"scores\.top1\.high: .* does not follow"),
    "same cell twice": (same_cell, R + r"cell_id: the same cell as results/\w+\.json"),
    "unknown task": (at("task.name", "knnn"), R + r"task\.name: there is no task 'knnn'; did you mean 'knn'"),
    "unknown version": (at("task.version", 99), R + r"task\.version: knn is at version \d+ here, the record is of 99"),
    "other family": (at("task.family", "detection"), R + r"task\.family: 'detection', of knn it is 'classification'"),
    "other headline": (at("task.headline", "top5"), R + r"task\.headline: 'top5', of knn it is 'top1'"),
    "no headline": (at("task.headline", "best"), R + r".*the headline 'best' is not among the scores"),
    "other kind": (at("dataset.kind", "pairs"), R + r"dataset\.kind: 'pairs', knn needs 'classification'"),
    "removed split": (
        at("dataset.fingerprints", lambda f: {k: v for k, v in f.items() if k != "val"}, cell=True),
        R + r"dataset\.fingerprints\.val: is missing; digit-scenes has train, val, test",
    ),
    "split that is no more": (
        at("dataset.fingerprints", lambda f: f | {"old-test": "0" * 64}, cell=True),
        R + r"dataset\.fingerprints\.old-test: is no split of it",
    ),
    "foreign fingerprint": (
        at("dataset.fingerprints.test", "f" * 64, cell=True),
        R + r"dataset\.fingerprints\.test: is not that of digit-scenes here",
    ),
    "other size": (at("dataset.sizes.test", 5000), R + r"dataset\.sizes\.test: 5000, it has 24"),
    "unknown data set": (
        at("dataset.name", "imagenet-2k"),
        R + r"dataset\.name: there is no data set 'imagenet-2k' here",
    ),
    "data set by path": (at("dataset.name", "../../secret"), R + r"dataset\.name: there is no|.*dataset\.name: '\.\./"),
    "other limit": (at("dataset.limit", 12), R + r"cell_id: is not that of its task"),
    "unknown recipe": (at("recipe.cheat", True), R + r"recipe: .*cheat: unknown key"),
    "impossible recipe": (at("recipe.temperature", -1.0), R + r"recipe"),
    "half a recipe": (drop("recipe.temperature"), R + r"recipe\.temperature: "),
    "other recipe": (at("recipe.temperature", [0.5]), R + r"cell_id: is not that of its task"),
    "other cell": (at("cell_id", "0" * 64), R + r"cell_id: is not that of its task, recipe, data, backbone and seed"),
    "card of another": (at("backbone.card.model", "vit-masked"), R + r"backbone\.card\.model: "),
    "digest of another": (
        at("backbone.card_digest", "0" * 64, cell=True),
        R + r"backbone\.card_digest: is not that of the",
    ),
    "name of another": (
        at("backbone.name", "mini/vit-masked"),
        R + r"backbone\.name: 'mini/vit-masked', the bundle is of",
    ),
    "seed out of range": (at("seed", 10**6, cell=True), R + r"seed: 1000000, seeds are 0 to 99"),
    "negative seed": (at("seed", -1), R + r"seed: "),
    "huge integer": (at("cost.images", 10**30), R + r"cost\.images: the integer is beyond 2\^53"),
    "other id": (at("seed", 3, id=False), R + r".*this record was changed"),
    "other file name": (renamed, R + r"id: \w+ is not what the file is called"),
    "published": (at("trust", "published"), R + r"trust: 'published' is for tables of others"),
    "unknown trust": (at("trust", "certified"), R + r"trust: 'certified' is none of"),
    "of the future": (at("created", "2999-01-01T00:00:00Z"), R + r"created: 2999.* is yet to come"),
    "newer schema": (at("schema_version", 99), R + r".*made by a newer backbench"),
    "unknown field": (at("note", "x"), R + r"note: unknown key"),
    "missing field": (drop("environment"), R + r"environment: this key is required"),
    "path of predictions": (
        at("predictions.path", "../../etc/passwd"),
        R + r"predictions\.path: give a path inside the home",
    ),
    "other rows": (at("predictions.rows", 7), r"predictions/\w+\.parquet: file: 24 rows, its record says 7"),
    "other predictions": (at("predictions.sha256", "0" * 64), R + r"predictions\.sha256: is not that of predictions/"),
    "markup in a name": (at("dataset.name", "<b>x</b>"), R + r"dataset\.name: .*markup"),
    "script in what was chosen": (at("chosen.k", "<script>alert(1)</script>"), R + r"chosen\.k: .*markup"),
    "script in a key": (at("chosen", {"<svg onload=x>": 1}), R + r"chosen: key: .*markup"),
    "SQL in a name": (at("dataset.name", "x'); DROP TABLE results;--"), R + r"dataset\.name: .*use letters, digits"),
    "SQL in a score": (at("scores", lambda s: s | {"a;b": s["top1"]}), R + r"scores: 'a;b' is no name of a score"),
    "escape in the device": (
        at("cost.device", "cpu \x1b]0;x\x07"),
        R + r"cost\.device: .*characters that do not print",
    ),
    "text that runs backwards": (
        at("backbone.card.license", "MIT\u202e"),
        R + r"backbone\.card\.license: .*do not print",
    ),
    "half a letter": (at("backbone.card.license", "\ud800"), R + r"backbone\.card\.license: .*do not print"),
    "oversized text": (at("backbone.card.paper", "x" * 100_000), R + r"backbone\.card\.paper: 100000 characters"),
    "oversized key": (at("chosen", {"k" * 5000: 1}), R + r"chosen: key: 5000 characters"),
    "oversized record": (at("chosen.x", ["y" * 3000] * 400), R + r"1\.\d MiB, such a file may have"),
    "deep record": (at("chosen.x", json.loads("[" * 40 + "]" * 40)), R + r"chosen\.x.*lie more than 20 deep"),
    "key twice": (text('"seed": 0', '"seed": 0, "seed": 0'), R + r"\$: .*key 'seed' is given twice"),
    "not JSON": (
        text(
            "{",
            "",
        ),
        R + r"\$: not valid JSON",
    ),
    "undeclared": (undeclared, r"predictions/\w+\.parquet: \$: is missing, and manifest\.unverified does not say why"),
    "declared but there": (declared_but_there, r"manifest\.json: unverified\.\w+: its predictions are in the bundle"),
    "stray predictions": (stray, r"predictions/0123456789abcdef\.parquet: \$: belongs to no result"),
    "python card": (at("backbone.card", {"source": "python", "model": "/x.py:f"}), R + r"backbone\.card: "),
}

# Predictions: other columns for the record of k-NN --------------------------------------------------------------------


def columns(change):
    """The parquet of the record's own columns, changed; the record's digest and id are renewed."""

    def forgery(forged):
        record = forged.record()
        data = forged.files[f"predictions/{record['id']}.parquet"]
        made = change(pq.read_table(io.BytesIO(data)))
        if isinstance(made, pa.Table):
            held = io.BytesIO()
            pq.write_table(made, held, compression="zstd")
            made = held.getvalue()
        if made[:4] == b"PAR1" and made[-4:] == b"PAR1" and len(made) > 100:
            record["predictions"]["rows"] = pq.ParquetFile(io.BytesIO(made)).metadata.num_rows
        forged.predictions(record, made)
        forged.seal()

    return forgery


def replaced(table, name, values):
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def endless(table):
    """Ten thousand times the same half megabyte: a small file, five gigabytes written out."""
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(10_000, np.int32)), pa.array(["x" * (1 << 19)]))
    held = io.BytesIO()
    pq.write_table(pa.table({"id": text}), held, compression="zstd", store_schema=False)
    return held.getvalue()


def lists_of_lists(depth):
    kind = pa.int64()
    for _ in range(depth):
        kind = pa.list_(kind)
    return lambda t: pa.table({"x": pa.array([None] * t.num_rows, type=kind)})


class Sly(pa.ExtensionType):
    """A type of the submitter's own."""

    def __init__(self):
        super().__init__(pa.binary(), "sly")

    def __arrow_ext_serialize__(self):
        return b""


P = r"predictions/\w+\.parquet: "
PREDICTIONS = {
    "no parquet": (columns(lambda t: b"PAR1 nothing of the kind PAR1"), P + r"file: (not a parquet|0 rows)"),
    "a pickle": (columns(lambda t: b"\x80\x04\x95cos\nsystem\n."), P + r"file: not a parquet"),
    "empty": (columns(lambda t: b""), P + r"file: not a parquet"),
    "cut off": (columns(lambda t: b"PAR1" + bytes(400)), P + r"file: not a parquet"),
    "bytes": (
        columns(lambda t: t.append_column("x", pa.array([b"\x80\x04pickle"] * t.num_rows))),
        P + r"columns: bytes that are no PNG",
    ),
    "own type": (
        columns(lambda t: pa.table({"x": pa.ExtensionArray.from_storage(Sly(), pa.array([b"x"] * 24))})),
        P + r"columns: bytes that are no PNG",
    ),
    "dates": (
        columns(lambda t: t.append_column("x", pa.array([0] * 24, pa.timestamp("s")))),
        P + r"columns\.x: is timestamp",
    ),
    "deep lists": (columns(lists_of_lists(9)), P + r"columns\.x: nested more than 4 deep"),
    "many columns": (
        columns(lambda t: pa.table({f"c{i}": np.zeros(24) for i in range(100)})),
        P + r"file: 100 columns",
    ),
    "column of markup": (
        columns(lambda t: t.append_column("<b>", pa.array([0] * 24))),
        P + r"columns\.<b>: names are plain words",
    ),
    "endless text": (columns(endless), P + r"file: its texts unpack to over 2,048 MiB"),
    "long text": (columns(lambda t: pa.table({"id": ["x" * (2 << 20)]})), P + r"file: a text of 2,097,152 bytes"),
    "other images": (
        columns(lambda t: replaced(t, "id", t["id"].to_pylist()[::-1])),
        P + r"columns: cannot be scored as knn: .*row 0 is for",
    ),
    "fewer images": (columns(lambda t: t.slice(0, 5)), P + r"columns: cannot be scored as knn: .*for 5 images"),
    "no images": (columns(lambda t: t.slice(0, 0)), P + r"columns: cannot be scored as knn"),
    "missing column": (columns(lambda t: t.drop_columns(["classes"])), P + r"columns: cannot be scored as knn"),
    "texts for numbers": (
        columns(lambda t: replaced(t, "square_sum", ["x"] * 24)),
        P + r"columns: cannot be scored as knn",
    ),
    "NaN probabilities": (
        columns(lambda t: replaced(t, "label_probability", np.full(24, np.nan, np.float32))),
        P + r"columns: cannot be scored as knn",
    ),
    "predictions of another": (
        columns(lambda t: replaced(t, "id", ["a"] * 24)),
        P + r"columns: cannot be scored as knn",
    ),
}


@pytest.mark.parametrize("kind", RECORDS)
def test_records(kind, forge, refused, tmp_path):
    change, line = RECORDS[kind]
    forged = forge("knn")
    change(forged)
    (tmp_path / "b.zip").write_bytes(forged.zip())
    refused(tmp_path / "b.zip", line)


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_predictions(kind, forge, refused, tmp_path):
    change, line = PREDICTIONS[kind]
    forged = forge("knn")
    change(forged)
    (tmp_path / "b.zip").write_bytes(forged.zip())
    refused(tmp_path / "b.zip", line)
