// Keyboard shortcuts. Those with a letter need Alt, so that none is hit while dictating or typing.

import { byId, el } from "./dom.js";
import { t } from "./words.js";

const LETTERS = { KeyN: "new", KeyL: "list", KeyS: "settings", KeyR: "regenerate", KeyI: "focus" };

export function connect(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.isComposing || event.keyCode === 229 || document.querySelector("dialog[open]")) return;
    const plain = !event.ctrlKey && !event.metaKey && !event.shiftKey;
    // by code: with Alt some keyboards give other characters
    const name = event.altKey && plain ? LETTERS[event.code] : null;
    if (name) {
      event.preventDefault();
      actions[name]();
    } else if ((event.ctrlKey || event.metaKey) && !event.altKey && event.key === "/") {
      event.preventDefault();
      actions.help();
    } else if (event.key === "Escape" && !event.defaultPrevented) {
      actions.escape();
    }
  });
}

export function drawShortcuts(kind) {
  const chat = kind === "chat";
  const rows = [
    [chat ? "Enter" : "Ctrl+Enter", t(chat ? "send" : "key_run")],
    [chat ? "Shift+Enter" : "Enter", t("key_line")],
    ["Esc", t("key_stop")],
    ["Alt+R", t("key_regenerate")],
    ...(chat ? [["↑", t("key_edit")]] : []),
    ["Alt+N", t("key_new")],
    ["Alt+I", t("key_focus")],
    ["Alt+L", t("key_list")],
    ["Alt+S", t("key_settings")],
    ["Ctrl+/", t("key_help_open")],
  ];
  byId("shortcuts").replaceChildren(
    ...rows.map(([keys, text]) => el("div", {}, el("dt", {}, ...keys.split(/(?<=.)\+/).flatMap((key, i) => (i ? ["+", el("kbd", {}, key)] : [el("kbd", {}, key)]))), el("dd", {}, text))),
  );
}
