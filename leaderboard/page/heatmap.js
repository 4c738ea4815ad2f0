// The z-scores of the rows that are shown, as colours.

function heatmapPage(board, shown) {
  const columns = shownColumns(board).filter((c) => c.z);
  if (!columns.length || !shown.length)
    return h("p.empty", {}, shown.length ? "No z-scores here: nothing is ranked." : NOBODY);
  const tall = Math.min(shown.length * 20 + 170, 1500);
  const readable = tall / shown.length > 10;
  const element = h("div.plot", {
    id: "heatmap",
    role: "img",
    "--height": `${tall}px`,
    "aria-label": `z-scores of ${many(shown.length, "backbone")} in ${many(columns.length, "column")}; the table has the same numbers`,
  });
  draw(
    element,
    [
      {
        type: "heatmap",
        z: shown.map((r) => columns.map((c) => c.z[r.i])),
        x: columns.map((_, j) => j),
        y: shown.map((_, i) => i),
        text: shown.map((r) =>
          columns.map(
            (c) =>
              `<b>${plain(r.name)}</b><br>${plain(c.key)}: ${number(c.value?.[r.i], c.unit)} ${plain(c.unit)}, z ${signed(c.z[r.i])}`,
          ),
        ),
        hoverinfo: "text",
        colorscale: diverging(),
        zmid: 0,
        zmin: -2.5,
        zmax: 2.5,
        xgap: 1,
        ygap: readable ? 1 : 0,
        colorbar: { title: { text: "z" }, thickness: 12, outlinewidth: 0 },
      },
    ],
    {
      height: tall,
      margin: { l: 60, r: 20, t: 20, b: 16 },
      xaxis: {
        tickvals: columns.map((_, j) => j),
        ticktext: columns.map((c) => plain(c.key)),
        side: "top",
        tickangle: columns.length > 6 || narrow.matches ? -50 : 0,
        showgrid: false,
        zeroline: false,
      },
      yaxis: {
        autorange: "reversed",
        tickvals: readable ? shown.map((_, i) => i) : [],
        ticktext: shown.map((r) =>
          plain((narrow.matches ? r.name.split("/").at(-1) : r.name).slice(0, narrow.matches ? 18 : 44)),
        ),
        showgrid: false,
        zeroline: false,
      },
    },
    (point) => go({ row: shown[point.y].name, view: "table" }),
  );
  return h(
    "section",
    {},
    h(
      "p.quiet",
      {},
      "Standard deviations from the mean of the ranked backbones, in the board's order. A cell opens its backbone.",
    ),
    element,
  );
}
