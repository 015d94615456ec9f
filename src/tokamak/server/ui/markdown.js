// Markdown to elements: what models write (headings, lists, tables, quotes, code, emphasis, links), and nothing that runs.

import { el } from "./dom.js";

const INLINE = /(`+)([\s\S]*?[^`])\1(?!`)|\*\*([^\s*][\s\S]*?)\*\*|__([^\s_][\s\S]*?)__|\*([^\s*][^*]*?)\*|(?<![\w])_([^\s_][^_]*?)_(?![\w])|~~([\s\S]+?)~~|\[([^\]]*)\]\(([^()\s]+)\)|(https?:\/\/[^\s<>()]+[^\s<>().,;:!?'"])/;

function link(text, address) {
  let safe;
  try { safe = ["http:", "https:", "mailto:"].includes(new URL(address, location.href).protocol); } catch { safe = false; }
  return safe && /^(https?:|mailto:)/i.test(address) ? el("a", { href: address, rel: "noopener noreferrer", target: "_blank" }, ...inline(text, 1)) : `[${text}](${address})`;
}

function inline(text, depth = 0) {
  const out = [];
  while (text) {
    const found = depth < 6 ? INLINE.exec(text) : null;
    if (!found) { out.push(text); break; }
    if (found.index) out.push(text.slice(0, found.index));
    const [whole, , code, bold, bold2, italic, italic2, struck, label, address, bare] = found;
    if (code !== undefined) out.push(el("code", {}, code.trim()));
    else if (bold ?? bold2) out.push(el("strong", {}, ...inline(bold ?? bold2, depth + 1)));
    else if (italic ?? italic2) out.push(el("em", {}, ...inline(italic ?? italic2, depth + 1)));
    else if (struck) out.push(el("del", {}, ...inline(struck, depth + 1)));
    else if (address) out.push(link(label, address));
    else out.push(el("a", { href: bare, rel: "noopener noreferrer", target: "_blank" }, bare));
    text = text.slice(found.index + whole.length);
  }
  return out;
}

const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;

function list(lines, at) {
  const first = ITEM.exec(lines[at]);
  const ordered = /\d/.test(first[2]);
  const made = el(ordered ? "ol" : "ul", ordered && parseInt(first[2], 10) !== 1 ? { start: parseInt(first[2], 10) } : {});
  const indent = first[1].length;
  while (at < lines.length) {
    const found = ITEM.exec(lines[at]);
    if (!found || found[1].length < indent || (found[1].length === indent && /\d/.test(found[2]) !== ordered)) break;
    if (found[1].length > indent) {
      const [inner, next] = list(lines, at);
      (made.lastElementChild ?? made).append(inner);
      at = next;
      continue;
    }
    const text = [found[3]];
    at += 1;
    while (at < lines.length && lines[at].trim() && !ITEM.test(lines[at]) && /^\s/.test(lines[at])) text.push(lines[at++].trim());
    made.append(el("li", {}, ...inline(text.join(" "))));
    while (at < lines.length && !lines[at].trim() && ITEM.test(lines[at + 1] ?? "")) at += 1;
  }
  return [made, at];
}

const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());

function tableAt(lines, at) {
  if (!lines[at].includes("|") || !/^[\s|:-]*-[\s|:-]*$/.test(lines[at + 1] ?? "") || !(lines[at + 1] ?? "").includes("-")) return null;
  const body = el("tbody");
  const made = el("table", {}, el("thead", {}, el("tr", {}, ...cells(lines[at]).map((cell) => el("th", {}, ...inline(cell))))), body);
  for (at += 2; at < lines.length && lines[at].includes("|"); at += 1) body.append(el("tr", {}, ...cells(lines[at]).map((cell) => el("td", {}, ...inline(cell)))));
  return [made, at];
}

export function markdown(text) {
  const lines = text.replaceAll("\r\n", "\n").split("\n");
  const out = document.createDocumentFragment();
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    const fence = /^\s*(```+|~~~+)\s*([\w+#.-]*)/.exec(line);
    if (fence) {
      const code = [];
      for (at += 1; at < lines.length && !lines[at].trimStart().startsWith(fence[1]); at += 1) code.push(lines[at]);
      at += 1;
      out.append(el("pre", { tabindex: 0, "aria-label": `code ${fence[2]}`.trim() }, el("code", {}, code.join("\n"))));
      continue;
    }
    const heading = /^(#{1,6})\s+(.*?)\s*#*$/.exec(line);
    const table = tableAt(lines, at);
    if (!line.trim()) at += 1;
    else if (heading) { out.append(el(`h${Math.min(6, heading[1].length + 2)}`, {}, ...inline(heading[2]))); at += 1; }
    else if (/^\s*([-*_])(\s*\1){2,}\s*$/.test(line)) { out.append(el("hr")); at += 1; }
    else if (table) { out.append(table[0]); at = table[1]; }
    else if (ITEM.test(line)) { const [made, next] = list(lines, at); out.append(made); at = next; }
    else if (/^\s*>/.test(line)) {
      const quoted = [];
      while (at < lines.length && /^\s*>/.test(lines[at])) quoted.push(lines[at++].replace(/^\s*>\s?/, ""));
      out.append(el("blockquote", {}, markdown(quoted.join("\n"))));
    } else {
      const paragraph = [];
      while (at < lines.length && lines[at].trim() && !/^\s*(```|~~~|>|#{1,6}\s)/.test(lines[at]) && !ITEM.test(lines[at])) paragraph.push(lines[at++]);
      if (!paragraph.length) paragraph.push(lines[at++]);
      const parts = paragraph.flatMap((part, i) => (i ? [el("br"), ...inline(part)] : inline(part)));
      out.append(el("p", {}, ...parts));
    }
  }
  return out;
}
