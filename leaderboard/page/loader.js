"use strict";
// Loads what lies beside the page. The policy lets this script run, and what it loads; nothing else.
window.backbench = {
  about: JSON.parse(document.querySelector("#about").textContent),
  load(path) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = path;
      script.async = false;
      script.onload = () => resolve(window.backbench.given);
      script.onerror = () => reject(new Error(`${path} is missing: the page needs the whole of its folder`));
      document.head.append(script);
    });
  },
  // What the files of data call.
  board(data) {
    this.given = data;
  },
  row(results) {
    this.given = results;
  },
};
Promise.all(["tabulator.min.js", "app.js"].map(window.backbench.load)).catch((error) => {
  document.querySelector("#main").textContent = error.message;
});
