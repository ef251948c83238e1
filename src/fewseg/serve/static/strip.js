// The small pictures of all images, each with its mask over it and its state: a row, or a grid.

import { paint } from "./view.js";

export const STATES = { untouched: "untouched", predicted: "predicted", edited: "edited", accepted: "accepted", support: "example" };

/** The state of an image; one without a mask is predicted once there are examples. */
export function stateOf(image, predicts) {
  if (image.role !== "open") return image.role;
  return predicts ? "predicted" : "untouched";
}

export class Strip {
  constructor(nav, onChoose) {
    Object.assign(this, { nav, onChoose });
    this.items = new Map(); // id -> {button, thumb, status, small, map}
    this.opacity = 0.5;
    nav.addEventListener("keydown", (event) => this.move(event));
  }

  add(image) {
    const button = document.createElement("button");
    const thumb = Object.assign(document.createElement("canvas"), { className: "thumb" });
    const name = Object.assign(document.createElement("span"), { className: "name", textContent: image.name });
    const status = Object.assign(document.createElement("span"), { className: "role" });
    button.append(thumb, name, status);
    button.title = image.name;
    button.dataset.id = image.id;
    button.onclick = () => this.onChoose(image.id);
    this.nav.append(button);
    this.items.set(image.id, { button, thumb, status, small: null, map: null });
  }

  remove(id) {
    this.items.get(id)?.button.remove();
    this.items.delete(id);
  }

  current(id) {
    for (const [key, { button }] of this.items) button.setAttribute("aria-current", key === id);
    this.items.get(id)?.button.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  /** Shows an image's state, and what it is called: a verdict, or what is wrong. */
  setStatus(id, name, text = "") {
    const item = this.items.get(id);
    if (!item) return;
    item.button.dataset.state = name;
    item.button.dataset.verdict = text;
    item.status.textContent = [STATES[name] ?? name, text].filter(Boolean).join(" · ");
  }

  /** Marks the images that help most when they are annotated. */
  suggest(ids) {
    for (const [id, { button }] of this.items) button.classList.toggle("suggested", ids.includes(id));
  }

  /** Shows these images, in this order. */
  arrange(images) {
    const shown = new Set(images.map(({ id }) => id));
    for (const [id, { button }] of this.items) button.hidden = !shown.has(id);
    const places = images.map(({ id }) => this.items.get(id)?.button).filter(Boolean);
    const now = [...this.nav.children].filter((button) => !button.hidden);
    if (places.some((button, k) => button !== now[k])) this.nav.append(...places);
  }

  /** Moves the focus by arrows: along the row, or over the rows of the grid. */
  move(event) {
    const shown = [...this.nav.children].filter((button) => !button.hidden);
    const at = shown.indexOf(document.activeElement);
    if (at < 0) return;
    const columns = shown.findIndex((button) => button.offsetTop !== shown[0].offsetTop);
    const row = Math.max(0, columns); // of a single one nothing lies above or below
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -row, ArrowDown: row, Home: -at, End: shown.length - 1 - at }[event.key];
    if (!by) return;
    event.preventDefault();
    shown[Math.min(shown.length - 1, Math.max(0, at + by))].focus();
  }

  async picture(id, blob) {
    const small = await createImageBitmap(blob);
    const item = this.items.get(id);
    if (!item) return;
    item.small = small;
    this.draw(id);
  }

  /** Draws a mask, of any size, over its picture. */
  mask(id, map) {
    const item = this.items.get(id);
    if (!item) return;
    const overlay = document.createElement("canvas");
    paint(overlay, { labels: map.labels, width: map.width, height: map.height });
    item.classes = new Set(map.labels);
    item.overlay = overlay;
    item.map = map;
    this.draw(id);
  }

  /** Has the mask of an image, or of all, fetched again. */
  forget(id) {
    for (const [key, item] of this.items) if (id === undefined || key === id) item.map = null;
  }

  /** Paints all masks again, in the present colours. */
  recolour() {
    for (const [id, { map }] of this.items) if (map) this.mask(id, map);
  }

  draw(id) {
    const { thumb, small, overlay } = this.items.get(id);
    if (!small) return;
    [thumb.width, thumb.height] = [small.width, small.height];
    const context = thumb.getContext("2d");
    context.drawImage(small, 0, 0);
    if (!overlay) return;
    context.globalAlpha = Math.max(0.35, this.opacity);
    context.drawImage(overlay, 0, 0, small.width, small.height);
  }
}
