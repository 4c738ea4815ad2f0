"""What a server is given, invented: bundles are a JSON of results, or of an order that the receiver follows."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from backbench.backbones.errors import BadInput, Unavailable, unknown
from backbench.leaderboard import Board, Result, Store, headline_columns
from backbench.leaderboard.server.limits import Limits
from backbench.leaderboard.server.site import Listed, Site
from backbench.leaderboard.snapshot import Snapshot
from backbench.leaderboard.tables import submissions


@cache
def opened(database: str) -> Store:
    return Store(database, pooled=True)


@dataclass(frozen=True)
class House:
    """Floor 4, as far as a server needs it."""

    home: Path
    database: str

    @property
    def store(self) -> Store:
        return opened(self.database)

    def snapshot(self) -> Snapshot:
        return Snapshot.of_store(self.store, self.home / "snapshot")

    def board(self) -> Board:
        snapshot = self.snapshot()
        return Board.of(snapshot, headline_columns(snapshot), "quick")

    def boards(self) -> list[Listed]:
        if (self.home / "broken").exists():
            raise RuntimeError("a mistake of ours")
        return [Listed("quick", self.board())]

    def rank(self, suite, source, family) -> Board:
        if suite not in (None, "quick"):
            raise unknown("suite", suite, ["quick"])
        if source:
            raise BadInput(f"there is no published table {source!r} in {self.home}")
        return self.board().only(family) if family else self.board()

    def render(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "index.html").write_text(f"<!doctype html><title>of {len(self.store.all())} results</title>")
        (folder / "app.js").write_text("// nothing\n" * 1000)

    def compare(self, suite: str | None, names: Sequence[str]) -> Any:
        known = {row.backbone for row in self.board().rows}
        for name in names:
            if name not in known:
                raise unknown("backbone on this board", name, known)
        return [{"a": names[0], "b": names[1], "difference": 1.5}]

    def receive(self, archive: Path, by: str, id: str) -> dict[str, Any]:
        """Does what the bundle says."""
        try:
            said = json.loads(archive.read_bytes())
        except ValueError:
            return {"findings": [f"{archive.name}: not a zip file, or only a part of one; send it again"]}
        match said.get("do") if isinstance(said, dict) else None:
            case "sleep":
                (self.home / "asleep").touch()
                time.sleep(said["seconds"])
            case "die":
                os._exit(9)
            case "fail":
                raise RuntimeError("a mistake of ours")
            case "lack":
                raise Unavailable("no network here")
            case "refuse":
                return {"findings": ["results/1.json: scores.top1.value: 120.0 leaves the metric's range", "a: b: c"]}
        found = [Result.from_json(json.dumps(one)) for one in said.get("results", [])]
        self.store.add_all(found)
        with self.store.begin() as connection:
            connection.execute(submissions.update().where(submissions.c.id == id).values(backbone="a", suite="quick"))
        self.store.log(by, "accepted", id, {"results": len(found)})
        return {"receipt": {"results": [r.id for r in found]}}


def site_of(home: Path, database: str, limits: Limits) -> Site:
    """The site of a home and a database."""
    h = House(home, database)
    return Site(home, h.store, h.snapshot, h.boards, h.rank, h.render, h.compare, h.receive, limits)


def main(home: str, database: str, port: str, **limits: int) -> None:
    """A server in a process of its own."""
    import uvicorn
    from backbench.leaderboard.server.app import make_app

    app = make_app(site_of(Path(home), database, Limits(**limits)))
    uvicorn.run(app, port=int(port), access_log=False, log_level="warning")
