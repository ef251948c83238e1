// The row of small pictures, each with its mask over it.

import { paint } from "./view.js";

const SIDE = 150;

export class Strip {
  constructor(nav, onChoose) {
    Object.assign(this, { nav, onChoose });
    this.items = new Map(); // id -> {button, thumb, small, role}
    this.opacity = 0.5;
  }

  add(image) {
    const button = document.createElement("button");
    const thumb = document.createElement("canvas");
    thumb.className = "thumb";
    const name = Object.assign(document.createElement("span"), { className: "name", textContent: image.name });
    const role = Object.assign(document.createElement("span"), { className: "role" });
    button.append(thumb, name, role);
    button.title = image.name;
    button.onclick = () => this.onChoose(image.id);
    this.nav.append(button);
    this.items.set(image.id, { button, thumb, role, small: null });
  }

  remove(id) {
    this.items.get(id)?.button.remove();
    this.items.delete(id);
  }

  current(id) {
    for (const [key, { button }] of this.items) button.setAttribute("aria-current", key === id);
    this.items.get(id)?.button.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  setStatus(id, text) {
    const item = this.items.get(id);
    if (item) item.role.textContent = text;
  }

  async picture(id, blob, { width, height }) {
    const scale = Math.min(1, SIDE / Math.max(width, height));
    const size = { resizeWidth: Math.max(1, Math.round(width * scale)), resizeHeight: Math.max(1, Math.round(height * scale)) };
    const small = await createImageBitmap(blob, { ...size, resizeQuality: "medium" });
    const item = this.items.get(id);
    if (!item) return;
    item.small = small;
    this.mask(id, null);
  }

  mask(id, map) {
    const item = this.items.get(id);
    if (!item?.small) return;
    const { thumb, small } = item;
    [thumb.width, thumb.height] = [small.width, small.height];
    const context = thumb.getContext("2d");
    context.drawImage(small, 0, 0);
    if (!map) return;
    const overlay = document.createElement("canvas");
    paint(overlay, map);
    context.globalAlpha = Math.max(0.35, this.opacity);
    context.drawImage(overlay, 0, 0, small.width, small.height);
  }
}
