// The list of conversations: open, rename, delete, search.

import { announce, ask, byId, el, iconButton } from "./dom.js";
import * as store from "./store.js";
import { t } from "./words.js";

const title = (conversation) => conversation.title || t("untitled");

export class Sidebar {
  /** actions: open(id), rename(id, title), remove(id) */
  constructor(actions) {
    this.actions = actions;
    this.renaming = null;
    byId("search").addEventListener("input", () => this.draw());
  }

  /** Shows conversations of a kind. `busy` has the ids of those that are being written. */
  show(kind, current, busy) {
    Object.assign(this, { kind, current, busy });
    this.draw();
  }

  draw() {
    if (this.renaming) return;
    const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const all = store.list().filter((conversation) => conversation.kind === this.kind);
    const matches = ({ title: name, nodes }) => {
      const text = [name, ...nodes.map((node) => node.text)].join("\n").toLowerCase();
      return words.every((word) => text.includes(word));
    };
    const shown = words.length ? all.filter(matches) : all;
    const focused = document.activeElement?.closest?.("#conversations li")?.dataset.id;
    const part = document.activeElement?.dataset?.part;
    byId("conversations").replaceChildren(...shown.map((conversation) => this.entry(conversation)));
    byId("no-conversations").hidden = shown.length > 0;
    byId("no-conversations").textContent = t(words.length ? "none_match" : "none_yet");
    byId("delete-all").disabled = byId("export-all").disabled = all.length === 0;
    if (focused && part) this.focusEntry(focused, part);
  }

  focusEntry(id, part) {
    byId("conversations").querySelector(`li[data-id="${CSS.escape(id)}"] [data-part="${part}"]`)?.focus();
  }

  entry(conversation) {
    const { id } = conversation;
    const busy = this.busy.has(id);
    const name = title(conversation);
    const open = el(
      "button",
      {
        type: "button",
        class: "open",
        title: name,
        "data-part": "open",
        "aria-current": id === this.current ? "true" : null,
        onclick: () => this.actions.open(id),
      },
      el("span", { dir: "auto" }, name),
      busy ? el("span", { class: "dot", role: "img", "aria-label": t("is_writing") }) : null,
    );
    return el(
      "li",
      { "data-id": id },
      open,
      iconButton("edit", `${t("rename")}: ${name}`, () => this.rename(conversation), { "data-part": "rename" }),
      iconButton("delete", `${t("delete")}: ${name}`, () => this.remove(conversation), { "data-part": "delete" }),
    );
  }

  rename(conversation) {
    const item = byId("conversations").querySelector(`li[data-id="${CSS.escape(conversation.id)}"]`);
    const box = el("input", { "aria-label": t("rename_label"), maxlength: "200", autocomplete: "off" });
    box.value = conversation.title;
    this.renaming = conversation.id;
    const end = (save, refocus) => {
      if (this.renaming !== conversation.id) return;
      this.renaming = null;
      if (save && box.value.trim() && box.value.trim() !== conversation.title) this.actions.rename(conversation.id, box.value.trim());
      this.draw();
      if (refocus) this.focusEntry(conversation.id, "rename");
    };
    box.addEventListener("keydown", (event) => {
      if (event.isComposing || event.keyCode === 229) return;
      if (event.key === "Enter" || event.key === "Escape") {
        event.preventDefault();
        event.stopPropagation();
        end(event.key === "Enter", true);
      }
    });
    box.addEventListener("blur", () => end(true, false));
    item.replaceChildren(box);
    box.focus();
    box.select();
  }

  async remove(conversation) {
    byId("confirm-text").textContent = t("confirm_delete", { title: title(conversation) });
    if (!(await ask(byId("confirm-dialog")))) return;
    const item = byId("conversations").querySelector(`li[data-id="${CSS.escape(conversation.id)}"]`);
    const next = (item?.nextElementSibling ?? item?.previousElementSibling)?.dataset.id;
    this.actions.remove(conversation.id);
    announce(t("deleted"));
    if (next) this.focusEntry(next, "open");
    else byId("new").focus();
  }
}
