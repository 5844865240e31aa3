// The chat page: which model, which conversation, what is being written, and what the buttons and keys do.

import { drawTheme, toggleTheme } from "./appearance.js";
import { ChatView, copyCode } from "./chat.js";
import { onKeyNeeded, request } from "./client.js";
import * as conversations from "./conversations.js";
import { DocumentView } from "./documents.js";
import { announce, ask, byId, el } from "./dom.js";
import { EmbeddingsView } from "./embeddings.js";
import { errorText } from "./facts.js";
import { exportJson, exportMarkdown, importFile } from "./files.js";
import { connect as connectPanels, setPanel, panelToClose, togglePanel } from "./panels.js";
import { start } from "./runs.js";
import { Settings } from "./settings.js";
import { connect as connectShortcuts, drawShortcuts } from "./shortcuts.js";
import { Sidebar } from "./sidebar.js";
import * as store from "./store.js";
import * as words from "./words.js";

const { t } = words;
const KINDS = [...conversations.KINDS, "encoder"];
const SAVE_EVERY = 2000;

const state = { models: [], model: null, conversation: null, view: null };
// conversations that are being written: id -> run. They go on while another one is shown.
const runs = new Map();

// a server of another make does not say
const kind = () => (KINDS.includes(state.model?.jaxlm?.kind) ? state.model.jaxlm.kind : "chat");
const writes = () => kind() !== "encoder";
const running = () => runs.get(state.conversation?.id) ?? null;

function notice(text) {
  byId("notice").hidden = !text;
  byId("notice").firstElementChild.textContent = text;
}

function save(conversation) {
  // an empty one is not worth a place in the list
  if (!conversation.nodes.length) return;
  if (!store.save(conversation)) notice(t("full"));
}

function draw() {
  if (!writes()) return;
  state.view.show(state.conversation, { running: running(), model: state.model });
  drawList();
  const empty = state.conversation.nodes.length === 0;
  byId("export-markdown").disabled = byId("export-json").disabled = empty;
  document.title = `${state.conversation.title || t("new")} · ${state.model.id}`;
}

function drawList() {
  sidebar.show(kind(), state.conversation.id, new Set(runs.keys()));
}

function open(conversation, focus = true) {
  if (state.conversation && state.conversation !== conversation) save(state.conversation);
  state.conversation = conversation;
  settings.show(conversation, state.model);
  draw();
  if (focus) state.view.focus();
}

function fresh() {
  return conversations.create(kind(), {
    system: store.preference("system", ""),
    settings: store.preference("settings", {}),
  });
}

function newConversation() {
  if (!writes()) return;
  setPanel("list", false, { onlyNarrow: true });
  open(fresh());
}

/** Has the model answer a user's message. */
function answer(parent) {
  const { conversation } = state;
  let saved = Date.now();
  const run = start({
    conversation,
    parent,
    model: state.model,
    changed({ node }) {
      if (conversation === state.conversation) state.view.grew(node);
      if (Date.now() - saved < SAVE_EVERY) return;
      saved = Date.now();
      save(conversation);
    },
    ended({ node }) {
      runs.delete(conversation.id);
      conversation.updated = Date.now();
      save(conversation);
      if (conversation === state.conversation) {
        draw();
        state.view.ended(node);
      } else if (writes()) {
        drawList();
      }
    },
  });
  runs.set(conversation.id, run);
  save(conversation);
  draw();
  announce(t("answer_starts"));
}

/** Whether the settings can be sent; if not, the field that is wrong gets the focus. */
function settingsAreValid() {
  if (settings.read()) return true;
  setPanel("settings", true);
  settings.invalid().focus();
  announce(t("settings_invalid"));
  return false;
}

const actions = {
  send(text) {
    const { conversation } = state;
    if (running() || !settingsAreValid()) return false;
    conversation.draft = "";
    if (conversation.kind === "chat") {
      answer(conversations.add(conversation, conversations.path(conversation).at(-1)?.id ?? null, "user", text));
      return true;
    }
    // the same text again is another attempt at it
    const same = conversation.nodes.find((node) => node.role === "user" && node.text === text);
    if (same) conversations.show(conversation, same);
    answer(same ?? conversations.add(conversation, null, "user", text));
    return true;
  },
  stop() {
    running()?.stop();
  },
  regenerate(node) {
    const { conversation } = state;
    if (running() || !settingsAreValid()) return;
    const parent = conversations.find(conversation, node.parent);
    // what failed before its first word is replaced
    if (!node.text && !conversations.children(conversation, node.id).length) conversations.drop(conversation, node);
    answer(parent);
  },
  edit(node, text) {
    if (running() || !settingsAreValid()) return false;
    answer(conversations.add(state.conversation, node.parent, "user", text));
    return true;
  },
  choose(node) {
    const { conversation } = state;
    conversations.show(conversation, node);
    if (node.parent !== null && conversation.kind !== "chat") conversations.show(conversation, conversations.find(conversation, node.parent));
    save(conversation);
    draw();
  },
  draft(text) {
    state.conversation.draft = text;
  },
};

const settings = new Settings(({ system, settings: values }) => {
  const { conversation } = state;
  conversation.settings = values;
  conversation.system = system;
  store.setPreference("settings", values);
  if (kind() === "chat") store.setPreference("system", system);
  save(conversation);
});

const sidebar = new Sidebar({
  open(id) {
    setPanel("list", false, { onlyNarrow: true });
    const conversation = runs.get(id)?.conversation ?? store.load(id);
    if (conversation) open(conversation);
  },
  rename(id, title) {
    const current = id === state.conversation.id ? state.conversation : (runs.get(id)?.conversation ?? store.load(id));
    if (!current) return;
    current.title = title;
    current.named = true;
    if (!store.save(current)) notice(t("full"));
    draw();
  },
  remove(id) {
    runs.get(id)?.stop();
    forget(id);
    draw();
  },
});

function forget(id) {
  const run = runs.get(id);
  // an answer that ends now must not save it again
  if (run) run.conversation.nodes = [];
  store.remove(id);
  if (state.conversation.id === id) {
    state.conversation.nodes = [];
    open(fresh(), false);
  }
}

function useModel(id) {
  state.model = state.models.find((model) => model.id === id) ?? state.models[0];
  const { jaxlm = {} } = state.model;
  byId("model-name").textContent = state.model.id;
  byId("model-choice").hidden = state.models.length < 2;
  byId("model-name").classList.toggle("unseen", state.models.length > 1);
  byId("model-choice").replaceChildren(...state.models.map((model) => el("option", { value: model.id, selected: model === state.model }, model.id)));
  const facts = [t(`kind_${kind()}`)];
  if (jaxlm.parameters) facts.push(t("parameters", { n: words.short(jaxlm.parameters) }));
  if (jaxlm.max_len) facts.push(t("max_len", { n: words.number(jaxlm.max_len) }));
  byId("model-facts").textContent = facts.join(" · ");
  document.body.dataset.kind = kind();
  store.setPreference("model", state.model.id);
  for (const id of ["list", "settings"]) byId(`${id}-open`).hidden = !writes();
  if (!writes()) {
    for (const id of ["list", "settings"]) setPanel(id, false);
    state.view = new EmbeddingsView(byId("work"), state.model);
    document.title = state.model.id;
    return;
  }
  state.view = kind() === "chat" ? new ChatView(byId("work"), actions) : new DocumentView(byId("work"), actions, kind());
  const fits = state.conversation?.kind === kind();
  // what was typed when the page was closed
  const started = state.conversation ? {} : { draft: store.preference("draft", "") };
  open(fits ? state.conversation : Object.assign(fresh(), started), false);
}

async function loadModels() {
  byId("work").replaceChildren(el("p", { class: "quiet centre" }, t("loading")));
  try {
    const { data } = await (await request("v1/models")).json();
    if (!data?.length) throw Object.assign(new Error(t("no_models")), { status: 200 });
    state.models = data;
    useModel(store.preference("model", null));
    state.view.focus();
  } catch (error) {
    const text = error.status === 200 ? error.message : errorText(error);
    const again = el("button", { type: "button", class: "main", id: "load-again", onclick: loadModels }, t("try_again"));
    byId("work").replaceChildren(el("div", { class: "centre", role: "alert" }, el("p", {}, text), again));
  }
}

function useLanguage(name) {
  words.use(name);
  // the button names the other language in that language
  byId("language").textContent = name === "zh" ? "English" : "中文";
  byId("language").lang = name === "zh" ? "en" : "zh-Hans";
  drawTheme();
  drawShortcuts(kind());
  if (state.model) useModel(state.model.id);
}

async function importOne(file) {
  try {
    const imported = await importFile(file);
    for (const conversation of imported) save(conversation);
    announce(t("imported", { n: imported.length }));
    const last = imported.findLast((conversation) => conversation.kind === kind());
    if (last) open(last, false);
  } catch (error) {
    notice(t("import_failed", { file: file.name, reason: error.message }));
  }
}

async function deleteAll() {
  const all = store.list().filter((conversation) => conversation.kind === kind());
  byId("confirm-text").textContent = t("confirm_delete_all", { n: all.length });
  if (!(await ask(byId("confirm-dialog")))) return;
  for (const { id } of all) {
    runs.get(id)?.stop();
    forget(id);
  }
  draw();
  announce(t("deleted"));
}

onKeyNeeded(async (rejected) => {
  byId("key-help").textContent = t(rejected ? "key_rejected" : "key_help");
  byId("key").value = "";
  return (await ask(byId("key-dialog"))) ? byId("key").value.trim() : null;
});

const listeners = {
  new: newConversation,
  theme: toggleTheme,
  language() {
    const name = words.currentLanguage() === "zh" ? "en" : "zh";
    store.setPreference("language", name);
    useLanguage(name);
  },
  import: () => byId("import-file").click(),
  "shortcuts-open": () => byId("shortcuts-dialog").showModal(),
  "notice-close": () => notice(""),
  "delete-all": deleteAll,
  "export-all": () => exportJson(store.list(), "jaxlm-conversations"),
  "export-json": () => exportJson([state.conversation], state.conversation.title),
  "export-markdown": () => exportMarkdown(state.conversation),
};
for (const [id, listener] of Object.entries(listeners)) byId(id).addEventListener("click", listener);
for (const button of document.querySelectorAll('dialog button[type="button"][value="cancel"]')) {
  button.addEventListener("click", () => button.closest("dialog").close("cancel"));
}
byId("model-choice").addEventListener("change", (event) => useModel(event.target.value));
byId("import-file").addEventListener("change", async (event) => {
  for (const file of event.target.files) await importOne(file);
  event.target.value = "";
});
document.addEventListener("click", copyCode);
addEventListener("pagehide", () => {
  for (const { conversation } of runs.values()) save(conversation);
  if (!state.conversation) return;
  save(state.conversation);
  store.setPreference("draft", state.conversation.nodes.length ? "" : state.conversation.draft);
});
store.onChange((id) => {
  if (!state.model || !writes()) return;
  // another tab wrote the conversation that is shown here
  const other = id === state.conversation.id && !running() ? store.load(id) : null;
  if (other) {
    other.draft = state.conversation.draft;
    state.conversation = other;
  }
  draw();
});
connectPanels();
connectShortcuts({
  new: newConversation,
  list: () => writes() && togglePanel("list"),
  settings: () => writes() && togglePanel("settings"),
  focus: () => state.view?.focus(),
  help: () => byId("shortcuts-dialog").showModal(),
  regenerate() {
    const node = writes() && conversations.path(state.conversation).findLast((message) => message.role === "assistant");
    if (node) actions.regenerate(node);
  },
  escape() {
    const panel = panelToClose(running() !== null);
    if (panel) setPanel(panel, false);
    else actions.stop();
  },
});
useLanguage(words.choose(store.preference("language", null)));
if (!store.persistent) notice(t("not_persistent"));
await loadModels();
