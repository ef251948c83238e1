// What the page tells.

import { forget } from "./api.js";

const $ = (id) => document.getElementById(id);

/** Shows a line below the image. */
export function hint(text) { $("hint").textContent = text; }

/** Shows an error for a while; one that was meant (an abort) is none. */
export function fail(error) {
  if (error.name === "AbortError") return;
  $("alert").textContent = error.message;
  $("alert").hidden = false;
  clearTimeout(fail.timer);
  fail.timer = setTimeout(() => { $("alert").hidden = true; }, 12000);
  if (error.status === 401) forget();
}

/** The action with its error shown. */
export function safely(act) {
  return async (...given) => {
    try { return await act(...given); } catch (error) { return fail(error); }
  };
}
