// What stands above and below a board: its name and leaders, the legend, how the numbers are made.

function headOf(board) {
  const parts = [
    many(board.rows.length, "backbone"),
    many(board.columns.length, "column"),
    many(board.results, board.published ? "figure" : "run"),
  ];
  return [
    h("h1", {}, board.title || "all runs", " ", h("span", {}, "leaderboard")),
    h(
      "p.summary",
      {},
      parts.join(" · "),
      board.newest && [" · newest ", h("time", { datetime: board.newest, title: board.newest }, day(board.newest))],
    ),
    board.published &&
      h(
        "p.notice",
        {},
        h("b", {}, "Published figures. "),
        "Copied from ",
        board.source?.title ?? board.title,
        board.source?.url ? [", ", maybeLink(board.source.url)] : null,
        ", not run here; ",
        board.source?.license ? ["licence ", board.source.license, ". "] : "licence not said. ",
        "They are ranked among themselves and never beside runs",
        board.sure ? "." : "; the table gives no intervals, so ties are not known.",
      ),
    leaders(board),
  ].filter(Boolean);
}

/** Who is best overall (and tied with whom), then in each family. */
function leaders(board) {
  if (!board.ranked.length) return null;
  const card = (what, row, z, note) =>
    h(
      `li.f-${what.replace(/[^a-z0-9-]/gi, "")}`,
      {},
      h("span.what", {}, what === "overall" ? "Best overall" : what),
      h("a", { href: address({ row: row.name, view: "table" }) }, breakable(row.name)),
      h("span.z", {}, `z ${signed(z)}`, note),
    );
  const first = board.ranked[0];
  const tied = tiedWith(board, first);
  const note = tied.length
    ? ` · tied with ${tied[0].name}${tied.length > 1 ? ` and ${tied.length - 1} more` : ""}`
    : "";
  const families = board.families.length > 1 ? board.families : [];
  return h(
    "ul.leaders",
    {},
    card("overall", first, first.overall, note),
    families.map((family) => {
      const best = board.ranked.reduce((a, b) => (board.z[family][b.i] > board.z[family][a.i] ? b : a));
      return card(family, best, board.z[family][best.i], "");
    }),
  );
}

function legend(board) {
  const sample = bar(62, board.sure ? 50 : null, 74, [0, 100]);
  return h(
    "p.legend",
    {},
    h("span.key", {}, sample, board.sure ? " score with its 95 % interval" : " score"),
    h("span.key", {}, h("i.scale", { "aria-hidden": "true" }), " z-score: below, at, above the mean"),
    board.letters.length > 0 &&
      h("span.key", {}, h("span.lane.lane0", { "aria-hidden": "true" }, "a"), " rows that cannot be told apart"),
    board.columns.some((c) => !c.ranked) && h("span.key", {}, "* shown, not ranked"),
    ...Object.entries(TRUST)
      .filter(([key]) => board.trust.words.includes(key))
      .map(([key, [, , meaning]]) => h("span.key", {}, trustMark(key), ` ${meaning}`)),
  );
}

function notes(board) {
  const point = (title, ...text) => h("li", {}, h("b", {}, title), " ", ...text);
  const reasons = Object.entries(board.left_out).map(([reason, n]) => `${many(n, "result")} (${reason})`);
  return h(
    "section.notes",
    { "aria-labelledby": "h-notes" },
    h("h2", { id: "h-notes" }, "How these numbers are made"),
    h(
      "ul",
      {},
      board.published
        ? point("Figures", "are as published; how they were measured is for their source to say.")
        : point(
            "Scores",
            "are measured on test examples that nothing was chosen on. Whiskers are 95 % intervals: a bootstrap over test examples; where a task ran with several seeds, the mean over seeds, with the spread between seeds added in squares.",
          ),
      point(
        "Overall",
        "is the mean z-score per task family, then over families, as in Battle of the Backbones (Goldblum et al. 2023). A z-score counts standard deviations from the mean of the ranked backbones, so it says who is ahead here and nothing about another table. Scores where lower is better are turned round first.",
      ),
      point(
        "Who is ranked:",
        "backbones with every ranked column filled. Others stand below, with what they lack. Columns marked * ask for something that not all backbones have; they are shown and do not rank. Filters hide rows and change no rank.",
      ),
      board.sure
        ? point(
            "Ties:",
            `every score is drawn again ${backbench.about.draws} times from its interval, and the table ranked anew each time. Small numbers beside a rank are its 95 % interval; rows joined by a bar, or counted after ≈, are those whose overall scores cannot be told apart at 95 %. `,
            h("code", {}, "backbench compare A B"),
            " pairs the examples and sees finer differences.",
          )
        : point("Ties", "are not known: without intervals nobody can say which ranks would come out the same again."),
      reasons.length > 0 && point("Left out", `as not comparable: ${reasons.join(", ")}.`),
    ),
  );
}
