// Puts it together: the head of a board, its views, and what happens when the address changes.

const VIEWS = {
  table: "Table",
  scatter: "Scatter",
  heatmap: "Heat map",
  correlation: "Correlations",
  compare: "Compare",
};
let built = null; // the board whose frame stands
let turn = 0;

async function render() {
  readAddress();
  const mine = ++turn;
  let board;
  try {
    board = await openBoard(state.board);
  } catch (error) {
    $("#main").replaceChildren(h("p.empty", {}, error.message));
    return;
  }
  if (mine !== turn) return;
  if (built === null || built.board !== board) build(board);
  if (!board || !board.rows.length) return;
  const row = board.byName.get(state.row) ?? null;
  const shown = shownRows(board);
  const view = state.view in VIEWS ? state.view : "table";
  document.title = `${row?.name ?? board.title} · backbench`;
  for (const link of document.querySelectorAll("nav.views a")) {
    const own = link.dataset.view;
    link.href = address({ view: own, row: "" });
    if (own === view && !row) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    if (own === view) link.parentElement.scrollLeft = link.offsetLeft - link.parentElement.offsetLeft - 60;
  }
  refreshFilters(board, shown);
  $("#filters").hidden = row !== null || view === "compare";
  $("#ranking").hidden = row !== null || view !== "table";
  for (const part of document.querySelectorAll(".leaders")) part.hidden = row !== null || view !== "table";
  showTray(board);
  // The pictures and pages are made anew when what they show changes, and only then.
  const now = JSON.stringify([
    board.n,
    row?.name ?? [
      view,
      view === "compare" ? state.compare : shown.map((r) => r.i),
      state.x,
      state.y,
      state.color,
      state.front,
      state.cols,
    ],
    row && state.compare.includes(row.name),
    theme(),
  ]);
  const other = $("#other");
  const moved = built.row !== row || built.view !== view;
  if (now !== built.now) {
    const page =
      state.row && !row
        ? h("p.notice", {}, `There is no ${state.row} on this board.`)
        : row
          ? backbonePage(board, row)
          : view === "scatter"
            ? scatterPage(board, shown)
            : view === "heatmap"
              ? heatmapPage(board, shown)
              : view === "correlation"
                ? correlationPage(board, shown)
                : view === "compare"
                  ? comparePage(board)
                  : null;
    other.replaceChildren(...(page ? [page] : []));
    if (row) drawRadar(board, [row]);
    else if (view === "compare" && state.compare.length > 1)
      drawRadar(board, state.compare.map((name) => board.byName.get(name)).filter(Boolean));
  }
  const first = built.now === undefined;
  Object.assign(built, { now, row, view, shown });
  if (moved && !first) {
    $("h2[tabindex]", other)?.focus({ preventScroll: true });
    if (row || view === "compare") scrollTo(0, 0);
  }
  if (!$("#ranking").hidden) await showTable(board, shown);
}

/** The frame of a board: head, leaders, controls, views, notes. */
function build(board) {
  built = { board };
  const boards = backbench.about.boards;
  const option = (b) => h("option", { value: b.key, selected: b.key === board?.key }, b.title);
  const [runs, published] = [boards.filter((b) => !b.published), boards.filter((b) => b.published)];
  $("#board").replaceChildren(
    ...(published.length
      ? [
          h("optgroup", { label: "Run" }, runs.map(option)),
          h("optgroup", { label: "Published elsewhere" }, published.map(option)),
        ]
      : runs.map(option)),
  );
  $(".chooser").hidden = boards.length < 2;
  if (!board || !board.rows.length) {
    $("#head").replaceChildren(h("h1", {}, board?.title || "leaderboard"));
    $("#main").replaceChildren(
      h("p.empty", {}, "No results yet. ", h("code", {}, "backbench run quick"), " makes some."),
    );
    return;
  }
  $("#head").replaceChildren(...headOf(board));
  $("#main").replaceChildren(
    h(
      "nav.views",
      { "aria-label": "Views" },
      Object.entries(VIEWS).map(([key, label]) => h("a", { "data-view": key }, label)),
    ),
    h(
      "div",
      { id: "filters" },
      buildFilters(board),
      h("div.active", {}, h("span", { id: "shown", role: "status" }), h("span", { id: "chips" })),
    ),
    h(
      "section",
      { id: "ranking", "aria-label": "Ranking" },
      h("div", { id: "frame" }),
      h("div", { id: "paper", hidden: true }),
      h("p.empty", { id: "nothing", hidden: true }, NOBODY),
      legend(board),
    ),
    h("div", { id: "other" }),
    notes(board),
  );
}

$("#skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address holds the state, not a place
  $("#main").focus();
});
$("#board").addEventListener("change", (event) =>
  go({ ...FIRST, ...Object.fromEntries(LISTS.map((key) => [key, []])), view: state.view, board: event.target.value }),
);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => (setTheme(), render()));
narrow.addEventListener("change", render);
addEventListener("popstate", render);
addEventListener("beforeprint", () => {
  if (built?.board?.rows.length && !$("#ranking").hidden)
    $("#paper").replaceChildren(paperTable(built.board, built.shown));
});
addEventListener("afterprint", () => $("#paper")?.replaceChildren());
// A link within the page goes the same way as a click on a control: without loading anything anew.
document.addEventListener("click", (event) => {
  const link = event.target.closest?.('a[href^="#"]');
  if (!link || event.defaultPrevented || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  history.pushState(null, "", link.getAttribute("href") || "#");
  render();
});

setTheme(["light", "dark"].includes(kept()) ? kept() : undefined);
render().then(() => performance.mark("backbench-ready"));
