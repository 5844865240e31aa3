// Blocks of Markdown as DOM nodes: headings, lists, tables, quotes, rules, fenced code, paragraphs.
// Not for: HTML (it stays text), indented code and underlined headings (models write them by accident).

import { el, iconButton } from "./dom.js";
import { inline } from "./inline.js";
import { t } from "./words.js";

const MAX_DEPTH = 12;
const FENCE = /^( {0,3})(`{3,}(?=[^`]*$)|~{3,})[ \t]*(.*)$/;
const HEADING = /^ {0,3}(#{1,6})(?=[ \t]|$)/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?:( +)(?=\S)|[ \t]*$)/;
const ALIGNMENT = /^:?-+:?$/;

const blank = (line) => line.trim() === "";
const indent = (line) => line.length - line.trimStart().length;

/** Cells of a table's row: separated by |, unless escaped. */
function cells(line) {
  const row = line.trim().replace(/^\|/, "").replace(/(^|[^\\])\|$/, "$1");
  return row.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function tableAt(lines, i) {
  if (!lines[i].includes("|") || i + 1 >= lines.length || !lines[i + 1].includes("-")) return null;
  const head = cells(lines[i]);
  const rule = cells(lines[i + 1]);
  if (head.length !== rule.length || !rule.every((cell) => ALIGNMENT.test(cell))) return null;
  if (head.length === 1 && !lines[i + 1].includes("|")) return null;
  const align = rule.map((cell) => (cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : ""));
  return { head, align };
}

/** Whether a line starts a block that ends a paragraph. */
function starts(lines, i) {
  const line = lines[i];
  if (FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line)) return true;
  const item = ITEM.exec(line);
  // a list in the middle of a paragraph starts at one and is not empty: "in\n1984." is no list
  if (item?.[3] && item[1].length < 4 && (!/\d/.test(item[2]) || parseInt(item[2], 10) === 1)) return true;
  return tableAt(lines, i) !== null;
}

function fence(lines, i) {
  const [, space, mark, info] = FENCE.exec(lines[i]);
  const body = [];
  let at = i + 1;
  for (; at < lines.length; at++) {
    const line = lines[at].trim();
    if (line.length >= mark.length && line === mark[0].repeat(line.length) && indent(lines[at]) < 4) break;
    body.push(lines[at].slice(Math.min(space.length, indent(lines[at]))));
  }
  return [{ type: "code", info: info.trim().split(/\s/)[0], text: body.join("\n") }, at + 1];
}

function quote(lines, i, depth) {
  const body = [];
  let at = i;
  for (; at < lines.length; at++) {
    if (QUOTE.test(lines[at])) body.push(lines[at].replace(QUOTE, ""));
    else if (blank(lines[at]) || blank(body.at(-1)) || starts(lines, at)) break;
    else body.push(lines[at]);
  }
  return [{ type: "quote", blocks: parse(body, depth + 1) }, at];
}

function list(lines, i, depth) {
  const [, space, first] = ITEM.exec(lines[i]);
  const kind = first.at(-1);
  const items = [];
  let at = i;
  let loose = false;
  while (at < lines.length) {
    const match = ITEM.exec(lines[at]);
    // an item that stands two to the right belongs to the item before; models often indent too little
    if (!match || match[2].at(-1) !== kind || match[1].length >= space.length + 2 || RULE.test(lines[at])) break;
    const own = match[1].length;
    const offset = own + match[2].length + Math.min(match[3]?.length ?? 1, 4);
    const body = [lines[at].slice(Math.min(offset, lines[at].length))];
    let after = at + 1;
    for (; after < lines.length; after++) {
      const line = lines[after];
      if (blank(line)) body.push("");
      else if (indent(line) >= own + 2) body.push(line.slice(Math.min(offset, indent(line))));
      else if (blank(body.at(-1)) || ITEM.test(line) || starts(lines, after)) break;
      else body.push(line);
    }
    let end = body.length;
    while (end > 1 && blank(body[end - 1])) end--;
    const more = after < lines.length && ITEM.test(lines[after]);
    loose ||= more && end < body.length && match[1].length === indent(lines[after]);
    items.push(parse(body.slice(0, end), depth + 1));
    at = after;
  }
  const start = /\d/.test(first) ? parseInt(first, 10) : null;
  return [{ type: "list", start, loose, items }, at];
}

function table(lines, i, { head, align }) {
  const rows = [];
  let at = i + 2;
  for (; at < lines.length && !blank(lines[at]) && lines[at].includes("|"); at++) {
    const row = cells(lines[at]);
    rows.push(head.map((_, column) => row[column] ?? ""));
  }
  return [{ type: "table", head, align, rows }, at];
}

function paragraph(lines, i) {
  let at = i + 1;
  while (at < lines.length && !blank(lines[at]) && !starts(lines, at)) at++;
  const text = lines.slice(i, at).map((line) => line.trim());
  return [{ type: "paragraph", text: text.join("\n") }, at];
}

function heading(line) {
  const level = HEADING.exec(line)[1].length;
  let text = line.trim().slice(level).trim();
  const closing = text.lastIndexOf(" ");
  if (/^#+$/.test(text.slice(closing + 1))) text = text.slice(0, Math.max(closing, 0)).trim();
  return { type: "heading", level, text };
}

/** Blocks of lines; each has the lines [from, to) that it was made of. */
export function parse(lines, depth = 0) {
  const blocks = [];
  let i = 0;
  while (i < lines.length) {
    const line = lines[i];
    let found;
    let tableHead;
    if (blank(line)) {
      i++;
      continue;
    }
    if (FENCE.test(line)) found = fence(lines, i);
    else if (HEADING.test(line)) found = [heading(line), i + 1];
    else if (RULE.test(line)) found = [{ type: "rule" }, i + 1];
    else if (depth < MAX_DEPTH && QUOTE.test(line)) found = quote(lines, i, depth);
    else if (depth < MAX_DEPTH && ITEM.test(line)) found = list(lines, i, depth);
    else if ((tableHead = tableAt(lines, i))) found = table(lines, i, tableHead);
    else found = paragraph(lines, i);
    const [block, next] = found;
    blocks.push({ ...block, from: i, to: next });
    i = next;
  }
  return blocks;
}

function code({ info, text }) {
  const label = info || t("code");
  return el(
    "div",
    { class: "code" },
    el("div", { class: "code-bar" }, el("span", {}, info), iconButton("copy", t("copy_code"), null, { "data-copy": "code" })),
    // it scrolls sideways, so it must be reachable with the keyboard
    el("pre", { tabindex: "0", role: "group", "aria-label": label, dir: "ltr" }, el("code", {}, text)),
  );
}

function tableElement({ head, align, rows }) {
  const cell = (tag) => (text, column) => el(tag, { class: align[column] || null, dir: "auto" }, inline(text));
  return el(
    "div",
    { class: "table", tabindex: "0", role: "group", "aria-label": t("table") },
    el(
      "table",
      {},
      el("thead", {}, el("tr", {}, head.map(cell("th")))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map(cell("td"))))),
    ),
  );
}

function item(blocks, apart) {
  const first = blocks[0];
  const loose = apart || blocks.filter((block) => block.type === "paragraph").length > 1;
  const task = first?.type === "paragraph" ? /^\[([ xX])\]\s/.exec(first.text) : null;
  const box = task && (task[1] === " " ? "☐ " : "☑ ");
  const children = blocks.map((block, index) => {
    if (block.type !== "paragraph") return element(block);
    const nodes = inline(index === 0 && task ? block.text.slice(task[0].length) : block.text);
    if (index === 0 && task) nodes.unshift(box);
    return loose ? el("p", { dir: "auto" }, nodes) : el("span", { dir: "auto" }, nodes);
  });
  return el("li", { class: task ? "task" : null }, children);
}

/** The element of a block. Headings start at h3: h1 and h2 are the page's. */
export function element(block) {
  switch (block.type) {
    case "heading":
      return el(`h${Math.min(block.level + 2, 6)}`, { class: `level-${block.level}`, dir: "auto" }, inline(block.text));
    case "rule":
      return el("hr");
    case "code":
      return code(block);
    case "quote":
      return el("blockquote", {}, block.blocks.map(element));
    case "list": {
      const start = block.start !== null && block.start !== 1 ? block.start : null;
      return el(block.start === null ? "ul" : "ol", { start }, block.items.map((blocks) => item(blocks, block.loose)));
    }
    case "table":
      return tableElement(block);
    default:
      return el("p", { dir: "auto" }, inline(block.text));
  }
}

/** Keeps an element's children equal to a growing text: blocks that did not change keep their nodes (and a selection in them). */
export class Markdown {
  constructor(parent) {
    this.parent = parent;
    this.sources = [];
  }

  update(text) {
    const lines = text.replaceAll("\r\n", "\n").replaceAll("\t", "    ").split("\n");
    const blocks = parse(lines);
    const sources = blocks.map((block) => lines.slice(block.from, block.to).join("\n"));
    let same = 0;
    while (same < sources.length && sources[same] === this.sources[same]) same++;
    while (this.parent.childNodes.length > same) this.parent.lastChild.remove();
    for (const block of blocks.slice(same)) this.parent.append(element(block));
    this.sources = sources;
  }
}
