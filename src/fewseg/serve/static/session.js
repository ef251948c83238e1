// A session as one file, a ZIP archive without compression: written and read here, image by image.

import * as api from "./api.js";
import { crc32 } from "./png.js";

const FIRST = "session.json";
const FORMAT = "fewseg-session-1";
const MOST = 2 ** 32 - 1; // bytes of a plain ZIP archive

/** A ZIP archive (Blob) of [name, Blob] pairs. */
export async function zipped(entries) {
  const parts = [], list = [];
  let at = 0;
  for (const [name, blob] of entries) {
    const title = new TextEncoder().encode(name);
    const sum = crc32(new Uint8Array(await blob.arrayBuffer()));
    const shared = [20, 0x800, 0, 0, 0x21, sum & 0xffff, sum >>> 16, blob.size & 0xffff, blob.size >>> 16, blob.size & 0xffff,
      blob.size >>> 16, title.length, 0]; // version, UTF-8, stored, the first day of 1980
    const head = Uint16Array.from([0x4b50, 0x0403, ...shared]);
    const place = [at & 0xffff, at >>> 16];
    list.push(Uint16Array.from([0x4b50, 0x0201, 20, ...shared, 0, 0, 0, 0, 0, ...place]), title);
    parts.push(head, title, blob);
    at += head.byteLength + title.length + blob.size;
    if (at > MOST) throw new Error("The session is larger than 4 GiB: remove some images first.");
  }
  const length = list.reduce((sum, part) => sum + part.byteLength, 0);
  const count = list.length / 2;
  const end = Uint16Array.from([0x4b50, 0x0605, 0, 0, count, count, length & 0xffff, length >>> 16, at & 0xffff, at >>> 16, 0]);
  return new Blob([...parts, ...list, end], { type: "application/zip" });
}

/** Name -> Blob of a ZIP archive without compression; null of any other file. */
async function unzipped(file) {
  const tail = new DataView(await file.slice(-22).arrayBuffer());
  if (tail.byteLength < 22 || tail.getUint32(0, true) !== 0x06054b50) return null;
  const [length, start] = [tail.getUint32(12, true), tail.getUint32(16, true)];
  const view = new DataView(await file.slice(start, start + length).arrayBuffer());
  const found = new Map();
  for (let at = 0; at + 46 <= view.byteLength;) {
    const [size, title, extra, note, place] = [view.getUint32(at + 24, true), view.getUint16(at + 28, true),
      view.getUint16(at + 30, true), view.getUint16(at + 32, true), view.getUint32(at + 42, true)];
    if (view.getUint16(at + 10, true)) return null;
    const name = new TextDecoder().decode(new Uint8Array(view.buffer, at + 46, title));
    found.set(name, file.slice(place + 30 + title, place + 30 + title + size)); // as this page writes it
    at += 46 + title + extra + note;
  }
  return found;
}

/** Whether a file is a saved session. */
export async function isSession(file) {
  const start = await file.slice(30, 30 + FIRST.length).text();
  return start === FIRST;
}

/** All of a session as a file; onStep(k) before the k-th image. */
export async function saveSession(images, classes, onStep) {
  const facts = { format: FORMAT, classes, images: images.map(({ name, role }) => ({ name, role })) };
  const entries = [[FIRST, new Blob([JSON.stringify(facts, null, 1)])]];
  for (const [k, { id, name, role }] of images.entries()) {
    onStep(k);
    entries.push([`images/${name}`, await api.file(id)]);
    if (role !== "open") entries.push([`masks/${name}.png`, new Blob([await api.labels(id, {})])]);
  }
  return zipped(entries);
}

/** Fills an empty session with a saved one; onImage(image) after each; returns the names of what could not be read. */
export async function openSession(file, onImage) {
  const files = await unzipped(file);
  const wrong = new Error(`${file.name} is not a complete session: save it again.`);
  let facts;
  try { facts = JSON.parse(await files.get(FIRST).text()); } catch { throw wrong; }
  if (facts.format !== FORMAT) throw new Error(`${file.name} is of the kind ${facts.format}, this page reads ${FORMAT}: update fewseg.`);
  if (!Array.isArray(facts.classes) || !Array.isArray(facts.images)) throw wrong;
  for (const name of facts.classes) await api.addClass(name);
  const failed = [];
  for (const { name, role } of facts.images) {
    const [content, mask] = [files.get(`images/${name}`), files.get(`masks/${name}.png`)];
    try {
      if (!content || (role !== "open" && !mask)) throw wrong;
      const added = await api.upload(content, name);
      await onImage(mask ? { ...added, ...(await api.settle(added.id, role, mask)) } : added, facts.images.length);
    } catch (error) {
      if (error.status === 0 || error.status === 401) throw error;
      failed.push(error.message);
    }
  }
  return failed;
}
