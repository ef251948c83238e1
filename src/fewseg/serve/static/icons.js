// Icons of 24 by 24, drawn with one line.

const LINES = {
  brush: "M9 15 18.5 4.5a1.8 1.8 0 0 1 2.6 2.6L11 17M9 15c-3 0-3.5 2-3.7 4-.1.8-1 1.3-2.3 1.3 2 1.2 8 1 8-3.3A2 2 0 0 0 9 15z",
  eraser: "m4 15 9-10a2 2 0 0 1 3 0l4 4a2 2 0 0 1 0 3l-7 8H8zM9 10l7 7M13 20h8",
  polygon: "M12 3 21 10l-3.5 10h-11L3 10zM12 3v.01M21 10v.01M17.5 20v.01M6.500 20v.01M3 10v.01",
  rectangle: "M4 6h16v12H4z",
  pan: "M12 3v18M3 12h18M12 3 9.500 5.500M12 3l2.500 2.500M12 21l-2.500-2.500M12 21l2.500-2.500M3 12l2.500-2.500M3 12l2.500 2.500M21 12l-2.500-2.500M21 12l-2.500 2.500",
  scribble: "M3 17c3-9 6-12 8-10s-5 9-2 10 5-6 7-5-1 5 1 6 3-1 4-2",
  box: "M4 8V5h3M17 5h3v3M20 16v3h-3M7 19H4v-3M9 12h6M12 9v6",
  fill: "m5 12 8-8 7 7-8 8a2 2 0 0 1-3 0l-4-4a2 2 0 0 1 0-3zM5 13h14M21 16c1.500 2 1.500 4 0 4s-1.500-2 0-4",
  undo: "M8 5 3 10l5 5M3 10h11a6 6 0 0 1 0 12h-3",
  redo: "m16 5 5 5-5 5M21 10H10a6 6 0 0 0 0 12h3",
  accept: "m4 13 5 5L20 6",
  support: "m12 3 2.700 5.800 6.300.7-4.700 4.300 1.300 6.200L12 16.900 6.400 20l1.300-6.200L3 9.500l6.300-.7z",
  reopen: "M20 12a8 8 0 1 1-2.500-5.800M20 3v5h-5",
  remove: "M4 7h16M9 7V4h6v3M6 7l1 14h10l1-14M10 11v6M14 11v6",
  grid: "M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM13 13h7v7h-7z",
  view: "M2 12c4-8 16-8 20 0-4 8-16 8-20 0zM12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6z",
  in: "M12 5v14M5 12h14",
  out: "M5 12h14",
  fit: "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5",
  more: "M5 12v.01M12 12v.01M19 12v.01",
  add: "M12 5v14M5 12h14",
  download: "M12 3v12M7 11l5 5 5-5M4 20h16",
};

/** An icon by its name, for the eye alone; null where there is none of the name. */
export function icon(name) {
  if (!LINES[name]) return null;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", LINES[name]);
  svg.append(path);
  return svg;
}

/** Puts its icon before the text of every element that names one. */
export function drawIcons(root = document) {
  for (const each of root.querySelectorAll("[data-icon]")) {
    const drawn = icon(each.dataset.icon);
    if (drawn) each.prepend(drawn);
    delete each.dataset.icon;
  }
}
