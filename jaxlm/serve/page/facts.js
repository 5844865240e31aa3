// What is said about an answer besides its text: speed, errors, buttons to go through versions.

import { announce, copy, el, icon, iconButton } from "./dom.js";
import { number, t } from "./words.js";

/** The line under an answer: speed, time to the first token, tokens, seed. */
export function factsLine(node, model) {
  const { rate, first, tokens, promptTokens, seed } = node.facts;
  const parts = [];
  if (rate) parts.push(t("rate", { n: number(rate, 1) }));
  if (first !== undefined) parts.push(t("first", { n: number(first, 2) }));
  if (tokens !== undefined) parts.push(tokens === 1 ? t("one_token") : t("tokens", { n: number(tokens) }));
  if (tokens !== undefined && promptTokens !== undefined && model?.jaxlm?.max_len) {
    parts.push(t("context", { n: number(tokens + promptTokens), total: number(model.jaxlm.max_len) }));
  }
  if (seed !== undefined && node.text && node.state !== "writing") parts.push(t("seed_used", { n: seed }));
  return parts.join(" · ");
}

/** Why an answer ended, if not by itself. */
export function stateText(node) {
  if (node.state === "writing") return node.text ? "" : t("thinking");
  if (node.state === "stopped") return t("stopped");
  if (node.state === "error") return errorText(node.error ?? {}, node.text !== "");
  return node.facts.finish === "length" ? t("length") : "";
}

/** An error in a person's words, with what the server said about it. */
export function errorText({ status, message, retryAfter, tooLong }, begun = false) {
  if (status === 429) {
    const parts = [t("error_busy")];
    if (retryAfter !== null && retryAfter !== undefined) parts.push(t("error_wait", { seconds: number(retryAfter) }));
    if (message) parts.push(message);
    return parts.join(" ");
  }
  if (status === 401) return message ? `${t("error_key")} ${message}` : t("error_key");
  if (tooLong) return `${t("error_server")} ${message} ${t("error_too_long")}`;
  if (status) return `${t("error_server")} ${message}`;
  // an event in the stream has no status, but says what happened
  const lead = begun || message === "" ? t("error_cut") : t("error_network");
  return message ? `${lead} ${message}` : lead;
}

/** "Try again", which waits as long as the server asked for. */
export function retryButton(node, onclick) {
  const button = el("button", { type: "button", class: "retry", onclick }, icon("again"), el("span", {}, t("try_again")));
  const wait = node.error?.retryAfter ?? 0;
  const until = (node.error?.at ?? 0) + wait * 1000;
  const tick = () => {
    const left = Math.ceil((until - Date.now()) / 1000);
    button.disabled = left > 0;
    button.lastChild.textContent = left > 0 ? `${t("try_again")} (${left} s)` : t("try_again");
    if (left > 0 && (button.isConnected || !button.dataset.shown)) setTimeout(tick, 250);
    button.dataset.shown = "1";
  };
  tick();
  return button;
}

export function copyButton(text, label = t("copy")) {
  return iconButton("copy", label, () => copyAloud(text()));
}

/** Copies text and says whether it worked. */
export async function copyAloud(text, button = null) {
  const copied = await copy(text);
  announce(t(copied ? "copied" : "not_copied"));
  if (!button || !copied) return;
  button.replaceChildren(icon("keep"));
  setTimeout(() => button.replaceChildren(icon("copy")), 1500);
}

/** ‹ 2 of 3 ›, or null for a single one. `focus` names the buttons, so that the focus survives a new drawing. */
export function versions(index, total, choose, focus) {
  if (total < 2) return null;
  const to = (step, key, name) =>
    iconButton(name, t(key), () => choose(index + step), {
      disabled: index + step < 0 || index + step >= total,
      "data-focus": `${focus}:${key}`,
    });
  return el(
    "span",
    { class: "versions" },
    to(-1, "previous", "previous"),
    el("span", { class: "quiet" }, t("version", { n: index + 1, total })),
    to(1, "next", "next"),
  );
}

/** Gives the focus back to the button (or its neighbour) that had it before a drawing. */
export function keepFocus(root, draw) {
  const active = document.activeElement;
  const name = root.contains(active) ? active?.dataset?.focus : undefined;
  draw();
  if (!name || document.activeElement === active) return;
  const same = root.querySelector(`[data-focus="${CSS.escape(name)}"]:not(:disabled)`);
  const [owner] = name.split(":");
  (same ?? root.querySelector(`[data-focus^="${CSS.escape(owner)}:"]:not(:disabled)`))?.focus();
}
