// The view for models that do not chat: text to continue, or a source and its target. A conversation is a list of attempts.

import { announce, byId, el, icon } from "./dom.js";
import { find } from "./conversations.js";
import { copyButton, factsLine, keepFocus, retryButton, stateText, versions } from "./facts.js";
import { t } from "./words.js";

export class DocumentView {
  /** actions: send(text), stop(), regenerate(node), choose(node), draft(text) */
  constructor(root, actions, kind) {
    this.actions = actions;
    this.pair = kind === "encoder_decoder";
    const label = t(this.pair ? "source" : "text");
    this.box = el("textarea", {
      id: "prompt",
      dir: "auto",
      rows: "8",
      "aria-describedby": "prompt-hint",
      onkeydown: (event) => this.keydown(event),
      oninput: () => this.typed(),
    });
    const run = t(this.pair ? "run" : "continue");
    this.sendButton = el("button", { type: "submit", class: "main", id: "run" }, icon("send"), el("span", {}, run));
    this.stopButton = el(
      "button",
      { type: "button", class: "main", id: "stop", title: "Esc", onclick: () => this.actions.stop() },
      icon("stop"),
      el("span", {}, t("stop")),
    );
    const heading = el("h2", { id: "result-title" }, t(this.pair ? "target" : "continuation"));
    this.stale = el("p", { class: "quiet", hidden: true });
    this.paper = el("div", { class: "paper", id: "paper", role: "region", tabindex: "0", dir: "auto", "aria-labelledby": "result-title" });
    this.note = el("p", { class: "note" });
    this.foot = el("div", { class: "tools" });
    const submit = (event) => {
      event.preventDefault();
      this.send();
    };
    root.replaceChildren(
      el(
        "div",
        { class: `document ${this.pair ? "pair" : "single"}` },
        el(
          "form",
          { id: "composer", onsubmit: submit },
          el("h2", {}, el("label", { for: "prompt" }, label)),
          this.box,
          el(
            "div",
            { class: "row" },
            this.sendButton,
            this.stopButton,
            el("p", { id: "prompt-hint", class: "quiet" }, t(this.pair ? "source_hint" : "text_hint")),
          ),
        ),
        el("section", {}, heading, this.stale, this.paper, this.note, this.foot),
      ),
    );
  }

  keydown(event) {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.isComposing) return;
    event.preventDefault();
    this.send();
  }

  typed() {
    this.actions.draft(this.box.value);
    this.mark();
  }

  send() {
    if (this.running || !this.box.value.trim()) return;
    this.actions.send(this.box.value);
  }

  /** All attempts, in the order in which they were made. */
  attempts() {
    return this.conversation.nodes.filter((node) => node.role === "assistant");
  }

  current() {
    const prompt = find(this.conversation, this.conversation.shown);
    return prompt ? (find(this.conversation, prompt.shown) ?? null) : null;
  }

  show(conversation, { running, model }) {
    const other = conversation !== this.conversation;
    this.conversation = conversation;
    this.running = running;
    this.model = model;
    if (other) this.box.value = conversation.draft || (find(conversation, conversation.shown)?.text ?? "");
    const hadFocus = document.activeElement === this.sendButton || document.activeElement === this.stopButton;
    this.sendButton.hidden = running !== null;
    this.stopButton.hidden = running === null;
    if (hadFocus) this.box.focus();
    keepFocus(this.foot, () => this.draw());
  }

  draw() {
    const node = this.current();
    this.draws(node);
    const tools = [];
    if (node && node.state !== "writing") {
      const attempts = this.attempts();
      const pager = versions(attempts.indexOf(node), attempts.length, (index) => this.choose(attempts[index]), "attempt");
      if (pager) tools.push(pager);
      const whole = () => (this.pair ? node.text : this.promptOf(node) + node.text);
      if (node.text) tools.push(copyButton(whole));
      const again = () => this.actions.regenerate(node);
      if (node.state === "error") tools.push(retryButton(node, again));
      else tools.push(el("button", { type: "button", "data-focus": "attempt:again", disabled: this.running !== null, onclick: again }, icon("again"), el("span", {}, t(this.pair ? "run_again" : "continue_again"))));
      if (!this.pair && node.text) {
        tools.push(el("button", { type: "button", id: "keep", onclick: () => this.keep(node) }, icon("keep"), el("span", {}, t("keep"))));
      }
    }
    this.facts = el("span", { class: "facts quiet" });
    this.foot.replaceChildren(...tools, this.facts);
    this.numbers(node);
    this.mark();
  }

  promptOf(node) {
    return find(this.conversation, node.parent).text;
  }

  /** Fills the paper with an attempt; the prompt's part keeps its text node while the rest grows. */
  draws(node) {
    this.drawn = node;
    if (!node) {
      this.paper.replaceChildren(el("span", { class: "quiet" }, t(this.pair ? "target_empty" : "continuation_empty")));
      return;
    }
    this.written = document.createTextNode(node.text);
    const before = this.pair ? [] : [el("span", { class: "before" }, this.promptOf(node)), el("mark", {}, this.written)];
    this.paper.replaceChildren(...(this.pair ? [this.written] : before));
    this.end();
  }

  end() {
    this.paper.scrollTop = this.paper.scrollHeight;
  }

  numbers(node) {
    this.paper.setAttribute("aria-busy", String(node?.state === "writing"));
    this.note.textContent = node ? stateText(node) : "";
    this.note.className = `note ${node?.state ?? ""}`;
    this.facts.textContent = node ? factsLine(node, this.model) : "";
  }

  /** A target beside another source would mislead: it says which one it belongs to. */
  mark() {
    const prompt = this.pair && this.drawn ? this.promptOf(this.drawn) : null;
    this.stale.hidden = prompt === null || prompt === this.box.value;
    if (!this.stale.hidden) this.stale.textContent = t("other_source", { text: prompt.length > 80 ? `${prompt.slice(0, 80)}…` : prompt });
  }

  choose(node) {
    // what was typed and not run would be lost
    const typed = this.box.value;
    const saved = this.conversation.nodes.some((other) => other.role === "user" && other.text === typed);
    this.actions.choose(node);
    if (saved || !typed.trim()) {
      this.box.value = this.promptOf(node);
      this.typed();
    }
  }

  keep(node) {
    this.box.value = this.promptOf(node) + node.text;
    this.typed();
    this.box.focus();
    this.box.setSelectionRange(this.box.value.length, this.box.value.length);
    this.box.scrollTop = this.box.scrollHeight;
  }

  grew(node) {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = null;
      if (this.drawn !== node || node.state !== "writing") return;
      const near = this.paper.scrollHeight - this.paper.scrollTop - this.paper.clientHeight < 60;
      this.written.data = node.text;
      this.numbers(node);
      if (near) this.end();
    });
  }

  ended(node) {
    announce([t("answer_ends", { text: node.text.slice(0, 600) }), stateText(node)].join(" "));
  }

  focus() {
    byId("prompt").focus();
  }
}
