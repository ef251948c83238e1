// Colours of classes: safe for colour-blind eyes, changeable, and away from those of the image.

export const UNKNOWN = 255;

let palette = ["#56b4e9"]; // distinct with any kind of colour vision; the server has it
const FAR = 40; // difference in Lab from which on a colour stands out

const table = new Map([[0, "#ffffff"], [UNKNOWN, "#9aa0a6"]]); // class number -> colour
export const RGBA = new Uint32Array(256); // the same as pixels of a canvas
let names = [];

const chosen = () => JSON.parse(localStorage.getItem("fewseg colours") || "{}"); // by the user: class name -> colour
const channels = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));

/** Takes the colours that classes get. */
export function usePalette(colours) { palette = colours; }

/** The CSS colour of a class number. */
export const colour = (number) => table.get(number) ?? palette[(number - 1) % palette.length];

function set(number, hex) {
  table.set(number, hex);
  const [r, g, b] = channels(hex);
  RGBA[number] = (255 << 24) | (b << 16) | (g << 8) | r;
}

/** Takes the names of classes 1, 2, ...; a class keeps its colour when its number or its name changes. */
export function colourClasses(classes) {
  const before = new Map(names.map((name, k) => [name, colour(k + 1)]));
  const own = chosen();
  const used = new Set();
  const renamed = names.length === classes.length;
  const wanted = classes.map((name, k) => own[name] ?? before.get(name) ?? (renamed ? colour(k + 1) : undefined));
  wanted.forEach((hex) => used.add(hex));
  classes.forEach((name, k) => {
    const hex = wanted[k] ?? palette.find((each) => !used.has(each)) ?? palette[k % palette.length];
    used.add(hex);
    set(k + 1, hex);
  });
  for (let number = classes.length + 1; number < UNKNOWN; number++) set(number, palette[(number - 1) % palette.length]);
  names = [...classes];
}

/** Remembers a colour that the user has chosen for a class. */
export function chooseColour(number, hex) {
  localStorage.setItem("fewseg colours", JSON.stringify({ ...chosen(), [names[number - 1]]: hex }));
  set(number, hex);
}

function lab(rgb) {
  const [r, g, b] = rgb.map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  const f = (t) => (t > 0.008856 ? Math.cbrt(t) : 7.787 * t + 16 / 116);
  const [x, y, z] = [(0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505, 0.2126 * r + 0.7152 * g + 0.0722 * b,
    (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089].map(f);
  return [116 * y - 16, 500 * (x - y), 200 * (y - z)];
}

/** Gives a class another colour where its own is close to the image's below or around its mask; whether it did. */
export function standOut(number, bitmap, map) {
  if (number > names.length || names[number - 1] in chosen()) return false;
  const side = 64;
  const small = document.createElement("canvas");
  small.width = small.height = side;
  const context = small.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0, side, side);
  const { data } = context.getImageData(0, 0, side, side);
  const sums = [[0, 0, 0, 0], [0, 0, 0, 0]];
  for (let k = 0; k < side * side; k++) {
    const x = Math.floor(((k % side) + 0.5) / side * map.width), y = Math.floor((Math.floor(k / side) + 0.5) / side * map.height);
    const sum = sums[map.labels[y * map.width + x] === number ? 0 : 1];
    for (let c = 0; c < 3; c++) sum[c] += data[4 * k + c];
    sum[3]++;
  }
  const means = sums.filter((sum) => sum[3]).map((sum) => lab(sum.slice(0, 3).map((v) => v / sum[3])));
  const away = (hex) => Math.min(...means.map((mean) => Math.hypot(...lab(channels(hex)).map((v, c) => v - mean[c]))));
  if (away(colour(number)) >= FAR) return false;
  const free = palette.filter((hex) => !names.some((_, k) => k + 1 !== number && colour(k + 1) === hex));
  const best = free.reduce((a, b) => (away(b) > away(a) ? b : a), colour(number));
  if (best === colour(number)) return false;
  set(number, best);
  return true;
}

colourClasses([]);
set(UNKNOWN, "#9aa0a6");
