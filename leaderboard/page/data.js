// The boards, opened when they are looked at, and the results of a backbone, loaded when its page is opened.

const opened = new Map();
const records = new Map();
let drawing = null;

/** The board that the address names, else the first one; null where there is none. */
async function openBoard(key) {
  const boards = backbench.about.boards;
  if (!boards.length) return null;
  const n = Math.max(
    0,
    boards.findIndex((b) => b.key === key),
  );
  if (!opened.has(n))
    opened.set(
      n,
      backbench.load(`boards/${n}.js`).then((data) => asBoard(data, n)),
    );
  return opened.get(n);
}

/** Every result of a row's backbone. */
function openRecords(row) {
  if (row.record === null) return Promise.resolve([]);
  if (!records.has(row.record)) records.set(row.record, backbench.load(`rows/${row.record}.js`));
  return records.get(row.record);
}

/** Plotly, which is large, once a picture is asked for. */
const plotly = () => (drawing ??= backbench.load("plotly.min.js").then(() => window.Plotly));

/** The columns as they came, with rows, and fields to show, sort and draw by. */
function asBoard(data, n) {
  const word = (coded, i) => coded.words[Array.isArray(coded.at) ? coded.at[i] : coded.at] ?? null;
  const of = (values, i) => (values ? values[i] : null);
  const groups = data.letters.map(() => [Infinity, -1]);
  data.ties.forEach((tie, i) => {
    for (let g = tie?.[0] ?? 0; g <= (tie?.[1] ?? -1); g++)
      groups[g] = [Math.min(groups[g][0], i), Math.max(groups[g][1], i)];
  });
  const rows = data.name.map((name, i) => {
    const facts = Object.fromEntries(Object.entries(data.facts).map(([key, coded]) => [key, word(coded, i)]));
    const standing = Object.fromEntries(Object.entries(data.standing).map(([key, values]) => [key, of(values, i)]));
    return {
      i,
      name,
      ...facts,
      ...standing,
      parameters: data.parameters[i],
      macs: data.macs[i],
      trust: word(data.trust, i),
      loading: data.loading[i] ?? {},
      twins: data.twins[i] ?? [],
      tie: data.ties[i],
      record: data.record[i],
      card: data.card?.[i] ?? null,
      ranked: standing.rank !== null,
      missing: data.columns.filter((c) => c.ranked && (c.value?.[i] ?? null) === null).map((c) => c.key),
    };
  });
  for (const row of rows)
    row.text = [row.name, row.family, row.method, row.data, row.license, row.source, ...Object.values(row.loading)]
      .join(" ")
      .toLowerCase();
  const columns = data.columns.map((c) => ({
    ...c,
    trustOf: (i) => word(c.trust, i),
    runsOf: (i) => (Array.isArray(c.runs[0]) ? c.runs[i] : c.runs),
  }));
  const board = {
    ...data,
    n,
    rows,
    columns,
    groups,
    key: backbench.about.boards[n].key,
    byName: new Map(rows.map((r) => [r.name, r])),
  };
  board.ranked = rows.filter((row) => row.ranked);
  board.sure = data.standing.rank_low !== null;
  board.fields = fieldsOf(board);
  board.field = new Map(board.fields.map((f) => [f.key, f]));
  return board;
}

/** What a row has to sort and draw by: key, label, value of a row, and which end of it is the better one. */
function fieldsOf(board) {
  const standing = (key, label, better) => ({
    key,
    label,
    better,
    value: (r) => r[key],
    text: (v) => signed(v),
    unit: "z",
  });
  const fields = [
    { ...standing("rank", "rank", "low"), text: String },
    { ...standing("name", "backbone", null), text: String, words: true },
    { ...standing("overall", "overall z", "high"), low: (r) => r.overall_low, high: (r) => r.overall_high },
  ];
  for (const family of board.families) {
    fields.push({
      key: `z.${family}`,
      label: `${family}, mean z`,
      better: "high",
      value: (r) => board.z[family]?.[r.i] ?? null,
      text: signed,
      unit: "z",
    });
  }
  for (const c of board.columns) {
    fields.push({
      key: `score.${c.key}`,
      label: `${c.key}: ${c.metric} (${c.unit}${c.higher ? "" : ", lower is better"})`,
      column: c,
      better: c.higher ? "high" : "low",
      unit: c.unit,
      text: (v) => number(v, c.unit),
      value: (r) => c.value?.[r.i] ?? null,
      low: (r) => c.low?.[r.i] ?? null,
      high: (r) => c.high?.[r.i] ?? null,
    });
  }
  fields.push({
    key: "parameters",
    label: "parameters",
    better: "low",
    value: (r) => r.parameters,
    text: count,
    log: true,
  });
  fields.push({
    key: "macs",
    label: "multiply-accumulates of an image",
    better: "low",
    value: (r) => r.macs,
    text: count,
    log: true,
  });
  fields.push({ ...standing("borda", "Borda count", "high"), text: (v) => number(v, "%") });
  fields.push({ ...standing("mean_rank", "mean rank", "low"), text: (v) => number(v, "") });
  fields.push({ ...standing("win_rate", "win rate", "high"), text: (v) => number(v, "") });
  return fields.filter((f) => board.rows.some((r) => f.value(r) !== null));
}

/** The ranked rows that share a tie group with a row, itself left out. */
function tiedWith(board, row) {
  if (!row.tie) return [];
  const [first, last] = [board.groups[row.tie[0]][0], board.groups[row.tie[1]][1]];
  return board.rows.slice(first, last + 1).filter((other) => other !== row);
}
