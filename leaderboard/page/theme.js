// Light and dark: as the system has it, until somebody chooses.

function theme() {
  return (
    document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")
  );
}
function setTheme(name) {
  if (name) document.documentElement.dataset.theme = name;
  $("#theme").textContent = theme() === "dark" ? "light colours" : "dark colours";
}
function kept(value) {
  try {
    // a browser may forbid pages from disk to keep anything
    if (value) localStorage.setItem("backbench-theme", value);
    return localStorage.getItem("backbench-theme");
  } catch {
    return null;
  }
}

$("#theme").addEventListener("click", () => {
  const next = theme() === "dark" ? "light" : "dark";
  kept(next);
  setTheme(next);
  render();
});
