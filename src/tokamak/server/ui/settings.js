// How the next token is drawn: one table makes the controls and the fields of the request.

import { $, el } from "./dom.js";

const STORE = "tokamak-settings";
// field, label, kind, least, greatest, step
const FIELDS = [
  ["max_tokens", "Most tokens", 1, 32768, 1, ""],
  ["temperature", "Temperature", 0, 2, 0.05, ""],
  ["top_k", "Top k", 0, 1000, 1, ""],
  ["top_p", "Top p", 0, 1, 0.01, ""],
  ["min_p", "Min p", 0, 1, 0.01, ""],
  ["repetition_penalty", "Repetition penalty", 0.5, 2, 0.01, ""],
  ["presence_penalty", "Presence penalty", -2, 2, 0.1, ""],
  ["frequency_penalty", "Frequency penalty", -2, 2, 0.1, ""],
  ["seed", "Seed", 0, 4294967295, 1, ""],
  ["min_tokens", "Least tokens", 0, 32768, 1, ""],
  ["typical_p", "Typical p", 0, 1, 0.01, ""],
  ["top_n_sigma", "Top n sigma", 0, 10, 0.1, ""],
  ["xtc_probability", "XTC probability", 0, 1, 0.01, ""],
  ["xtc_threshold", "XTC threshold", 0, 1, 0.01, ""],
  ["repetition_last_n", "Repetition looks back", -1, 32768, 1, ""],
  ["dry_multiplier", "DRY multiplier", 0, 5, 0.05, ""],
  ["dynatemp_range", "Temperature range", 0, 2, 0.05, ""],
  ["mirostat", "Mirostat", 0, 2, 1, ""],
  ["mirostat_tau", "Mirostat tau", 0, 10, 0.1, ""],
];
const FEW = 9; // the rest is folded

export function setUp(changed) {
  const stored = JSON.parse(localStorage.getItem(STORE) || "{}");
  for (const [i, [name, label, min, max, step, usual]] of FIELDS.entries()) {
    const input = el("input", { type: "number", id: `set-${name}`, min, max, step, placeholder: "as the server has it", value: stored[name] ?? usual });
    $(i < FEW ? "samplers" : "more-samplers").append(el("label", {}, label, " ", input));
  }
  $("system").value = stored.system || "";
  $("show-probabilities").checked = Boolean(stored.probabilities);
  $("settings").addEventListener("input", () => { localStorage.setItem(STORE, JSON.stringify({ ...fields(), system: $("system").value, probabilities: probabilities() })); changed(); });
  $("reset-settings").addEventListener("click", () => {
    localStorage.removeItem(STORE);
    for (const [name, , , , , usual] of FIELDS) $(`set-${name}`).value = usual;
    $("system").value = "";
    changed();
  });
}

// What was set, and only that.
export function fields() {
  const found = {};
  for (const [name] of FIELDS) {
    const { value } = $(`set-${name}`);
    if (value !== "" && Number.isFinite(Number(value))) found[name] = Number(value);
  }
  return found;
}

export const system = () => $("system").value.trim();
export const probabilities = () => $("show-probabilities").checked;
