// Pictures, drawn by Plotly: scatter, heat map, correlations, radar. Each says in words what it shows.

const canvas = h("canvas", { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });

/** A colour of the style sheet as rgba: Plotly knows neither variables nor light-dark nor color-mix. */
function colour(css, alpha = 1) {
  const probe = h("i");
  probe.style.color = css.startsWith("--") ? `var(${css})` : css;
  document.body.append(probe);
  canvas.fillStyle = getComputedStyle(probe).color;
  probe.remove();
  canvas.fillRect(0, 0, 1, 1);
  return `rgba(${[...canvas.getImageData(0, 0, 1, 1).data.slice(0, 3)].join(",")},${alpha})`;
}
const PALETTE = 8;
/** Plotly reads tags in texts: a name must not have any. */
const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

async function draw(element, traces, layout, onClick) {
  const Plotly = await plotly();
  if (!element.isConnected) return;
  const ink = colour("--ink"),
    line = colour("--line");
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, tickcolor: line, automargin: true };
  await Plotly.newPlot(
    element,
    traces,
    {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 60, r: 20, t: 20, b: 50 },
      font: { family: "system-ui, sans-serif", size: 13, color: ink },
      hoverlabel: { align: "left" },
      ...layout,
      xaxis: { ...axis, ...layout.xaxis },
      yaxis: { ...axis, ...layout.yaxis },
    },
    { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] },
  );
  if (onClick) element.on("plotly_click", (event) => onClick(event.points[0]));
}

/** The colours of z-scores, as the table has them. */
const diverging = () =>
  [
    ["--down", 80],
    ["--down", 38],
    ["--down", 0],
    ["--up", 38],
    ["--up", 80],
  ].map(([name, share], i) => [i / 4, colour(`color-mix(in oklab, var(${name}) ${share}%, var(--card))`)]);

/** A choice among fields, or words, kept in the address. */
function chooser(text, key, options, now) {
  const select = h(
    "select",
    { id: `plot-${key}` },
    options.map(([value, label]) => h("option", { value, selected: value === now }, label)),
  );
  select.addEventListener("change", () => go({ [key]: select.value }));
  return h("label.search", {}, h("span", {}, text), select);
}
