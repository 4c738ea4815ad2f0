// The table for paper: the widget holds the rows in sight only, a printer wants them all.

/** The same rows as a plain table, whole, for paper. */
function paperTable(board, shown) {
  const fields = board.fields.filter(
    (f) =>
      !["borda", "mean_rank", "win_rate", "macs"].includes(f.key) &&
      (!f.column || shownColumns(board).includes(f.column)),
  );
  const sort = state.sort.replace(/^-/, "");
  const field = board.field.get(sort) ?? board.field.get("rank") ?? board.field.get("name");
  const down = state.sort.startsWith("-");
  const order = [...shown].sort(
    (a, b) => b.ranked - a.ranked || (down ? inOrder(field, b, a, "desc") : inOrder(field, a, b, "asc")),
  );
  const plain = (f, row) => (f.value(row) === null ? NONE : f.text(f.value(row)));
  return h(
    "table.paper",
    { "--fields": fields.length },
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        fields.map((f) =>
          h("th", { scope: "col" }, f.column ? f.column.key : ({ parameters: "params", rank: "#" }[f.key] ?? f.label)),
        ),
      ),
    ),
    h(
      "tbody",
      {},
      order.map((row) =>
        h(
          "tr",
          {},
          fields.map((f) =>
            h(
              f.key === "name" ? "th" : "td",
              { scope: f.key === "name" && "row" },
              plain(f, row),
              f.low && f.low(row) !== null && f.value(row) !== null
                ? h("small", {}, ` ${f.text(f.low(row))} to ${f.text(f.high(row))}`)
                : null,
            ),
          ),
        ),
      ),
    ),
  );
}
