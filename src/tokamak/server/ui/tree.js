// A conversation is a tree: editing or asking again makes a sibling, and nothing that was said is lost.

const STORE = "tokamak-conversations";

export class Conversation {
  constructor(data = {}) {
    this.id = data.id || crypto.randomUUID?.() || String(Math.random());
    this.title = data.title || "";
    this.nodes = data.nodes || [{ id: 0, parent: null, children: [], chosen: 0 }];
  }

  add(parent, role, content, images = []) {
    const node = { id: this.nodes.length, parent, role, content, children: [], chosen: 0, ...(images.length && { images }) };
    this.nodes.push(node);
    const above = this.nodes[parent];
    above.children.push(node.id);
    above.chosen = above.children.length - 1;
    if (role === "user" && !this.title) this.title = (content || images[0]?.name || "").slice(0, 60);
    return node;
  }

  siblings(node) { return this.nodes[node.parent].children; }

  choose(node, offset) {
    const above = this.nodes[node.parent];
    above.chosen = Math.max(0, Math.min(above.children.length - 1, above.chosen + offset));
  }

  // The messages on the chosen branch, from the first.
  path() {
    const out = [];
    for (let node = this.nodes[0]; node.children.length; out.push(node)) node = this.nodes[node.children[node.chosen]];
    return out;
  }

  leaf() { return this.path().at(-1)?.id ?? 0; }
}

export function loadAll() {
  try { return JSON.parse(localStorage.getItem(STORE) || "[]").map((data) => new Conversation(data)); } catch { return []; }
}

// Images are most of it: where there is no room for them, the texts are kept.
export function saveAll(conversations) {
  const without = (node, ...names) => Object.fromEntries(Object.entries(node).filter(([name]) => !names.includes(name)));
  const plain = (...names) => conversations.slice(0, 100).map(({ id, title, nodes }) => ({ id, title, nodes: nodes.map((node) => without(node, ...names)) }));
  for (const kept of [() => plain("tokens"), () => plain("tokens", "images")]) {
    try { localStorage.setItem(STORE, JSON.stringify(kept())); return; } catch { /* full or forbidden: the page works without */ }
  }
}
