"""The page on two backbones of a run: what is on it, that names stay text, and that it asks nobody for anything."""

import re
from dataclasses import replace
from html import escape, unescape

import numpy as np
import pytest
from backbench.backbones import BadInput
from backbench.benchmarks import run
from backbench.benchmarks.cli import code
from backbench.benchmarks.picture import data_of, stored_predictions
from backbench.benchmarks.plan import find_backbones, plan
from backbench.benchmarks.report.words import figure
from backbench.benchmarks.report.writing import coloured, slug, write_report, write_reports
from backbench.benchmarks.suite import find_suite, list_suites
from backbench.leaderboard import Store, error_consistency, stored_measure
from backbench.tasks import find_task

HOSTILE = "<img src=https://example.com/x.png onerror=alert(1)>$\\frac{{% raw %}"
NETS = {HOSTILE: "test_resnet", "calm": "test_vit"}
SUITE = """\
description: a few quick cells
report: true
entries:
  - {task: linear-probe, dataset: digit-scenes, recipe: {c: [0.1, 1.0]}}
  - {task: layer-probe, dataset: digit-scenes, ranked: false}
  - {task: similarity, dataset: digit-scenes, recipe: {other: null, images: 32, minibatch: 8}, ranked: false}
  - {name: both, task: similarity, dataset: digit-scenes, recipe: {images: 32, minibatch: 8}, pairs: true}
  - {task: attention-distance, dataset: digit-scenes, recipe: {images: 8}, ranked: false}
"""


def write_card(path, name, model, seed=0):
    says = f"source: timm\nmodel: {model}\npretrained: false\ninit_seed: {seed}\ninput: {{size: 64}}\n"
    path.write_text(f"name: {name!r}\n{says}".replace("\\\\", "\\"))
    return str(path)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A home in which a small suite ran on two networks, what was said of it, and the page."""
    folder = tmp_path_factory.mktemp("report")
    suite, home = folder / "small.yaml", folder / "home"
    suite.write_text(SUITE)
    cards = [write_card(folder / f"{i}.yaml", *net) for i, net in enumerate(NETS.items())]
    report = run(str(suite), cards, limit=60, home=home)
    assert report.failed == {}
    [page] = write_reports(report, home)
    return suite, cards, home, report, page


def text_of(page):
    """What a person reads on a page."""
    body = re.sub(r"<style>.*?</style>", " ", page.read_text(), flags=re.S)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", body)))


def test_a_pair_is_planned_once_for_each_two(home, tmp_path):
    home.mkdir()
    (tmp_path / "small.yaml").write_text(SUITE)
    suite = find_suite(str(tmp_path / "small.yaml"))
    names = ["mini/cnn-random", "mini/vit-masked", write_card(tmp_path / "own.yaml", "own", "test_vit")]
    backbones = find_backbones(names)
    cells = plan(suite, backbones, home, limit=60)
    pairs = [(cell.card.name, cell.recipe["other"]) for cell in cells if cell.other]
    assert pairs == [("mini/cnn-random", "mini/vit-masked"), ("mini/cnn-random", "own"), ("mini/vit-masked", "own")]
    assert len({cell.id for cell in cells}) == len(cells) == 3 * 4 + 3
    assert [cell.asked for cell in cells if cell.other][1] == "similarity (with own)"
    assert not any(cell.other for cell in plan(suite, backbones[:1], home, limit=60))
    # The other network is part of what decides the score, not its name alone.
    write_card(tmp_path / "own.yaml", "own", "test_vit", seed=1)
    again = plan(suite, find_backbones(names), home, limit=60)
    changed = {old.label for old, new in zip(cells, again, strict=True) if old.id != new.id}
    assert changed == {c.label for c in cells if "own" in (c.card.name, c.other and c.other.name)}


def test_a_pair_by_hand_is_the_same_cell(home, tmp_path):
    home.mkdir()
    (tmp_path / "small.yaml").write_text(SUITE)
    suite = find_suite(str(tmp_path / "small.yaml"))
    by_suite = [c for c in plan(suite, find_backbones(["mini/cnn-random", "mini/vit-masked"]), home) if c.other]
    entry = suite.entries[3]
    alone = entry.model_copy(update={"pairs": False, "name": "", "recipe": entry.recipe | {"other": "mini/vit-masked"}})
    by_hand = plan(suite.model_copy(update={"entries": (alone,)}), find_backbones(["mini/cnn-random"]), home)
    assert [c.id for c in by_suite] == [c.id for c in by_hand]


def test_pairs_need_a_task_that_takes_a_second_backbone(home, tmp_path):
    home.mkdir()
    (tmp_path / "wrong.yaml").write_text("description: x\nentries: [{task: knn, dataset: digit-scenes, pairs: true}]\n")
    with pytest.raises(BadInput, match="entry knn: pairs: the recipe of knn has no key 'other'"):
        plan(find_suite(str(tmp_path / "wrong.yaml")), find_backbones(["mini/cnn-random"]), home)


def test_the_packaged_suites_that_report_have_what_a_report_shows():
    suites = {name: find_suite(name) for name in list_suites()}
    assert [name for name, suite in suites.items() if suite.report] == ["analysis"]
    entries = suites["analysis"].entries
    assert {"linear-probe", "layer-probe", "similarity", "receptive-field", "efficiency"} <= {e.task for e in entries}
    families = {e.task: find_task(e.task).family for e in entries}
    assert not [e.task for e in entries if families[e.task] in ("analysis", "efficiency") and e.ranked]


def test_the_page_says_what_the_numbers_say(ran):
    _, _, home, report, page = ran
    told = text_of(page)
    results = {(r.backbone.name, r.task.name): r for r in report.results.values()}
    sides = [results[name, "linear-probe"] for name in NETS]
    [found] = error_consistency([[side] for side in sides], stored_measure(home))
    assert f"κ = {found.kappa:.2f} [{found.low:.2f}, {found.high:.2f}]" in told
    assert f"on {found.agreement:.1f} % of 60 test images (linear-probe)" in told
    answers = [stored_predictions(side, home)["classes"][:, 0] for side in sides]
    right = [side == np.asarray(data_of(sides[0], home)["test"].targets) for side in answers]
    for i, name in enumerate(NETS):
        assert f"Only {name} is right: {np.sum(right[i] & ~right[1 - i])} of 60" in told
        score = sides[i].headline
        assert f"{score.value:.1f} [{score.low:.1f}, {score.high:.1f}]" in told
        assert sides[i].id in told
    assert "are most alike, with a CKA of" in told
    html = page.read_text()
    assert html.count('alt="Test image:') == sum(min(8, int(np.sum(right[i] & ~right[1 - i]))) for i in (0, 1))
    assert html.count('alt="Scores by depth"') == 1


def test_what_is_not_applicable_failed_or_missing_is_said(ran, tmp_path):
    _, _, home, report, page = ran
    assert next(iter(report.not_applicable.values())) in text_of(page)
    lost = [c for c in report.cells if c.card.name == "calm" and c.task in ("layer-probe", "linear-probe")]
    kept = {id: r for id, r in report.results.items() if id not in {c.id for c in lost}}
    failed = {lost[0].id: "ValueError: it <i>broke</i>"}
    partly = replace(report, results=kept, failed=failed)
    told = text_of(write_report(partly, list(NETS), home))
    assert "failed: ValueError: it <i>broke</i>" in told
    assert "not run" in told
    assert "No task here keeps one answer an image of both." in told
    assert "There is no linear-probe or layer-probe of calm" in told
    write_reports(report, home)


def test_one_backbone_has_a_page_of_its_own(ran):
    suite, cards, home, _, _ = ran
    report = run(str(suite), cards[1:], limit=60, home=home)
    assert len(report.skipped) == len(report.cells) == 4
    [page] = write_reports(report, home)
    assert page.name == "calm.html"
    told = text_of(page)
    assert "It reaches" in told
    assert "against" not in told
    assert "Do they fail" not in told


def test_a_second_run_runs_nothing_and_writes_the_same_page(ran, capsys):
    suite, cards, home, report, page = ran
    before = page.read_bytes()
    words = ["run", str(suite), "-b", cards[0], "-b", cards[1], "--limit", "60", "--home", str(home)]
    assert code(words) == 0
    told = capsys.readouterr().out
    assert f"{len(report.cells)} cells: 0 run" in told
    assert f"report: {page}" in told
    assert page.read_bytes() == before
    assert [p.name for p in page.parent.iterdir() if p.name.startswith(".")] == []


def test_no_stranger_writes_html(ran):
    _, _, home, _, page = ran
    html = page.read_text()
    assert page.parent == home / "reports"
    assert "<img src=https" not in html
    assert html.count(str(escape(HOSTILE)).replace("&#x27;", "&#39;")) > 3
    assert {tag.split()[0] for tag in re.findall(r"<([a-z][^>]*)", html)}.isdisjoint({"script", "iframe", "object"})
    assert set(re.findall(r'(?:src|href)="([^":]*):', html)) == {"data"}
    assert str(coloured("a<b> c", ["a<b>"])) == '<span class="name side0">a&lt;b&gt;</span> c'


def test_names_of_files_stay_in_their_folder_and_apart():
    assert slug("mini/vit-supervised") == "mini-vit-supervised"
    hostile = [HOSTILE, "../../etc/passwd", "a b", "a?b", "." * 3, "é" * 200, "/", "x" * 200]
    slugs = [slug(name) for name in hostile]
    assert len(set(slugs)) == len(hostile)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,110}", s) and not s.startswith(".") for s in slugs)


def test_a_browser_shows_it_without_asking_anybody(ran, chromium):
    page = chromium.new_page(viewport={"width": 390, "height": 800})
    troubles, asked = [], []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("dialog", lambda dialog: troubles.append("a dialog"))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(ran[4].as_uri())
    page.wait_for_load_state()
    assert troubles == []
    assert [url for url in asked if not url.startswith("data:")] == [ran[4].as_uri()]
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.close()


def test_a_result_is_drawn(ran, tmp_path, capsys):
    home = ran[2]
    ids = {r.task.name: r.id for r in ran[3].results.values()}
    for suffix, start in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        path = tmp_path / f"picture{suffix}"
        assert code(["show", ids["similarity"], "--picture", str(path), "--home", str(home)]) == 0
        assert path.read_bytes().startswith(start)
        assert f"picture: {path}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("task", "file", "told"),
    [
        ("linear-probe", "a.png", "linear-probe has no picture"),
        ("similarity", "a.gif", "is written as .png, .svg, .pdf"),
        ("similarity", "nowhere/a.png", "there is no folder"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(ran, tmp_path, capsys, task, file, told):
    id = next(r.id for r in ran[3].results.values() if r.task.name == task)
    assert code(["show", id, "--picture", str(tmp_path / file), "--home", str(ran[2])]) == 2
    said = capsys.readouterr()
    assert told in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert not (tmp_path / file).exists()


def test_predictions_that_are_gone_are_said(ran, tmp_path):
    _, _, home, report, _ = ran
    result = Store(home / "leaderboard.db").by_id(next(iter(report.results.values())).id)
    with pytest.raises(BadInput, match=f"result {result.id}: its predictions are not in"):
        stored_predictions(result, tmp_path)


def test_numbers_are_as_precise_as_their_intervals():
    numbers = {
        (96.64, "%"): "96.6",
        (0.55234, "CKA", 0.53, 0.57): "0.552",
        (1335.4, "images/s", 1290.0, 1398.0): "1,335",
    }
    assert {given: figure(*given) for given in numbers} == numbers
    assert figure(-0.5, "points") == "−0.5"
    assert figure(0.448, "M") == "0.448"


def test_the_board_of_a_reporting_suite_has_no_column_for_pairs(ran):
    from backbench.benchmarks import leaderboard

    board = leaderboard(str(ran[0]), home=ran[2]).board
    assert [c.key for c in board.columns] == ["linear-probe", "layer-probe", "similarity", "attention-distance"]
    alone = {r.id for r in ran[3].results.values() if r.task.name == "similarity" and not r.recipe["other"]}
    shown = {id for row in board.rows for key, cell in row.cells.items() if key == "similarity" for id in cell.results}
    assert shown == alone
