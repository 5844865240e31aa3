// The list on the left and the settings on the right: columns on a wide screen, drawers over the page on a narrow one.

import { byId } from "./dom.js";

const NAMES = ["list", "settings"];
// as in style.css
const narrow = matchMedia("(max-width: 60rem)");

const isOpen = (name) => !byId(name).hidden;

function draw() {
  for (const name of NAMES) byId(`${name}-open`).setAttribute("aria-expanded", String(isOpen(name)));
  // behind a drawer nothing can be focused
  byId("main").inert = narrow.matches && NAMES.some(isOpen);
  document.body.classList.toggle("covered", byId("main").inert);
}

/** Opens or closes a panel. The focus goes into a drawer, and back to its button. */
export function setPanel(name, open, { onlyNarrow = false } = {}) {
  if (isOpen(name) === open || (onlyNarrow && !narrow.matches)) return;
  const focusInside = byId(name).contains(document.activeElement);
  if (open && narrow.matches) for (const other of NAMES) byId(other).hidden = true;
  byId(name).hidden = !open;
  draw();
  if (open) byId(`${name}-close`).focus();
  else if (focusInside) byId(`${name}-open`).focus();
}

export const togglePanel = (name) => setPanel(name, !isOpen(name));

/** What Esc closes: the drawer that covers the page, or a column with the focus in it if there is no answer to stop. */
export function panelToClose(writing) {
  if (narrow.matches) return NAMES.find(isOpen) ?? null;
  // there it empties the box
  if (writing || (document.activeElement.type === "search" && document.activeElement.value)) return null;
  return NAMES.find((name) => byId(name).contains(document.activeElement)) ?? null;
}

export function connect() {
  for (const name of NAMES) {
    byId(`${name}-open`).addEventListener("click", () => togglePanel(name));
    byId(`${name}-close`).addEventListener("click", () => setPanel(name, false));
  }
  byId("frame").addEventListener("click", (event) => {
    // beside the drawer: the backdrop
    if (event.target === byId("frame")) for (const name of NAMES) setPanel(name, false);
  });
  narrow.addEventListener("change", (event) => {
    byId("list").hidden = event.matches;
    if (event.matches) byId("settings").hidden = true;
    draw();
  });
  byId("list").hidden = narrow.matches;
  draw();
}
