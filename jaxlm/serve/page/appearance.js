// Light or dark: the system's choice until a person makes another (theme.js applies it before the page is drawn).

import { byId } from "./dom.js";
import { setPreference } from "./store.js";
import { t } from "./words.js";

const system = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";

/** Labels the button with what it does now. */
export function drawTheme() {
  const label = t(isDark() ? "theme_light" : "theme_dark");
  byId("theme").title = label;
  byId("theme").setAttribute("aria-label", label);
}

export function toggleTheme() {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  setPreference("theme", theme);
  drawTheme();
}

system.addEventListener("change", drawTheme);
