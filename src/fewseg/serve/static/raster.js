// Shapes to pixels on a map of class numbers. A pixel is in a shape when its centre is: nothing is smoothed.

/** Class numbers of an image, with undo by patches. */
export class LabelMap {
  constructor(labels, width, height) {
    Object.assign(this, { labels, width, height });
    this.done = [];
    this.undone = [];
    this.before = null; // the labels when the present stroke began
    this.dirty = null; // its box [x0, y0, x1, y1], ends excluded
  }

  begin() {
    this.before = this.labels.slice();
    this.dirty = null;
  }

  /** Ends a stroke; returns whether anything changed. */
  commit() {
    const { before, dirty } = this;
    this.before = this.dirty = null;
    if (!before || !dirty) return false;
    const [x0, y0, x1, y1] = dirty;
    const patch = { box: dirty, old: cut(before, this.width, dirty), new: cut(this.labels, this.width, dirty) };
    if (patch.old.every((value, k) => value === patch.new[k])) return false;
    this.done.push(patch);
    this.undone = [];
    let kept = 0;
    for (let k = this.done.length - 1; k >= 0; k--) {
      kept += 2 * this.done[k].old.length;
      if (kept > 64e6) { this.done.splice(0, k); break; }
    }
    return (x1 - x0) * (y1 - y0) > 0;
  }

  /** Puts the labels back as they were when the stroke began. */
  cancel() {
    if (this.before) this.labels = this.before;
    this.before = this.dirty = null;
  }

  undo() { return this.move(this.done, this.undone, "old"); }
  redo() { return this.move(this.undone, this.done, "new"); }

  move(from, to, side) {
    const patch = from.pop();
    if (!patch) return false;
    const [x0, y0, x1, y1] = patch.box;
    for (let y = y0; y < y1; y++) {
      const row = patch[side].subarray((y - y0) * (x1 - x0), (y - y0 + 1) * (x1 - x0));
      this.labels.set(row, y * this.width + x0);
    }
    to.push(patch);
    return true;
  }

  span(y, x0, x1, value) {
    x0 = Math.max(0, x0);
    x1 = Math.min(this.width, x1);
    if (y < 0 || y >= this.height || x0 >= x1) return;
    this.labels.fill(value, y * this.width + x0, y * this.width + x1);
    const d = this.dirty;
    this.dirty = d ? [Math.min(d[0], x0), Math.min(d[1], y), Math.max(d[2], x1), Math.max(d[3], y + 1)]
      : [x0, y, x1, y + 1];
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
