// Conversations as trees: each message has a parent, and of several answers (or edits) one is shown. No DOM, no storage.

export const KINDS = ["chat", "completion", "encoder_decoder"];
const STATES = ["done", "writing", "stopped", "error"];

const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(9)), (byte) => byte.toString(36).padStart(2, "0")).join("");

export function create(kind, { system = "", settings = {} } = {}) {
  const now = Date.now();
  return { id: newId(), kind, title: "", named: false, created: now, updated: now, system, settings, draft: "", shown: null, nodes: [] };
}

export const find = (conversation, id) => conversation.nodes.find((node) => node.id === id);
export const children = (conversation, parent) => conversation.nodes.filter((node) => node.parent === parent);

/** Adds a message and shows it. `parent` is a message's id, or null. */
export function add(conversation, parent, role, text) {
  const node = { id: newId(), parent, role, text, created: Date.now(), state: "done", error: null, shown: null, facts: {} };
  conversation.nodes.push(node);
  show(conversation, node);
  conversation.updated = node.created;
  if (!conversation.named && role === "user" && !conversation.title) conversation.title = firstLine(text);
  return node;
}

function firstLine(text) {
  const line = text.trim().split("\n")[0].replace(/\s+/g, " ");
  const characters = Array.from(line);
  return characters.length > 60 ? characters.slice(0, 59).join("") + "…" : line;
}

/** Takes away a message that has no answers. */
export function drop(conversation, node) {
  conversation.nodes = conversation.nodes.filter((other) => other !== node);
  const parent = node.parent === null ? conversation : find(conversation, node.parent);
  if (parent.shown === node.id) parent.shown = children(conversation, node.parent).at(-1)?.id ?? null;
}

/** Chooses a message among those with the same parent. */
export function show(conversation, node) {
  const parent = node.parent === null ? conversation : find(conversation, node.parent);
  parent.shown = node.id;
}

/** The messages that are shown, from the first to the last. */
export function path(conversation) {
  const byId = new Map(conversation.nodes.map((node) => [node.id, node]));
  const nodes = [];
  for (let node = byId.get(conversation.shown); node; node = byId.get(node.shown)) nodes.push(node);
  return nodes;
}

/** What the server is sent to answer a user's message: the system prompt and all messages up to it. */
export function messages(conversation, node) {
  const list = [];
  for (let at = node; at; at = find(conversation, at.parent)) {
    // a message that was too long would be too long again with every later one
    if (at.error?.tooLong) at = find(conversation, at.parent);
    else list.unshift({ role: at.role, content: at.text });
  }
  if (conversation.system.trim()) list.unshift({ role: "system", content: conversation.system });
  // an answer that failed before its first word is no turn; templates want turns to alternate, so its neighbours become one
  const turns = [];
  for (const { role, content } of list) {
    if (role === "assistant" && content === "") continue;
    if (turns.at(-1)?.role === role) turns.at(-1).content += `\n\n${content}`;
    else turns.push({ role, content });
  }
  return turns;
}

const isText = (value) => typeof value === "string";
const isRecord = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isTime = (value) => Number.isFinite(value) && value >= 0 && value < 8.64e15;

function checkFacts(facts) {
  if (!isRecord(facts)) return {};
  const known = {};
  for (const name of ["tokens", "promptTokens", "first", "rate", "seed"]) {
    if (Number.isFinite(facts[name])) known[name] = facts[name];
  }
  for (const name of ["model", "finish"]) if (isText(facts[name])) known[name] = facts[name];
  return known;
}

function checkError(error) {
  if (!isRecord(error)) return null;
  const message = isText(error.message) ? error.message : "";
  return { message, status: Number(error.status) || 0, retryAfter: null, tooLong: error.tooLong === true };
}

function checkSettings(settings) {
  const known = {};
  if (!isRecord(settings)) return known;
  for (const name of ["temperature", "top_p", "top_k", "max_tokens", "seed"]) {
    if (Number.isFinite(settings[name])) known[name] = settings[name];
  }
  if (Array.isArray(settings.stop) && settings.stop.every(isText)) known.stop = settings.stop.filter(Boolean);
  return known;
}

/** A conversation from outside (a file, the storage), with only what we know in it, or an Error that says what is wrong. */
export function check(value, { fresh = false } = {}) {
  if (!isRecord(value)) throw new Error("a conversation is not an object");
  if (!KINDS.includes(value.kind)) throw new Error(`kind is ${JSON.stringify(value.kind)}, not one of ${KINDS.join(", ")}`);
  if (!Array.isArray(value.nodes)) throw new Error("nodes is not a list");
  const ids = new Map();
  const nodes = value.nodes.map((node, index) => {
    if (!isRecord(node) || !isText(node.id) || !isText(node.text)) throw new Error(`nodes[${index}] has no id or text`);
    if (node.role !== "user" && node.role !== "assistant") throw new Error(`nodes[${index}].role is ${JSON.stringify(node.role)}`);
    if (ids.has(node.id)) throw new Error(`nodes[${index}].id appears twice`);
    // parents come first, so there is no circle
    if (node.parent !== null && !ids.has(node.parent)) throw new Error(`nodes[${index}].parent is not a message before it`);
    ids.set(node.id, fresh ? newId() : node.id);
    return {
      id: ids.get(node.id),
      parent: node.parent === null ? null : ids.get(node.parent),
      role: node.role,
      text: node.text,
      created: isTime(node.created) ? node.created : 0,
      // nobody writes it any more
      state: !STATES.includes(node.state) ? "done" : node.state === "writing" ? "stopped" : node.state,
      error: checkError(node.error),
      shown: node.shown,
      facts: checkFacts(node.facts),
    };
  });
  const conversation = {
    id: fresh || !isText(value.id) ? newId() : value.id,
    kind: value.kind,
    title: isText(value.title) ? value.title.slice(0, 200) : "",
    named: value.named === true,
    created: isTime(value.created) ? value.created : 0,
    updated: isTime(value.updated) ? value.updated : 0,
    system: isText(value.system) ? value.system : "",
    settings: checkSettings(value.settings),
    draft: isText(value.draft) ? value.draft : "",
    shown: value.shown,
    nodes,
  };
  const parents = new Map([[null, conversation], ...nodes.map((node) => [node.id, node])]);
  const chosen = new Map([...parents.values()].map((parent) => [parent, ids.get(parent.shown)]));
  for (const parent of parents.values()) parent.shown = null;
  for (const node of nodes) {
    const parent = parents.get(node.parent);
    // the last one, unless another was chosen
    if (parent.shown === null || parent.shown !== chosen.get(parent)) parent.shown = node.id;
  }
  return conversation;
}
