// The conversation: what was said, what is being said, and every other way it could have gone.

import { ApiError, events } from "./api.js";
import { $, el } from "./dom.js";
import * as images from "./images.js";
import { markdown } from "./markdown.js";
import * as settings from "./settings.js";
import { Conversation, loadAll, saveAll } from "./tree.js";

let conversations = loadAll();
let current = conversations[0] || new Conversation();
let running = null; // AbortController of the answer that is being made
let askKey = () => {};

export function setUp(onUnauthorized) {
  askKey = onUnauthorized;
  settings.setUp(draw);
  images.setUp();
  $("composer").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
  $("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); submit(); }
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && running) running.abort(); });
  $("stop").addEventListener("click", () => running?.abort());
  $("new-chat").addEventListener("click", () => { open(new Conversation()); $("prompt").focus(); });
  $("messages").addEventListener("pointerover", hover);
  $("messages").addEventListener("focusin", hover);
  for (const kind of ["pointerout", "focusout"]) $("messages").addEventListener(kind, () => $("candidates")?.remove());
  draw();
}

function open(conversation) { running?.abort(); current = conversation; draw(); }

function keep() {
  conversations = [current, ...conversations.filter((c) => c.id !== current.id)].filter((c) => c.nodes.length > 1);
  saveAll(conversations);
}

function submit() {
  const text = $("prompt").value.trim();
  if (running) return;
  const shown = images.take();
  if (!text && !shown.length) return;
  $("prompt").value = "";
  answer(current.add(current.leaf(), "user", text, shown));
}

// Ask for an answer below the node of a question and show it as it comes.
async function answer(question) {
  const node = current.add(question.id, "assistant", "");
  const shown = current;
  keep(); draw();
  running = new AbortController();
  $("stop").hidden = false; $("send").disabled = true;
  const start = performance.now();
  let first = 0;
  let count = 0;
  try {
    for await (const event of events("v1/chat/completions", requestFor(node), running.signal)) {
      const choice = event.choices?.[0];
      const delta = choice?.delta || {};
      if (delta.reasoning_content) node.reasoning = (node.reasoning || "") + delta.reasoning_content;
      if (delta.content) { node.content += delta.content; first ||= performance.now(); count += 1; }
      if (choice?.logprobs?.content) (node.tokens ||= []).push(...choice.logprobs.content);
      if (choice?.finish_reason) node.finish = choice.finish_reason;
      if (event.usage) node.usage = event.usage;
      if (shown === current) update(node);
    }
  } catch (error) {
    if (error.name === "AbortError") node.finish = "stopped";
    else { node.failed = error.message; if (error instanceof ApiError && error.status === 401) askKey(); }
  } finally {
    const seconds = (performance.now() - (first || start)) / 1000;
    const made = node.usage?.completion_tokens ?? count;
    node.speed = first && made > 1 ? `${made} tokens, ${((made - 1) / seconds).toFixed(1)} tok/s, first after ${(first - start).toFixed(0)} ms` : "";
    if (node.usage?.prompt_tokens_details?.cached_tokens) node.speed += `, ${node.usage.prompt_tokens_details.cached_tokens} of ${node.usage.prompt_tokens} prompt tokens from the cache`;
    running = null;
    $("stop").hidden = true; $("send").disabled = false;
    $("said").textContent = node.failed || node.content;
    keep(); draw();
  }
}

function requestFor(node) {
  const messages = settings.system() ? [{ role: "system", content: settings.system() }] : [];
  for (const said of current.path()) {
    if (said.id === node.id) break;
    if (!said.failed) messages.push({ role: said.role, content: images.parts(said) });
  }
  const body = { model: $("model").value || undefined, messages, stream: true, stream_options: { include_usage: true }, ...settings.fields() };
  if (settings.probabilities()) Object.assign(body, { logprobs: true, top_logprobs: 5 });
  return body;
}

function update(node) {
  const place = $(`message-${node.id}`);
  if (!place) return;
  const list = $("messages");
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 60;
  place.querySelector(".body").replaceChildren(content(node));
  if (atEnd) list.scrollTop = list.scrollHeight;
}

function content(node) {
  const out = document.createDocumentFragment();
  if (node.reasoning) out.append(el("details", { class: "reasoning" }, el("summary", {}, "Reasoning"), node.reasoning));
  if (node.failed) out.append(node.failed);
  else if (node.role === "user") out.append(...(node.images || []).map(images.picture), node.content);
  else if (settings.probabilities() && node.tokens) out.append(...node.tokens.map(token));
  else out.append(markdown(node.content));
  return out;
}

function token(entry) {
  const p = Math.exp(entry.logprob);
  const made = el("span", { class: "probability", tabindex: 0, style: `--p:${p.toFixed(3)}`, "aria-label": `${entry.token}, ${(100 * p).toFixed(0)} percent` }, entry.token);
  made.entry = entry;
  return made;
}

// The other tokens that could have come, as bars.
function hover(event) {
  const { entry } = event.target;
  if (!entry) return;
  $("candidates")?.remove();
  const rows = (entry.top_logprobs.length ? entry.top_logprobs : [entry]).map((top) => {
    const p = Math.exp(top.logprob);
    const text = JSON.stringify(top.token).slice(1, -1);
    return el("tr", {}, el("td", {}, top.token === entry.token ? el("strong", {}, text) : text), el("td", { class: "number" }, `${(100 * p).toFixed(1)} %`),
      el("td", {}, el("div", { style: `width:${(6 * p).toFixed(2)}rem;height:.6rem;background:var(--series-2)` })));
  });
  const box = event.target.getBoundingClientRect();
  const made = el("div", { id: "candidates", role: "tooltip" }, el("table", {}, ...rows));
  document.body.append(made);
  made.style.left = `${Math.min(box.left, innerWidth - made.offsetWidth - 8)}px`;
  made.style.top = `${box.bottom + made.offsetHeight + 8 > innerHeight ? box.top - made.offsetHeight - 4 : box.bottom + 4}px`;
}

function draw() {
  $("conversations").replaceChildren(...conversations.map((c) => el("li", {},
    el("button", { type: "button", class: "open", "aria-current": c.id === current.id, onclick: () => open(c) }, c.title || "untitled"),
    el("button", { type: "button", "aria-label": `Delete ${c.title}`, onclick: () => { conversations = conversations.filter((x) => x !== c); saveAll(conversations); if (c.id === current.id) open(new Conversation()); else draw(); } }, "×"))));
  const path = current.path();
  $("messages").replaceChildren(...path.map(message));
  $("messages").scrollTop = $("messages").scrollHeight;
  $("speed").textContent = path.at(-1)?.speed || "";
}

function message(node) {
  const siblings = current.siblings(node);
  const at = siblings.indexOf(node.id);
  const who = el("div", { class: "who" }, node.role === "user" ? "You" : "Model");
  if (siblings.length > 1) {
    const turn = (offset, sign, label) => el("button", { type: "button", "aria-label": label, disabled: siblings[at + offset] === undefined, onclick: () => { current.choose(node, offset); keep(); draw(); } }, sign);
    who.append(turn(-1, "‹", "Branch before"), `${at + 1} of ${siblings.length}`, turn(1, "›", "Branch after"));
  }
  if (node.role === "user") who.append(el("button", { type: "button", onclick: () => edit(node) }, "Edit"));
  else {
    who.append(el("button", { type: "button", disabled: Boolean(running), onclick: () => answer(current.nodes[node.parent]) }, "Again"),
      el("button", { type: "button", onclick: () => navigator.clipboard?.writeText(node.content) }, "Copy"));
    if (node.finish && node.finish !== "stop") who.append(`(${node.finish})`);
  }
  const waiting = running && node.id === current.leaf() && node.role === "assistant" ? " waiting" : "";
  return el("li", { class: `message ${node.role}${node.failed ? " failed" : ""}`, id: `message-${node.id}` }, who, el("div", { class: `body${waiting}` }, content(node)));
}

// An edited question is a new branch beside the old one.
function edit(node) {
  if (running) return;
  const area = el("textarea", { rows: 4, "aria-label": "Edited message", style: "width:100%" });
  area.value = node.content;
  const send = () => { const text = area.value.trim(); if (text) answer(current.add(node.parent, "user", text, node.images)); };
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); send(); }
    if (event.key === "Escape") draw();
  });
  $(`message-${node.id}`).querySelector(".body").replaceChildren(area, el("div", { class: "row" },
    el("button", { type: "button", class: "primary", onclick: send }, "Send"), el("button", { type: "button", onclick: draw }, "Cancel")));
  area.focus();
}
