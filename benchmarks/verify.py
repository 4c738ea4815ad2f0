"""What keepers of a board do with what was handed in: run a drawn cell again, and note what came of it."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from ..backbones import BadInput, NotApplicable, Unavailable
from ..leaderboard import Result, Store
from ..leaderboard.submission import Check, key_of, public, put_back, settle, take, waiting
from .origin import cards_of, strangers_cards, was_run_here
from .rerun import Verdict, rerun_record
from .submit import ask

Outcome = Literal["reproduced", "contested", "failed"]
ROWS, TEXT = 200, 1000  # scores, and characters, that a server takes of a verdict


@dataclass(frozen=True)
class Reran:
    """What came of a check: `outcome` is what its result is marked by, unless it failed."""

    check: Check
    outcome: Outcome
    verdict: Verdict


def why_not(check: Check, home: Path, allow_code: bool) -> str:
    """Why a check is not for this home, in words; "" where it is."""
    if check.submitter and check.submitter == public(key_of(home)):
        return "was handed in from this very home; somebody else should run it"
    if check.result.backbone.card.get("source") == "python":
        if not was_run_here(check.result, home):
            return "is of a backbone that is its submitter's own code, which is not here"
        if not allow_code:
            return "is of a backbone that is code; --allow-code runs it, from your own card of it"
    return ""


class Queue(Protocol):
    """Drawn checks, wherever they are kept."""

    def waiting(self) -> Iterable[Check]:
        """Those that nobody has taken yet, the oldest first."""
        ...

    def take(self, check: Check) -> bool:
        """Whether it is ours now."""
        ...

    def put_back(self, check: Check) -> None:
        """Lets somebody else take it."""
        ...

    def settle(self, check: Check, outcome: Outcome, verdict: Verdict) -> None:
        """Notes what came of it."""
        ...


@dataclass(frozen=True)
class Here:
    """The checks of a store, which a person `by` runs."""

    store: Store
    by: str

    def waiting(self) -> Iterable[Check]:
        return waiting(self.store)

    def take(self, check: Check) -> bool:
        return take(self.store, check)

    def put_back(self, check: Check) -> None:
        put_back(self.store, check)

    def settle(self, check: Check, outcome: Outcome, verdict: Verdict) -> None:
        settle(self.store, check.id, check.result.id, outcome, self.by, verdict.text, verdict.rows)


@dataclass(frozen=True)
class There:
    """The checks of a server, for the owner of a token that may maintain. Of two who run one, the first is heard."""

    url: str
    token: str

    def waiting(self) -> Iterator[Check]:
        listed = self._get("/checks?state=queued").get("checks")
        for row in listed if isinstance(listed, list) else ():
            answer = self._get(f"/results/{row['result_id']}")
            result = Result.from_json(json.dumps(answer.get("result")), where=self.url)
            yield Check(int(row["id"]), result, self._submitter(row.get("submission_id")))

    def take(self, check: Check) -> bool:
        return True

    def put_back(self, check: Check) -> None:
        """Nothing was taken."""

    def settle(self, check: Check, outcome: Outcome, verdict: Verdict) -> None:
        telling = sorted(verdict.rows, key=lambda row: row["verdict"] != "OUTSIDE")[:ROWS]
        said = {"outcome": outcome, "text": verdict.text[:TEXT], "rows": telling}
        ask("POST", f"{self.url}/api/v1/checks/{check.id}", self.token, body=said)

    def _submitter(self, submission: str | None) -> str:
        detail = self._get(f"/submissions/{submission}").get("detail") if submission else None
        receipt = detail.get("receipt") if isinstance(detail, dict) else None
        return str(receipt.get("submitter", "")) if isinstance(receipt, dict) else ""

    def _get(self, path: str) -> dict[str, Any]:
        return ask("GET", f"{self.url}/api/v1{path}", self.token)


def rerun_next(queue: Queue, home: Path, device: str, allow_code: bool = False) -> Reran | None:
    """Run the oldest check that is for this home and note what came of it; None where there is none."""
    for check in queue.waiting():
        if not why_not(check, home, allow_code) and queue.take(check):
            break
    else:
        return None
    try:
        verdict = _verdict(check, home, device, allow_code)
    except BaseException:
        queue.put_back(check)  # whatever stopped it, somebody else may go on
        raise
    outcome: Outcome = "failed" if not verdict.ran else "reproduced" if verdict.reproduced else "contested"
    queue.settle(check, outcome, verdict)
    return Reran(check, outcome, verdict)


def _verdict(check: Check, home: Path, device: str, allow_code: bool) -> Verdict:
    try:
        cards = cards_of if allow_code and was_run_here(check.result, home) else strangers_cards
        return rerun_record(check.result, cards(check.result, home), home, device)
    except (BadInput, NotApplicable, Unavailable) as error:
        return Verdict(check.result.id, False, f"cannot be run here: {error}", ran=False)
