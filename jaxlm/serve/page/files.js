// Conversations as files: JSON that can be imported again, and Markdown to read.

import { check, path } from "./conversations.js";
import { download } from "./dom.js";
import { t } from "./words.js";

const FORMAT = "jaxlm.conversations";

function toJson(conversations) {
  return JSON.stringify({ format: FORMAT, version: 1, conversations }, null, 1) + "\n";
}

/** The conversations of a file, with new ids; throws an Error that says what is wrong with it. */
function fromJson(text) {
  let file;
  try {
    file = JSON.parse(text);
  } catch {
    throw new Error("it is not JSON");
  }
  if (file?.format !== FORMAT) throw new Error(`its "format" is not "${FORMAT}"`);
  if (file.version !== 1) throw new Error(`its version is ${JSON.stringify(file.version)}, this page reads version 1`);
  if (!Array.isArray(file.conversations)) throw new Error('"conversations" is not a list');
  return file.conversations.map((conversation, index) => {
    try {
      return check(conversation, { fresh: true });
    } catch (error) {
      throw new Error(`conversations[${index}]: ${error.message}`);
    }
  });
}

/** The messages that are shown, as Markdown. */
function toMarkdown(conversation) {
  const parts = [`# ${conversation.title || t("untitled")}`];
  if (conversation.system.trim()) parts.push(`## ${t("system_prompt")}`, conversation.system.trim());
  for (const node of path(conversation)) {
    parts.push(`## ${node.role === "user" ? t("you") : node.facts.model || t("answer")}`, node.text.trim());
  }
  return parts.join("\n\n") + "\n";
}

/** A file name for a title, in any script. */
function fileName(title, ending) {
  const name = title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 40);
  return `${name || "conversation"}.${ending}`;
}

export function exportJson(conversations, title) {
  download(fileName(title, "json"), "application/json", toJson(conversations));
}

export function exportMarkdown(conversation) {
  download(fileName(conversation.title, "md"), "text/markdown", toMarkdown(conversation));
}

/** The conversations of a file that a person chose; throws an Error that says what is wrong with it. */
export const importFile = async (file) => fromJson(await file.text());
