// A conversation is a tree: editing or asking again makes a sibling, and nothing that was said is lost.

const STORE = "tokamak-conversations";

export class Conversation {
  constructor(data = {}) {
    this.id = data.id || crypto.randomUUID?.() || String(Math.random());
    this.title = data.title || "";
    this.nodes = data.nodes || [{ id: 0, parent: null, children: [], chosen: 0 }];
  }

  add(parent, role, content) {
    const node = { id: this.nodes.length, parent, role, content, children: [], chosen: 0 };
    this.nodes.push(node);
    const above = this.nodes[parent];
    above.children.push(node.id);
    above.chosen = above.children.length - 1;
    if (role === "user" && !this.title) this.title = content.slice(0, 60);
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

export function saveAll(conversations) {
  const plain = conversations.slice(0, 100).map(({ id, title, nodes }) => ({ id, title, nodes: nodes.map(({ tokens, ...rest }) => rest) }));
  try { localStorage.setItem(STORE, JSON.stringify(plain)); } catch { /* full or forbidden: the page works without */ }
}
