// An image with its mask over it, at any zoom. Zoom is in CSS pixels an image pixel.

import { RGBA, UNKNOWN } from "./colours.js";
import { PAINTED } from "./raster.js";

const WHITE = 0xe0ffffff, DARK = 0x60000000, PALE = 0x98ffffff; // ABGR

/** Whether a pixel is further from the rim of its class than an outline is thick. */
function inside({ labels, width, height, outline: t }, k, x, y, label) {
  return x >= t && y >= t && x + t < width && y + t < height
    && labels[k - t] === label && labels[k + t] === label && labels[k - t * width] === label && labels[k + t * width] === label;
}

/** A pixel: what is painted is full and striped where it is background or left out, what is guessed is pale. */
function shade(map, k, x, y) {
  const label = map.labels[k];
  if (map.outline && label && inside(map, k, x, y, label)) return 0;
  const hint = map.hints?.[k] ?? PAINTED;
  if (hint !== PAINTED) {
    const rim = hint > PAINTED && [x ? k - 1 : k, x + 1 < map.width ? k + 1 : k, k - map.width, k + map.width].some((n) => map.hints[n] !== hint && map.hints[n] !== PAINTED);
    return rim ? RGBA[hint - PAINTED] : map.drawn ? RGBA[label] & PALE : RGBA[label];
  }
  const striped = map.hints && (label === 0 || label === UNKNOWN);
  if (striped) return (x + y) % 6 < 2 ? (label ? DARK : WHITE) : label ? RGBA[label] : DARK;
  return RGBA[label];
}

/** Writes part of a mask in its colours on a canvas of the mask's size. */
export function paint(canvas, map, [x0, y0, x1, y1] = [0, 0, map.width, map.height]) {
  if (canvas.width !== map.width || canvas.height !== map.height) {
    [canvas.width, canvas.height] = [map.width, map.height];
  }
  const context = canvas.getContext("2d");
  const rows = Math.max(1, Math.floor(4e6 / (x1 - x0))); // in strips: large images, little memory
  for (let top = y0; top < y1; top += rows) {
    const bottom = Math.min(y1, top + rows);
    const pixels = context.createImageData(x1 - x0, bottom - top);
    const out = new Uint32Array(pixels.data.buffer);
    let at = 0;
    for (let y = top; y < bottom; y++) {
      for (let x = x0; x < x1; x++) out[at++] = shade(map, y * map.width + x, x, y);
    }
    context.putImageData(pixels, x0, top);
  }
}

export class View {
  constructor(canvas) {
    this.canvas = canvas;
    this.overlay = document.createElement("canvas");
    this.bitmap = this.map = null;
    this.opacity = 0.5;
    this.outline = false; // whether only the rims of classes are drawn
    this.zoom = 1;
    this.left = this.top = 0; // of the image in the canvas, CSS pixels
    this.sketch = null; // draws what is not a mask yet: (context, view) => void
    new ResizeObserver(() => { if (this.fitted) this.fit(); else this.draw(); }).observe(canvas);
  }

  /** The image's RGBA values. */
  get pixels() {
    if (this.readOf !== this.bitmap) {
      const { width, height } = this.bitmap;
      const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
      context.drawImage(this.bitmap, 0, 0);
      [this.readOf, this.read] = [this.bitmap, context.getImageData(0, 0, width, height).data];
    }
    return this.read;
  }

  get size() {
    return [this.canvas.clientWidth, this.canvas.clientHeight];
  }

  show(bitmap, map) {
    const other = !this.map || this.map.width !== map?.width || this.map.height !== map?.height || this.bitmap !== bitmap;
    this.bitmap = bitmap;
    this.map = map;
    this.changed();
    if (other) this.fit();
  }

  changed(box) {
    const { map } = this;
    if (map && (!box || box[2] > box[0])) {
      const t = map.outline = this.outline ? Math.max(1, Math.round(Math.max(map.width, map.height) / 300)) : 0;
      paint(this.overlay, map, box && [Math.max(0, box[0] - t), Math.max(0, box[1] - t), Math.min(map.width, box[2] + t), Math.min(map.height, box[3] + t)]);
    }
    this.draw();
  }

  fit() {
    if (!this.map) return this.draw();
    const [w, h] = this.size;
    this.zoom = Math.max(0.01, Math.min((w - 16) / this.map.width, (h - 16) / this.map.height));
    this.left = (w - this.map.width * this.zoom) / 2;
    this.top = (h - this.map.height * this.zoom) / 2;
    this.fitted = true;
    this.draw();
  }

  /** Zooms by a factor; the image point under (x, y), CSS pixels of the canvas, stays. */
  zoomBy(factor, x = this.size[0] / 2, y = this.size[1] / 2) {
    const zoom = Math.min(64, Math.max(0.02, this.zoom * factor));
    this.left = x - ((x - this.left) * zoom) / this.zoom;
    this.top = y - ((y - this.top) * zoom) / this.zoom;
    this.zoom = zoom;
    this.fitted = false;
    this.draw();
  }

  pan(dx, dy) {
    this.left += dx;
    this.top += dy;
    this.fitted = false;
    this.draw();
  }

  /** Moves the image so that an image point is seen. */
  reveal([x, y]) {
    const [w, h] = this.size;
    const [cx, cy] = this.toCanvas([x, y]);
    const dx = Math.min(0, w - 24 - cx) + Math.max(0, 24 - cx);
    const dy = Math.min(0, h - 24 - cy) + Math.max(0, 24 - cy);
    if (dx || dy) this.pan(dx, dy);
  }

  toImage(x, y) {
    return [(x - this.left) / this.zoom, (y - this.top) / this.zoom];
  }

  toCanvas([x, y]) {
    return [this.left + x * this.zoom, this.top + y * this.zoom];
  }

  draw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      this.render();
    });
  }

  render() {
    const scale = window.devicePixelRatio || 1;
    const [w, h] = this.size;
    const { canvas } = this;
    if (canvas.width !== Math.round(w * scale) || canvas.height !== Math.round(h * scale)) {
      [canvas.width, canvas.height] = [Math.round(w * scale), Math.round(h * scale)];
    }
    const context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, w, h);
    if (!this.bitmap || !this.map) return;
    const place = [this.left, this.top, this.map.width * this.zoom, this.map.height * this.zoom];
    context.imageSmoothingEnabled = this.zoom < 2;
    context.drawImage(this.bitmap, ...place);
    context.globalAlpha = this.opacity;
    context.imageSmoothingEnabled = this.zoom < 1;
    context.drawImage(this.overlay, ...place);
    context.globalAlpha = 1;
    this.sketch?.(context, this);
  }
}
