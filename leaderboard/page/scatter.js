// One field against another: whiskers, and the front of those that no other one beats in both.

function scatterAxes(board) {
  const usable = board.fields.filter((f) => !f.words && f.key !== "rank");
  const pick = (key, ...wishes) =>
    board.field.get([key, ...wishes].find((k) => usable.some((f) => f.key === k))) ?? usable[0];
  const score = usable.find((f) => f.column)?.key;
  return {
    usable,
    x: pick(state.x, "parameters", usable.filter((f) => f.column)[1]?.key, score),
    y: pick(state.y, "overall", score),
  };
}

function scatterPage(board, shown) {
  const { usable, x, y } = scatterAxes(board);
  if (!usable.length) return h("p.empty", {}, "Nothing to draw yet.");
  if (!shown.length) return h("p.empty", {}, NOBODY);
  const options = usable.map((f) => [f.key, f.label]);
  const colours = Object.entries({ ...FACETS, none: "nothing" }).map(([key, label]) => [key, label.toLowerCase()]);
  const front = h("input", { type: "checkbox", checked: state.front !== "off" });
  front.addEventListener("change", () => go({ front: front.checked ? "" : "off" }));
  const points = shown.filter(
    (row) =>
      x.value(row) !== null && y.value(row) !== null && (!x.log || x.value(row) > 0) && (!y.log || y.value(row) > 0),
  );
  const best = paretoFront(points, x, y);
  const element = h("div.plot.tall", {
    id: "scatter",
    role: "img",
    "aria-label": `${y.label} against ${x.label}, ${many(points.length, "backbone")}; the best trade-offs are listed below`,
  });
  drawScatter(element, board, points, best, x, y);
  return h(
    "section",
    {},
    h(
      "div.controls",
      {},
      chooser("Across", "x", options, x.key),
      chooser("Up", "y", options, y.key),
      chooser("Colour by", "color", colours, state.color),
      h("label.choice", {}, front, h("span", {}, "Pareto front")),
    ),
    element,
    h("p.legend", {}, "Whiskers are 95 % intervals where these are known. A point opens its backbone."),
    h(
      "p",
      {},
      h("b", {}, "Best trade-offs: "),
      listed(best.slice(0, 12).map((row) => rowLink(row))),
      best.length > 12 ? ` and ${best.length - 12} more.` : ".",
    ),
  );
}

/** The points that no other one beats in both directions, best in `y` first. */
function paretoFront(points, x, y) {
  const up = (field, row) => (field.better === "low" ? -1 : 1) * field.value(row);
  const sorted = [...points].sort((a, b) => up(x, b) - up(x, a) || up(y, b) - up(y, a));
  let reached = -Infinity;
  return sorted.filter((row) => up(y, row) > reached && ((reached = up(y, row)), true)).reverse();
}

/** Where the names of `wanted` stand that cover no other one: above the point, else below; [x, y, side] of each. */
function labelled(wanted, points, x, y) {
  const place = (field) => {
    const at = (row) => (field.log ? Math.log10(field.value(row)) : field.value(row));
    const [low, high] = points.map(at).reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
    return (row) => (at(row) - low) / (high - low || 1);
  };
  const [across, up] = [place(x), place(y)];
  const kept = new Map();
  for (const row of wanted) {
    const free = ([, offset]) =>
      [...kept.values()].every(([x, y]) => Math.abs(across(row) - x) > 0.15 || Math.abs(up(row) + offset - y) > 0.045);
    const [side, offset] =
      [
        ["top center", 0.03],
        ["bottom center", -0.03],
      ].find(free) ?? [];
    if (side) kept.set(row, [across(row), up(row) + offset, side]);
  }
  return kept;
}

function drawScatter(element, board, points, best, x, y) {
  const kind = (row) =>
    state.color === "none"
      ? "backbones"
      : state.color in FACETS
        ? factText(state.color, factOf(row, state.color))
        : (row.family ?? UNSAID);
  const counts = [...Map.groupBy(points, kind)].sort((a, b) => b[1].length - a[1].length);
  const groups = new Map(counts.slice(0, PALETTE - 1));
  const others = counts.slice(PALETTE - 1).flatMap(([, rows]) => rows);
  if (others.length) groups.set("others", others);
  const whisker = (field, rows, k) => {
    if (!field.low || !rows.some((r) => field.low(r) !== null)) return undefined;
    return {
      type: "data",
      symmetric: false,
      array: rows.map((r) => (field.high(r) ?? field.value(r)) - field.value(r)),
      arrayminus: rows.map((r) => field.value(r) - (field.low(r) ?? field.value(r))),
      thickness: 1,
      width: 0,
      color: colour(`--k${k}`, points.length > 300 ? 0.35 : 0.8),
    };
  };
  const about = (row) =>
    `<b>${plain(row.name)}</b><br>${plain(y.label)}: ${y.text(y.value(row))}<br>${plain(x.label)}: ${x.text(x.value(row))}`;
  const named = labelled(points.length <= 40 ? points : best, points, x, y);
  const traces = [...groups].map(([label, rows], k) => ({
    type: "scatter",
    mode: "markers+text",
    name: plain(label),
    customdata: rows.map((r) => r.i),
    x: rows.map(x.value),
    y: rows.map(y.value),
    error_x: whisker(x, rows, k),
    error_y: whisker(y, rows, k),
    text: rows.map((r) => (named.has(r) ? plain(r.name.split("/").at(-1).slice(0, 30)) : "")),
    textposition: rows.map((r) => named.get(r)?.[2] ?? "top center"),
    textfont: { size: 11 },
    hovertext: rows.map(about),
    hoverinfo: "text",
    marker: {
      size: points.length > 300 ? 6 : 9,
      opacity: points.length > 300 ? 0.75 : 1,
      color: colour(`--k${k}`),
      line: { width: 1, color: colour("--card") },
    },
  }));
  if (state.front !== "off" && best.length > 1) {
    traces.unshift({
      type: "scatter",
      mode: "lines",
      name: "Pareto front",
      x: best.map(x.value),
      y: best.map(y.value),
      line: { color: colour("--soft"), width: 1.5, dash: "dot", shape: "linear" },
      hoverinfo: "skip",
    });
  }
  const axis = (field) => ({
    title: { text: plain(field.label) + (field.log ? " (log scale)" : "") },
    type: field.log ? "log" : "linear",
  });
  draw(
    element,
    traces,
    {
      xaxis: axis(x),
      yaxis: axis(y),
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
      hovermode: "closest",
    },
    (point) => point.customdata !== undefined && go({ row: board.rows[point.customdata].name, view: "table" }),
  );
}
