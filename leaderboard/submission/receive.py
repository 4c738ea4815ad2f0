"""Taking a bundle in: everything is checked, every score computed again, and all of it is stored or nothing."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, select

from ...backbones.errors import BadInput
from ..result import Record, Result
from ..rows import insert_new, note, row_of
from ..tables import checks, moment, results, submissions
from .archive import LIMITS, Limits, opened
from .checks import Checked, Examined, Progress, examine
from .files import keep, kept_at, weights_at
from .signing import key_of, sign
from .truth import Truth

if TYPE_CHECKING:
    from ..store import Store


class Refused(BadInput):
    """A bundle that does not hold. `findings`: every reason, a line with file and field each; its text: the first."""

    def __init__(self, findings: list[str]):
        self.findings = findings
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        super().__init__(findings[0] + more)


class Entry(Record):
    """What became of one result: who has checked it, and why nobody could check more."""

    id: str
    trust: str
    reason: str = ""


class Receipt(Record):
    """What a submitter gets: `digest` of the manifest, results, and `checks`, the results that will be run again.

    `draw`: the receiver's signature of the digest, from which the cell to run again was drawn: nobody can know it
    before, and anybody who has the receiver's public key can see afterwards that it was not chosen.
    """

    id: str
    digest: str
    submitter: str
    by: str
    backbone: str
    suite: str
    results: list[Entry]
    checks: list[str]
    draw: str


def inspect(bundle: Path, truth: Truth, limits: Limits = LIMITS, progress: Progress | None = None) -> Examined:
    """Every finding of a bundle (folder or zip), and what its results may be trusted for; nothing is stored."""
    try:
        with opened(bundle, limits) as found:
            return examine(found, truth, progress or _silent)
    except BadInput as error:
        return Examined(findings=[" ".join(str(error).split())])


def receive(
    archive: Path,
    store: "Store",
    home: Path,
    by: str,
    *,
    submission: str | None = None,
    limits: Limits = LIMITS,
    progress: Progress | None = None,
) -> Receipt:
    """Check a bundle (folder or zip) and store it, predictions under `home`; a cell of it is queued to be run again.

    `submission`: the id of the row of the table of submissions that stands for it already, as a server has one.
    Raises Refused; a refused bundle leaves a line in the log and nothing else.
    """
    home.mkdir(parents=True, exist_ok=True)
    try:
        with opened(archive, limits, home) as found:
            seen = examine(found, Truth(home), progress or _silent)
            if seen.findings or seen.manifest is None:
                raise Refused(seen.findings)
            return _stored(seen, store, home, by, submission)
    except BadInput as error:
        findings = error.findings if isinstance(error, Refused) else [" ".join(str(error).split())]
        store.log(by, "refused", submission or archive.name, {"findings": findings[:20], "count": len(findings)})
        raise error if isinstance(error, Refused) else Refused(findings) from None


def _stored(seen: Examined, store: "Store", home: Path, by: str, submission: str | None) -> Receipt:
    """Files first, as they stand for themselves; then everything else at once. Files of a failure are taken back."""
    manifest = seen.manifest
    assert manifest is not None
    draw = sign(key_of(home), manifest.digest.encode())
    receipt = Receipt(
        id=submission or manifest.digest[:16],
        digest=manifest.digest,
        submitter=manifest.submitter,
        by=by,
        backbone=manifest.backbone,
        suite=manifest.suite,
        results=[Entry(id=c.result.id, trust=c.trust, reason=c.reason) for c in seen.checked],
        checks=sorted(_drawn(draw, seen.checked) | _disputed(seen.checked, store)),
        draw=draw,
    )
    files = [(c.predictions, kept_at(home, d), d) for c in seen.checked if (d := c.result.predictions.sha256)]
    files += [(path, weights_at(home, d), d) for d, path in seen.weights.items()]
    fresh: list[Path] = []
    try:
        for source, target, digest in files:
            if source and keep(source, target, digest):
                fresh.append(target)
        with store.change() as connection:  # one writer at a time: what is read here stays so
            _write(connection, seen.checked, receipt)
    except BaseException:
        for path in fresh:
            path.unlink(missing_ok=True)
        raise
    return receipt


def _write(connection: Connection, found: list[Checked], receipt: Receipt) -> None:
    first = connection.execute(select(submissions.c.id).where(submissions.c.digest == receipt.digest)).scalar()
    if first == receipt.id and first != receipt.digest[:16]:
        connection.rollback()  # a server that died after all was stored, and takes it up again
        return
    if first:
        raise Refused([f"manifest.json: $: was handed in before, as submission {first}"])
    ids = [checked.result.id for checked in found]
    query = select(results.c.id, results.c.trust, results.c.withdrawn).where(results.c.id.in_(ids))
    known = {id: "withdrawn" if withdrawn else trust for id, trust, withdrawn in connection.execute(query)}
    better = [c for c in found if (known.get(c.result.id), c.trust) == ("reported", "rescored")]
    if len(known) == len(ids) and not better:
        raise Refused([f"results/{ids[0]}.json: id: it and all others are here already; nothing is new"])
    insert_new(connection, results, [row_of(c.result.model_copy(update={"trust": c.trust})) for c in found])
    for checked in better:
        id = checked.result.id
        connection.execute(results.update().where(results.c.id == id).values(trust=checked.trust))
    for checked in found:
        detail = {"from": known.get(checked.result.id), "to": checked.trust, "submission": receipt.id}
        note(connection, receipt.by, "submit", checked.result.id, detail)
    now = moment()
    for id in receipt.checks:
        queued = {"result_id": id, "submission_id": receipt.id, "state": "queued", "queued": now}
        connection.execute(checks.insert().values(**queued, detail={}))
    facts = {"digest": receipt.digest, "backbone": receipt.backbone, "suite": receipt.suite}
    mine = submissions.c.id == receipt.id
    if not connection.execute(submissions.update().where(mine).values(**facts)).rowcount:
        row = {"id": receipt.id, "received": now, "by": receipt.by, "state": "accepted"}
        detail = {"receipt": receipt.model_dump(mode="json")}
        connection.execute(submissions.insert().values(**row, **facts, detail=detail))
    said = {"digest": receipt.digest, "submitter": receipt.submitter, "results": len(found)}
    note(connection, receipt.by, "accepted", receipt.id, said)


def _drawn(draw: str, found: list[Checked]) -> set[str]:
    ids = sorted(checked.result.id for checked in found)
    return {ids[int(hashlib.sha256(bytes.fromhex(draw)).hexdigest(), 16) % len(ids)]}


def _disputed(found: list[Checked], store: "Store") -> set[str]:
    """Results of cells that somebody else ran with other predictions: running them again tells who is right."""

    def disputed(result: Result) -> bool:
        other = store.by_cell(result.cell_id)
        return other is not None and other.predictions.sha256 != result.predictions.sha256

    return {checked.result.id for checked in found if disputed(checked.result)}


def _silent(what: str, done: int, total: int) -> None:
    """Tells nobody."""
