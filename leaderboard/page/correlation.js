// How far columns agree on the order of backbones: Spearman's rank correlation of every pair.

/** Ranks from 1; equal values share the mean of theirs. */
function ranksOf(values) {
  const order = values.map((v, i) => [v, i]).sort((a, b) => a[0] - b[0]);
  const ranks = new Array(values.length);
  for (let i = 0; i < order.length;) {
    let end = i;
    while (end < order.length && order[end][0] === order[i][0]) end++;
    for (let k = i; k < end; k++) ranks[order[k][1]] = (i + 1 + end) / 2;
    i = end;
  }
  return ranks;
}

/** Correlation of two lists of ranks (Spearman's of what was ranked); null for fewer than four, or where one is level. */
function agreement(a, b) {
  if (a.length < 4) return null;
  const middle = (a.length + 1) / 2;
  let [ab, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    ab += (a[i] - middle) * (b[i] - middle);
    aa += (a[i] - middle) ** 2;
    bb += (b[i] - middle) ** 2;
  }
  return aa && bb ? ab / Math.sqrt(aa * bb) : null;
}

function correlationPage(board, shown) {
  const fields = [
    ...shownColumns(board)
      .map((c) => board.field.get(`score.${c.key}`))
      .filter(Boolean),
    ...["parameters", "macs"].map((k) => board.field.get(k)).filter(Boolean),
  ];
  if (fields.length < 2 || shown.length < 4)
    return h("p.empty", {}, "Correlations need two columns and four backbones.");
  const values = fields.map((f) =>
    shown.map((r) => (f.value(r) === null ? null : (f.column && f.better === "low" ? -1 : 1) * f.value(r))),
  );
  const whole = values.map((own) => (own.includes(null) ? null : ranksOf(own))); // ranked once where nothing is missing
  const z = fields.map(() => new Array(fields.length).fill(null));
  const n = fields.map(() => new Array(fields.length).fill(0));
  for (let j = 0; j < fields.length; j++) {
    for (let k = j; k < fields.length; k++) {
      const both =
        whole[j] && whole[k]
          ? null
          : shown.map((_, i) => i).filter((i) => values[j][i] !== null && values[k][i] !== null);
      const ranks = [j, k].map((f) => (both ? ranksOf(both.map((i) => values[f][i])) : whole[f]));
      [z[j][k], n[j][k]] = [z[k][j], n[k][j]] = [agreement(...ranks), ranks[0].length];
    }
  }
  const names = fields.map((f) => plain(f.column?.key ?? f.key));
  const size = Math.max(420, Math.min(120 + fields.length * 46, 1100));
  const element = h("div.plot", {
    id: "correlation",
    role: "img",
    "--height": `${size}px`,
    "aria-label": "rank correlation of every pair of columns; the strongest and weakest are listed below",
  });
  draw(
    element,
    [
      {
        type: "heatmap",
        z,
        x: names.map((_, j) => j),
        y: names.map((_, j) => j),
        colorscale: diverging(),
        zmin: -1,
        zmax: 1,
        zmid: 0,
        xgap: 2,
        ygap: 2,
        text: z.map((line) =>
          line.map((v) => (v === null || fields.length > 16 ? "" : v.toFixed(2).replace("-", "−"))),
        ),
        texttemplate: "%{text}",
        hovertext: z.map((line, j) =>
          line.map(
            (v, k) =>
              `${names[j]} and ${names[k]}<br>Spearman ${v === null ? "not known" : v.toFixed(2)} over ${n[j][k]}`,
          ),
        ),
        hoverinfo: "text",
        colorbar: { thickness: 12, outlinewidth: 0 },
      },
    ],
    {
      height: size,
      margin: { l: 60, r: 20, t: 20, b: 16 },
      xaxis: {
        tickvals: names.map((_, j) => j),
        ticktext: names,
        side: "top",
        tickangle: -50,
        showgrid: false,
        zeroline: false,
      },
      yaxis: {
        autorange: "reversed",
        tickvals: names.map((_, j) => j),
        ticktext: names,
        showgrid: false,
        zeroline: false,
      },
    },
  );
  const found = fields
    .flatMap((f, j) =>
      fields.slice(j + 1).map((g, k) => [z[j][j + 1 + k], f.column?.key ?? f.key, g.column?.key ?? g.key]),
    )
    .filter(([v]) => v !== null)
    .sort((a, b) => b[0] - a[0]);
  const sentence = ([v, a, b]) => `${a} and ${b} (${v.toFixed(2).replace("-", "−")})`;
  return h(
    "section",
    {},
    h(
      "p.quiet",
      {},
      `Spearman’s rank correlation over the ${many(shown.length, "backbone")} shown; lower-is-better scores are turned round.`,
    ),
    element,
    found.length > 1 &&
      h(
        "p",
        {},
        h("b", {}, "Agree most: "),
        sentence(found[0]),
        ". ",
        h("b", {}, "Agree least: "),
        sentence(found.at(-1)),
        ".",
      ),
  );
}
