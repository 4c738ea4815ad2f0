// All that a person chose is in the address, after the #: a link shows another person the same.

const LISTS = ["family", "method", "data", "license", "trust", "model", "compare"];
const FIRST = {
  board: "",
  view: "table",
  row: "",
  q: "",
  sort: "",
  cols: "",
  size: "",
  x: "",
  y: "",
  color: "family",
  front: "",
};
const state = {};

/** Takes over what the address says. */
function readAddress() {
  const said = new URLSearchParams(location.hash.slice(1));
  for (const key in FIRST) state[key] = said.get(key) ?? FIRST[key];
  for (const key of LISTS) state[key] = [...new Set(said.getAll(key))];
  state.compare = state.compare.slice(0, 4);
}

/** The address of the present state with `changes`. */
function address(changes = {}) {
  const next = { ...state, ...changes };
  const said = new URLSearchParams();
  for (const key in FIRST) if (next[key] !== FIRST[key]) said.set(key, next[key]);
  for (const key of LISTS) for (const value of next[key]) said.append(key, value);
  return "#" + said.toString().replaceAll("%2F", "/").replaceAll("%40", "@").replaceAll("+", "%20");
}

/** Goes there; `small` changes, such as letters typed, leave no step to go back to. */
function go(changes, small = false) {
  history[small ? "replaceState" : "pushState"](null, "", address(changes));
  return render();
}

const toggled = (list, value) => (list.includes(value) ? list.filter((v) => v !== value) : [...list, value]);
