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

/** Asks before something that cannot be undone; whether it is to be done. */
export function sure(text, act) {
  const dialog = $("sure");
  $("sure-text").textContent = text;
  $("sure-act").textContent = act;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((answer) => {
    dialog.addEventListener("close", () => answer(dialog.returnValue === "yes"), { once: true });
  });
}

/** The action with its error shown. */
export function safely(act) {
  return async (...given) => {
    try { return await act(...given); } catch (error) { return fail(error); }
  };
}
