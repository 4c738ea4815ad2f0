"""Good bundles pass: several tasks, as folder and as zip; what nobody can check is shown as unverified."""

import json
import zipfile

import pytest
from backbench.leaderboard import Store
from backbench.leaderboard.submission import Refused, Truth, inspect, predictions_file, receive, waiting, zipped
from backbench.leaderboard.tables import submissions
from sqlalchemy import select


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_a_good_bundle_is_scored_again_and_kept(sender, receiver, store, tmp_path, packed):
    archive = zipped(sender / "good", tmp_path / "good.zip") if packed else sender / "good"
    receipt = receive(archive, store, receiver, "ann")
    found = store.all()
    assert {r.task.name for r in found} == {"knn", "zero-shot", "retrieval", "semantic-segmentation", "detection"}
    assert {r.trust for r in found} == {"rescored"} == {entry.trust for entry in receipt.results}
    originals = {r.id: r for r in Store(sender / "leaderboard.db").all()}
    assert all(r.scores == originals[r.id].scores for r in found)
    for result in found:
        kept = predictions_file(receiver, result)
        assert kept == receiver / "predictions" / f"{result.predictions.sha256}.parquet"
    (drawn,) = waiting(store)
    assert [drawn.result.id] == receipt.checks
    assert drawn.submitter == receipt.submitter
    assert sorted(p.name for p in receiver.iterdir() if p.name.startswith("bundle-")) == []


def test_the_same_bundle_has_the_same_bytes(sender, tmp_path):
    one, two = (zipped(sender / "good", tmp_path / name).read_bytes() for name in ("a.zip", "b.zip"))
    assert one == two


def test_a_bundle_holds_no_code_no_weights_and_no_place_of_its_machine(sender):
    names = [p.relative_to(sender / "good").as_posix() for p in (sender / "good").rglob("*") if p.is_file()]
    assert {name.rpartition(".")[2] for name in names} == {"json", "yaml", "parquet"}
    text = b"".join((sender / "good" / name).read_bytes() for name in names if not name.endswith(".parquet"))
    assert str(sender).encode() not in text


def test_the_same_is_not_taken_twice(sender, receiver, store):
    first = receive(sender / "good", store, receiver, "ann")
    with pytest.raises(Refused, match=f"manifest.json: .*handed in before, as submission {first.id}$"):
        receive(sender / "good", store, receiver, "bob")


def test_anothers_results_under_an_own_signature_bring_nothing(sender, receiver, store, forge, tmp_path):
    receive(sender / "good", store, receiver, "ann")
    (tmp_path / "copy.zip").write_bytes(forge("knn", "detection").seal().zip())
    with pytest.raises(Refused, match=r"^results/\w+\.json: id: .*nothing is new$"):
        receive(tmp_path / "copy.zip", store, receiver, "bob")


def test_a_server_that_died_after_storing_gets_its_receipt_again(sender, receiver, store):
    row = {"received": "2026-01-01", "by": "ann", "backbone": "", "suite": "", "state": "queued", "detail": {}}
    with store.begin() as connection:
        connection.execute(submissions.insert().values(id="5f", **row))
    receipts = [receive(sender / "good", store, receiver, "ann", submission="5f") for _ in range(2)]
    assert receipts[0] == receipts[1]
    assert len(waiting(store)) == 1
    with store.begin() as connection:
        assert connection.execute(select(submissions.c["id", "digest"])).all() == [("5f", receipts[0].digest)]


def test_a_row_without_predictions_is_unverified(receiver, store, forge, tmp_path):
    forged = forge()
    id = forged.record("knn")["id"]
    del forged.files[f"predictions/{id}.parquet"]
    (tmp_path / "b.zip").write_bytes(forged.seal(unverified={id: "the disk is gone"}).zip())
    receipt = receive(tmp_path / "b.zip", store, receiver, "ann")
    trust = {entry.id: (entry.trust, entry.reason) for entry in receipt.results}
    assert trust.pop(id) == ("reported", "the disk is gone")
    assert list(trust.values()) == [("rescored", "")]
    assert {r.trust for r in store.all()} == {"reported", "rescored"}
    assert predictions_file(receiver, store.by_id(id)) is None


def test_predictions_that_come_later_raise_the_trust(sender, receiver, store, forge, tmp_path):
    forged = forge("knn")
    id = forged.record("knn")["id"]
    del forged.files[f"predictions/{id}.parquet"]
    (tmp_path / "b.zip").write_bytes(forged.seal(unverified={id: "too large"}).zip())
    receive(tmp_path / "b.zip", store, receiver, "ann")
    assert store.by_id(id).trust == "reported"
    (tmp_path / "c.zip").write_bytes(forge("knn").seal().zip())
    receive(tmp_path / "c.zip", store, receiver, "ann")
    assert store.by_id(id).trust == "rescored"
    assert [event.detail["to"] for event in store.history(id)] == ["reported", "rescored"]


def test_data_that_the_receiver_does_not_have_is_unverified(receiver, store, forge, tmp_path):
    forged = forge("knn")
    record = forged.record("knn")
    record["dataset"]["name"] = "my-digits"
    card = "name: my-digits\nkind: [classification]\nsource: digit-scenes\n"
    forged.files["datasets/my-digits.yaml"] = card.encode()
    from backbench.leaderboard.cells import cell_id, column_id
    from backbench.leaderboard.submission.strict import read_yaml
    from backbench.tasks import find_task
    from backbench.tasks.datasets import DatasetCard

    described = read_yaml(card.encode(), DatasetCard, "card")
    told, network = record["dataset"], record["backbone"]
    column = column_id(find_task("knn"), described, told["fingerprints"], record["recipe"], told["limit"])
    record["cell_id"] = cell_id(column, network["card_digest"], 0, {})
    forged.put(record)
    (tmp_path / "b.zip").write_bytes(forged.seal().zip())
    [entry] = receive(tmp_path / "b.zip", store, receiver, "ann").results
    assert (entry.trust, entry.reason) == ("reported", "a data set of the submitter's own")


def test_a_cell_that_others_ran_otherwise_is_run_again(receiver, store, forge, tmp_path, sender):
    from backbench.leaderboard import Result

    mine = Result.from_json(json.dumps(forge().record("retrieval")))
    other = json.loads(mine.to_json())
    other["predictions"]["sha256"] = "0" * 64
    store.add(Result.of(**{k: v for k, v in other.items() if k not in ("id", "trust", "created")}))
    assert mine.id in receive(sender / "good", store, receiver, "ann").checks


def test_the_draw_is_the_receivers_and_can_be_checked(sender, receiver, store):
    from backbench.leaderboard.submission import key_of, public
    from backbench.leaderboard.submission.signing import signed

    receipt = receive(sender / "good", store, receiver, "ann")
    assert signed(public(key_of(receiver)), receipt.draw, receipt.digest.encode())
    assert (receiver / "submitter.key").stat().st_mode & 0o777 == 0o600


def test_every_finding_is_shown_by_a_dry_check(receiver, forge, tmp_path):
    forged = forge()
    for task in ("knn", "retrieval"):
        record = forged.record(task)
        name = record["task"]["headline"]
        record["scores"][name] |= {"value": record["scores"][name]["value"] + 1e-6, "high": 100.0}
        forged.put(record)
    (tmp_path / "b.zip").write_bytes(forged.seal().zip())
    seen = inspect(tmp_path / "b.zip", Truth(receiver))
    assert len(seen.findings) == 2
    assert all("does not follow from its predictions" in line for line in seen.findings)
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        archive.extractall(tmp_path / "folder")
    assert inspect(tmp_path / "folder", Truth(receiver)).findings == seen.findings
