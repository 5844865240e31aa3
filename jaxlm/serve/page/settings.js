// The form for the system prompt and how to sample. Empty fields are not sent.

import { byId, el } from "./dom.js";
import { number, t } from "./words.js";

const FIELDS = {
  temperature: { min: 0, max: 2, step: 0.1 },
  top_p: { min: 0.01, max: 1, step: 0.05 },
  top_k: { min: 1, max: 1000000, step: 1 },
  max_tokens: { min: 1, max: 1000000, step: 1 },
  seed: { min: 0, max: 2147483647, step: 1 },
};
const NAMES = { max_tokens: ["max_tokens", "max_new_tokens"] };

function defaultText(name, defaults) {
  if (name === "seed") return t("default_random");
  const key = (NAMES[name] ?? [name]).find((other) => defaults?.[other] !== undefined);
  if (key === undefined) return t("default_server");
  const value = defaults[key];
  return t("default_is", { value: typeof value === "number" ? number(value, 3, 0) : t("off") });
}

const escape = (text) => text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n").replaceAll("\t", "\\t");
const unescape = (line) => line.replace(/\\([nt\\])/g, (_, c) => ({ n: "\n", t: "\t", "\\": "\\" })[c]);

/** The form; `changed({system, settings})` is called with valid values only. */
export class Settings {
  constructor(changed) {
    this.form = byId("settings-form");
    this.changed = changed;
    this.form.addEventListener("input", () => this.read());
    this.form.addEventListener("submit", (event) => event.preventDefault());
  }

  /** Shows a conversation's values. */
  show(conversation, model) {
    const { settings, system, kind } = conversation;
    const defaults = model.jaxlm?.defaults;
    const rows = [];
    if (kind === "chat") {
      const box = el("textarea", { id: "set-system", rows: "4", dir: "auto", "aria-describedby": "help-system" });
      box.value = system;
      rows.push(this.row("system", t("system_prompt"), box, t("system_help")));
    }
    rows.push(el("p", { class: "quiet" }, t("settings_help")));
    for (const [name, { min, max }] of Object.entries(FIELDS)) {
      const input = el("input", {
        id: `set-${name}`,
        // not type=number: that hides what cannot be read, and changes with the mouse wheel
        inputmode: "decimal",
        placeholder: defaultText(name, defaults),
        "aria-describedby": `help-${name} wrong-${name}`,
        "data-min": min,
        "data-max": max,
        onkeydown: (event) => this.arrow(event, name),
      });
      input.value = settings[name] ?? "";
      rows.push(this.row(name, t(name), input, t(`${name}_help`)));
    }
    const stop = el("textarea", { id: "set-stop", rows: "2", "aria-describedby": "help-stop", spellcheck: "false" });
    stop.value = (settings.stop ?? []).map(escape).join("\n");
    rows.push(this.row("stop", t("stop_strings"), stop, t("stop_help")));
    rows.push(el("button", { type: "button", id: "reset", onclick: () => this.reset() }, t("reset")));
    this.form.replaceChildren(...rows);
  }

  row(name, label, control, help) {
    return el(
      "div",
      { class: "field" },
      el("label", { for: control.id }, label),
      control,
      el("p", { class: "wrong", id: `wrong-${name}` }),
      el("p", { class: "quiet", id: `help-${name}` }, help),
    );
  }

  arrow(event, name) {
    const direction = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (!direction || event.isComposing) return;
    event.preventDefault();
    const { min, max, step } = FIELDS[name];
    const now = Number(event.target.value) || 0;
    const next = Math.min(max, Math.max(min, now + direction * step));
    event.target.value = String(Number(next.toFixed(2)));
    this.read();
  }

  reset() {
    for (const control of this.form.querySelectorAll("input, #set-stop")) control.value = "";
    this.read();
    byId("set-temperature").focus();
  }

  /** Reads the form; a field that is wrong says so. Returns whether all is valid. */
  read() {
    const settings = {};
    let valid = true;
    for (const [name, { min, max, step }] of Object.entries(FIELDS)) {
      const input = byId(`set-${name}`);
      if (!input) continue;
      const text = input.value.trim().replace(",", ".");
      const whole = step === 1;
      const good = text === "" || ((whole ? /^\d+$/ : /^\d*\.?\d+$/).test(text) && Number(text) >= min && Number(text) <= max);
      const wrong = good ? "" : t(whole ? "invalid_integer" : "invalid_number", { min, max });
      input.setAttribute("aria-invalid", String(!good));
      if (byId(`wrong-${name}`).textContent !== wrong) byId(`wrong-${name}`).textContent = wrong;
      valid &&= good;
      if (good && text !== "") settings[name] = Number(text);
    }
    const stop = (byId("set-stop")?.value ?? "").split("\n").filter(Boolean).map(unescape);
    if (stop.length) settings.stop = stop;
    if (valid) this.changed({ system: byId("set-system")?.value ?? "", settings });
    return valid;
  }

  /** The first field that is wrong, or null. */
  invalid() {
    return this.form.querySelector('[aria-invalid="true"]');
  }
}
