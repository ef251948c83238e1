// Which images are looked at in which order, how far the review has come, and what to expect of the examples.

import { colour } from "./colours.js";
import { stateOf } from "./strip.js";

const $ = (id) => document.getElementById(id);
const WIDTH = 200, HEIGHT = 64, RIM = 6;

/** Whether a person has looked at an image. */
export const reviewed = (image) => image.role === "accepted" || image.role === "support";

/** An image's quality: of a class where one is chosen, of all else; those without one come last. */
const quality = (image, name) => (name ? image.scores?.[name] : image.quality) ?? 2;

/** The images that the filters of the page let through, in the order that is chosen. */
export function arranged(images, predicts, classes, shows) {
  const [state, verdict, number, order] = ["by-state", "by-verdict", "by-class", "order"].map((id) => $(id).value);
  const name = classes[number - 1];
  const found = images.filter((image) => {
    const own = stateOf(image, predicts);
    if (state === "todo" ? reviewed(image) : state && own !== state) return false;
    if (verdict && (own !== "predicted" || image.verdict !== verdict)) return false;
    return !number || shows(image.id, Number(number));
  });
  const sign = { low: 1, high: -1 }[order];
  const value = (image) => (image.role === "open" ? quality(image, name) : 3);
  if (sign) found.sort((a, b) => (value(a) > 1 || value(b) > 1 ? value(a) - value(b) : sign * (value(a) - value(b))));
  return found;
}

/** Shows how many images are reviewed. */
export function progress(images) {
  const done = images.filter(reviewed).length;
  $("reviewed").value = images.length ? done / images.length : 0;
  $("reviewed-is").textContent = images.length ? `${done} of ${images.length} reviewed` : "";
}

/** Offers the classes as a filter. */
export function offerClasses(names) {
  const chosen = $("by-class").value;
  $("by-class").replaceChildren(new Option("all classes", ""), ...names.map((name, k) => new Option(name, k + 1)));
  $("by-class").value = chosen <= names.length ? chosen : "";
}

/** Draws the expected IoU of each class by the number of examples: a small curve, and what it says. */
export function expectations(points, classes) {
  const section = $("expected");
  const known = points.filter(([, own]) => Object.keys(own).length);
  section.hidden = !known.length;
  if (!known.length) return;
  const [first, last] = [known[0][0], known.at(-1)[0]];
  const x = (count) => RIM + ((count - first) / Math.max(1, last - first)) * (WIDTH - 2 * RIM);
  const y = (iou) => HEIGHT - RIM - iou * (HEIGHT - 2 * RIM);
  const svg = $("curve");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.replaceChildren();
  const put = (tag, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    svg.append(node);
  };
  for (const iou of [0, 0.5, 1]) put("line", { x1: 0, x2: WIDTH, y1: y(iou), y2: y(iou), class: "grid" });
  const lines = classes.map((name, k) => {
    const own = known.filter(([, each]) => name in each);
    if (!own.length) return "";
    put("polyline", { points: own.map(([count, each]) => `${x(count)},${y(each[name])}`).join(" "), stroke: colour(k + 1) });
    for (const [count, each] of own) put("circle", { cx: x(count), cy: y(each[name]), r: 3, fill: colour(k + 1) });
    const now = own.at(-1)[1][name];
    const gain = own.length > 1 ? now - own.at(-2)[1][name] : null;
    return `${name}: ${now.toFixed(2)}${gain === null ? "" : ` (${gain < 0 ? "−" : "+"}${Math.abs(gain).toFixed(2)})`}`;
  }).filter(Boolean);
  const words = `With ${last} examples: ${lines.join(", ")}.`;
  $("curve-is").textContent = words;
  svg.setAttribute("aria-label", words);
}

/** What to do next, in a sentence. */
export function advice(images, shown, predicts) {
  if (!shown) return "";
  if (!predicts) return "1 of 4 · Mark the thing on one image. The others are then predicted.";
  const left = images.filter((image) => !reviewed(image)).length;
  if (!left) return "4 of 4 · All images are reviewed. Download the masks.";
  if (shown.role === "edited") return "3 of 4 · Corrected. It becomes an example when you go on, so that the others get better.";
  if (shown.role === "open") return "3 of 4 · Is the mask right? Accept it (A). If not, draw over what is wrong.";
  return `2 of 4 · ${left} ${left > 1 ? "images are" : "image is"} predicted. Look at the next one (N).`;
}
