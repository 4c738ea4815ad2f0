// What stands in the cells of the table.

const LANES = 3; // side by side in which the bars of tied groups are drawn
const narrow = matchMedia("(max-width: 640px)");

/** A score's bar: the value in the metric's range, whiskers for the interval. */
function bar(value, low, high, [from, to]) {
  const at = (x) => `${(100 * (Math.min(Math.max(x, from), to) - from)) / (to - from)}%`;
  const known = low !== null && low !== undefined;
  return h(known ? "i.bar" : "i.bar.bare", {
    "aria-hidden": "true",
    "--v": at(value),
    "--l": known && at(low),
    "--h": known && at(high),
  });
}

const heat = (element, z) => {
  if (z === null || Math.abs(z) < 0.1) return element;
  element.classList.add(z > 0 ? "up" : "down");
  element.style.setProperty("--heat", `${Math.min(100, Math.round(50 * Math.abs(z)))}%`);
  return element;
};

const between = (low, high, text) =>
  low === null || low === undefined ? "" : `, 95 % interval ${text(low)} to ${text(high)}`;

function rankCell(board, row) {
  if (!row.ranked) return h("span", {}, NONE);
  const sure = row.rank_low !== null;
  const at = (rank) => `${(100 * (rank - 1)) / Math.max(1, board.ranked.length - 1)}%`;
  return h(
    "span",
    { title: sure ? `rank ${row.rank}, 95 % interval ${row.rank_low} to ${row.rank_high}` : `rank ${row.rank}` },
    h("b", {}, row.rank),
    sure && row.rank_low !== row.rank_high && h("small", {}, `${row.rank_low}–${row.rank_high}`),
    sure && h("i.span", { "aria-hidden": "true", "--l": at(row.rank_low), "--h": at(row.rank_high) }),
  );
}

/** Bars that join the rows of a tied group; where groups overlap too much for that, how many rows it may equal. */
function tieCell(board, row, most) {
  if (!row.tie) return h("span");
  if (most > LANES) {
    const n = tiedWith(board, row).length;
    return h("small", { title: `cannot be told apart from ${n} others` }, `≈ ${n}`);
  }
  const own = [];
  for (let g = row.tie[0]; g <= row.tie[1]; g++) {
    own.push(
      h(
        `span.lane.lane${g % LANES}`,
        { title: `rows marked ${board.letters[g]} cannot be told apart` },
        board.letters[g],
      ),
    );
  }
  return h("span", {}, own);
}

function nameCell(board, row) {
  const box = h("input", { type: "checkbox", class: "pick", "aria-label": `compare ${row.name}`, title: "compare" });
  box.checked = state.compare.includes(row.name);
  box.dataset.name = row.name;
  box.addEventListener("change", () => pick(row.name, box));
  const link = h("a", { href: address({ row: row.name }), title: row.name, "data-row": row.i }, breakable(row.name));
  // What was chosen since this cell was drawn belongs in the address too.
  link.addEventListener("click", (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    go({ row: row.name });
  });
  const lacks =
    row.missing.length && board.families.length
      ? h(
          "span.missing",
          { title: row.missing.join(", ") },
          `lacks ${row.missing[0]}${row.missing.length > 1 ? ` and ${row.missing.length - 1} more` : ""}`,
        )
      : null;
  const tags = [row.family, row.method, ...Object.values(row.loading).map(String)].filter(Boolean).join(" · ");
  const trust = board.published ? null : trustMark(row.trust);
  const said = (lacks ? [lacks] : [trust, tags]).filter(Boolean).flatMap((part, i) => (i ? [" · ", part] : [part]));
  return h("span.who", {}, box, h("span", {}, link, h("small", {}, said)));
}

function overallCell(board, row) {
  if (!row.ranked) return h("span", {}, NONE);
  const reach = (board.reach ??=
    Math.max(
      ...board.ranked.map((r) => Math.max(Math.abs(r.overall_low ?? r.overall), Math.abs(r.overall_high ?? r.overall))),
    ) || 1);
  const at = (z) => `${50 + (50 * z) / reach}%`;
  const [a, b] = row.overall < 0 ? [row.overall, 0] : [0, row.overall];
  const known = row.overall_low !== null;
  return h(
    "span",
    { title: `overall z ${signed(row.overall)}${between(row.overall_low, row.overall_high, signed)}` },
    h("span.n", {}, signed(row.overall)),
    h(`i.bar.mid.${row.overall > 0 ? "plus" : "minus"}${known ? "" : ".bare"}`, {
      "aria-hidden": "true",
      "--a": at(a),
      "--b": at(b),
      "--l": known && at(row.overall_low),
      "--h": known && at(row.overall_high),
    }),
  );
}

function meanCell(board, family, row) {
  const z = board.z[family]?.[row.i] ?? null;
  return heat(h("span.tint", {}, h("span.n", {}, signed(z))), z);
}

function scoreCell(board, c, row) {
  const value = c.value?.[row.i] ?? null;
  if (value === null) return h("span.tint.none", {}, NONE);
  const [low, high, z] = [c.low?.[row.i] ?? null, c.high?.[row.i] ?? null, c.z?.[row.i] ?? null];
  const text = (v) => number(v, c.unit);
  c.best ??= c.value.reduce(
    (best, v) => (v === null ? best : best === null || (c.higher ? v > best : v < best) ? v : best),
    null,
  );
  return heat(
    h(
      value === c.best ? "span.tint.best" : "span.tint",
      { title: `${text(value)} ${c.unit}${between(low, high, text)}${z === null ? "" : `, z ${signed(z)}`}` },
      h("span.n", {}, text(value)),
      bar(value, low, high, c.ends),
    ),
    z,
  );
}
