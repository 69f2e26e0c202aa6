// What htmx does not do by itself: open and close the dialog, and say whether the page is live.
"use strict";

const dialog = document.getElementById("dialog");
const link = document.getElementById("link");
let opener = null;

document.body.addEventListener("htmx:afterSwap", (event) => {
  if (event.target.id !== "ask") return;
  if (!dialog.open) {
    opener = document.activeElement && document.activeElement.id;
    dialog.showModal();
  }
  const first = dialog.querySelector("[autofocus]");
  if (first) first.focus();
});

document.body.addEventListener("click", (event) => {
  const closes = event.target.closest("dialog [data-close]");
  if (!closes) return;
  event.preventDefault();
  dialog.close();
});

dialog.addEventListener("close", () => {
  document.getElementById("ask").replaceChildren();
  const back = opener && document.getElementById(opener);
  if (back) back.focus();
});

// A button that a link pretends to be is pressed by the space bar too.
document.body.addEventListener("keydown", (event) => {
  if (event.key !== " " || !event.target.matches("a.button")) return;
  event.preventDefault();
  event.target.click();
});

// What a person opened stays open while the page changes around it.
document.body.addEventListener("htmx:load", () => {
  if (!window.Idiomorph) return;
  Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) => !(name === "open" && node.tagName === "DETAILS");
});

document.body.addEventListener("htmx:sseOpen", () => {
  link.textContent = "live";
  link.className = "";
});
document.body.addEventListener("htmx:sseError", () => {
  link.textContent = "not live: the page cannot reach labctl";
  link.className = "bad";
});
