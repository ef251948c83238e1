// The page: which image is shown, whose mask it is, and what is sent to the server when.

import * as api from "./api.js";
import { ClassList, choice } from "./classes.js";
import { Editor, TOOLS } from "./editor.js";
import { fail, hint, safely, sure } from "./notes.js";
import { decodePng, encodePng } from "./png.js";
import { Completer, lasting } from "./prompts.js";
import { LabelMap } from "./raster.js";
import { Strip } from "./strip.js";
import { UNKNOWN, View } from "./view.js";

const $ = (id) => document.getElementById(id);
const ROLES = { open: "predicted", support: "example", accepted: "accepted" };
const state = { images: [], classes: [], version: 0, limits: null, renumbering: false, current: null, loading: null, arrival: null, wanted: null, saving: Promise.resolve() };
const view = new View($("canvas"));
const editor = new Editor(view, { onBegin: begin, onStroke: stroked, onPrompt: () => completer.request(view.map), onNote: hint });
const completer = new Completer({ ask, onAnswer: (...given) => editor.completed(...given), onError: incomplete });
const strip = new Strip($("strip"), (id) => show(id));
const classes = new ClassList($("classes"), editor, safely, {
  onRenamed: (answer) => {
    [state.classes, state.version] = [answer.classes, answer.version];
    refresh();
  },
  onDelete: (number) => removeClass(number),
});
const threshold = () => Number($("threshold").value) / 100;
const image = (id = state.current) => state.images.find((each) => each.id === id);
const hasSupport = () => state.images.some((each) => each.role === "support");

const take = safely(async (files) => {
  const failures = [];
  for (const [k, file] of [...files].entries()) {
    hint(`Adding ${k + 1} of ${files.length}: ${file.name}`);
    try {
      if (file.size > state.limits.upload_bytes) throw new Error(`${file.name} is too large`);
      const added = await api.upload(file);
      state.images.push(added);
      await place(added);
      if (!state.current) await show(added.id);
    } catch (error) { failures.push(error.message); }
  }
  hint(failures.length ? "" : `${files.length} added`);
  if (failures.length) fail(new Error(failures.slice(0, 3).join(" · ") + (failures.length > 3 ? ` · and ${failures.length - 3} more` : "")));
  refresh();
});

async function place(added) {
  strip.add(added);
  strip.setStatus(added.id, hasSupport() || added.role !== "open" ? ROLES[added.role] : "new");
  await strip.picture(added.id, await api.picture(added.id), added);
}

const show = safely(async (id) => {
  if (state.wanted) await state.arrival.catch(() => {}); // an "accept" that came before the mask did
  state.wanted = null;
  editor.finish();
  await completer.idle;
  editor.cancel();
  state.current = id;
  strip.current(id);
  $("empty").hidden = Boolean(id);
  view.show(null, null);
  about();
  if (!id) return;
  state.arrival = arrive(id);
  await state.arrival;
});

async function arrive(id) {
  await state.saving;
  const bitmap = await createImageBitmap(await api.picture(id));
  if (state.current === id) await load(id, bitmap);
}

/** Fetches the mask of an image that is shown. */
async function load(id, bitmap = view.bitmap) {
  state.loading?.abort();
  const control = state.loading = new AbortController();
  const found = await api.labels(id, { threshold: threshold() }, control.signal);
  const { labels, width, height } = await decodePng(found);
  if (control.signal.aborted || state.current !== id) return;
  state.loading = null;
  const map = new LabelMap(labels, width, height, image(id).role === "open" ? null : labels.slice());
  map.id = id;
  view.show(bitmap, map);
  strip.mask(id, map);
  if (image(id).unsaved) {
    image(id).unsaved = false; // what is shown is what the server has
    strip.setStatus(id, ROLES[image(id).role]);
  }
  about();
  if (state.wanted) settle(state.wanted);
}

/** Fetches the predictions of the other images again, one by one, and how far to trust them. */
async function refresh() {
  const turn = refresh.turn = (refresh.turn || 0) + 1;
  const stale = () => turn !== refresh.turn;
  for (const each of [...state.images]) {
    if (stale()) return;
    try {
      if (each.id !== state.current) strip.mask(each.id, await decodePng(await api.labels(each.id, { threshold: threshold() })));
      if (!each.unsaved) strip.setStatus(each.id, each.role === "open" && !hasSupport() ? "new" : ROLES[each.role]);
    } catch (error) { fail(error); return; }
  }
  for (const each of [...state.images]) {
    if (stale() || !hasSupport()) return;
    if (each.role !== "open" || each.unsaved) continue;
    try {
      const { quality } = await api.quality(each.id);
      if (stale()) return;
      each.quality = quality;
      strip.setStatus(each.id, quality === undefined ? "new" : `predicted · ${quality.toFixed(2)}`);
      if (each.id === state.current) about();
    } catch (error) { fail(error); return; }
  }
}

function begin() {
  if (!view.map || !state.current || state.renumbering) return false;
  if (!state.classes.length) { fail(new Error("Add a class first.")); return false; }
  state.loading?.abort();
  return true;
}

/** The completion of what is painted on a map. */
async function ask(map) {
  const body = await encodePng(map.prompts(), map.width, 2 * map.height);
  const answer = await lasting(() => api.complete(map.id, body), lost);
  return (await decodePng(answer)).labels;
}

const lost = () => hint("The server does not answer: what you drew is kept here and sent as soon as it does.");

/** The stroke stays as it is, and is not sent. */
function incomplete(error) {
  fail(error);
  if (!editor.waiting) return;
  editor.close();
  unsaved(image());
}

function stroked() {
  const shown = image();
  settle(shown.role === "open" ? (hasSupport() ? "accepted" : "support") : shown.role);
}

/** Settles the mask once the present stroke is completed. */
async function decide(role) {
  editor.finish();
  await completer.idle;
  settle(role);
}

/** Sends the mask as it is shown. Masks are sent one after the other, the newest last. */
function settle(role) {
  const shown = image();
  if (!shown || state.renumbering) return;
  state.wanted = view.map ? null : role; // as soon as the mask is here
  if (state.wanted) return;
  state.loading?.abort();
  const { labels, width, height } = view.map;
  const copy = labels.slice();
  shown.kept ??= shown.role; // what the server has, should it refuse this
  shown.role = role;
  about();
  state.saving = state.saving.then(safely(async () => {
    try {
      const body = await encodePng(copy, width, height);
      apply(shown, await lasting(() => api.settle(shown.id, role, body), lost));
      strip.mask(shown.id, { labels: copy, width, height });
    } catch (error) {
      unsaved(shown);
      throw error;
    }
  }));
}

/** The last mask was refused: the page shows it and keeps what is drawn, so that it can be sent again. */
function unsaved(shown) {
  Object.assign(shown, { role: shown.kept, unsaved: true });
  strip.setStatus(shown.id, "not saved");
  if (shown.id === state.current) about();
}

/** Applies the server's answer about an image; new examples change the predictions. */
function apply(shown, answer) {
  Object.assign(shown, { role: answer.role, kept: answer.role, unsaved: false });
  strip.setStatus(shown.id, ROLES[shown.role]);
  const changed = answer.version !== state.version;
  state.version = answer.version;
  if (shown.id === state.current) about();
  if (!changed) return;
  refresh();
  const now = image();
  if (now && now.id !== shown.id && now.role === "open" && !editor.busy && !editor.waiting) safely(load)(now.id);
}

const reopen = safely(async () => {
  const shown = image();
  if (!shown || shown.role === "open") return;
  editor.cancel();
  await state.saving;
  apply(shown, await api.reopen(shown.id));
  if (state.current === shown.id) await load(shown.id);
});

const remove = safely(async () => {
  const shown = image();
  if (!shown) return;
  if (shown.role !== "open" && !await sure(`Remove ${shown.name} and its mask?`, "Remove")) return;
  await state.saving;
  await api.removeImage(shown.id);
  const place = state.images.indexOf(shown);
  state.images.splice(place, 1);
  strip.remove(shown.id);
  await show(state.images[Math.min(place, state.images.length - 1)]?.id ?? null);
  refresh();
});

const removeClass = safely(async (number) => {
  const what = `Delete the class “${state.classes[number - 1]}”? It is taken off every mask; images that show nothing else are predicted again.`;
  if (!await sure(what, "Delete")) return;
  editor.cancel();
  state.renumbering = true; // what is drawn now would be sent with the old numbers
  try {
    await state.saving;
    const left = await api.removeClass(number);
    [state.classes, state.version] = [left.classes, left.version];
    for (const { id, role } of left.images) Object.assign(image(id) || {}, { role, kept: role, quality: undefined });
    if (editor.number !== UNKNOWN && editor.number >= number) editor.number = Math.max(1, editor.number - 1);
    classes.draw(state.classes);
    if (state.current) await load(state.current);
  } finally { state.renumbering = false; }
  refresh();
});

function undo(act) {
  if (!state.renumbering && editor.travel(act)) stroked();
}

// ---- controls

function about() {
  const shown = image();
  const open = shown?.role === "open";
  let text = "None yet.";
  if (shown) {
    text = `${shown.name}, ${shown.width} × ${shown.height}: `;
    if (shown.unsaved) text += "the last change is not saved; choose what it is again, or undo it";
    else if (!open) text += ROLES[shown.role];
    else if (!hasSupport()) text += "draw a line along the thing here, or a box around it";
    else text += shown.quality === undefined ? "predicted" : `predicted, quality ${shown.quality.toFixed(2)}`;
  }
  $("about").textContent = text;
  $("accept").disabled = !shown || (open && !hasSupport())
    || shown.role === "support" || (shown.role === "accepted" && !shown.unsaved);
  $("support").disabled = !shown || (shown.role === "support" && !shown.unsaved);
  $("reopen").disabled = !shown || open;
  $("remove").disabled = !shown;
  $("undo").disabled = !view.map?.done.length;
  $("redo").disabled = !view.map?.undone.length;
  $("threshold").disabled = !hasSupport();
}

function tool(name) {
  editor.choose(name);
  hint(TOOLS[name].help);
  document.querySelector(`#tool input[value="${name}"]`).checked = true;
}

function resize(value) {
  $("diameter").value = value;
  editor.diameter = Number($("diameter").value);
  $("diameter-is").value = editor.diameter;
  view.draw();
}

function step(by) {
  const place = state.images.findIndex((each) => each.id === state.current) + by;
  if (state.images[place]) show(state.images[place].id);
}

function wire() {
  for (const name of Object.keys(TOOLS)) {
    const label = choice($("tool"), "tool", name, name === editor.tool, () => tool(name));
    label.append(TOOLS[name].name);
    label.title = `${TOOLS[name].help} (${TOOLS[name].key})`;
  }
  const acts = {
    undo: () => undo("undo"), redo: () => undo("redo"), in: () => view.zoomBy(1.4), out: () => view.zoomBy(1 / 1.4),
    fit: () => view.fit(), accept: () => decide("accepted"), support: () => decide("support"), reopen, remove,
    help: () => $("keys").showModal(),
  };
  for (const [id, act] of Object.entries(acts)) $(id).onclick = () => act();
  $("snap").onchange = () => { editor.snaps = $("snap").checked; };
  $("diameter").oninput = () => resize($("diameter").value);
  $("opacity").oninput = () => { view.opacity = strip.opacity = Number($("opacity").value) / 100; view.draw(); };
  let waiting;
  $("threshold").oninput = () => {
    $("threshold-is").value = threshold().toFixed(2);
    clearTimeout(waiting);
    waiting = setTimeout(() => { if (image()?.role === "open") safely(load)(state.current); }, 60);
  };
  $("threshold").onchange = () => refresh();
  $("files").onchange = () => { take([...$("files").files]); $("files").value = ""; };
  $("new-class").onsubmit = safely(async (event) => {
    event.preventDefault();
    state.classes = (await api.addClass($("class-name").value)).classes;
    $("class-name").value = "";
    editor.number = state.classes.length;
    classes.draw(state.classes);
  });
  $("download").onsubmit = safely(async (event) => {
    event.preventDefault();
    editor.finish();
    await completer.idle;
    await state.saving;
    const { name, blob } = await api.download($("format").value, { threshold: threshold(), settled: $("settled").checked });
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    $("save").open = false;
  });
  addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dragged"); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dragged"); });
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragged");
    if (event.dataTransfer.files.length) take(event.dataTransfer.files);
  });
  addEventListener("keydown", keys);
}

function keys(event) {
  if (event.target.matches("input[type=text], #class-name, select") || document.querySelector("dialog[open]") || event.altKey) return;
  const key = event.key.toLowerCase();
  if (event.ctrlKey || event.metaKey) {
    if (key !== "z" && key !== "y") return;
    event.preventDefault();
    undo(key === "y" || event.shiftKey ? "redo" : "undo");
    return;
  }
  const chosen = Object.keys(TOOLS).find((name) => TOOLS[name].key.toLowerCase() === key);
  const acts = {
    "[": () => resize(editor.diameter - (editor.diameter > 20 ? 4 : 1)), "]": () => resize(editor.diameter + (editor.diameter > 19 ? 4 : 1)),
    "+": () => view.zoomBy(1.4), "=": () => view.zoomBy(1.4), "-": () => view.zoomBy(1 / 1.4), "0": () => view.fit(),
    n: () => step(1), m: () => step(-1), a: () => { if (!$("accept").disabled) decide("accepted"); },
    s: () => { if (!$("support").disabled) decide("support"); }, x: reopen, g: () => classes.pick(0), u: () => classes.pick(UNKNOWN),
    "?": () => $("keys").showModal(),
  };
  if (chosen) tool(chosen);
  else if (/^[1-9]$/.test(key)) classes.pick(Number(key));
  else if (acts[key]) acts[key]();
  else return;
  event.preventDefault();
}

const start = safely(async () => {
  wire();
  const opened = await api.open();
  Object.assign(state, { images: opened.images, classes: opened.classes, version: opened.version, limits: opened.limits });
  $("model").textContent = opened.model;
  for (const [form, title] of Object.entries(opened.formats)) $("format").append(new Option(title, form));
  if (!state.classes.length) state.classes = (await api.addClass("object")).classes;
  classes.draw(state.classes);
  about();
  for (const each of state.images) await place(each);
  await show(state.images[0]?.id ?? null);
  refresh();
  document.body.dataset.ready = "true";
});

start();
