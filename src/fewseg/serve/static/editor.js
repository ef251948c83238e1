// Drawing on the mask: pointers, touch and keys become strokes, and strokes become masks.

import { Edges } from "./edges.js";
import { UNKNOWN, colour } from "./colours.js";

const NEAR = 12; // CSS pixels from a polygon's first point that close it, and within which a corner snaps

/** The tools: key, name, what to do with it, and whether the rest is completed. */
export const TOOLS = {
  scribble: { key: "B", name: "Scribble", help: "Draw a line along the thing, or tap it: the rest of it is found.", completes: true },
  box: { key: "O", name: "Box", help: "Drag a box around one thing: it is found within.", completes: true },
  fill: { key: "F", name: "Fill", help: "Tap an area of one colour. The size is how much the colour may differ." },
  polygon: { key: "P", name: "Polygon", help: "Tap along the outline, which follows edges; tap the first point to close." },
  rectangle: { key: "R", name: "Rectangle", help: "Drag a rectangle: all of it is painted." },
  brush: { key: "D", name: "Pixels", help: "Paint pixels exactly; nothing else changes." },
  eraser: { key: "E", name: "Eraser", help: "Paint background exactly; nothing else changes." },
  pan: { key: "V", name: "Move", help: "Drag the image; the wheel or two fingers zoom." },
};

export class Editor {
  /**
   * onBegin() returns whether drawing is possible; onStroke() is called when the mask has changed, onPrompt() when
   * one is to be completed, onNote(text) with what a person should know of a stroke.
   */
  constructor(view, { onBegin, onStroke, onPrompt, onNote }) {
    Object.assign(this, { view, onBegin, onStroke, onPrompt, onNote });
    this.tool = "scribble";
    this.number = 1;
    this.diameter = 12;
    this.snaps = true;
    this.points = []; // of a polygon, rectangle or box that is not closed yet
    this.corners = []; // how many points there were before each corner of a polygon
    this.waiting = false; // for the completion of a stroke
    this.cursor = null; // image point of the pointer, or of the keys
    this.keys = false; // whether keys moved it last
    this.pen = false;
    this.pointers = new Map();
    const { canvas } = view;
    view.sketch = (context) => this.sketch(context);
    for (const [name, act] of Object.entries({
      pointerdown: this.down, pointermove: this.move, pointerup: this.up, pointercancel: this.lost,
      pointerleave: this.leave, wheel: this.wheel, dblclick: this.finish, keydown: this.key,
      contextmenu: (event) => event.preventDefault(), blur: this.finishPen,
    })) canvas.addEventListener(name, act.bind(this), name === "wheel" ? { passive: false } : undefined);
  }

  get map() { return this.view.map; }
  get value() { return this.tool === "eraser" ? 0 : this.number; }
  get busy() { return this.pen || this.points.length > 0; }
  get drags() { return this.tool === "rectangle" || this.tool === "box"; }
  get completes() { return Boolean(TOOLS[this.tool].completes); }
  get edges() {
    if (this.edgesOf !== this.map) [this.edgesOf, this.known] = [this.map, new Edges(this.view.pixels, this.map.width, this.map.height)];
    return this.known;
  }

  choose(tool) {
    this.cancel();
    this.tool = tool;
    this.view.canvas.dataset.tool = tool;
    this.view.draw();
  }

  cancel() {
    const { pen } = this;
    if (pen || this.waiting) {
      this.map.cancel();
      this.view.changed();
    }
    this.pen = this.waiting = false;
    this.points = [];
    this.corners = [];
    if (pen) this.resume();
    this.view.draw();
  }

  /** Completes the stroke before one that came to nothing. */
  resume() {
    if (!this.owed) return;
    this.owed = false;
    this.map.begin();
    this.waiting = true;
    this.onPrompt();
  }

  /** Ends a stroke whose completion is not there yet. */
  close() {
    this.waiting = false;
    return this.map.commit();
  }

  /** Takes back or repeats a change, of an open polygon its last corner; returns whether the mask has changed. */
  travel(act) {
    if (this.pen || !this.map) return false;
    if (this.points.length) {
      if (act === "undo") this.points.length = this.corners.pop() ?? 0;
      this.view.draw();
      return false;
    }
    if (this.waiting) this.close();
    if (!this.map[act]()) return false;
    this.view.changed();
    return true;
  }

  /** Takes a completion; the one of a stroke that has ended ends it for good. */
  completed(map, labels, turn) {
    if (map !== this.map || !(this.pen && this.completes || this.waiting && turn === map.turn)) return;
    map.complete(labels);
    this.view.changed();
    if (this.waiting && this.close()) this.onStroke();
  }

  /** Ends what was painted; the rest follows where the tool completes it. */
  painted() {
    const { map } = this;
    if (!this.inked) {
      map.cancel();
      this.view.changed();
      this.onNote("That is outside the image: nothing was painted.");
      return this.resume();
    }
    const lost = this.completes ? map.contradicted() : 0;
    if (lost) this.onNote(`${lost} pixels were painted as something else before: the newer stroke counts.`);
    if (this.completes) {
      this.waiting = true;
      this.onPrompt();
    } else if (map.commit()) this.onStroke();
  }

  at(event) {
    const box = this.view.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  down(event) {
    if (!this.map) return;
    this.view.canvas.focus({ preventScroll: true });
    this.view.canvas.setPointerCapture(event.pointerId);
    const place = this.at(event);
    this.pointers.set(event.pointerId, place);
    this.keys = false;
    if (this.pointers.size > 1) { // two fingers move the image; what the first began is taken back
      if (this.pen) this.cancel();
      if (this.drags) this.points = [];
      this.panning = true;
      return;
    }
    this.cursor = this.view.toImage(...place);
    this.panning = this.tool === "pan" || event.button === 1;
    if (this.panning || event.button > 1) return;
    if (this.tool === "polygon") this.addPoint(this.cursor);
    else if (this.drags) { if (!this.points.length && this.starts()) this.points = [this.cursor]; }
    else if (this.tool === "fill") this.fill();
    else this.penDown();
  }

  /** Whether something new can be drawn; a stroke that waits is ended as it is. */
  starts() {
    if (!this.onBegin()) return false;
    this.inked = false;
    this.owed = this.waiting;
    if (this.waiting) this.close();
    return true;
  }

  move(event) {
    if (!this.map) return;
    const place = this.at(event);
    const before = this.pointers.get(event.pointerId);
    if (before && this.panning) {
      if (this.pointers.size === 2) this.pinch(event.pointerId, before, place);
      else if (this.pointers.size === 1) this.view.pan(place[0] - before[0], place[1] - before[1]);
      this.pointers.set(event.pointerId, place);
      return;
    }
    if (before) this.pointers.set(event.pointerId, place);
    this.keys = false;
    const events = this.pen && event.getCoalescedEvents ? event.getCoalescedEvents() : [];
    for (const each of events.length ? events : [event]) this.moveTo(this.view.toImage(...this.at(each)));
  }

  pinch(id, before, place) {
    const [, other] = [...this.pointers].find(([key]) => key !== id);
    const span = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]) || 1;
    this.view.pan((place[0] - before[0]) / 2, (place[1] - before[1]) / 2);
    this.view.zoomBy(span(place) / span(before), (place[0] + other[0]) / 2, (place[1] + other[1]) / 2);
  }

  up(event) {
    this.pointers.delete(event.pointerId);
    if (this.panning) {
      if (!this.pointers.size) this.panning = false;
      return;
    }
    if (this.pen) this.penUp();
    else if (this.drags && this.points.length) this.closeRectangle();
  }

  lost(event) {
    this.pointers.delete(event.pointerId);
    this.cancel();
    if (!this.pointers.size) this.panning = false;
  }

  leave() {
    if (!this.pointers.size && !this.keys && !this.points.length) this.cursor = null;
    this.view.draw();
  }

  wheel(event) {
    event.preventDefault();
    this.view.zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...this.at(event));
  }

  moveTo(point) {
    const last = this.cursor;
    this.cursor = point;
    if (this.pen) this.stamp(last || point, point);
    this.view.draw();
  }

  penDown() {
    if (!this.starts()) return;
    this.map.begin();
    this.pen = true;
    this.stamp(this.cursor, this.cursor);
  }

  stamp(from, to) {
    const known = this.map.dirty;
    this.map.dirty = null;
    this.map.line(from, to, this.diameter, this.value);
    const now = this.map.dirty;
    if (now) this.view.changed(now);
    if (now) this.inked = true;
    this.map.dirty = joined(known, now);
    if (now && this.completes) this.onPrompt();
  }

  penUp() {
    this.pen = false;
    this.painted();
  }

  finishPen() { if (this.pen) this.penUp(); }

  addPoint(point) {
    if (!this.points.length && !this.starts()) return;
    if (this.points.length > 2) {
      const [a, b] = [this.points[0], point].map((p) => this.view.toCanvas(p));
      if (!this.keys && Math.hypot(a[0] - b[0], a[1] - b[1]) < NEAR) return this.closePolygon();
    }
    const way = this.way(point);
    this.corners.push(this.points.length);
    this.points.push(...way);
    this.view.draw();
  }

  /** The points from the last one to a new corner: along edges, where it snaps and nothing came by key. */
  way(point, snap = true) {
    if (!this.snaps || this.keys) return [point];
    const corner = snap ? this.edges.snap(point, NEAR / 2 / this.view.zoom) : point;
    return this.points.length ? this.edges.way(this.points.at(-1), corner) : [corner];
  }

  closePolygon() {
    if (this.points.length > 2) this.points.push(...this.way(this.points[0], false));
    const points = this.points;
    this.points = [];
    this.corners = [];
    if (points.length > 2) this.once(() => this.map.polygon(points, this.value));
    this.view.draw();
  }

  closeRectangle() {
    const [corner] = this.points;
    this.points = [];
    if (!corner || !this.cursor) return this.view.draw();
    if (this.tool === "box" && (this.number === 0 || this.number === UNKNOWN)) return this.onNote("A box is around a thing: choose its class first.");
    const [a, b] = [corner, this.cursor];
    this.once(() => (this.tool === "box" ? this.map.box(a, b, this.number) : this.map.rectangle(a, b, this.value)));
    this.view.draw();
  }

  fill() {
    if (this.starts()) this.once(() => this.map.fill(this.cursor, this.view.pixels, this.diameter, this.value));
  }

  once(act) {
    this.map.begin();
    act();
    this.inked = Boolean(this.map.dirty);
    if (this.inked) this.view.changed(this.map.dirty);
    this.painted();
  }

  finish() {
    if (this.tool === "polygon") this.closePolygon();
    else if (this.drags) this.closeRectangle();
    else this.finishPen();
  }

  key(event) {
    if (!this.map || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step && ![" ", "Enter", "Escape"].includes(event.key)) return;
    event.preventDefault();
    if (event.key === "Escape") return this.cancel();
    if (event.key === "Enter") return this.finish();
    const { width, height } = this.map;
    const [x, y] = this.cursor || [width / 2, height / 2];
    const far = event.shiftKey ? 10 : 1;
    const clamp = (v, most) => Math.min(most - 0.5, Math.max(0.5, Math.floor(v) + 0.5));
    this.keys = true;
    const point = [clamp(x + far * (step?.[0] || 0), width), clamp(y + far * (step?.[1] || 0), height)];
    if (step && this.tool === "pan") return this.view.pan(-step[0] * 8 * far, -step[1] * 8 * far);
    if (step) {
      this.moveTo(point);
      return this.view.reveal(point);
    }
    this.cursor = point;
    if (this.tool === "polygon") this.addPoint(point);
    else if (this.tool === "fill") this.fill();
    else if (this.drags) {
      if (this.points.length) this.closeRectangle();
      else if (this.starts()) this.points = [point];
    } else if (this.tool !== "pan") {
      if (this.pen) this.penUp();
      else this.penDown();
    }
    this.view.draw();
  }

  sketch(context) {
    const { view, cursor } = this;
    const ink = this.tool === "eraser" ? "#ffffff" : colour(this.number);
    const outline = (path) => {
      for (const [style, width] of [["rgba(0,0,0,.75)", 3], [ink, 1.5]]) {
        Object.assign(context, { strokeStyle: style, lineWidth: width });
        context.stroke(path);
      }
    };
    const path = new Path2D();
    if (this.points.length && this.drags && cursor) {
      const [a, b] = [view.toCanvas(this.points[0]), view.toCanvas(cursor)];
      path.rect(Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.abs(a[0] - b[0]), Math.abs(a[1] - b[1]));
    }
    if (this.points.length && this.tool === "polygon") {
      [...this.points, ...(cursor ? this.way(cursor) : [])].map((p) => view.toCanvas(p)).forEach(([x, y]) => path.lineTo(x, y));
      const [x, y] = view.toCanvas(this.points[0]);
      path.moveTo(x + 6, y);
      path.arc(x, y, 6, 0, 7);
    }
    if (cursor) {
      const [x, y] = view.toCanvas(cursor);
      if (["scribble", "brush", "eraser"].includes(this.tool)) {
        const r = Math.max(2, (this.diameter / 2) * view.zoom);
        path.moveTo(x + r, y);
        path.arc(x, y, r, 0, 7);
      }
      if (this.keys) for (const [dx, dy] of [[9, 0], [0, 9]]) {
        path.moveTo(x - dx, y - dy);
        path.lineTo(x + dx, y + dy);
      }
    }
    outline(path);
  }
}

function joined(a, b) {
  if (!a || !b) return a || b;
  return [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[2], b[2]), Math.max(a[3], b[3])];
}
