// A sheet's pictures: larger on a click with the original beside, masks of any opacity, one verdict at a time.

const sheet = document.querySelector(".cards"), large = document.querySelector("dialog");
const opacity = document.getElementById("opacity"), filter = document.getElementById("verdict");

opacity.oninput = () => document.documentElement.style.setProperty("--opacity", opacity.value / 100);
filter.onchange = () => {
  for (const card of sheet.children) card.hidden = Boolean(filter.value) && card.dataset.verdict !== filter.value;
};
sheet.onclick = (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const card = button.closest("figure");
  const [picture, mask] = card.querySelectorAll("img");
  const [alone, below, above] = large.querySelectorAll("img");
  alone.src = below.src = picture.src;
  above.src = mask?.src ?? "";
  above.hidden = !mask;
  large.querySelector("p").textContent = card.querySelector("figcaption").innerText.replace(/\nwhy$/, "");
  large.showModal();
};
large.onclick = (event) => { if (event.target === large) large.close(); };
large.onkeydown = (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step) return;
  const buttons = [...sheet.querySelectorAll("figure:not([hidden]) button")];
  const shown = buttons.findIndex((button) => button.querySelector("img").src === large.querySelector("img").src);
  buttons[shown + step]?.click();
};
