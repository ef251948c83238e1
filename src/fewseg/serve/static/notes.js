// Hints, errors and questions to the user.

import { forget } from "./api.js";

const $ = (id) => document.getElementById(id);

/** Shows a line below the image. */
export function hint(text) { $("hint").textContent = text; }

/** Shows an error for a while, but not an intended abort. */
export function fail(error) {
  if (error.name === "AbortError") return;
  $("alert").textContent = error.message;
  $("alert").hidden = false;
  clearTimeout(fail.timer);
  fail.timer = setTimeout(() => { $("alert").hidden = true; }, 12000);
  if (error.status === 401) forget();
}

let answerOpen = () => {}; // answers the question that is open

/** Asks before something that cannot be undone; returns whether to do it. */
export function sure(text, act) {
  const dialog = $("sure");
  $("sure-text").textContent = text;
  $("sure-act").textContent = act;
  dialog.returnValue = "";
  answerOpen(false);
  dialog.showModal();
  return new Promise((answer) => {
    answerOpen = answer;
    // the close event comes late: by then the dialog may be open again, with a different question
    dialog.onclose = () => dialog.open || answer(dialog.returnValue === "yes");
  });
}

/** The action with its error shown. */
export function safely(act) {
  return async (...given) => {
    try { return await act(...given); } catch (error) { return fail(error); }
  };
}
