// Grey 8-bit PNG, both ways, without a canvas: browsers may alter what is read from a canvas, masks must not be.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  return c;
});

export function crc32(bytes) {
  let c = 0xffffffff;
  for (const byte of bytes) c = CRC[(c ^ byte) & 255] ^ (c >>> 8);
  return (c ^ 0xffffffff) >>> 0;
}

async function through(stream, bytes) {
  const out = new Blob([bytes]).stream().pipeThrough(stream);
  return new Uint8Array(await new Response(out).arrayBuffer());
}

function chunk(type, data) {
  const bytes = new Uint8Array(12 + data.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  for (let k = 0; k < 4; k++) bytes[4 + k] = type.charCodeAt(k);
  bytes.set(data, 8);
  view.setUint32(8 + data.length, crc32(bytes.subarray(4, 8 + data.length)));
  return bytes;
}

/** A PNG (Blob) of numbers 0..255, row by row. */
export async function encodePng(labels, width, height) {
  const rows = new Uint8Array((width + 1) * height); // each row begins with its filter: 0, none
  for (let y = 0; y < height; y++) rows.set(labels.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  const head = new Uint8Array(13);
  const view = new DataView(head.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  head.set([8, 0, 0, 0, 0], 8);
  const packed = await through(new CompressionStream("deflate"), rows);
  const parts = [Uint8Array.from(SIGNATURE), chunk("IHDR", head), chunk("IDAT", packed), chunk("IEND", new Uint8Array())];
  return new Blob(parts, { type: "image/png" });
}

/** {labels, width, height} of a grey 8-bit PNG that is not interlaced. */
export async function decodePng(buffer) {
  const bytes = new Uint8Array(buffer);
  const view = new DataView(buffer);
  if (SIGNATURE.some((byte, k) => bytes[k] !== byte)) throw new Error("the mask is not a PNG");
  let width = 0, height = 0;
  const data = [];
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = view.getUint32(at);
    const type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    const body = bytes.subarray(at + 8, at + 8 + length);
    if (type === "IHDR") {
      width = view.getUint32(at + 8);
      height = view.getUint32(at + 12);
      if (body[8] !== 8 || body[9] !== 0 || body[12] !== 0) throw new Error("the mask is not an 8-bit grey PNG");
    } else if (type === "IDAT") data.push(body);
    else if (type === "IEND") break;
    at += 12 + length;
  }
  const rows = await through(new DecompressionStream("deflate"), new Blob(data));
  return { labels: unfilter(rows, width, height), width, height };
}

function unfilter(rows, width, height) {
  const out = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    const filter = rows[y * (width + 1)];
    const from = y * (width + 1) + 1, to = y * width;
    for (let x = 0; x < width; x++) {
      const left = x ? out[to + x - 1] : 0;
      const up = y ? out[to - width + x] : 0;
      const corner = x && y ? out[to - width + x - 1] : 0;
      let add = 0;
      if (filter === 1) add = left;
      else if (filter === 2) add = up;
      else if (filter === 3) add = (left + up) >> 1;
      else if (filter === 4) add = paeth(left, up, corner);
      out[to + x] = rows[from + x] + add;
    }
  }
  return out;
}

function paeth(a, b, c) {
  const p = a + b - c;
  const pa = Math.abs(p - a), pb = Math.abs(p - b), pc = Math.abs(p - c);
  return pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
}
