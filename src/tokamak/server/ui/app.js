// The frame: pages as tabs, theme, key, and which model answers.

import { json, key } from "./api.js";
import * as chat from "./chat.js";
import * as dashboard from "./dashboard.js";
import { $, el, notice } from "./dom.js";
import * as images from "./images.js";
import * as model from "./model.js";
import * as tokens from "./tokens.js";

const PAGES = { chat: null, dashboard, tokens, model };
let known = []; // models of the server
const TABS = [...document.querySelectorAll("[role=tab]")];

function open(name, focus = false) {
  if (!(name in PAGES)) name = "chat";
  for (const tab of TABS) {
    const mine = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", mine);
    tab.tabIndex = mine ? 0 : -1;
    $(tab.getAttribute("aria-controls")).hidden = !mine;
    if (mine && focus) tab.focus();
  }
  for (const [other, page] of Object.entries(PAGES)) if (other !== name) page?.hide?.();
  PAGES[name]?.show();
  history.replaceState(null, "", `#${name}`);
}

for (const [i, tab] of TABS.entries()) {
  tab.addEventListener("click", () => open(tab.id.slice(4)));
  tab.addEventListener("keydown", (event) => {
    const to = { ArrowRight: i + 1, ArrowLeft: i - 1 + TABS.length, Home: 0, End: TABS.length - 1 }[event.key];
    if (to !== undefined) { event.preventDefault(); open(TABS[to % TABS.length].id.slice(4), true); }
  });
}

$("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("tokamak-theme", root.dataset.theme);
});
document.documentElement.dataset.theme = localStorage.getItem("tokamak-theme") || "";

function askKey() { $("key-value").value = key.get(); $("key-dialog").showModal(); }
$("key").addEventListener("click", askKey);
$("key-dialog").addEventListener("close", () => {
  if ($("key-dialog").returnValue === "ok") { key.set($("key-value").value.trim()); start(); }
});

async function start() {
  try {
    known = (await json("v1/models")).data;
    $("model").replaceChildren(...known.map(({ id }) => el("option", { value: id }, id)));
    tokens.setUp(known);
    chosen();
    notice("");
    open(location.hash.slice(1));
  } catch (error) {
    notice(error.message);
    if (error.status === 401) askKey();
  }
}

function chosen() {
  images.allow(known.find(({ id }) => id === $("model").value));
  if (!$("page-model").hidden) model.show();
}

$("model").addEventListener("change", chosen);
chat.setUp(askKey);
start();
