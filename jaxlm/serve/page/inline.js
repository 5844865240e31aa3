// Inline Markdown (emphasis, code, links) as DOM nodes. Follows CommonMark's delimiter algorithm, with two changes:
// emphasis may touch Chinese, Japanese and Korean characters directly, and a line break is kept.

import { el } from "./dom.js";

const SCHEMES = new Set(["http:", "https:", "mailto:"]);
const SPECIAL = /[\\`*_~[\]!<&\n]|https?:\/\//g;
// deeper emphasis stays text: a browser lays elements out recursively
const MAX_DEPTH = 30;
const PUNCTUATION = /[\p{P}\p{S}]/u;
const CJK = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}]/u;
const ENTITY = /&(?:#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6})|(amp|lt|gt|quot|apos|nbsp));/y;
const NAMED = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };
const BREAK = /<br\s{0,9}\/?>/iy;
const ANGLE_LINK = /<((?:https?:\/\/|mailto:)[^\s<>]{1,2000})>/iy;
const BARE_LINK = /https?:\/\/[^\s<>"'`\u3000-\u303f\uff00-\uffef\u2018-\u201d]{1,2000}/y;
// (address "title"), the address in angle brackets or with balanced brackets of one level; lengths are bounded: no slow matches
const TARGET =
  /\([ \n]{0,9}(?:<([^<>\n]{0,2000})>|([^\s<>()]{0,2000}(?:\([^\s()]{0,500}\)[^\s()]{0,500}){0,9}))(?:[ \n]{1,9}(?:"[^"\n]{0,500}"|'[^'\n]{0,500}'))?[ \n]{0,9}\)/y;

/** The address if a link may have it (absolute, http, https or mailto), otherwise null. */
export function safeAddress(address) {
  try {
    const url = new URL(address);
    return SCHEMES.has(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

function link(href, children) {
  return el("a", { href, title: href, target: "_blank", rel: "noopener noreferrer nofollow" }, children);
}

function matchAt(pattern, text, position) {
  pattern.lastIndex = position;
  return pattern.exec(text);
}

function character(code) {
  const forbidden = code === 0 || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff);
  return String.fromCodePoint(forbidden ? 0xfffd : code);
}

/** A run of *, _ or ~ with what it may do (CommonMark 6.2). */
function delimiter(text, start, end) {
  const before = start === 0 ? " " : String.fromCodePoint(text.codePointAt(start - 1));
  const after = end >= text.length ? " " : String.fromCodePoint(text.codePointAt(end));
  const blank = (c) => /\s/.test(c);
  const free = (c) => blank(c) || PUNCTUATION.test(c) || CJK.test(c);
  const left = !blank(after) && (!PUNCTUATION.test(after) || free(before));
  const right = !blank(before) && (!PUNCTUATION.test(before) || free(after));
  const mark = text[start];
  const under = mark === "_";
  return {
    mark,
    count: end - start,
    length: end - start,
    opens: left && (!under || !right || PUNCTUATION.test(before)),
    closes: right && (!under || !left || PUNCTUATION.test(after)),
  };
}

const isMark = (item) => typeof item === "object" && "mark" in item;
const asNodes = (items) =>
  items.map((item) => (isMark(item) ? item.mark.repeat(item.count) : "bracket" in item ? item.bracket : item));

/** Joins delimiters to emphasis, strong and deleted text. Takes about as many steps as there are items. */
function emphasise(items) {
  const done = [];
  const depths = new WeakMap();
  // below these positions no opener of this kind is left, and below `floor` none at all
  const bottoms = new Map();
  let floor = 0;
  const openerOf = (closer) => {
    const kind = `${closer.mark}${closer.opens}${closer.length % 3}`;
    const bottom = Math.max(floor, Math.min(bottoms.get(kind) ?? 0, done.length));
    for (let at = done.length - 1; at >= bottom; at--) {
      const item = done[at];
      if (!isMark(item) || item.mark !== closer.mark || !item.opens || item.count === 0) continue;
      const both = item.closes || closer.opens;
      const odd = both && (item.length + closer.length) % 3 === 0 && (item.length % 3 || closer.length % 3);
      if (closer.mark === "~" ? item.count === closer.count : !odd) return at;
    }
    bottoms.set(kind, done.length);
    return -1;
  };
  for (const item of items) {
    if (isMark(item) && item.closes) {
      for (let at = openerOf(item); at >= 0; at = item.count > 0 ? openerOf(item) : -1) {
        const opener = done[at];
        const inside = done.splice(at + 1);
        const depth = 1 + inside.reduce((most, node) => Math.max(most, depths.get(node) ?? 0), 0);
        if (depth > MAX_DEPTH) {
          for (const node of inside) done.push(node);
          floor = done.length;
          break;
        }
        const used = item.mark === "~" ? item.count : Math.min(2, opener.count, item.count);
        const tag = item.mark === "~" ? "del" : used === 2 ? "strong" : "em";
        const element = el(tag, {}, asNodes(inside));
        depths.set(element, depth);
        opener.count -= used;
        item.count -= used;
        if (opener.count === 0) done.pop();
        done.push(element);
      }
      if (item.count === 0) continue;
    }
    done.push(item);
  }
  return done;
}

/** Nodes and strings for a piece of inline Markdown. */
export function inline(text) {
  const items = [];
  const brackets = [];
  const missing = new Set();
  let at = 0;
  const add = (item, length) => {
    items.push(typeof item === "string" ? document.createTextNode(item) : item);
    at += length;
  };
  const closeBracket = () => {
    const opener = brackets.pop();
    if (!opener) return add("]", 1);
    const match = text[at + 1] === "(" && opener.active ? matchAt(TARGET, text, at + 1) : null;
    const href = match && safeAddress(match[1] ?? match[2]);
    if (!href) return add("]", 1);
    const children = asNodes(emphasise(items.splice(opener.index + 1)));
    items.pop();
    // an image is a link too: nothing is fetched because a model wrote its address
    add(link(href, children.length ? children : [href]), 1 + match[0].length);
    // no links in links
    if (!opener.image) for (const other of brackets) other.active = false;
  };
  while (at < text.length) {
    const c = text[at];
    let match;
    if (c === "\\" && text[at + 1] === "\n") add(el("br"), 2);
    else if (c === "\\" && /[!-/:-@[-`{-~]/.test(text[at + 1] ?? "")) add(text[at + 1], 2);
    else if (c === "\n") add(el("br"), 1);
    else if (c === "`") {
      let end = at;
      while (text[end] === "`") end++;
      const fence = text.slice(at, end);
      let close = missing.has(fence.length) ? -1 : text.indexOf(fence, end);
      while (close >= 0 && text[close + fence.length] === "`") {
        while (text[close] === "`") close++;
        close = text.indexOf(fence, close);
      }
      if (close < 0) {
        missing.add(fence.length);
        add(fence, fence.length);
      } else {
        let code = text.slice(end, close).replaceAll("\n", " ");
        if (/^ .* $/.test(code) && code.trim()) code = code.slice(1, -1);
        add(el("code", {}, code), close + fence.length - at);
      }
    } else if (c === "*" || c === "_" || c === "~") {
      let end = at;
      while (text[end] === c) end++;
      const usable = c !== "~" || end - at === 2;
      if (usable) add(delimiter(text, at, end), end - at);
      else add(text.slice(at, end), end - at);
    } else if (c === "[" || (c === "!" && text[at + 1] === "[")) {
      const image = c === "!";
      brackets.push({ index: items.length, active: true, image });
      add({ bracket: image ? "![" : "[" }, image ? 2 : 1);
    } else if (c === "]") closeBracket();
    else if (c === "<" && (match = matchAt(BREAK, text, at))) add(el("br"), match[0].length);
    else if (c === "<" && (match = matchAt(ANGLE_LINK, text, at)) && safeAddress(match[1])) {
      add(link(safeAddress(match[1]), [match[1]]), match[0].length);
    } else if (c === "&" && (match = matchAt(ENTITY, text, at))) {
      const code = match[1] ? parseInt(match[1], 10) : parseInt(match[2], 16);
      add(match[3] ? NAMED[match[3]] : character(code), match[0].length);
    } else if (c === "h" && !/\w/.test(text[at - 1] ?? "") && (match = matchAt(BARE_LINK, text, at))) {
      let address = match[0].replace(/[.,:;!?*_~]{1,9}$/, "");
      if (address.endsWith(")") && !address.includes("(")) address = address.slice(0, -1);
      if (address.endsWith("]") && brackets.length) address = address.slice(0, address.indexOf("]"));
      const href = safeAddress(address);
      if (href) add(link(href, [address]), address.length);
      else add("h", 1);
    } else {
      SPECIAL.lastIndex = at + 1;
      const next = SPECIAL.exec(text)?.index ?? text.length;
      add(text.slice(at, next), next - at);
    }
  }
  return asNodes(emphasise(items));
}
