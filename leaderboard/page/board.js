"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const table = document.querySelector("#ranking");

// Sorting: a button in each heading; rows without a value stay last, incomplete rows stay in their own section.
function sortBy(heading) {
  const column = [...heading.parentElement.children].indexOf(heading);
  const turn = heading.ariaSort === "descending" ? "ascending" : heading.ariaSort === "ascending" ? "descending" : heading.dataset.first;
  for (const other of all("thead th[aria-sort]", table)) other.ariaSort = "none";
  heading.ariaSort = turn;
  const sign = turn === "ascending" ? 1 : -1;
  for (const body of table.tBodies) {
    const value = (row) => row.children[column].dataset.value;
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      return sign * (heading.dataset.kind === "text" ? x.localeCompare(y) : x - y);
    };
    body.append(...all("tr.backbone", body).sort(compare));
  }
}
for (const button of all("thead th[aria-sort] button", table)) {
  button.addEventListener("click", () => sortBy(button.closest("th")));
}

// The filter looks at name, family and pretraining; rows keep the rank they have among all.
const filter = document.querySelector("#filter");
filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of all("tr.backbone", table)) {
    row.hidden = !words.every((word) => row.dataset.text.includes(word));
    shown += !row.hidden;
  }
  for (const part of all("#details > details")) part.hidden = !words.every((word) => part.dataset.text.includes(word));
  document.querySelector("#shown").textContent = words.length ? `${shown} of ${all("tr.backbone", table).length} backbones` : "";
});

// Family chips: one family's columns, or all of them.
for (const chip of all("button[data-family]")) {
  chip.addEventListener("click", () => {
    for (const other of all("button[data-family]")) other.ariaPressed = String(other === chip);
    for (const cell of all("[data-of]", table)) {
      cell.hidden = chip.dataset.family !== "" && cell.dataset.of !== chip.dataset.family;
    }
  });
}

// One plot at a time.
const plot = document.querySelector("#plot");
plot?.addEventListener("change", () => {
  for (const figure of all("svg[data-plot]")) figure.toggleAttribute("hidden", figure.dataset.plot !== plot.value);
});

// A link to a backbone opens its details.
function reveal() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
}
window.addEventListener("hashchange", reveal);
reveal();

// Copy buttons: the clipboard where the browser gives it, otherwise the command is selected for copying by hand.
for (const button of all("button[data-copy]")) {
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "copied";
      setTimeout(() => (button.textContent = "copy"), 1500);
    } catch {
      getSelection().selectAllChildren(button.previousElementSibling);
    }
  });
}

// The same data for programs.
document.querySelector("#download").addEventListener("click", () => {
  const text = JSON.stringify(JSON.parse(document.querySelector("#data").textContent), null, 2);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = "leaderboard.json";
  link.click();
  URL.revokeObjectURL(link.href);
});
