// The view of a chat: messages, their buttons, and the box to write in.

import { announce, byId, el, grow, icon, iconButton } from "./dom.js";
import { children, path } from "./conversations.js";
import { copyAloud, copyButton, factsLine, keepFocus, retryButton, stateText, versions } from "./facts.js";
import { Markdown } from "./markdown.js";
import { t } from "./words.js";

const SPOKEN = 600;

/** An Enter that sends: not one that ends the composition of a Chinese word, nor one with Shift. */
export function isSend(event) {
  return event.key === "Enter" && !event.shiftKey && !event.altKey && !event.isComposing && event.keyCode !== 229;
}

export class ChatView {
  /** actions: send(text), stop(), regenerate(node), edit(node, text), choose(node), draft(text) */
  constructor(root, actions) {
    this.actions = actions;
    this.views = new Map();
    this.follow = true;
    this.touch = matchMedia("(hover: none) and (pointer: coarse)").matches;
    this.log = el("div", { id: "log", role: "region", "aria-label": t("messages"), tabindex: "0", onscroll: () => this.scrolled() });
    this.down = el("button", { type: "button", id: "to-end", hidden: true, onclick: () => this.toEnd(true) }, t("to_end"));
    this.box = el("textarea", {
      id: "prompt",
      rows: "1",
      dir: "auto",
      placeholder: t("message"),
      "aria-label": t("message"),
      "aria-describedby": "prompt-hint",
      enterkeyhint: this.touch ? "enter" : "send",
      onkeydown: (event) => this.keydown(event),
      oninput: () => this.typed(),
    });
    this.sendButton = el("button", { class: "main round", "aria-label": t("send"), title: t("send") }, icon("send"));
    this.stopButton = el(
      "button",
      { type: "button", class: "main round", id: "stop", "aria-label": t("stop"), title: `${t("stop")} (Esc)`, onclick: () => this.actions.stop() },
      icon("stop"),
    );
    const submit = (event) => {
      event.preventDefault();
      this.send();
    };
    root.replaceChildren(
      this.log,
      el(
        "form",
        { id: "composer", onsubmit: submit },
        this.down,
        el("div", { class: "box" }, this.box, this.sendButton, this.stopButton),
        el("p", { id: "prompt-hint", class: "quiet" }, t(this.touch ? "message_hint_touch" : "message_hint")),
      ),
    );
  }

  keydown(event) {
    if (event.key === "ArrowUp" && this.box.value === "" && !event.isComposing) this.editLast(event);
    // a phone's keyboard has no Shift+Enter
    else if (isSend(event) && (!this.touch || event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.send();
    }
  }

  typed() {
    grow(this.box);
    this.actions.draft(this.box.value);
  }

  send() {
    if (this.running || !this.box.value.trim()) return;
    if (!this.actions.send(this.box.value)) return;
    this.box.value = "";
    this.typed();
    this.toEnd(true);
  }

  editLast(event) {
    const node = path(this.conversation).findLast((message) => message.role === "user");
    if (!node || this.running) return;
    event?.preventDefault();
    this.edit(node);
  }

  /** Draws a conversation; views of messages that stay are kept. */
  show(conversation, { running, model }) {
    const other = conversation !== this.conversation;
    this.conversation = conversation;
    this.running = running;
    this.model = model;
    if (other) {
      this.views.clear();
      this.editing = null;
      this.box.value = conversation.draft;
      grow(this.box);
    }
    const hadFocus = document.activeElement === this.sendButton || document.activeElement === this.stopButton;
    this.sendButton.hidden = running !== null;
    this.stopButton.hidden = running === null;
    if (hadFocus) this.box.focus();
    const nodes = path(conversation);
    keepFocus(this.log, () => this.log.replaceChildren(...(nodes.length ? nodes.map((node) => this.view(node)) : [this.welcome()])));
    if (other) this.toEnd(true);
    else this.toEnd();
  }

  welcome() {
    return el("div", { class: "welcome" }, el("h2", {}, t("welcome")), el("p", { class: "quiet" }, t("welcome_help", { model: this.model.id })));
  }

  view(node) {
    let view = this.views.get(node.id);
    if (!view) {
      const user = node.role === "user";
      const name = user ? t("you") : node.facts.model || t("answer");
      const text = el("div", { class: "text", dir: user ? "auto" : null });
      const foot = el("div", { class: "tools" });
      const element = el(
        "article",
        { class: `message ${node.role}`, "aria-label": name, "data-id": node.id },
        el("div", { class: "who", "aria-hidden": "true" }, name),
        text,
        el("p", { class: "note" }),
        foot,
      );
      view = { element, text, foot, markdown: user ? null : new Markdown(text) };
      this.views.set(node.id, view);
    }
    if (this.editing !== node.id) this.fill(node, view);
    return view.element;
  }

  fill(node, view) {
    if (!view.markdown) view.text.textContent = node.text;
    else view.markdown.update(node.text);
    view.element.setAttribute("aria-busy", String(node.state === "writing"));
    const note = view.element.querySelector(".note");
    note.textContent = stateText(node);
    note.className = `note ${node.state}`;
    // while it is written only the numbers change
    const facts = el("span", { class: "facts quiet" }, node.role === "assistant" ? factsLine(node, this.model) : "");
    if (view.state === node.state && node.state === "writing") view.foot.lastChild.replaceWith(facts);
    else view.foot.replaceChildren(...this.tools(node), facts);
    view.state = node.state;
  }

  tools(node) {
    const tools = [];
    if (node.state === "writing") return tools;
    const among = children(this.conversation, node.parent);
    const pager = versions(among.indexOf(node), among.length, (index) => this.actions.choose(among[index]), node.parent ?? "first");
    if (pager) tools.push(pager);
    if (node.text) tools.push(copyButton(() => node.text));
    const busy = { disabled: this.running !== null };
    if (node.role === "user") {
      tools.push(iconButton("edit", t("edit"), () => this.edit(node), { ...busy, "data-focus": `${node.id}:edit` }));
    } else if (node.state === "error") {
      tools.push(retryButton(node, () => this.actions.regenerate(node)));
    } else {
      tools.push(iconButton("again", t("regenerate"), () => this.actions.regenerate(node), { ...busy, "data-focus": `${node.parent}:again` }));
    }
    return tools;
  }

  /** The answer that is written grew. */
  grew(node) {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = null;
      const view = this.views.get(node.id);
      if (!view?.element.isConnected || node.state !== "writing") return;
      this.fill(node, view);
      this.toEnd();
    });
  }

  /** Says what came of an answer: once, not with every token. */
  ended(node) {
    const text = this.views.get(node.id)?.text.textContent.replace(/\s+/g, " ") ?? node.text;
    const short = text.length > SPOKEN ? t("answer_long", { text: text.slice(0, SPOKEN) }) : text;
    announce([t("answer_ends", { text: short }), stateText(node)].join(" "));
  }

  edit(node) {
    const view = this.views.get(node.id);
    this.editing = node.id;
    const box = el("textarea", { class: "edit", rows: "2", dir: "auto", "aria-label": t("edit_message"), "data-focus": `${node.id}:box` });
    box.value = node.text;
    const close = () => {
      this.editing = null;
      this.fill(node, view);
      view.foot.querySelector('[data-focus$=":edit"]')?.focus();
    };
    const save = () => {
      if (!box.value.trim() || this.running) return;
      this.editing = null;
      if (!this.actions.edit(node, box.value)) this.editing = node.id;
      else this.box.focus();
    };
    box.addEventListener("input", () => grow(box));
    box.addEventListener("keydown", (event) => {
      if (isSend(event)) {
        event.preventDefault();
        save();
      } else if (event.key === "Escape" && !event.isComposing) {
        event.stopPropagation();
        close();
      }
    });
    view.text.replaceChildren(box);
    view.state = null;
    view.foot.replaceChildren(
      el("button", { type: "button", class: "main", onclick: save }, t("send_edited")),
      el("button", { type: "button", onclick: close }, t("cancel")),
    );
    grow(box);
    box.focus();
  }

  scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.log;
    this.follow = scrollHeight - scrollTop - clientHeight < 60;
    this.down.hidden = this.follow;
  }

  /** Scrolls to the end, unless a person has scrolled up. */
  toEnd(always = false) {
    if (!always && !this.follow) return;
    this.follow = true;
    this.log.scrollTop = this.log.scrollHeight;
    this.down.hidden = true;
  }

  focus() {
    byId("prompt").focus();
  }
}

/** Copying of code blocks, wherever they are. */
export function copyCode(event) {
  const button = event.target.closest?.('[data-copy="code"]');
  if (button) copyAloud(button.closest(".code").querySelector("code").textContent, button);
}
