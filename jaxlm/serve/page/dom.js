// Small helpers for elements. Text always becomes a text node: nothing on this page parses HTML.

/** An element with attributes, listeners (`onclick: function`) and children (nodes, strings, lists of these; null is left out). */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  // one by one: a model may write more of them than a call may have arguments
  for (const child of children.flat()) if (child !== null && child !== undefined) element.append(child);
  return element;
}

/** An icon of the sprite in index.html. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** A button with an icon; its label is read aloud and shown as a tooltip. */
export function iconButton(name, label, onclick, attributes = {}) {
  return el("button", { type: "button", class: "icon", "aria-label": label, title: label, onclick, ...attributes }, icon(name));
}

export const byId = (id) => document.getElementById(id);

/** Has a screen reader say this once, when it is idle. */
export function announce(text) {
  const status = byId("status");
  // the same text twice is a change only if the region was empty in between
  status.textContent = "";
  setTimeout(() => (status.textContent = text), 50);
}

/** Puts text on the clipboard; false if the browser refuses. */
export async function copy(text) {
  try {
    // only in secure contexts: not on http:// of another machine
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const focused = document.activeElement;
    const box = el("textarea", { class: "unseen", "aria-hidden": "true", tabindex: "-1" });
    box.value = text;
    // inside an open dialog the rest of the page cannot be selected
    (document.querySelector("dialog[open]") ?? document.body).append(box);
    box.select();
    const copied = document.execCommand("copy");
    box.remove();
    focused?.focus({ preventScroll: true });
    return copied;
  }
}

/** Lets the browser save text as a file. */
export function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = el("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/** Opens a dialog; true if it was closed by its "ok" button. */
export function ask(dialog) {
  return new Promise((resolve) => {
    dialog.returnValue = "";
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "ok"), { once: true });
    dialog.showModal();
  });
}

/** Makes a text box as high as its text, up to the CSS's max-height. */
export function grow(box) {
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + box.offsetHeight - box.clientHeight}px`;
}
