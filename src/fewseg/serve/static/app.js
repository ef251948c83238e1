// The page: which image is shown, whose mask it is, and what is sent to the server when.

import * as api from "./api.js";
import { ClassList, choice } from "./classes.js";
import { UNKNOWN, colourClasses, standOut, usePalette } from "./colours.js";
import { Editor, TOOLS } from "./editor.js";
import { drawIcons, icon } from "./icons.js";
import { fail, hint, question, safely, sure } from "./notes.js";
import { decodePng, encodePng } from "./png.js";
import { Completer, lasting } from "./prompts.js";
import { LabelMap } from "./raster.js";
import { advice, arranged, expectations, offerClasses, progress, reviewed } from "./review.js";
import { samplePictures } from "./sample.js";
import { isSession, openSession, saveSession, zipped } from "./session.js";
import { STATES, Strip, stateOf } from "./strip.js";
import { View } from "./view.js";

const $ = (id) => document.getElementById(id);
const ANNOTATIONS = /\.(zip|json|xml|ya?ml)$/i; // files that are imported when they are dropped
const LOOKS = ["fill", "outline", "hidden"];
const state = {
  images: [], classes: [], version: 0, limits: null, command: "", undoable: false, redoable: false,
  renumbering: false, // while numbers of classes change
  current: null, loading: null, arrival: null, wanted: null,
  editing: null, // the map whose last change was a stroke
  toned: new Set(), // names of the classes whose colour was compared with an image
  saving: Promise.resolve(), undoing: Promise.resolve(),
  advice: { next: [], expected: [] },
};
const view = new View($("canvas"));
const editor = new Editor(view, { onBegin: begin, onStroke: stroked, onPrompt: () => completer.request(view.map), onNote: hint });
const completer = new Completer({ ask, onAnswer: (...given) => editor.completed(...given), onError: incomplete });
const strip = new Strip($("strip"), (id) => { grid(false); show(id); });
const classes = new ClassList($("classes"), editor, safely, {
  onRenamed: (answer) => {
    [state.classes, state.version] = [answer.classes, answer.version];
    colourClasses(answer.classes);
    offerClasses(answer.classes);
    changed();
    refresh();
  },
  onDelete: (number) => removeClass(number),
  onRecoloured: recoloured,
});
const threshold = () => Number($("threshold").value) / 100;
const image = (id = state.current) => state.images.find((each) => each.id === id);
const hasSupport = () => state.images.some((each) => each.role === "support");
const shownImages = () => arranged(state.images, hasSupport(), state.classes, (id, number) => strip.items.get(id)?.classes?.has(number));
const inGrid = () => document.body.dataset.view === "grid";

// ---- images in

/** Adds images one after the other, so that any number of them needs the memory of one. */
const take = safely(async (files) => {
  const failures = [];
  let added = 0;
  for (const [k, file] of files.entries()) {
    hint(`Adding ${k + 1} of ${files.length}: ${file.name}`, true);
    try {
      if (file.size > state.limits.upload_bytes) throw new Error(`${file.name} is too large`);
      await join(await lasting(() => api.upload(file, file.name), lost));
      added++;
    } catch (error) {
      failures.push(error.message);
      if (error.status === 413 && error.message.startsWith("a session")) break; // nor is there room for the others
    }
  }
  hint(failures.length ? "" : `${added} added`);
  report(failures);
  refresh();
});

function report(failures) {
  const more = failures.length > 3 ? ` · and ${failures.length - 3} more` : "";
  if (failures.length) fail(new Error(failures.slice(0, 3).join(" · ") + more));
}

/** Takes an image that the server has added. */
async function join(added) {
  state.images.push(added);
  await place(added);
  if (!state.current) await show(added.id);
  arrange();
}

async function place(added) {
  strip.add(added);
  status(added);
  await strip.picture(added.id, await api.picture(added.id, { small: true }));
}

const drop = safely(async (files) => {
  const [first] = files;
  if (files.length === 1 && first.name.endsWith(".zip") && await isSession(first)) await reopenSession(first);
  else if (files.every((file) => ANNOTATIONS.test(file.name))) await importMasks(files);
  else await take(files);
});

const importMasks = safely(async (files) => {
  const [first] = files;
  const alone = files.length === 1 && ANNOTATIONS.test(first.name);
  const file = alone ? first : await zipped(files.map((each) => [each.name, each]));
  const answer = await question("What are the imported masks? The other images are predicted by examples; masks that are only accepted teach nothing.", "Examples", "Accepted masks");
  if (!answer) return;
  hint("Importing masks", true);
  const found = await api.importMasks(file, alone ? first.name : "masks.zip", answer === "yes" ? "support" : "accepted");
  strip.forget();
  await adopt(found);
  hint(`${found.count} masks imported`);
  report(found.notes);
});

const reopenSession = safely(async (file) => {
  if (state.images.length && !await sure("Open the saved session in place of the images and masks that are here?", "Open")) return;
  await state.saving;
  await adopt(await api.restart());
  state.toned.clear();
  let count = 0;
  const failed = await openSession(file, async (added, all) => {
    hint(`Opening ${++count} of ${all}: ${added.name}`, true);
    await join(added);
  });
  await adopt(await api.session());
  hint(`${count} images opened`);
  report(failed);
});

const newSession = safely(async () => {
  if (!await sure("Remove all images and masks, and start with an empty session?", "Remove")) return;
  await api.restart();
  location.reload();
});

// ---- the image that is shown

const show = safely(async (id) => {
  if (state.wanted) await state.arrival.catch(() => {}); // an "accept" that came before the mask did
  state.wanted = null;
  editor.finish();
  await completer.idle;
  editor.cancel();
  if (id !== state.current) leave();
  state.current = id;
  state.editing = null;
  strip.current(id);
  $("empty").hidden = Boolean(id);
  view.show(null, null);
  about();
  if (!id) return;
  state.arrival = arrive(id);
  await state.arrival;
});

/** An edited mask becomes an example when nothing else was answered. */
function leave() {
  const shown = image();
  if (shown?.role === "edited" && !shown.unsaved && view.map) settle("support");
}

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
  state.editing = null;
  const map = new LabelMap(labels, width, height, image(id).role === "open" ? null : labels.slice());
  map.id = id;
  view.show(bitmap, map);
  strip.mask(id, map);
  if (image(id).unsaved) {
    image(id).unsaved = false; // what is shown is what the server has
    status(image(id));
  }
  about();
  if (state.wanted) settle(state.wanted);
}

/** Fetches the predictions of the other images again, one by one, and how far to trust them. */
async function refresh() {
  const turn = refresh.turn = (refresh.turn || 0) + 1;
  const stale = () => turn !== refresh.turn;
  arrange();
  const order = [...new Set([...shownImages(), ...state.images])];
  const from = order.findIndex((each) => each.id === state.current);
  const queue = [...order.slice(from + 1), ...order.slice(0, from + 1)]; // what is looked at next comes first
  try {
    for (const [k, each] of queue.entries()) {
      if (stale()) return;
      const known = each.role !== "open" && strip.items.get(each.id)?.map;
      if (each.id !== state.current && !known) {
        busy("Predicting", k, queue.length);
        const labels = await decodePng(await api.labels(each.id, { threshold: threshold(), small: true }));
        if (!stale()) strip.mask(each.id, labels);
      }
      if (!each.unsaved) status(each);
    }
    for (const [k, each] of queue.entries()) {
      if (stale()) return;
      if (!hasSupport()) break;
      if (each.role !== "open" || each.unsaved) continue;
      busy("Judging", k, queue.length);
      const { quality, verdict, scores } = await api.quality(each.id);
      if (stale()) return;
      Object.assign(each, { quality, verdict, scores });
      status(each);
      if (each.id === state.current) about();
    }
    if (stale()) return;
    if (state.images.length) state.advice = await api.advice();
    suggest();
    arrange();
  } catch (error) { fail(error); } finally { if (!stale()) busy(""); }
}

function busy(what, k, count) { $("busy").textContent = what && count > 1 ? `${what} ${k + 1} of ${count}` : ""; }

function suggest() {
  const next = state.advice.next.filter((id) => image(id)?.role === "open");
  const best = next.length ? image(next[0]) : null;
  strip.suggest(next);
  expectations(state.advice.expected, state.classes);
  $("suggestion").hidden = !best;
  if (!best) return;
  $("suggestion").textContent = `Annotate next: ${best.name}`;
  $("suggestion").onclick = () => { grid(false); show(best.id); };
}

/** Shows an image's state below its picture. */
function status(each) {
  const own = stateOf(each, hasSupport());
  if (own !== "predicted") each.verdict = each.quality = each.scores = undefined;
  strip.setStatus(each.id, each.unsaved ? "not saved" : own, each.verdict);
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

const lost = () => hint("The server does not answer: what you drew is kept here and sent as soon as it does.", true);

/** The stroke stays as it is, and is not sent. */
function incomplete(error) {
  fail(error);
  if (!editor.waiting) return;
  editor.close();
  unsaved(image());
}

function stroked() {
  const { role } = image();
  const again = state.editing === view.map;
  state.editing = view.map;
  settle(role === "support" || (role === "open" && !hasSupport()) ? "support" : "edited", again);
}

/** Settles the mask once the present stroke is completed. */
async function decide(role) {
  const following = role === "accepted" ? nextToReview() : null;
  editor.finish();
  await completer.idle;
  settle(role);
  state.editing = null;
  for (const patches of [view.map?.done, view.map?.undone]) if (patches) patches.length = 0; // the server's undo comes first
  if (following) show(following.id);
}

/** The image after the present one, in the order shown, that nobody has reviewed. */
function nextToReview() {
  const order = shownImages();
  const from = order.findIndex((each) => each.id === state.current) + 1;
  return [...order.slice(from), ...order.slice(0, from)].find((each) => each.id !== state.current && !reviewed(each));
}

/** Sends the mask as it is shown. Masks are sent one after the other, the newest last. */
function settle(role, again = false) {
  const shown = image();
  if (!shown || state.renumbering) return;
  state.wanted = view.map ? null : role; // as soon as the mask is here
  if (state.wanted) return;
  state.loading?.abort();
  const { labels, width, height } = view.map;
  const { bitmap } = view;
  const copy = labels.slice();
  shown.kept ??= shown.role; // what the server has, should it refuse this
  shown.role = role;
  about();
  state.saving = state.saving.then(safely(async () => {
    try {
      const body = await encodePng(copy, width, height);
      apply(shown, await lasting(() => api.settle(shown.id, role, body, again, shown.edit), lost));
      strip.mask(shown.id, { labels: copy, width, height });
      tone(bitmap, { labels: copy, width, height });
    } catch (error) {
      unsaved(shown);
      if (error.status === 409) await latest(shown);
      throw error;
    }
  }));
}

/** The last mask was refused: the page shows it and keeps what is drawn, so that it can be sent again. */
function unsaved(shown) {
  Object.assign(shown, { role: shown.kept ?? shown.role, unsaved: true });
  status(shown);
  if (shown.id === state.current) about();
}

/** Something has changed that can be undone. */
function changed() { [state.undoable, state.redoable] = [true, false]; }

/** Applies the server's answer about an image; new examples change the predictions. */
function apply(shown, answer) {
  Object.assign(shown, { role: answer.role, edit: answer.edit, kept: answer.role, unsaved: false });
  changed();
  status(shown);
  const differs = answer.version !== state.version;
  state.version = answer.version;
  if (shown.id === state.current) about();
  progress(state.images);
  suggest();
  if (!differs) return;
  refresh();
  const now = image();
  if (now && now.id !== shown.id && now.role === "open" && !editor.busy && !editor.waiting) safely(load)(now.id);
}

/** Accepts the predictions of images that are not shown, as they are. */
const acceptAll = safely(async (images) => {
  for (const each of images) apply(each, await api.settle(each.id, "accepted", await api.labels(each.id, { threshold: threshold() })));
  arrange();
});

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
  await adopt(await api.session());
});

const removeClass = safely(async (number) => {
  const what = `Delete the class “${state.classes[number - 1]}”? It is taken off every mask; images that show nothing else are predicted again.`;
  if (!await sure(what, "Delete")) return;
  editor.cancel();
  await renumbered(async () => {
    const answer = await api.removeClass(number);
    if (editor.number !== UNKNOWN && editor.number >= number) editor.number = Math.max(1, editor.number - 1);
    return answer;
  });
});

/** An action after which the page is as the server has it; what is drawn meanwhile would be sent with old numbers. */
async function renumbered(act) {
  state.renumbering = true;
  try {
    await state.saving;
    const answer = await act();
    await adopt(answer);
    return answer;
  } finally { state.renumbering = false; }
}

/** Takes a stroke back, or else what was done last on any image; one after the other. */
function undo(act) { state.undoing = state.undoing.then(() => undoNow(act)); }

const undoNow = safely(async (act) => {
  if (state.renumbering || editor.pen) return;
  const strokes = act === "undo" ? (view.map?.done.length ?? 0) - 1 : view.map?.undone.length ?? 0;
  if (editor.points.length || editor.waiting || strokes > 0) { // the first one is undone with the role that it gave
    if (editor.travel(act)) stroked();
    return;
  }
  if (act === "undo" ? !state.undoable : !state.redoable) return;
  const { changed: ids } = await renumbered(() => api[act]());
  const [id] = ids.filter((each) => image(each));
  if (id && !ids.includes(state.current)) await show(id);
  hint(act === "undo" ? "Undone" : "Done again");
});

/** Takes the page as the server has it. */
async function adopt(page) {
  const before = new Map(state.images.map((each) => [each.id, each]));
  const gone = new Set(before.keys());
  const others = String(page.classes) !== String(state.classes);
  for (const { id } of page.images) gone.delete(id);
  for (const id of gone) strip.remove(id);
  const at = state.images.findIndex((each) => each.id === state.current);
  state.images = page.images.map((each) => Object.assign(before.get(each.id) ?? {}, each, { kept: each.role }));
  Object.assign(state, { version: page.version, undoable: page.undoable, redoable: page.redoable });
  if (others) {
    named(page.classes);
    strip.forget();
  }
  for (const id of page.changed ?? []) strip.forget(id);
  for (const each of state.images) if (!before.has(each.id)) await place(each);
  for (const each of state.images) if (!each.unsaved) status(each);
  const left = image() ?? state.images[Math.min(Math.max(0, at), state.images.length - 1)];
  if (left?.id !== state.current) await show(left?.id ?? null);
  else if (left) await load(left.id);
  about();
  refresh();
}

/** Knows of the other tab's mask of an image, so that accepting this one replaces it. */
async function latest(shown) {
  shown.edit = (await api.session()).images.find(({ id }) => id === shown.id)?.edit ?? shown.edit;
}

/** Takes what another tab has changed in the same session. */
const sync = safely(async () => {
  if (document.hidden || editor.busy || editor.waiting || image()?.unsaved || state.renumbering || !document.body.dataset.ready) return;
  await state.saving;
  const page = await api.session();
  const known = state.images.map(({ id, edit }) => [id, edit]);
  if (String([page.classes, page.images.map(({ id, edit }) => [id, edit])]) !== String([state.classes, known])) await adopt(page);
});

// ---- classes and their colours

function named(names) {
  state.classes = names;
  colourClasses(names);
  if (editor.number !== UNKNOWN && editor.number > names.length) editor.number = Math.max(1, names.length);
  classes.draw(names);
  offerClasses(names);
}

function recoloured() {
  view.changed();
  strip.recolour();
}

/** Gives classes that a mask shows for the first time a colour that stands out from the image. */
function tone(bitmap, map) {
  const fresh = state.classes.filter((name, k) => !state.toned.has(name) && map.labels.includes(k + 1));
  for (const name of fresh) state.toned.add(name);
  const moved = fresh.filter((name) => standOut(state.classes.indexOf(name) + 1, bitmap, map));
  if (!moved.length) return;
  classes.draw(state.classes);
  recoloured();
  hint(`The colour of ${moved.join(", ")} was changed, to stand out from the image.`);
}

// ---- controls

function arrange() {
  strip.arrange(shownImages());
  progress(state.images);
  const own = state.images.filter(reviewed).length;
  $("download-is").textContent = `${own} of ${state.images.length} images are reviewed: accepted or examples.`;
}

function about() {
  const shown = image();
  const open = shown?.role === "open";
  const predicts = hasSupport();
  let text = "None yet.";
  if (shown) {
    text = `${shown.name}, ${shown.width} × ${shown.height}: `;
    if (shown.unsaved) text += "the last change is not saved; choose what it is again, or undo it";
    else if (!open) text += STATES[shown.role];
    else if (!predicts) text += "draw a line along the thing here, or a box around it";
    else text += shown.quality === undefined ? "predicted" : `predicted, quality ${shown.verdict} (${shown.quality.toFixed(2)})`;
  }
  $("about").textContent = text;
  $("accept").disabled = !shown || (open && !predicts)
    || shown.role === "support" || (shown.role === "accepted" && !shown.unsaved);
  $("support").disabled = !shown || (shown.role === "support" && !shown.unsaved);
  $("reopen").disabled = !shown || open;
  $("remove").disabled = !shown;
  $("undo").disabled = !view.map?.done.length && !state.undoable;
  $("redo").disabled = !view.map?.undone.length && !state.redoable;
  $("threshold").disabled = !predicts;
  $("hand-over").disabled = !predicts;
  $("asking").hidden = shown?.role !== "edited" || shown.unsaved;
  $("guide-text").textContent = advice(state.images, shown, predicts);
  $("guide").hidden = !shown || localStorage.getItem("fewseg guide") === "off";
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

function look(name) {
  $("look").value = name;
  view.outline = name === "outline";
  view.opacity = { fill: Number($("opacity").value) / 100, outline: 1, hidden: 0 }[name];
  strip.opacity = Number($("opacity").value) / 100;
  view.changed();
}

function step(by) {
  const order = shownImages();
  const place = order.findIndex((each) => each.id === state.current) + by;
  if (order[place]) show(order[place].id);
}

function grid(on) {
  if (on === inGrid()) return;
  document.body.dataset.view = on ? "grid" : "one";
  $("grid").setAttribute("aria-pressed", on);
  const own = strip.items.get(state.current)?.button;
  own?.scrollIntoView({ block: "nearest" });
  if (on) own?.focus();
}

/** Saves a Blob as a file. */
function save(name, blob) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  for (const menu of document.querySelectorAll(".menu")) menu.open = false;
}

/** Waits until all that is drawn has been sent; an edited mask has become an example. */
async function settled() {
  editor.finish();
  await completer.idle;
  leave();
  await state.saving;
}

const download = safely(async (event) => {
  event.preventDefault();
  await settled();
  const params = { threshold: threshold(), settled: !$("everything").checked };
  if ($("instances").value) params.instances = $("instances").value;
  const { name, blob } = await api.download($("format").value, params);
  save(name, blob);
});

const keep = safely(async () => {
  await settled();
  const step = (k) => hint(`Saving ${k + 1} of ${state.images.length}`, true);
  save("fewseg-session.zip", await saveSession(state.images, state.classes, step));
  hint("Saved");
});

const handOver = safely(async () => {
  await settled();
  save("examples.safetensors", await api.examples());
  $("command-is").textContent = state.command;
  $("command").showModal();
});

const copyCommand = safely(async () => {
  await navigator.clipboard.writeText(state.command);
  $("command").close();
  hint("Copied");
});

const sample = safely(async () => {
  $("menu").open = false;
  if (String(state.classes) === "object" && !state.images.some((each) => each.role !== "open")) named((await api.renameClass(1, "berry")).classes);
  await take(await samplePictures());
});

function wire() {
  for (const [name, { key, name: title, help }] of Object.entries(TOOLS)) {
    const label = choice($("tool"), "tool", name, name === editor.tool, () => tool(name));
    label.firstChild.setAttribute("aria-label", title);
    label.append(icon(name) ?? "", Object.assign(document.createElement("span"), { textContent: title }));
    label.title = `${title}: ${help} (${key})`;
    $("tool-keys").append(Object.assign(document.createElement("dt"), { textContent: key }), Object.assign(document.createElement("dd"), { textContent: title.toLowerCase() }));
  }
  drawIcons();
  const acts = {
    undo: () => undo("undo"), redo: () => undo("redo"), in: () => view.zoomBy(1.4), out: () => view.zoomBy(1 / 1.4),
    fit: () => view.fit(), accept: () => decide("accepted"), support: () => decide("support"), reopen, remove,
    "ask-yes": () => decide("support"), "ask-no": () => decide("accepted"), help: () => $("keys").showModal(),
    grid: () => grid(!inGrid()), "accept-good": () => acceptAll(shownImages().filter((each) => each.verdict === "good")),
    "save-session": keep, "new-session": newSession, "hand-over": handOver, "command-copy": copyCommand, sample, "sample-here": sample,
    "guide-end": () => { localStorage.setItem("fewseg guide", "off"); about(); },
    options: () => {
      const open = document.body.toggleAttribute("data-options");
      $("options").setAttribute("aria-expanded", open);
    },
  };
  for (const [id, act] of Object.entries(acts)) $(id).onclick = () => act();
  for (const id of ["by-state", "by-verdict", "by-class", "order"]) $(id).onchange = arrange;
  $("snap").onchange = () => { editor.snaps = $("snap").checked; };
  $("diameter").oninput = () => resize($("diameter").value);
  $("look").onchange = () => look($("look").value);
  $("opacity").oninput = () => look($("look").value === "hidden" ? "fill" : $("look").value);
  $("opacity").onchange = () => strip.recolour();
  let waiting;
  $("threshold").oninput = () => {
    $("threshold-is").value = threshold().toFixed(2);
    clearTimeout(waiting);
    waiting = setTimeout(() => { if (image()?.role === "open") safely(load)(state.current); }, 60);
  };
  $("threshold").onchange = () => refresh();
  for (const [id, act] of Object.entries({ files: take, masks: importMasks, session: ([file]) => reopenSession(file) })) {
    $(id).onchange = () => {
      const files = [...$(id).files];
      $(id).value = "";
      $("menu").open = false;
      if (files.length) act(files);
    };
  }
  $("new-class").onsubmit = safely(async (event) => {
    event.preventDefault();
    named((await api.addClass($("class-name").value)).classes);
    changed();
    $("class-name").value = "";
    classes.pick(state.classes.length);
    about();
  });
  $("download").onsubmit = download;
  addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dragged"); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dragged"); });
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragged");
    if (event.dataTransfer.files.length) drop([...event.dataTransfer.files]);
  });
  addEventListener("keydown", keys);
  addEventListener("visibilitychange", sync);
  addEventListener("click", ({ target }) => {
    for (const menu of document.querySelectorAll(".menu[open]")) if (!menu.contains(target)) menu.open = false;
  });
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
  const chosen = !inGrid() && Object.keys(TOOLS).find((name) => TOOLS[name].key.toLowerCase() === key);
  const focused = inGrid() ? image(document.activeElement.dataset.id) : null;
  const acts = inGrid() ? {
    a: () => { if (focused && hasSupport() && !reviewed(focused)) acceptAll([focused]); }, l: () => grid(false), escape: () => grid(false),
    "?": () => $("keys").showModal(),
  } : {
    "[": () => resize(editor.diameter - (editor.diameter > 20 ? 4 : 1)), "]": () => resize(editor.diameter + (editor.diameter > 19 ? 4 : 1)),
    "+": () => view.zoomBy(1.4), "=": () => view.zoomBy(1.4), "-": () => view.zoomBy(1 / 1.4), "0": () => view.fit(),
    n: () => step(1), m: () => step(-1), a: () => { if (!$("accept").disabled) decide("accepted"); },
    s: () => { if (!$("support").disabled) decide("support"); }, x: reopen, g: () => classes.pick(0), u: () => classes.pick(UNKNOWN),
    h: () => look(LOOKS[(LOOKS.indexOf($("look").value) + 1) % LOOKS.length]), l: () => grid(true),
    "?": () => $("keys").showModal(),
  };
  if (chosen) tool(chosen);
  else if (/^[1-9]$/.test(key) && !inGrid()) classes.pick(Number(key));
  else if (acts[key]) acts[key]();
  else return;
  event.preventDefault();
}

const start = safely(async () => {
  wire();
  const opened = await api.open();
  Object.assign(state, { images: opened.images, version: opened.version, limits: opened.limits, command: opened.command, undoable: opened.undoable, redoable: opened.redoable });
  $("model").textContent = opened.model;
  for (const [form, title] of Object.entries(opened.formats)) $("format").append(new Option(title, form));
  usePalette(opened.palette);
  named(opened.classes.length ? opened.classes : (await api.addClass("object")).classes);
  about();
  for (const each of state.images) await place(each);
  await show(state.images[0]?.id ?? null);
  refresh();
  document.body.dataset.ready = "true";
});

start();
