// The list of classes: which one is drawn, and what they are called.

import * as api from "./api.js";
import { UNKNOWN, chooseColour, colour } from "./colours.js";

/** Adds a radio button in a label to a group. */
export function choice(group, name, value, checked, onChange) {
  const label = Object.assign(document.createElement("label"), { className: "choice" });
  const input = Object.assign(document.createElement("input"), { type: "radio", name, value, checked });
  input.onchange = onChange;
  label.append(input);
  group.append(label);
  return label;
}

export class ClassList {
  /** safely(act) runs an action and shows its error; onRenamed(answer) gets the server's answer; onDelete(number); onRecoloured(). */
  constructor(group, editor, safely, { onRenamed, onDelete, onRecoloured }) {
    Object.assign(this, { group, editor, safely, onRenamed, onDelete, onRecoloured });
  }

  draw(names) {
    this.names = names;
    this.group.replaceChildren();
    for (let number = 1; number <= names.length; number++) this.row(number).append(this.nameField(number), this.deleter(number));
    for (const [number, text] of [[0, "background"], [UNKNOWN, "unknown"]]) {
      this.row(number).append(Object.assign(document.createElement("span"), { textContent: text }));
    }
  }

  row(number) {
    const label = choice(this.group, "class", number, number === this.editor.number, () => this.pick(number));
    label.firstChild.setAttribute("aria-label", number === UNKNOWN ? "unknown" : number === 0 ? "background" : this.names[number - 1]);
    label.append(number && number !== UNKNOWN ? this.colourField(number) : Object.assign(document.createElement("i"), { className: "swatch" }));
    if (label.lastChild.matches("i")) label.lastChild.style.background = colour(number);
    return label;
  }

  colourField(number) {
    const field = Object.assign(document.createElement("input"), { type: "color", className: "swatch", value: colour(number), title: "Change the colour" });
    field.setAttribute("aria-label", `Colour of class ${number}`);
    field.onchange = () => {
      chooseColour(number, field.value);
      this.onRecoloured();
    };
    return field;
  }

  nameField(number) {
    const name = Object.assign(document.createElement("input"), { type: "text", value: this.names[number - 1], maxLength: 60 });
    name.setAttribute("aria-label", `Name of class ${number}`);
    name.onfocus = () => this.pick(number);
    name.onchange = this.safely(async () => {
      try {
        const answer = await api.renameClass(number, name.value);
        this.names = answer.classes;
        this.onRenamed(answer);
      } finally { name.value = this.names[number - 1]; }
    });
    return name;
  }

  deleter(number) {
    const button = Object.assign(document.createElement("button"), { className: "quiet", textContent: "×", title: "Delete this class" });
    button.setAttribute("aria-label", `Delete class ${number}`);
    button.onclick = () => this.onDelete(number);
    return button;
  }

  pick(number) {
    const input = this.group.querySelector(`input[value="${number}"]`);
    if (!input) return;
    input.checked = true;
    this.editor.number = number;
    this.editor.view.draw();
  }
}
