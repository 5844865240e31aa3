// Conversations and preferences in this browser (localStorage). Nothing is sent anywhere.

import { check } from "./conversations.js";

const PREFIX = "jaxlm.conversation.";
const memory = new Map();

function available() {
  try {
    localStorage.setItem("jaxlm.test", "1");
    localStorage.removeItem("jaxlm.test");
    return true;
  } catch (error) {
    // a full store can still be read and freed
    return isFull(error);
  }
}

const isFull = (error) => error.name === "QuotaExceededError" || error.name === "NS_ERROR_DOM_QUOTA_REACHED";

/** False where the browser forbids storage: conversations last until the page is closed. */
export const persistent = available();

function get(key) {
  return persistent ? localStorage.getItem(key) : (memory.get(key) ?? null);
}

/** Saves a value; false if there is no room. */
function set(key, value) {
  if (!persistent) {
    memory.set(key, value);
    return true;
  }
  try {
    localStorage.setItem(key, value);
    return true;
  } catch (error) {
    if (isFull(error)) return false;
    throw error;
  }
}

function read(key) {
  try {
    return check(JSON.parse(get(key)));
  } catch (error) {
    // left where it is: another version of the page may read it
    console.warn(`${key}: ${error.message}`);
    return null;
  }
}

const keys = () => (persistent ? Object.keys(localStorage) : [...memory.keys()]).filter((key) => key.startsWith(PREFIX));

/** All conversations, the latest first. */
export const list = () => keys().map(read).filter(Boolean).sort((a, b) => b.updated - a.updated);
export const load = (id) => (get(PREFIX + id) === null ? null : read(PREFIX + id));
export const save = (conversation) => set(PREFIX + conversation.id, JSON.stringify(conversation));

export function remove(id) {
  if (persistent) localStorage.removeItem(PREFIX + id);
  else memory.delete(PREFIX + id);
}

/** A small setting of the page: a JSON value. */
export function preference(name, fallback) {
  try {
    return JSON.parse(get(`jaxlm.${name}`)) ?? fallback;
  } catch {
    return fallback;
  }
}

export const setPreference = (name, value) => set(`jaxlm.${name}`, JSON.stringify(value));

/** Calls back when another tab changed a conversation. */
export function onChange(changed) {
  addEventListener("storage", (event) => {
    if (event.key === null || event.key.startsWith(PREFIX)) changed(event.key?.slice(PREFIX.length) ?? null);
  });
}
