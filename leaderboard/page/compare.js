// Two to four backbones side by side.

const MOST = 4;

/** Takes a backbone into the comparison, or out of it. */
function pick(name, box = null) {
  const next = toggled(state.compare, name);
  if (next.length > MOST) {
    if (box) box.checked = false;
    say(`A comparison holds ${MOST} backbones at most.`);
    return;
  }
  say(next.includes(name) ? `${name} is in the comparison` : `${name} left the comparison`);
  go({ compare: next }, true);
}

/** The strip at the foot of the page with what was picked so far. */
function showTray(board) {
  const names = state.compare.filter((name) => board?.byName.has(name));
  const tray = $("#tray");
  tray.hidden = !names.length || state.view === "compare";
  tray.replaceChildren(
    h(
      "span.names",
      {},
      names.map((name) =>
        h(
          "button.chip",
          { type: "button", "aria-label": `take ${name} out of the comparison`, onclick: () => pick(name) },
          name,
          h("span", { "aria-hidden": "true" }, " ×"),
        ),
      ),
    ),
    names.length > 1
      ? h("a.button.strong", { href: address({ view: "compare", row: "" }) }, `Compare ${names.length}`)
      : h("span.quiet", {}, "pick one more to compare"),
  );
  for (const box of document.querySelectorAll("input.pick")) box.checked = state.compare.includes(box.dataset.name);
}

function comparePage(board) {
  const rows = state.compare.map((name) => board.byName.get(name)).filter(Boolean);
  const gone = state.compare.filter((name) => !board.byName.has(name));
  const rest = board.rows.filter((row) => !rows.includes(row));
  const list = h(
    "datalist",
    { id: "names" },
    rest.map((row) => h("option", { value: row.name })),
  );
  const input = h("input", {
    type: "search",
    list: "names",
    id: "add",
    placeholder: "name of a backbone",
    autocomplete: "off",
  });
  input.addEventListener("change", () => {
    if (board.byName.has(input.value) && !state.compare.includes(input.value)) pick(input.value);
    else if (input.value) say(`There is no ${input.value} on this board.`);
  });
  return h(
    "article.compare",
    {},
    h("h2", { id: "compare", tabindex: "-1" }, "Side by side"),
    rows.length < MOST && h("p", {}, h("label.search", {}, h("span", {}, "Add"), input), list),
    gone.length > 0 && h("p.notice", {}, `Not on this board: ${gone.join(", ")}.`),
    rows.length < 2
      ? h("p.empty", {}, "Pick two to four backbones, here or by the boxes in the table.")
      : [
          comparison(board, rows),
          cornersOf(board).length >= LEAST &&
            h("section", {}, h("h3", {}, radarTitle(board)), h("div.plot.radar", { id: "radar" })),
          hints(board, rows),
        ],
  );
}

function comparison(board, rows) {
  const fact = (label, text) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, label),
      rows.map((row) => h("td", {}, text(row))),
    );
  const facts = [
    ["architecture family", (r) => r.family ?? NONE],
    ["pretraining", (r) => [r.method, r.data].filter(Boolean).join(", ") || NONE],
    ["licence", (r) => r.license ?? NONE],
    ["parameters", (r) => count(r.parameters)],
    ["trust", (r) => trustMark(r.trust)],
    [
      "rank",
      (r) =>
        r.ranked
          ? [h("b", {}, r.rank), r.rank_low !== null && h("small", {}, ` ${r.rank_low} to ${r.rank_high}`)]
          : NONE,
    ],
    [
      "overall z",
      (r) =>
        r.ranked
          ? [
              h("b", {}, signed(r.overall)),
              r.overall_low !== null && h("small", {}, ` ${signed(r.overall_low)} to ${signed(r.overall_high)}`),
            ]
          : NONE,
    ],
  ];
  const body = [...Map.groupBy(board.columns, (c) => c.family)].map(([family, columns]) =>
    h(
      "tbody",
      {},
      h(
        "tr",
        {},
        h(`th.family.f-${family.replace(/[^a-z0-9-]/gi, "")}`, { scope: "rowgroup", colspan: rows.length + 1 }, family),
      ),
      columns.map((c) =>
        h(
          "tr",
          {},
          h("th", { scope: "row", title: aboutColumn(c) }, c.key, h("small", {}, ` ${c.unit}${c.higher ? "" : " ↓"}`)),
          againstBest(c, rows),
        ),
      ),
    ),
  );
  return h(
    "div.scroll",
    { role: "region", "aria-label": "comparison", tabindex: "0" },
    h(
      "table.plain.side",
      {},
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          h("td"),
          rows.map((row, k) =>
            h(
              "th",
              { scope: "col" },
              h("i.key", { "--dot": `var(--k${k})`, "aria-hidden": "true" }),
              h("a", { href: address({ row: row.name, view: "table" }) }, breakable(row.name)),
              h(
                "button.quiet",
                { type: "button", "aria-label": `remove ${row.name}`, onclick: () => pick(row.name) },
                "×",
              ),
            ),
          ),
        ),
      ),
      h(
        "tbody",
        {},
        facts.map(([label, text]) => fact(label, text)),
      ),
      body,
    ),
  );
}

/** The cells of a column: the best one bold, and of each other whether its interval reaches into the best one's. */
function againstBest(c, rows) {
  const cells = rows.map((row) => ({
    value: c.value?.[row.i] ?? null,
    low: c.low?.[row.i] ?? null,
    high: c.high?.[row.i] ?? null,
  }));
  const known = cells.filter((cell) => cell.value !== null);
  const best = known.reduce((a, b) => (!a || (c.higher ? b.value > a.value : b.value < a.value) ? b : a), null);
  return cells.map((cell) => {
    if (cell.value === null) return h("td.none", {}, NONE);
    const apart = cell.low !== null && best.low !== null && (cell.high < best.low || cell.low > best.high);
    const word =
      known.length < 2
        ? ""
        : cell.value === best.value
          ? "best"
          : cell.low === null || best.low === null
            ? ""
            : apart
              ? "apart"
              : "overlaps";
    return h(
      `td.barred${cell.value === best.value ? ".best" : ""}`,
      {},
      h("span.n", {}, number(cell.value, c.unit)),
      cell.low !== null && h("small", {}, ` ${number(cell.low, c.unit)} to ${number(cell.high, c.unit)}`),
      bar(cell.value, cell.low, cell.high, c.ends),
      word &&
        h(
          `small.hint.${word}`,
          {},
          word === "best"
            ? "best here"
            : word === "apart"
              ? "apart from the best"
              : "overlaps the best: not told apart",
        ),
    );
  });
}

function hints(board, rows) {
  const ranked = rows.filter((row) => row.ranked);
  const said = [];
  for (const [k, a] of ranked.entries()) {
    for (const b of ranked.slice(k + 1))
      if (tiedWith(board, a).includes(b))
        said.push(`${a.name} and ${b.name} share a tied group: overall they cannot be told apart.`);
  }
  const quoted = rows.map((row) =>
    /^[\w./:@%+-]+$/.test(row.name) ? row.name : `'${row.name.replaceAll("'", "'\\''")}'`,
  );
  return h(
    "section.notes",
    {},
    said.map((text) => h("p", {}, text)),
    h(
      "p",
      {},
      "Intervals that lie apart tell two backbones apart; where they overlap, nothing is known yet. ",
      board.published
        ? "Published figures have no predictions to pair."
        : [
            "Paired over the same test examples, smaller differences show: ",
            command(`backbench compare ${quoted.join(" ")}`),
          ],
    ),
  );
}
