"""The page: as a text, and in a real browser."""

import json
import re
from html.parser import HTMLParser
from itertools import combinations
from typing import ClassVar

import pytest
from backbench.leaderboard import Board, headline_columns, render_page, scatter, write_page
from backbench.leaderboard.page import duration, flat
from backbench.leaderboard.scatter import BOTTOM, LEFT, LETTER, LINE, RIGHT, TOP, plots
from hypothesis import given
from hypothesis import strategies as st

EVIL = '</script><script>window.hit=1</script><img src=x onerror="window.hit=1">"\' onclick="window.hit=1" {{7*7}}'


class Outline(HTMLParser):
    """Opens and closes, counted; what is between script tags, kept."""

    void: ClassVar = {"meta", "link", "input", "img", "br", "rect", "path", "circle", "wbr"}

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.scripts, self.attributes = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *a) for a in attrs]
        if tag not in self.void:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        if tag not in self.void:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data


def outline(text: str) -> Outline:
    parser = Outline()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser


@pytest.fixture
def evil(result, content):
    """A board in which every string that a stranger may choose is an attack."""
    facts = content("mini/good")["backbone"]
    card = {
        "family": EVIL,
        "license": EVIL,
        "paper": "javascript:window.hit=1",
        EVIL: EVIL,
        "pretraining": {"method": EVIL},
    }
    bad = facts | {"name": EVIL[:200], "card": card, "transform": {EVIL: EVIL}}
    data = content()["dataset"] | {"name": EVIL, "fingerprints": {EVIL: EVIL}}
    task = {"name": EVIL, "family": EVIL, "version": 1, "headline": EVIL}
    scores = {EVIL: content()["scores"]["top1"] | {"unit": EVIL}}
    data["name"] = EVIL[:200]
    results = [result(backbone=bad, dataset=data, task=task, scores=scores, seed=s) for s in range(2)]
    return Board.of(results, headline_columns(results), EVIL)


def test_the_page_is_whole_and_alone(board, gauntlet, tmp_path):
    path = tmp_path / "pages" / "index.html"
    write_page(board, path)
    text = path.read_text(encoding="utf-8")
    assert list(path.parent.iterdir()) == [path]
    parsed = outline(text)
    assert text == render_page(board)
    loads = [(t, k, v) for t, k, v in parsed.attributes if k in ("src", "href") and not v.startswith(("#", "data:"))]
    assert loads == []
    assert "@import" not in text
    assert not re.search(r"url\(", text)
    for row in board.rows:
        assert row.facts.weights_digest in text
    for r in gauntlet:
        assert f"backbench rerun {r.id}" in text
        assert r.dataset.fingerprints["test"] in text


def test_data_on_the_page_is_the_json_of_the_board(board):
    data = outline(render_page(board)).scripts[0]
    from backbench.leaderboard import as_json

    assert json.loads(data) == json.loads(as_json(board))


def test_what_strangers_write_stays_text(evil):
    parsed = outline(render_page(evil))
    assert len(parsed.scripts) == 2
    assert json.loads(parsed.scripts[0])["title"] == EVIL
    assert "img" not in parsed.tags
    assert not [a for a in parsed.attributes if a[1].startswith("on")]
    assert not [a for a in parsed.attributes if a[2] and a[2].startswith("javascript:")]
    assert "{{7*7}}" in render_page(evil)


@pytest.mark.parametrize("keep", [0, 1, 20])
def test_pages_of_few_results(gauntlet, board, keep):
    some = gauntlet[:keep]
    outline(render_page(Board.of(some, board.columns)))
    outline(render_page(Board.of(some, headline_columns(some))))


def test_points_and_labels_lie_inside_the_plot(board):
    for plot in plots(board):
        for p in plot.points:
            assert LEFT <= p.x <= RIGHT
            assert TOP <= p.y_high <= p.y <= p.y_low <= BOTTOM
        boxes = []
        for p in (p for p in plot.points if p.label):
            left = p.label_x - len(p.label) * LETTER if p.left else p.label_x
            boxes.append((left, p.label_y, left + len(p.label) * LETTER))
        for (left, y, right), (other_left, other_y, other_right) in combinations(boxes, 2):
            assert right <= other_left or other_right <= left or abs(y - other_y) >= LINE
        assert len(plot.x_ticks) >= 3
        assert all(LEFT <= x <= RIGHT for x, _ in plot.x_ticks)
        assert all(TOP - 1 <= y <= BOTTOM + 1 for y, _ in plot.y_ticks)
    assert all(p.label == p.name for p in plots(board)[0].points)


@pytest.mark.parametrize("sizes", [(583_000, 583_000), (4_000_000, 25_600_000), (100, 2_000_000_000)])
def test_ticks_for_every_range_of_sizes(result, content, sizes):
    results = [
        result(backbone=content(f"mini/{i}")["backbone"] | {"parameters": n}, value=50.0 + i)
        for i, n in enumerate(sizes)
    ]
    for plot in plots(Board.of(results, headline_columns(results))):
        assert len(plot.x_ticks) >= 3
        assert len({text for _, text in plot.x_ticks}) == len(plot.x_ticks)


@given(st.floats(-1e4, 1e4), st.floats(0, 1e4))
def test_steps_are_round_and_hold_the_range(low, span):
    steps = scatter._steps(low, low + span)
    assert steps[0] <= low + 1e-9
    assert steps[-1] >= low + span - 1e-9
    assert len(set(steps)) == len(steps)
    assert 2 <= len(steps) <= 9


def test_flat_and_duration():
    assert flat({"a": {"b": 1, "c": None}, "d": [1, 2], "e": "", "f": False}) == [
        ("a.b", "1"),
        ("d", "1, 2"),
        ("f", "False"),
    ]
    assert [duration(s) for s in (0.42, 12, 185, 7800, 59.7)] == [
        "0.4 s",
        "12 s",
        "3 min 05 s",
        "2 h 10 min",
        "1 min 00 s",
    ]


@pytest.fixture
def visit(chromium, tmp_path):
    """Opens the page of a board; fails the test on any message, error or request beyond the page itself."""
    opened, troubles = [], []

    def open_page(board, **options):
        path = tmp_path / "index.html"
        write_page(board, path)
        page = chromium.new_context(**options).new_page()
        opened.append(page)
        page.on("console", lambda m: troubles.append(m.text))
        page.on("pageerror", lambda e: troubles.append(str(e)))
        page.on("request", lambda r: r.url in (path.as_uri(),) or r.url.startswith("data:") or troubles.append(r.url))
        page.goto(path.as_uri())
        return page

    yield open_page
    for page in opened:
        page.context.close()
    assert troubles == []


def names(page):
    return page.locator("#ranking tr.backbone:visible th.name a").all_inner_texts()


def test_sorting_by_click_and_key(visit, board):
    page = visit(board)
    by_rank = [r.backbone for r in board.rows]
    assert names(page) == by_rank
    heading = page.locator("#ranking th[aria-sort]", has_text="retrieval")
    heading.locator("button").click()
    best = sorted(board.rows, key=lambda r: -r.cells["retrieval"].value)
    assert names(page) == [r.backbone for r in best]
    assert heading.get_attribute("aria-sort") == "descending"
    heading.locator("button").focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert names(page) == [r.backbone for r in reversed(best)]
    page.locator("#ranking th[aria-sort] button", has_text="zero-shot").click()
    assert names(page)[0] == "mini/cnn-image-text"
    assert page.locator('#ranking th[aria-sort="descending"]').count() == 1
    page.locator("#ranking th[aria-sort] button", has_text="backbone").click()
    assert names(page) == sorted(by_rank)


def test_filter_chips_and_plot(visit, board):
    page = visit(board)
    page.fill("#filter", "vit self")
    assert names(page) == [r.backbone for r in board.rows if r.backbone in ("mini/vit-contrastive", "mini/vit-masked")]
    assert page.inner_text("#shown") == "2 of 6 backbones"
    page.fill("#filter", "")
    assert len(names(page)) == 6
    page.click('button[data-family="ood"]')
    shown = page.locator("#ranking thead tr:last-child th:visible").all_inner_texts()
    assert [s.strip() for s in shown] == [
        "#",
        "tie",
        "backbone",
        "overall z",
        "mean z",
        "ood-shift",
        "ood-detection",
        "params",
    ]
    assert page.get_attribute('button[data-family="ood"]', "aria-pressed") == "true"
    page.click('button[data-family=""]')
    assert page.locator("#ranking thead tr:last-child th:visible").count() > 12
    page.select_option("#plot", "retrieval")
    assert page.locator("svg[data-plot]:visible").get_attribute("data-plot") == "retrieval"


def test_incomplete_rows_stay_below_when_sorted(visit, gauntlet, board):
    kept = [r for r in gauntlet if (r.backbone.name, r.task.name) != ("mini/cnn-supervised", "knn")]
    page = visit(Board.of(kept, board.columns, "quick"))
    page.locator("#ranking th[aria-sort] button", has_text="linear-probe").click()
    assert names(page)[-1] == "mini/cnn-supervised"
    assert "lacks knn" in page.inner_text("#ranking tbody.partial")


def test_details_open_and_commands_are_copied(visit, board):
    page = visit(board, permissions=["clipboard-read", "clipboard-write"])
    page.locator("#ranking th.name a").nth(1).click()
    details = page.locator("#details > details[open]")
    assert details.count() == 1
    assert board.rows[1].backbone in details.inner_text()
    button = details.locator("button[data-copy]").first
    button.click()
    page.wait_for_function("document.querySelector('details[open] button[data-copy]').textContent === 'copied'")
    assert page.evaluate("navigator.clipboard.readText()") == button.get_attribute("data-copy")
    with page.expect_download() as download:
        page.click("#download")
    assert json.loads(download.value.path().read_text())["title"] == "quick"


def test_attacks_through_names_do_nothing(visit, evil):
    page = visit(evil)
    page.wait_for_timeout(200)
    page.locator("#ranking th.name a").click()
    assert page.evaluate("window.hit") is None
    assert page.locator("img").count() == 0


@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_never_scrolls_sideways(visit, board, width):
    page = visit(board, viewport={"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes(visit, board, scheme):
    """WCAG contrast of text against the page, of the two inks that all text uses."""
    page = visit(board, color_scheme=scheme)
    ratios = page.evaluate(
        """() => {
          const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
          const light = (name) => {
            canvas.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name);
            canvas.fillRect(0, 0, 1, 1);
            const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((v) => v / 255)
              .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
          return ["--ink", "--soft"].flatMap((ink) => ["--card", "--paper"].map((ground) => ratio(ink, ground)));
        }"""
    )
    assert min(ratios) > 4.5
