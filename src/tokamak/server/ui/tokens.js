// How models cut a text: coloured pieces, side by side.

import { json } from "./api.js";
import { $, el, notice } from "./dom.js";

let asked = 0;
let waiting = null;

// models: of v1/models. Those in memory are asked at once; to choose another one loads it.
export function setUp(models) {
  $("token-models").hidden = models.length < 2;
  $("token-models").replaceChildren($("token-models").firstElementChild, ...models.map(({ id, meta }) =>
    el("label", { class: "check" }, el("input", { type: "checkbox", value: id, checked: meta.loaded, oninput: later }), id)));
  for (const id of ["token-text", "token-special", "token-parse", "token-ids"]) $(id).addEventListener("input", later);
}

export function show() { later(); }

function later() { clearTimeout(waiting); waiting = setTimeout(refresh, 120); }

async function refresh() {
  const mine = ++asked;
  const boxes = [...$("token-models").querySelectorAll("input")];
  const models = boxes.filter((box) => box.checked).map((box) => box.value);
  const text = $("token-text").value;
  const body = { content: text, with_pieces: true, add_special: $("token-special").checked, parse_special: $("token-parse").checked };
  try {
    const answers = await Promise.all(models.map((model) => json("tokenize", boxes.length > 1 ? { ...body, model } : body)));
    if (mine !== asked) return; // a newer text is being cut
    const size = new TextEncoder().encode(text).length;
    $("token-columns").replaceChildren(...answers.map((answer, i) => column(models[i], answer.tokens, size)));
    notice("");
  } catch (error) { notice(`Tokens: ${error.message}`); }
}

function column(name, tokens, size) {
  const ids = $("token-ids").checked;
  const pieces = tokens.map(({ id, piece }) => {
    const text = typeof piece === "string" ? piece.replaceAll("\n", "⏎\n") : piece.map((b) => b.toString(16).padStart(2, "0")).join(" ");
    return el("span", { class: typeof piece === "string" ? "token" : "token bytes", title: `id ${id}` }, text, ids ? el("small", {}, ` ${id} `) : null);
  });
  const rate = tokens.length ? `${(size / tokens.length).toFixed(2)} bytes a token` : "";
  return el("div", {}, el("h3", {}, name), el("p", { class: "hint" }, `${tokens.length} tokens, ${size} bytes, ${rate}`), el("div", {}, ...pieces));
}
