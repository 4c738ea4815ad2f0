// Which rows and columns are looked at. Filters hide rows; ranks stay those of the whole board.

const FACETS = { family: "Family", method: "Method", data: "Data", license: "Licence", trust: "Trust" };
const UNSAID = "not said";

const factOf = (row, key) => row[key] ?? UNSAID;
const factText = (key, value) => (key === "trust" ? (TRUST[value]?.[1] ?? value) : value);

/** The rows that search and filters leave. */
function shownRows(board) {
  const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  const [low, high] = sizeRange();
  const sized = low > 0 || high < Infinity;
  const wanted = [...Object.keys(FACETS), "model"].filter((key) => state[key].length);
  return board.rows.filter(
    (row) =>
      words.every((word) => row.text.includes(word)) &&
      wanted.every((key) => state[key].includes(factOf(row, key))) &&
      (!sized || (row.parameters !== null && row.parameters >= low && row.parameters <= high)),
  );
}

/** Smallest and largest number of parameters, from "10..100" in millions. */
function sizeRange() {
  const [low, high] = state.size.split("..").map((text) => (text && Number(text) >= 0 ? Number(text) * 1e6 : null));
  return [low ?? 0, high ?? Infinity];
}

/** The columns that are shown: all, those named, or all but those named after a minus. */
function shownColumns(board) {
  if (!state.cols) return board.columns;
  const named = new Set(state.cols.replace(/^-/, "").split(","));
  const kept = board.columns.filter((c) => named.has(c.key) !== state.cols.startsWith("-"));
  return kept.length ? kept : board.columns;
}

function columnsAddress(board, keys) {
  const without = board.columns.filter((c) => !keys.has(c.key)).map((c) => c.key);
  if (!without.length || !keys.size) return "";
  return keys.size <= without.length ? [...keys].join(",") : "-" + without.join(",");
}

/** The bar of controls; built once a board, brought up to date by `refreshFilters`. */
function buildFilters(board) {
  const search = h("input", {
    id: "filter",
    type: "search",
    placeholder: "name, cnn, supervised …",
    autocomplete: "off",
    spellcheck: "false",
  });
  search.addEventListener("input", () => go({ q: search.value }, true));
  const menus = Object.entries(FACETS).filter(([key]) => new Set(board.rows.map((r) => factOf(r, key))).size > 1);
  return h(
    "div.controls",
    {},
    h("label.search", {}, h("span", {}, "Search"), search),
    menus.map(([key, label]) => menu(key, label, () => facetChoices(board, key))),
    board.rows.some((r) => r.parameters) && menu("size", "Size", sizeChoices),
    menu("cols", "Columns", () => columnChoices(board)),
    h("a.quiet.button", { id: "download", href: `boards/${board.n}.json`, download: `${board.key}.json` }, "JSON"),
  );
}

function menu(key, label, choices) {
  const panel = h("div.panel", { role: "group", "aria-label": label });
  const summary = h("summary", {}, label, h("b.badge", {}));
  const details = h("details.menu", { "data-menu": key }, summary, panel);
  details.addEventListener("toggle", () => details.open && panel.replaceChildren(...choices()));
  details.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !details.open) return;
    details.open = false;
    summary.focus();
  });
  return details;
}
document.addEventListener("click", (event) => {
  for (const open of document.querySelectorAll("details.menu[open]"))
    if (!open.contains(event.target)) open.open = false;
});

function facetChoices(board, key) {
  const counts = new Map();
  for (const row of board.rows) counts.set(factOf(row, key), (counts.get(factOf(row, key)) ?? 0) + 1);
  const sorted = [...counts].sort((a, b) => b[1] - a[1] || String(a[0]).localeCompare(b[0]));
  return sorted.map(([value, n]) => {
    const box = h("input", { type: "checkbox", checked: state[key].includes(value) });
    box.addEventListener("change", () => go({ [key]: toggled(state[key], value) }));
    return h(
      "label.choice",
      {},
      box,
      h("span", {}, key === "trust" && TRUST[value] ? trustMark(value) : value),
      h("small", {}, n),
    );
  });
}

function sizeChoices() {
  const [low, high] = state.size.split("..");
  const from = h("input", {
    type: "number",
    min: 0,
    step: "any",
    value: low ?? "",
    "aria-label": "at least, in millions",
  });
  const to = h("input", {
    type: "number",
    min: 0,
    step: "any",
    value: high ?? "",
    "aria-label": "at most, in millions",
  });
  const change = () => go({ size: from.value || to.value ? `${from.value}..${to.value}` : "" }, true);
  from.addEventListener("input", change);
  to.addEventListener("input", change);
  return [h("p.range", {}, from, " to ", to, " million parameters")];
}

function columnChoices(board) {
  const shown = new Set(shownColumns(board).map((c) => c.key));
  const groups = Map.groupBy(board.columns, (c) => c.family);
  const use = (keys) =>
    go({ cols: columnsAddress(board, keys) }).then(() => {
      const open = $('details[data-menu="cols"] .panel');
      open.replaceChildren(...columnChoices(board));
    });
  const parts = [...groups].map(([family, columns]) =>
    h(
      "fieldset",
      {},
      h(
        "legend",
        {},
        family,
        " ",
        h(
          "button.quiet",
          { type: "button", "aria-label": `only ${family}`, onclick: () => use(new Set(columns.map((c) => c.key))) },
          "only",
        ),
      ),
      columns.map((c) => {
        const box = h("input", { type: "checkbox", checked: shown.has(c.key) });
        box.addEventListener("change", () => use(new Set(toggled([...shown], c.key))));
        return h("label.choice", {}, box, h("span", {}, c.key));
      }),
    ),
  );
  return [
    h("button.quiet", { type: "button", onclick: () => use(new Set(board.columns.map((c) => c.key))) }, "all columns"),
    ...parts,
  ];
}

/** Brings the controls up to date and says what is hidden. */
function refreshFilters(board, shown) {
  const search = $("#filter");
  if (search && search.value !== state.q) search.value = state.q;
  for (const details of document.querySelectorAll("details.menu")) {
    const key = details.dataset.menu;
    const n =
      key === "size"
        ? Number(state.size !== "")
        : key === "cols"
          ? board.columns.length - shownColumns(board).length
          : state[key].length;
    $(".badge", details).textContent = n ? (key === "cols" ? `−${n}` : n) : "";
    $("summary", details).setAttribute(
      "aria-label",
      n
        ? `${$("summary", details).firstChild.textContent}, ${key === "cols" ? `${n} hidden` : `${n} chosen`}`
        : $("summary", details).firstChild.textContent,
    );
  }
  const chips = [...Object.keys(FACETS), "model"].flatMap((key) =>
    state[key].map((value) => [
      `${FACETS[key] ?? "Architecture"}: ${factText(key, value)}`,
      { [key]: toggled(state[key], value) },
    ]),
  );
  if (state.size) chips.push([`Size: ${state.size.replace("..", " to ")} M`, { size: "" }]);
  if (state.q) chips.push([`“${state.q}”`, { q: "" }]);
  const everything = {
    q: "",
    size: "",
    ...Object.fromEntries([...Object.keys(FACETS), "model"].map((key) => [key, []])),
  };
  const text = chips.length
    ? `${shown.length} of ${many(board.rows.length, "backbone")} shown; ranks are those of the whole board.`
    : "";
  if ($("#shown").textContent !== text) $("#shown").textContent = text;
  $("#chips").replaceChildren(
    ...chips.map(([label, changes]) =>
      h(
        "button.chip",
        { type: "button", "aria-label": `remove filter ${label}`, onclick: () => go(changes) },
        label,
        h("span", { "aria-hidden": "true" }, " ×"),
      ),
    ),
    ...(chips.length > 1 ? [h("button.quiet", { type: "button", onclick: () => go(everything) }, "clear all")] : []),
  );
}
