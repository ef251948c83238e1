// Drawn pictures to try the page with: red berries among leaves.

const COUNT = 6, WIDTH = 480, HEIGHT = 360;

function random(seed) { // mulberry32
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

function leaf(context, rand) {
  const size = 40 + 50 * rand();
  context.save();
  context.translate(WIDTH * rand(), HEIGHT * rand());
  context.rotate(7 * rand());
  context.fillStyle = `hsl(${95 + 35 * rand()} ${35 + 25 * rand()}% ${22 + 22 * rand()}%)`;
  context.beginPath();
  context.moveTo(-size, 0);
  context.quadraticCurveTo(0, -size * 0.7, size, 0);
  context.quadraticCurveTo(0, size * 0.7, -size, 0);
  context.fill();
  context.strokeStyle = "rgb(255 255 255 / .18)";
  context.lineWidth = 2;
  context.beginPath();
  context.moveTo(-size, 0);
  context.lineTo(size, 0);
  context.stroke();
  context.restore();
}

function berry(context, rand) {
  const r = 22 + 20 * rand();
  const [x, y] = [r + (WIDTH - 2 * r) * rand(), r + (HEIGHT - 2 * r) * rand()];
  const shade = context.createRadialGradient(x - r / 3, y - r / 3, r / 8, x, y, r);
  shade.addColorStop(0, "#ff8a7a");
  shade.addColorStop(0.35, "#d8322c");
  shade.addColorStop(1, "#7d1016");
  context.fillStyle = shade;
  context.beginPath();
  context.arc(x, y, r, 0, 7);
  context.fill();
}

/** The pictures, as files. */
export async function samplePictures() {
  const files = [];
  for (let k = 0; k < COUNT; k++) {
    const canvas = Object.assign(document.createElement("canvas"), { width: WIDTH, height: HEIGHT });
    const context = canvas.getContext("2d");
    const rand = random(k + 1);
    context.fillStyle = "#2c3d20";
    context.fillRect(0, 0, WIDTH, HEIGHT);
    for (let n = 0; n < 60; n++) leaf(context, rand);
    for (let n = 0; n < 3 + 3 * rand(); n++) berry(context, rand);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
    files.push(new File([blob], `sample ${k + 1}.png`, { type: "image/png" }));
  }
  return files;
}
