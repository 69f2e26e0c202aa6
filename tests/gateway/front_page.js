// Runs the script of the gateway's page on a document that is as small as can be, and prints what it shows.
// node front_page.js PAGE ANSWERS: each answer is {status, body}; the page asks until none is left.
"use strict";
const fs = require("fs");
const [page, answers] = [fs.readFileSync(process.argv[2], "utf8"), JSON.parse(process.argv[3])];

class Element {
  constructor(tag) { Object.assign(this, { tag, children: [], textContent: "", hidden: false, className: "", on: {} }); }
  append(...children) { this.children.push(...children); }
  replaceChildren(...children) { this.children = children; }
  addEventListener(name, what) { this.on[name] = what; }
  get text() { return [this.textContent, ...this.children.map((child) => child.text)].filter(Boolean).join("|"); }
}
const elements = {};
for (const [, id, hidden] of page.matchAll(/ id="([^"]+)"( hidden)?/g)) {
  elements[id] = Object.assign(new Element(id), { hidden: Boolean(hidden) });
}
elements.key && (elements.key.value = " sk-typed ");
const asked = [];
globalThis.document = Object.assign(new Element("document"), {
  visibilityState: "visible",
  getElementById: (id) => elements[id],
  createElement: (tag) => new Element(tag),
});
globalThis.sessionStorage = { kept: {}, getItem: (k) => sessionStorage.kept[k], setItem: (k, v) => { sessionStorage.kept[k] = v; } };
let soon = [];
globalThis.setTimeout = (what) => { soon.push(what); return soon.length; };
globalThis.clearTimeout = () => { soon = []; };
globalThis.fetch = async (path, { headers }) => {
  asked.push({ path, headers });
  const answer = answers.shift();
  if (!answer) throw new Error("gone");
  return { ok: answer.status === 200, status: answer.status, json: async () => answer.body };
};

(async () => {
  new Function(page.match(/<script>([^]*)<\/script>/)[1])();
  const turn = () => new Promise((done) => setImmediate(done));
  const shown = [];
  for (let round = 0; round < 3; round++) {
    for (let at = 0; at < 5; at++) await turn();
    shown.push({
      asked: asked.splice(0),
      visible: Object.entries(elements).filter(([, one]) => !one.hidden).map(([id]) => id),
      text: Object.fromEntries(Object.entries(elements).map(([id, one]) => [id, one.text])),
      title: document.title,
    });
    if (!elements.ask.hidden && shown.length === 1) elements.ask.on.submit({ preventDefault() {} });
    else soon.splice(0).forEach((what) => what());
  }
  console.log(JSON.stringify(shown));
})();
