// The page of one backbone: where it stands, all its scores, what they cost, and how to run them again.

function backbonePage(board, row) {
  const picked = state.compare.includes(row.name);
  const facts = [row.family, row.method, row.data, row.license].filter(Boolean).join(" · ");
  const runs = h("div.runs", {}, h("p.quiet", {}, "opening the records …"));
  if (board.published)
    runs.replaceChildren(h("p", {}, "These figures are copied from a published table, so there is no run to repeat."));
  else
    openRecords(row).then(
      (results) => runs.replaceChildren(...recordParts(board, row, results)),
      (error) => runs.replaceChildren(h("p", {}, error.message)),
    );
  const more = board.published ? [cardPart(row.card)] : [];
  const radar = h("div.plot.radar", { id: "radar" });
  const corners = cornersOf(board);
  return h(
    "article.backbone",
    {},
    h("p.back", {}, h("a", { href: address({ row: "" }) }, "← back to the board")),
    h("h2", { id: "backbone", tabindex: "-1" }, breakable(row.name)),
    h(
      "p.summary",
      {},
      facts,
      facts && " · ",
      count(row.parameters),
      " parameters",
      row.macs ? ` · ${count(row.macs)} MACs` : null,
      " · ",
      trustMark(row.trust),
    ),
    h(
      "p.actions",
      {},
      h(
        "button.quiet",
        { type: "button", id: "pick", "aria-pressed": String(picked), onclick: () => pick(row.name) },
        picked ? "in the comparison ✓" : "add to comparison",
      ),
      row.model &&
        board.rows.some((other) => other !== row && other.model === row.model) &&
        h("a.quiet.button", { href: address({ row: "", model: [row.model] }) }, "same architecture"),
      row.data && h("a.quiet.button", { href: address({ row: "", data: [row.data] }) }, "same pretraining data"),
    ),
    standingPart(board, row),
    h(
      "div.split",
      {},
      corners.length >= LEAST &&
        h("section", { "aria-labelledby": "h-radar" }, h("h3", { id: "h-radar" }, radarTitle(board)), radar),
      h("section", { "aria-labelledby": "h-scores" }, h("h3", { id: "h-scores" }, "Scores"), scoresPart(board, row)),
    ),
    ...more,
    h("section", { "aria-label": "Runs" }, runs),
  );
}

function standingPart(board, row) {
  if (!row.ranked)
    return h(
      "p.notice",
      {},
      board.families.length ? `Not ranked: no ${row.missing.join(", ")}.` : "Nothing on this board is ranked.",
      twinsPart(board, row),
    );
  const sure = row.rank_low !== null;
  const tied = tiedWith(board, row);
  const fact = (label, value, note) =>
    h("div.fact", {}, h("dt", {}, label), h("dd", {}, value, note && h("small", {}, note)));
  return [
    h(
      "dl.standing",
      {},
      fact("rank", `${row.rank} of ${board.ranked.length}`, sure && `95 %: ${row.rank_low} to ${row.rank_high}`),
      fact("overall z", signed(row.overall), sure && `95 %: ${signed(row.overall_low)} to ${signed(row.overall_high)}`),
      row.borda !== null && fact("Borda count", number(row.borda, "%")),
      row.mean_rank !== null && fact("mean rank", number(row.mean_rank, "")),
      row.win_rate !== null && fact("win rate", `${(100 * row.win_rate).toFixed(0)} %`),
    ),
    h(
      "p",
      {},
      tied.length
        ? [
            "Cannot be told apart from ",
            listed(tied.slice(0, 6).map((r) => rowLink(r))),
            tied.length > 6 && ` and ${tied.length - 6} more`,
            ". ",
          ]
        : sure
          ? "Told apart from every other ranked backbone. "
          : "Its scores came without intervals, so ties cannot be known. ",
      twinsPart(board, row),
    ),
  ];
}

const rowLink = (row) => h("a", { href: address({ row: row.name, view: "table" }) }, row.name);
const listed = (parts) => parts.flatMap((part, i) => (i ? [", ", part] : [part]));
const twinsPart = (board, row) =>
  row.twins.length
    ? h("span.twins", {}, "The same weights as ", listed(row.twins.map((i) => rowLink(board.rows[i]))), ".")
    : null;

function scoresPart(board, row) {
  const own = board.columns.filter((c) => (c.value?.[row.i] ?? null) !== null);
  return h(
    "div.scroll",
    { role: "region", "aria-labelledby": "h-scores", tabindex: "0" },
    h(
      "table.plain",
      {},
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          ["task", "score", "95 % interval", "z", "place", "trust"].map((t, i) =>
            h("th", { scope: "col", class: i && i < 5 ? "right" : null }, t),
          ),
        ),
      ),
      h(
        "tbody",
        {},
        own.map((c) => {
          const [value, low, high, z] = [
            c.value[row.i],
            c.low?.[row.i] ?? null,
            c.high?.[row.i] ?? null,
            c.z?.[row.i] ?? null,
          ];
          const others = c.value.filter((v) => v !== null);
          const place = 1 + others.filter((v) => (c.higher ? v > value : v < value)).length;
          return h(
            "tr",
            {},
            h(
              "th",
              { scope: "row", title: aboutColumn(c) },
              c.key,
              h("small", {}, ` ${c.metric}, ${c.unit}${c.higher ? "" : " ↓"}${c.ranked ? "" : " *"}`),
            ),
            h("td.right.barred", {}, h("span.n", {}, number(value, c.unit)), bar(value, low, high, c.ends)),
            h("td.right", {}, low === null ? "not known" : `${number(low, c.unit)} to ${number(high, c.unit)}`),
            h("td.right", {}, signed(z)),
            h("td.right", {}, `${place} of ${others.length}`),
            h("td", {}, trustMark(c.trustOf(row.i))),
          );
        }),
      ),
    ),
  );
}

function recordParts(board, row, results) {
  const runs = board.columns.flatMap((c) =>
    (c.value?.[row.i] ?? null) === null ? [] : c.runsOf(row.i).map((at) => [c, results[at]]),
  );
  if (!runs.length) return [h("p", {}, "There are no records of these scores.")];
  const newest = runs.map(([, r]) => r).reduce((a, b) => (a.created > b.created ? a : b));
  const spent = runs.reduce((sum, [, r]) => sum + r.cost.seconds, 0);
  const pushed = runs.reduce((sum, [, r]) => sum + r.cost.images, 0);
  const peak = Math.max(...runs.map(([, r]) => r.cost.peak_memory_mb));
  const devices = [...new Set(runs.map(([, r]) => r.cost.device))];
  return [
    h("h3", { id: "h-runs" }, "Every run"),
    h(
      "p.quiet",
      {},
      `${many(runs.length, "run")}: ${duration(spent)} on ${devices.join(", ")}, ${grouped(pushed)} images through the network, peak memory ${grouped(Math.round(peak))} MB. `,
      "Copy a line to run a score again on your machine and hear whether it comes out the same.",
    ),
    h(
      "div.scroll",
      { role: "region", "aria-labelledby": "h-runs", tabindex: "0" },
      h(
        "table.plain.every",
        {},
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            ["task", "scores, with 95 % intervals", "run it again", "cost", "seed", "data", "trust"].map((t) =>
              h("th", { scope: "col" }, t),
            ),
          ),
        ),
        h(
          "tbody",
          {},
          runs.map(([c, r]) =>
            h(
              "tr",
              {},
              h("th", { scope: "row" }, c.key),
              h(
                "td",
                {},
                Object.entries(r.scores).map(([name, s]) =>
                  h(
                    name === r.task.headline ? "div.headline" : "div",
                    {},
                    `${name} `,
                    h("b", {}, number(s.value, s.unit)),
                    ` ${s.unit}`,
                    s.low === undefined || s.low === null
                      ? null
                      : h("small", {}, ` ${number(s.low, s.unit)} to ${number(s.high, s.unit)}`),
                  ),
                ),
              ),
              h("td", {}, command(rerunCommand(r.id))),
              h(
                "td",
                {
                  title: `${r.cost.images} images through the network, peak memory ${Math.round(r.cost.peak_memory_mb)} MB`,
                },
                `${duration(r.cost.seconds)} on ${r.cost.device}`,
              ),
              h("td.right", {}, r.seed),
              h(
                "td",
                {
                  title: Object.entries(r.dataset.fingerprints)
                    .map(([split, mark]) => `${split}: ${r.dataset.sizes[split] ?? "?"} examples, ${mark}`)
                    .join("\n"),
                },
                r.dataset.name,
                r.dataset.limit ? `, at most ${r.dataset.limit} a split` : null,
              ),
              h("td", {}, trustMark(r.trust)),
            ),
          ),
        ),
      ),
    ),
    h("div.facts", {}, cardPart(newest.backbone.card), provenancePart(board, row, newest)),
  ];
}

function pairs(title, list) {
  return h(
    "section",
    {},
    h("h3", {}, title),
    h(
      "dl.pairs",
      {},
      list.flatMap(([key, value]) => [h("dt", {}, key), h("dd", {}, value)]),
    ),
  );
}

const cardPart = (card) =>
  pairs(
    "Card",
    flat(card).map(([key, text]) => [key, maybeLink(text)]),
  );

function provenancePart(board, row, newest) {
  const b = newest.backbone;
  const digest = (text) => h("code", { title: text }, `sha256 ${text.slice(0, 16)}…`);
  return pairs("Provenance", [
    ["trust", [trustMark(row.trust), ` ${TRUST[row.trust]?.[2] ?? ""}`]],
    ["weights", [digest(b.weights_digest), twinsPart(board, row) && h("br"), twinsPart(board, row)]],
    ["card", digest(b.card_digest)],
    ["embedding", `${b.embed_dim} dimensions`],
    ...flat(b.transform).map(([key, text]) => [`transform ${key}`, text]),
    ...flat(b.loading ?? {}),
    ["backbench", newest.code_version],
    ...flat(newest.environment),
    ["newest run", newest.created],
  ]);
}

/** The line that fetches a record from this page and runs it again. */
function rerunCommand(id) {
  const folder = new URL(".", location.href);
  const where =
    folder.protocol === "file:"
      ? decodeURIComponent(folder.pathname).replace(/^\/([A-Za-z]:)/, "$1")
      : folder.href.replace(/\/board\/\d+\/$/, "/"); // a server has the newest at its root
  const quoted = /^[\w./:~@%+-]+$/.test(where) ? where : `'${where.replaceAll("'", "'\\''")}'`;
  return `backbench rerun ${id} --from ${quoted}`;
}
