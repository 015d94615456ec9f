// What the chosen model is: size, formats, metadata, tensors, memory.

import { json } from "./api.js";
import { $, bytes, el, notice, tile } from "./dom.js";

let tensors = [];

export async function show() {
  try {
    const facts = await json(`v1/models/${encodeURIComponent($("model").value)}/contents`);
    draw(facts);
    notice("");
  } catch (error) { notice(`Model: ${error.message}`); }
}

const row = (cells, tag = "td") => el("tr", {}, ...cells.map((cell) => el(tag, typeof cell === "number" ? { class: "number" } : {}, typeof cell === "number" ? cell.toLocaleString() : String(cell))));

function draw(facts) {
  $("model-name").textContent = facts.model;
  const { memory } = facts;
  $("model-summary").replaceChildren(
    tile("architecture", facts.architecture), tile("parameters", facts.parameters.toLocaleString()), tile("file", bytes(memory.file_nbytes)),
    tile("context", memory.context.toLocaleString()), ...Object.entries(memory.kv_nbytes).map(([type, n]) => tile(`K/V cache, ${type}`, bytes(n))), tile("resident", bytes(facts.resident_nbytes)));
  $("model-formats").replaceChildren(el("table", {}, row(["format", "tensors", "parameters", "bytes", "bits per weight"], "th"),
    ...facts.formats.map((f) => row([f.format, f.tensors, f.parameters, f.nbytes, f.bits_per_weight.toFixed(3)]))));
  $("model-metadata").replaceChildren(row(["key", "value"], "th"), ...Object.entries(facts.metadata).map(([name, value]) => row([name, typeof value === "string" ? value : JSON.stringify(value)])));
  ({ tensors } = facts);
  $("tensor-filter").oninput = filter;
  filter();
}

function filter() {
  const wanted = $("tensor-filter").value.toLowerCase();
  const found = tensors.filter((t) => `${t.file_name} ${t.format}`.toLowerCase().includes(wanted));
  $("model-tensors").replaceChildren(row(["tensor", "format", "shape"], "th"), ...found.map((t) => row([t.file_name, t.format, t.shape.join(" × ")])));
}
