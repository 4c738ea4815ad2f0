// Elements. Whatever a stranger wrote becomes text here, never markup.

const $ = (selector, root = document) => root.querySelector(selector);

/** An element, as in h("td.score", { title: "…" }, "text", child): `on…` listens, `--…` sets a style's variable. */
function h(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key.startsWith("--")) element.style.setProperty(key, value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(
    ...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false && child !== ""),
  );
  return element;
}

/** A name that a narrow place may break after `/`, `_` and `.`. */
const breakable = (name) => name.split(/(?<=[/_.])/).flatMap((part, i) => (i ? [h("wbr"), part] : [part]));

/** A text that is a link where it is an https address, and nothing but text elsewhere. */
function maybeLink(text) {
  if (!/^https:\/\/[^\s]+$/.test(text) || !URL.canParse(text)) return text;
  return h("a", { href: text, rel: "noopener noreferrer", target: "_blank" }, text);
}

/** A command with a button that copies it; where the browser has no clipboard it is selected for copying by hand. */
function command(text) {
  const code = h("code", {}, text);
  const button = h("button.quiet", { type: "button", "aria-label": `copy: ${text}` }, "copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "copied";
      setTimeout(() => (button.textContent = "copy"), 1500);
    } catch {
      getSelection().selectAllChildren(code);
    }
  });
  return h("span.command", {}, code, button);
}

const say = (text) => ($("#said").textContent = text);
