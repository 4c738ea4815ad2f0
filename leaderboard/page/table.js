// The table: Tabulator draws the rows in sight, sorts them and keeps the name in place.

let table = null; // { grid, element, board, columns, ready, shown, sort }

/** The table of a board, in its own frame; made anew for another board, other columns or another width. */
function showTable(board, shown) {
  const columns = shownColumns(board);
  const same =
    table?.board === board &&
    table.narrow === narrow.matches &&
    table.columns.join() === columns.map((c) => c.key).join();
  if (!same) {
    table?.grid.destroy();
    const element = h("div");
    const made = { board, element, columns: columns.map((c) => c.key), narrow: narrow.matches, shown: null, sort: "" };
    $("#frame").replaceChildren(element);
    made.grid = new Tabulator(element, options(board, columns));
    made.ready = new Promise((resolve) => made.grid.on("tableBuilt", resolve));
    made.fields = new Set(
      [
        "rank",
        "name",
        "overall",
        "parameters",
        "macs",
        ...board.families.map((f) => `z.${f}`),
        ...columns.map((c) => `score.${c.key}`),
      ].filter((key) => board.field.has(key)),
    );
    made.ready.then(() => label(element, board));
    table = made;
  }
  const now = table;
  return now.ready.then(() => now === table && arrange(board, shown));
}

function arrange(board, shown) {
  const [key, down] = state.sort.startsWith("-") ? [state.sort.slice(1), true] : [state.sort, false];
  const sort = table.fields.has(key || "rank") ? `${down ? "-" : ""}${key || "rank"}` : "rank";
  const set = new Set(shown.map((row) => row.i));
  const all = set.size === board.rows.length;
  const signature = all ? "" : [...set].join();
  if (table.shown !== signature && !(table.shown === null && all)) table.grid.setFilter((row) => set.has(row.i));
  table.shown = signature;
  if (table.sort !== sort && (table.sort || sort !== "rank"))
    table.grid.setSort(sort.replace(/^-/, ""), sort.startsWith("-") ? "desc" : "asc");
  table.sort = sort;
  for (const head of table.element.querySelectorAll("[role=columnheader]")) {
    const mine = head.getAttribute("tabulator-field") === sort.replace(/^-/, "");
    head.setAttribute("aria-sort", mine ? (sort.startsWith("-") ? "descending" : "ascending") : "none");
  }
  $("[role=grid]", $("#frame"))?.setAttribute("aria-rowcount", shown.length + 1);
  $("#nothing").hidden = shown.length > 0;
}

function options(board, columns) {
  const two = board.ranked.length > 0 && board.ranked.length < board.rows.length;
  return {
    data: board.rows.map((row) => ({ i: row.i, row, part: row.ranked ? "ranked" : "partial" })),
    index: "i",
    layout: "fitColumns",
    maxHeight: "max(420px, calc(100vh - 150px))",
    rowHeight: narrow.matches || board.rows.some((r) => r.name.length > 36) ? 62 : 54,
    renderVerticalBuffer: 240,
    nestedFieldSeparator: false,
    columnHeaderVertAlign: "bottom",
    columnHeaderSortMulti: false,
    columnDefaults: { headerSort: false },
    columns: headings(board, columns),
    rowFormatter: (row) => {
      const element = row.getElement();
      element.classList.toggle("partial", !row.getData().row.ranked);
      row.watchPosition((place) => place && element.setAttribute("aria-rowindex", place + 1)); // the heading is 1
    },
    ...(two && {
      groupBy: "part",
      groupValues: [["ranked", "partial"]],
      groupToggleElement: false,
      groupHeader: (part, n) => (part === "ranked" ? `Ranked: ${n}` : `Not ranked, as something is missing: ${n}`),
    }),
  };
}

/** A heading that sorts: a button, so that keys and screen readers have it too. */
function heading(field, text, title, spoken) {
  const button = h(
    "button",
    { type: "button", title, "aria-label": spoken ?? null },
    breakable(text),
    h("span.arrow", { "aria-hidden": "true" }),
  );
  button.addEventListener("click", () => {
    const [now, down] = [table.sort.replace(/^-/, ""), table.sort.startsWith("-")];
    const turn = now === field.key ? !down : field.better === "high";
    go({ sort: (turn ? "-" : "") + field.key === "rank" ? "" : (turn ? "-" : "") + field.key });
  });
  return button;
}

function headings(board, columns) {
  const of = (key, text, title, more) => {
    const field = board.field.get(key);
    return {
      field: key,
      title: "·",
      titleFormatter: () => heading(field, text, title, more.spoken),
      sorter: (a, b, rowA, rowB, column, dir) => inOrder(field, rowA.getData().row, rowB.getData().row, dir),
      ...Object.fromEntries(Object.entries(more).filter(([name]) => name !== "spoken")),
      formatter: (cell) => more.formatter(cell.getData().row, cell.getElement()),
    };
  };
  const rank =
    board.field.has("rank") &&
    of("rank", "#", "rank by overall z-score, and its 95 % interval", {
      width: 62,
      frozen: !narrow.matches,
      cssClass: "rank",
      spoken: "rank",
      formatter: (row) => rankCell(board, row),
    });
  const most = Math.max(0, ...board.rows.map((r) => (r.tie ? r.tie[1] - r.tie[0] + 1 : 0)));
  const ties = most > 0 && {
    field: "ties",
    title: "·",
    titleFormatter: () => h("abbr", { title: "Rows joined by a bar cannot be told apart" }, "tie"),
    width: most > LANES ? 56 : 14 + 17 * Math.min(most, LANES),
    frozen: !narrow.matches,
    cssClass: "ties",
    formatter: (cell) => tieCell(board, cell.getData().row, most),
  };
  const name = of("name", "backbone", undefined, {
    width: nameWidth(board),
    frozen: true,
    cssClass: "name",
    formatter: (row, element) => (element.setAttribute("role", "rowheader"), nameCell(board, row)),
  });
  const overall =
    board.field.has("overall") &&
    of("overall", "overall z", "mean z-score per task family, then over families", {
      minWidth: 84,
      cssClass: "overall",
      formatter: (row) => overallCell(board, row),
    });
  const groups = [...Map.groupBy(columns, (c) => c.family)].map(([family, own]) => {
    const ranked = board.columns.filter((c) => c.family === family && c.ranked).length;
    const mean = board.families.length > 1 && ranked > 1 && board.field.has(`z.${family}`);
    return {
      title: "·",
      titleFormatter: () => h("span", {}, family),
      cssClass: `f-${family.replace(/[^a-z0-9-]/gi, "")}`,
      columns: [
        ...(mean
          ? [
              of(`z.${family}`, "mean z", `mean z-score of the ranked ${family} columns`, {
                minWidth: 63,
                cssClass: "mean",
                spoken: `${family}, mean z`,
                formatter: (row) => meanCell(board, family, row),
              }),
            ]
          : []),
        ...own.map((c) =>
          of(`score.${c.key}`, `${c.key}${c.higher ? "" : " ↓"}${c.ranked ? "" : " *"}`, aboutColumn(c), {
            minWidth: wordWidth(c.key),
            cssClass: "score",
            spoken: `${c.key}, ${aboutColumn(c)}`,
            formatter: (row) => scoreCell(board, c, row),
          }),
        ),
      ],
    };
  });
  const size =
    board.field.has("parameters") &&
    of("parameters", "params", "number of parameters", {
      minWidth: 68,
      cssClass: "size",
      formatter: (row) => h("span", {}, count(row.parameters)),
    });
  const macs =
    board.field.has("macs") &&
    of("macs", "MACs", "multiply-accumulates of one image", {
      minWidth: 68,
      cssClass: "size",
      formatter: (row) => h("span", {}, count(row.macs)),
    });
  const front = narrow.matches ? [name, rank, ties] : [rank, ties, name];
  return [...front, overall, ...groups, size, macs].filter(Boolean);
}

/** Room for most names whole; longer ones break. */
const nameWidth = (board) =>
  narrow.matches ? 168 : Math.min(340, Math.max(210, 74 + 8.3 * Math.max(...board.rows.map((r) => r.name.length))));
/** Room for the longest word of a heading, which breaks after hyphens only. */
const wordWidth = (text) =>
  Math.max(64, Math.min(124, 20 + 7 * Math.max(...text.split(/(?<=-)|[@_ ]/).map((word) => word.length))));

const aboutColumn = (c) =>
  `${c.metric} on ${c.dataset} (${c.unit})${c.higher ? "" : ", lower is better"}${c.ranked ? "" : ", shown but not ranked"}`;

/** Order by a field; rows without a value stay last whichever way, equals keep the board's order. */
function inOrder(field, a, b, dir) {
  const [x, y, sign] = [field.value(a), field.value(b), dir === "asc" ? 1 : -1];
  if (x === null || y === null) return sign * ((x === null) - (y === null) || a.i - b.i);
  return (field.words ? x.localeCompare(y) : x - y) || sign * (a.i - b.i);
}

/** What the widget leaves unsaid to a screen reader, and the arrow keys from row to row. */
function label(element, board) {
  element.setAttribute("aria-label", `${board.title}: ranking`);
  const holder = $(".tabulator-tableholder", element);
  holder?.setAttribute("role", "presentation");
  for (const group of element.querySelectorAll("[role=columngroup]")) {
    group.setAttribute("role", "none");
    group.removeAttribute("aria-title");
  }
  element.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const from = event.target.closest?.(".tabulator-row");
    if (!step || !from) return;
    let next = from;
    do next = step > 0 ? next.nextElementSibling : next.previousElementSibling;
    while (next && !$("a[data-row]", next));
    const link = next && $("a[data-row]", next);
    if (link) {
      event.preventDefault();
      link.focus();
      next.scrollIntoView({ block: "nearest" });
    }
  });
}
