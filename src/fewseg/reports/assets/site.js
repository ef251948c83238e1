"use strict";
// Tables sort by a button in each heading, and the choice of colours is kept. Without this the page reads as well.
const value = (cell) => {
  const exact = cell.querySelector("[data-value]");
  const text = exact ? exact.dataset.value : cell.textContent.trim();
  const number = parseFloat(text.replace("−", "-"));
  return { text, number: Number.isNaN(number) ? null : number };
};

const compare = (a, b, down) => {
  const missing = (v) => v.text === "-" || v.text === "";
  if (missing(a) || missing(b)) return missing(a) - missing(b); // what is not there stays last
  const numbers = a.number !== null && b.number !== null;
  const order = numbers ? a.number - b.number : a.text.localeCompare(b.text);
  return down ? -order : order;
};

const sort = (table, heading) => {
  const column = [...heading.parentNode.children].indexOf(heading);
  const first = heading.classList.contains("text") ? "ascending" : "descending";
  const other = first === "ascending" ? "descending" : "ascending";
  const order = heading.getAttribute("aria-sort") === first ? other : first;
  for (const each of heading.parentNode.children) each.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", order);
  const rows = [...table.tBodies[0].rows].map((row) => [value(row.cells[column]), row]);
  rows.sort((a, b) => compare(a[0], b[0], order === "descending"));
  table.tBodies[0].append(...rows.map(([, row]) => row));
};

for (const table of document.querySelectorAll("table")) {
  if (table.tHead?.rows.length !== 1 || table.tBodies[0].rows.length < 2 || table.querySelector("tbody [rowspan]")) continue;
  for (const heading of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.title = "Sort by this column";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => sort(table, heading));
  }
}

const KEY = "fewseg-theme";
const themes = document.querySelectorAll("input[name=theme]");
try { // some browsers keep nothing for a file
  const kept = localStorage.getItem(KEY);
  for (const each of themes) if (each.value === kept) each.checked = true;
} catch { /* the system's colours, then */ }
for (const each of themes) {
  each.addEventListener("change", () => {
    try { localStorage.setItem(KEY, each.value); } catch { /* kept until the page is closed */ }
  });
}
