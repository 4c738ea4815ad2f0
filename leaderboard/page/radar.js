// The z-scores of one to four backbones around a circle.

const LEAST = 3; // corners that a radar needs

/** The corners of a radar: families, or columns where there are too few families. */
function cornersOf(board) {
  const families = board.families.filter((f) => board.z[f]);
  if (families.length >= LEAST) return families.map((f) => [f, (row) => board.z[f][row.i]]);
  return board.columns.filter((c) => c.ranked && c.z).map((c) => [c.key, (row) => c.z[row.i]]);
}

const radarTitle = (board) => `By ${board.families.length >= LEAST ? "family" : "column"}, in z-scores`;

function drawRadar(board, rows) {
  const element = $("#radar");
  const corners = cornersOf(board);
  const drawn = rows.filter((row) => corners.every(([, z]) => z(row) !== null));
  if (!element) return;
  if (!drawn.length) return element.replaceChildren(h("p.quiet", {}, "A radar needs a score in every ranked column."));
  const around = (values) => [...values, values[0]];
  const theta = around(corners.map(([name]) => plain(name)));
  const all = drawn.flatMap((row) => corners.map(([, z]) => z(row)));
  const low = Math.min(-1, Math.floor(Math.min(...all) * 2) / 2);
  const high = Math.max(1, Math.ceil(Math.max(...all) * 2) / 2);
  element.setAttribute("role", "img");
  element.setAttribute(
    "aria-label",
    drawn.map((row) => `${row.name}: ${corners.map(([name, z]) => `${name} ${signed(z(row))}`).join(", ")}`).join("; "),
  );
  draw(
    element,
    [
      {
        type: "scatterpolar",
        mode: "lines",
        name: "mean of the ranked",
        r: theta.map(() => 0),
        theta,
        line: { color: colour("--soft"), dash: "dot", width: 1 },
        hoverinfo: "skip",
      },
      ...drawn.map((row, k) => ({
        type: "scatterpolar",
        mode: "lines+markers",
        name: plain(row.name),
        r: around(corners.map(([, z]) => z(row))),
        theta,
        fill: "toself",
        opacity: 0.9,
        line: { color: colour(`--k${k}`), width: 2 },
        fillcolor: colour(`--k${k}`, 0.13),
        hoverinfo: "r+theta+name",
      })),
    ],
    {
      height: 380,
      margin: narrow.matches ? { l: 84, r: 84, t: 40, b: 40 } : { l: 70, r: 70, t: 40, b: 40 },
      showlegend: drawn.length > 1,
      legend: { orientation: "h", y: -0.12 },
      polar: {
        bgcolor: "rgba(0,0,0,0)",
        radialaxis: {
          range: [low, high],
          gridcolor: colour("--line"),
          linecolor: colour("--line"),
          angle: 90,
          tickfont: { size: 10, color: colour("--soft") },
        },
        angularaxis: {
          gridcolor: colour("--line"),
          linecolor: colour("--line"),
          tickfont: { size: narrow.matches ? 11 : 13 },
        },
      },
    },
  );
}
