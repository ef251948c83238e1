// Shapes to pixels on a map of class numbers. A pixel is in a shape when its centre is: nothing is smoothed.

const UNDO_BYTES = 64e6;
export const GUESSED = 0, PAINTED = 1; // of a pixel's hint; PAINTED + j is in a box around a thing of class j

/** Class numbers of an image and how each is known, with undo by patches. */
export class LabelMap {
  /** believed: what the labels of pixels that nobody has painted are before anything is completed; 255 for nothing. */
  constructor(labels, width, height, believed = null) {
    Object.assign(this, { labels, width, height });
    this.hints = new Uint8Array(labels.length);
    this.believed = believed;
    this.done = [];
    this.undone = [];
    this.before = null; // the planes when the present stroke began
    this.dirty = null; // its box [x0, y0, x1, y1], ends excluded
    this.turn = 0; // grows with each change
    this.drawn = false; // whether anybody has painted
  }

  get planes() { return [this.labels, this.hints]; }

  begin() {
    this.before = this.planes.map((plane) => plane.slice());
    this.dirty = null;
  }

  /** Ends a stroke; returns whether anything changed. */
  commit() {
    const { before, dirty } = this;
    this.before = this.dirty = null;
    if (!before || !dirty) return false;
    const [old, now] = [before, this.planes].map((planes) => planes.map((plane) => cut(plane, this.width, dirty)));
    if (old.every((plane, p) => plane.every((value, k) => value === now[p][k]))) return false;
    this.done.push({ box: dirty, old, new: now });
    this.undone = [];
    let kept = 0;
    for (let k = this.done.length - 1; k >= 0; k--) {
      kept += 4 * this.done[k].old[0].length;
      if (kept > UNDO_BYTES) { this.done.splice(0, k); break; }
    }
    return true;
  }

  /** Puts everything back as it was when the stroke began. */
  cancel() {
    if (this.before) [this.labels, this.hints] = this.before;
    this.before = this.dirty = null;
    this.turn++;
  }

  undo() { return this.move(this.done, this.undone, "old"); }
  redo() { return this.move(this.undone, this.done, "new"); }

  move(from, to, side) {
    const patch = from.pop();
    if (!patch) return false;
    const [x0, y0, x1, y1] = patch.box;
    this.planes.forEach((plane, p) => {
      for (let y = y0; y < y1; y++) {
        plane.set(patch[side][p].subarray((y - y0) * (x1 - x0), (y - y0 + 1) * (x1 - x0)), y * this.width + x0);
      }
    });
    to.push(patch);
    this.turn++;
    return true;
  }

  /** How many pixels of the present stroke had been painted as something else. */
  contradicted() {
    let count = 0;
    const [labels, hints] = this.before;
    for (let k = 0; k < labels.length; k++) if (hints[k] === PAINTED && labels[k] !== this.labels[k]) count++;
    return count;
  }

  /** What the server completes: class numbers, and below them the hints. */
  prompts() {
    const { labels, hints, believed } = this;
    const out = new Uint8Array(2 * labels.length);
    for (let k = 0; k < labels.length; k++) out[k] = hints[k] === PAINTED ? labels[k] : believed ? believed[k] : 255;
    out.set(hints, labels.length);
    return out;
  }

  /** Takes the labels of a completion where nobody has painted. */
  complete(labels) {
    for (let k = 0; k < labels.length; k++) if (this.hints[k] !== PAINTED) this.labels[k] = labels[k];
    this.touch([0, 0, this.width, this.height]);
  }

  touch(box) {
    const d = this.dirty;
    this.dirty = d ? [Math.min(d[0], box[0]), Math.min(d[1], box[1]), Math.max(d[2], box[2]), Math.max(d[3], box[3])] : box;
    this.turn++;
    this.drawn = true;
  }

  span(y, x0, x1, value) {
    x0 = Math.max(0, x0);
    x1 = Math.min(this.width, x1);
    if (y < 0 || y >= this.height || x0 >= x1) return;
    this.labels.fill(value, y * this.width + x0, y * this.width + x1);
    this.hints.fill(PAINTED, y * this.width + x0, y * this.width + x1);
    this.touch([x0, y, x1, y + 1]);
  }

  /** Marks the box that two points span as around a thing of a class; painted pixels stay. */
  box(a, b, number) {
    const [x0, x1] = [a[0], b[0]].sort((p, q) => p - q).map((x) => Math.min(this.width - 1, Math.max(0, Math.floor(x))));
    const [y0, y1] = [a[1], b[1]].sort((p, q) => p - q).map((y) => Math.min(this.height - 1, Math.max(0, Math.floor(y))));
    for (let y = y0; y <= y1; y++) {
      for (let k = y * this.width + x0; k <= y * this.width + x1; k++) if (this.hints[k] !== PAINTED) this.hints[k] = PAINTED + number;
    }
    this.touch([x0, y0, x1 + 1, y1 + 1]);
  }

  /** The connected pixels whose colour is like that of the point's: all channels within a tolerance. */
  fill([x, y], pixels, tolerance, value) {
    const { width, height } = this;
    const first = Math.floor(y) * width + Math.floor(x);
    if (!(x >= 0 && y >= 0 && x < width && y < height)) return;
    const seed = pixels.subarray(4 * first, 4 * first + 3);
    const like = (k) => [0, 1, 2].every((c) => Math.abs(pixels[4 * k + c] - seed[c]) <= tolerance);
    const seen = new Uint8Array(width * height);
    const waiting = [first];
    seen[first] = 1;
    while (waiting.length) {
      const k = waiting.pop();
      const column = k % width;
      this.span((k - column) / width, column, column + 1, value);
      for (const next of [column ? k - 1 : -1, column + 1 < width ? k + 1 : -1, k - width, k + width]) {
        if (next >= 0 && next < seen.length && !seen[next] && like(next)) { seen[next] = 1; waiting.push(next); }
      }
    }
  }

  /** Pixels whose centre is at most half the diameter away from the line a-b; at least the pixel of each end. */
  line(a, b, diameter, value) {
    for (const [x, y] of [a, b]) this.span(Math.floor(y), Math.floor(x), Math.floor(x) + 1, value);
    const r = diameter / 2;
    const [dx, dy] = [b[0] - a[0], b[1] - a[1]];
    const length = dx * dx + dy * dy;
    const last = Math.min(this.height - 1, Math.floor(Math.max(a[1], b[1]) + r));
    for (let y = Math.max(0, Math.floor(Math.min(a[1], b[1]) - r)); y <= last; y++) {
      let first = -1;
      const end = Math.min(this.width, Math.floor(Math.max(a[0], b[0]) + r) + 1);
      let x = Math.max(0, Math.floor(Math.min(a[0], b[0]) - r));
      for (; x < end; x++) {
        const [px, py] = [x + 0.5 - a[0], y + 0.5 - a[1]];
        const t = length ? Math.min(1, Math.max(0, (px * dx + py * dy) / length)) : 0;
        const inside = (px - t * dx) ** 2 + (py - t * dy) ** 2 <= r * r;
        if (inside && first < 0) first = x;
        if (!inside && first >= 0) break; // the shape is convex: one run a row
      }
      if (first >= 0) this.span(y, first, x, value);
    }
  }

  /** All pixels of the rectangle that two points span, theirs included. */
  rectangle(a, b, value) {
    const [x0, x1] = [Math.floor(Math.min(a[0], b[0])), Math.floor(Math.max(a[0], b[0]))];
    const [y0, y1] = [Math.floor(Math.min(a[1], b[1])), Math.floor(Math.max(a[1], b[1]))];
    for (let y = Math.max(0, y0); y <= Math.min(this.height - 1, y1); y++) this.span(y, x0, x1 + 1, value);
  }

  /** Pixels whose centre is inside the polygon, by the even-odd rule. */
  polygon(points, value) {
    const ys = points.map((p) => p[1]);
    const last = Math.min(this.height - 1, Math.floor(Math.max(...ys)));
    for (let y = Math.max(0, Math.floor(Math.min(...ys))); y <= last; y++) {
      const at = [];
      points.forEach(([x0, y0], k) => {
        const [x1, y1] = points[(k + 1) % points.length];
        if (y0 <= y + 0.5 !== y1 <= y + 0.5) at.push(x0 + ((y + 0.5 - y0) / (y1 - y0)) * (x1 - x0));
      });
      at.sort((p, q) => p - q);
      for (let k = 0; k + 1 < at.length; k += 2) this.span(y, Math.ceil(at[k] - 0.5), Math.ceil(at[k + 1] - 0.5), value);
    }
  }
}

function cut(labels, width, [x0, y0, x1, y1]) {
  const out = new Uint8Array((x1 - x0) * (y1 - y0));
  for (let y = y0; y < y1; y++) out.set(labels.subarray(y * width + x0, y * width + x1), (y - y0) * (x1 - x0));
  return out;
}
