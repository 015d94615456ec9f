// What the server is doing now and did before; asked for again every 10 seconds while it is looked at.

import { json } from "./api.js";
import { chart, number } from "./chart.js";
import { $, bytes, el, notice, tile } from "./dom.js";

const EVERY_MS = 10_000;
// title, series of the history with their labels
const CHARTS = [
  ["Tokens per second", [["generated_tokens_per_s", "made"], ["prompt_tokens_per_s", "read"]]],
  ["Time to the first token, seconds", [["ttft_p50_s", "median"], ["ttft_p95_s", "95 %"]]],
  ["Between tokens, seconds", [["inter_token_p50_s", "median"], ["inter_token_p95_s", "95 %"]]],
  ["Whole requests, seconds", [["e2e_p50_s", "median"], ["e2e_p95_s", "95 %"]]],
  ["Requests", [["running", "running"], ["waiting", "waiting"]]],
  ["K/V cache used, share", [["kv_used_share", "held"], ["prefix_hit_share", "prefix hits"]]],
  ["Memory, bytes", [["memory_nbytes", "resident"]]],
  ["Answers", [["requests_per_s", "per second"], ["error_share", "share of 5xx"]]],
];
let timer = null;

export function show() {
  refresh();
  timer ||= setInterval(() => { if (!document.hidden) refresh(); }, EVERY_MS);
  $("range").onchange = refresh;
}

export function hide() { clearInterval(timer); timer = null; }

async function refresh() {
  try {
    const range = Number($("range").value);
    const [now, history] = await Promise.all([json("status"), json(`history?seconds=${range}`)]);
    drawNow(now);
    const to = Date.now() / 1000;
    $("charts").replaceChildren(...CHARTS.map(([title, parts]) =>
      chart(title, parts.map(([name, label]) => ({ label, points: history.series[name] || [] })), to - range, to, history.step_s)));
    $("updated").textContent = `as of ${new Date().toLocaleTimeString()}, rows of ${history.step_s} s`;
    notice("");
  } catch (error) { notice(`Dashboard: ${error.message}`); }
}

function drawNow(now) {
  $("health").replaceChildren(...Object.entries(now.health.components).map(([name, state]) =>
    el("li", { class: `tile ${state === "ok" ? "good" : "bad"}` }, name, el("b", {}, state))));
  $("alerts").replaceChildren(...now.alerts.map((alert) => el("li", {}, `${alert.name}: ${alert.text || alert.series} is ${number(alert.value)}, over ${number(alert.threshold)} since ${new Date(1000 * alert.time).toLocaleTimeString()}`)));
  const { sample } = now;
  const value = (name, unit = "") => (sample[name] === undefined ? "–" : `${number(sample[name])}${unit}`);
  $("gauges").replaceChildren(
    tile("made", value("generated_tokens_per_s", " tok/s")), tile("read", value("prompt_tokens_per_s", " tok/s")),
    tile("first token, median", value("ttft_p50_s", " s")), tile("between tokens, median", value("inter_token_p50_s", " s")),
    tile("running / waiting", `${value("running")} / ${value("waiting")}`), tile("cache held", sample.kv_used_share === undefined ? "–" : `${(100 * sample.kv_used_share).toFixed(0)} %`),
    tile("memory", sample.memory_nbytes === undefined ? "–" : bytes(sample.memory_nbytes)), tile("errors", sample.error_share === undefined ? "–" : `${(100 * sample.error_share).toFixed(1)} %`));
}
