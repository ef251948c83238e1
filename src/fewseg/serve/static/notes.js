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

let asked = () => {}; // answers the question that is open

/** Asks before something that cannot be undone; whether it is to be done. */
export function sure(text, act) {
  const dialog = $("sure");
  $("sure-text").textContent = text;
  $("sure-act").textContent = act;
  dialog.returnValue = "";
  asked(false);
  dialog.showModal();
  return new Promise((answer) => {
    asked = answer;
    // that it was closed is told late: by then it may be open again, with another question
    dialog.onclose = () => dialog.open || answer(dialog.returnValue === "yes");
  });
}

/** The action with its error shown. */
export function safely(act) {
  return async (...given) => {
    try { return await act(...given); } catch (error) { return fail(error); }
  };
}
