// Pictures that go with a message: chosen, dropped or pasted, shown small, sent as data: URLs. Nothing is uploaded before.

import { $, el, notice } from "./dom.js";

const KINDS = ["image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"];
let attached = []; // {name, url}
let refused = ""; // why the model that answers takes none

export function setUp() {
  $("attach").addEventListener("click", () => $("files").click());
  $("files").addEventListener("change", async () => { await add($("files").files); $("files").value = ""; });
  $("prompt").addEventListener("paste", (event) => { if (event.clipboardData.files.length) { event.preventDefault(); add(event.clipboardData.files); } });
  $("composer").addEventListener("dragover", (event) => event.preventDefault());
  $("composer").addEventListener("drop", (event) => { event.preventDefault(); add(event.dataTransfer.files); });
}

// model: of v1/models. One that is not loaded yet says whether it sees when it is asked.
export function allow(model) {
  refused = model?.meta.vision === false ? `${model.id} has no image encoder, so it sees no images` : "";
  $("attach").hidden = Boolean(refused);
  if (refused) { attached = []; draw(); }
}

export function take() {
  const taken = attached;
  attached = [];
  draw();
  return taken;
}

const read = (file) => new Promise((done, failed) => {
  const reader = new FileReader();
  reader.addEventListener("load", () => done({ name: file.name || "image", url: reader.result }));
  reader.addEventListener("error", () => failed(reader.error));
  reader.readAsDataURL(file);
});

async function add(files) {
  const found = [...files].filter((file) => KINDS.includes(file.type));
  notice(refused || (found.length < files.length ? "Only PNG, JPEG, WebP, GIF and BMP can be attached" : ""));
  if (refused) return;
  try { attached.push(...await Promise.all(found.map(read))); } catch (error) { notice(`Image: ${error.message}`); }
  draw();
}

function draw() {
  $("attached").replaceChildren(...attached.map((image, i) => el("li", {}, picture(image),
    el("button", { type: "button", "aria-label": `Remove ${image.name}`, onclick: () => { attached.splice(i, 1); draw(); $("prompt").focus(); } }, "×"))));
}

export const picture = ({ name, url }) => el("img", { src: url, alt: name, class: "picture" });

// What a message says to the server: images, then text; the text alone where there are none.
export function parts({ content, images }) {
  if (!images?.length) return content;
  return [...images.map(({ url }) => ({ type: "image_url", image_url: { url } })), ...(content ? [{ type: "text", text: content }] : [])];
}
