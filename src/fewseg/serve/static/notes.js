// Hints, errors and questions to the user.

const $ = (id) => document.getElementById(id);
const HINT = 5000, ERROR = 12000; // ms that they stay

/** Shows a line below the image for a while; one that ``stays`` until the next. */
export function hint(text, stays = false) {
  $("hint").textContent = text;
  clearTimeout(hint.timer);
  if (!stays) hint.timer = setTimeout(() => { $("hint").textContent = ""; }, HINT);
}

/** Shows an error for a while, but not an intended abort. */
export function fail(error) {
  if (error.name === "AbortError") return;
  $("alert").textContent = error.message;
  $("alert").hidden = false;
  clearTimeout(fail.timer);
  fail.timer = setTimeout(() => { $("alert").hidden = true; }, ERROR);
}

let answerOpen = () => {}; // answers the question that is open

/** Asks a question; returns the value of the button, "" for none. */
export function question(text, act, other = "Keep") {
  const dialog = $("sure");
  $("sure-text").textContent = text;
  $("sure-act").textContent = act;
  $("sure-other").textContent = other;
  dialog.returnValue = "";
  answerOpen("");
  dialog.showModal();
  return new Promise((answer) => {
    answerOpen = answer;
    // the close event comes late: by then the dialog may be open again, with a different question
    dialog.onclose = () => dialog.open || answer(dialog.returnValue);
  });
}

/** Asks before something that is not meant lightly; returns whether to do it. */
export const sure = async (text, act) => await question(text, act) === "yes";

/** The action with its error shown. */
export function safely(act) {
  return async (...given) => {
    try { return await act(...given); } catch (error) { return fail(error); }
  };
}
