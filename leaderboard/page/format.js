// Numbers and words for people.

const NONE = "–";
const NOBODY = "No backbone is like that. Take a filter away.";

/** A score: percent with one decimal, anything else with three digits. */
function number(value, unit) {
  if (value === null || value === undefined) return NONE;
  return (unit === "%" ? value.toFixed(1) : String(Number(value.toPrecision(3)))).replace("-", "−");
}

/** A z-score with its sign, the minus as wide as the plus. */
const signed = (z) => (z === null || z === undefined ? NONE : (z < 0 ? "−" : "+") + Math.abs(z).toFixed(2));

/** A count: 950, 12 k, 1.25 M, 304 M, 1.01 G. */
function count(n) {
  if (n === null || n === undefined) return NONE;
  for (const [size, letter] of [
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ]) {
    if (n >= size * 0.9995) return `${Number((n / size).toPrecision(3))} ${letter}`;
  }
  return String(n);
}

/** Seconds: 0.4 s, 12 s, 3 min 05 s, 2 h 10 min. */
function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (n) => String(n).padStart(2, "0");
  return hours ? `${hours} h ${two(minutes)} min` : minutes ? `${minutes} min ${two(rest)} s` : `${rest} s`;
}

/** 1557 as 1,557; the browser's own way of it takes 30 ms to start. */
const grouped = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, ",");
const many = (n, word) => `${grouped(n)} ${word}${n === 1 ? "" : "s"}`;

const MONTHS = "January February March April May June July August September October November December".split(" ");
/** 2026-01-31T12:00:00+00:00 as 31 January 2026. */
const day = (iso) => `${Number(iso.slice(8, 10))} ${MONTHS[iso.slice(5, 7) - 1]} ${iso.slice(0, 4)}`;

/** Who has checked a figure: a mark, a word, and what it means. */
const TRUST = {
  reported: ["○", "unverified", "as reported by whoever ran it; nobody has checked it yet"],
  rescored: ["◐", "rescored", "its scores were computed anew from the stored predictions and came out the same"],
  reproduced: ["●", "reproduced", "it was run again by somebody else and came out the same within tolerance"],
  contested: ["✕", "contested", "it was run again and did not come out the same"],
  published: ["❝", "published", "copied from a published table; nothing was run here"],
};

function trustMark(trust) {
  const [mark, word, meaning] = TRUST[trust] ?? ["?", trust, ""];
  return h(
    `span.trust.t-${trust in TRUST ? trust : "unknown"}`,
    { title: meaning },
    h("i", { "aria-hidden": "true" }, mark),
    word,
  );
}

/** Nested JSON as [dotted key, text] pairs; what is empty is left away. */
function flat(value, path = "") {
  if (value !== null && typeof value === "object" && !Array.isArray(value)) {
    return Object.entries(value).flatMap(([key, inner]) => flat(inner, path ? `${path}.${key}` : key));
  }
  if (value === null || value === undefined || value === "" || (Array.isArray(value) && !value.length)) return [];
  const text = (v) => (v !== null && typeof v === "object" ? JSON.stringify(v) : String(v));
  return [[path, Array.isArray(value) ? value.map(text).join(", ") : text(value)]];
}
