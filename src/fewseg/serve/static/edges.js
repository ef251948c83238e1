// The edges of an image: where a polygon snaps to, and the way along them.

const STRAIGHT = 0.06; // cost of a pixel on the strongest edge; on none it is 1 more
const MARGIN = 24; // pixels around two points within which a way is looked for

export class Edges {
  /** Of RGBA pixels: how strong the edge is at each, 0 to 1. */
  constructor(pixels, width, height) {
    Object.assign(this, { width, height });
    const grey = new Float32Array(width * height);
    for (let k = 0; k < grey.length; k++) grey[k] = 0.3 * pixels[4 * k] + 0.6 * pixels[4 * k + 1] + 0.1 * pixels[4 * k + 2];
    this.strength = new Float32Array(grey.length);
    for (let y = 1; y < height - 1; y++) {
      for (let k = y * width + 1; k < (y + 1) * width - 1; k++) {
        this.strength[k] = Math.min(1, Math.hypot(grey[k + 1] - grey[k - 1], grey[k + width] - grey[k - width]) / 96);
      }
    }
  }

  /** The strongest edge within a distance of a point; nearer ones count for more. */
  snap([x, y], reach) {
    let best = [x, y], most = 0.1;
    for (let v = Math.max(0, Math.floor(y - reach)); v <= Math.min(this.height - 1, y + reach); v++) {
      for (let u = Math.max(0, Math.floor(x - reach)); u <= Math.min(this.width - 1, x + reach); u++) {
        const away = Math.hypot(u + 0.5 - x, v + 0.5 - y) / reach;
        const value = away > 1 ? 0 : this.strength[v * this.width + u] * (1 - 0.5 * away);
        if (value > most) [most, best] = [value, [u + 0.5, v + 0.5]];
      }
    }
    return best;
  }

  /** The points after a, up to b, of the cheapest way along edges (Mortensen and Barrett 1995). */
  way(a, b) {
    const low = (p, q, most) => Math.max(0, Math.min(most - 1, Math.floor(Math.min(p, q)) - MARGIN));
    const [x0, y0] = [low(a[0], b[0], this.width), low(a[1], b[1], this.height)];
    const w = Math.min(this.width, Math.floor(Math.max(a[0], b[0])) + MARGIN + 1) - x0;
    const h = Math.min(this.height, Math.floor(Math.max(a[1], b[1])) + MARGIN + 1) - y0;
    const at = ([x, y]) => Math.min(h - 1, Math.max(0, Math.floor(y) - y0)) * w + Math.min(w - 1, Math.max(0, Math.floor(x) - x0));
    const [start, end] = [at(a), at(b)];
    if (w < 1 || h < 1 || w * h > 1e6) return [b]; // far apart: a straight line
    const cost = new Float32Array(w * h).fill(Infinity);
    const from = new Int32Array(w * h).fill(-1);
    const queue = [[start]]; // of whole costs, 1 / 64 pixel each
    cost[start] = 0;
    for (let level = 0; level < queue.length && level <= cost[end] * 64; level++) {
      for (const k of queue[level] || []) {
        if (Math.floor(cost[k] * 64) !== level) continue;
        const [x, y] = [k % w, Math.floor(k / w)];
        for (let dy = -1; dy <= 1; dy++) for (let dx = -1; dx <= 1; dx++) {
          const [u, v] = [x + dx, y + dy];
          if (u < 0 || v < 0 || u >= w || v >= h) continue;
          const edge = this.strength[(y0 + v) * this.width + x0 + u];
          const total = cost[k] + Math.hypot(dx, dy) * (STRAIGHT + (1 - edge) ** 2);
          if (total >= cost[v * w + u]) continue;
          cost[v * w + u] = total;
          from[v * w + u] = k;
          (queue[Math.floor(total * 64)] ||= []).push(v * w + u);
        }
      }
      queue[level] = null;
    }
    const points = [];
    for (let k = from[end]; k >= 0 && k !== start; k = from[k]) points.push([x0 + (k % w) + 0.5, y0 + Math.floor(k / w) + 0.5]);
    return [...points.reverse(), b];
  }
}
