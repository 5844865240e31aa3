// What an encoder can do, instead of a chat: compare texts by their embeddings, and examples for programs.

import { request } from "./client.js";
import { announce, el } from "./dom.js";
import { errorText } from "./facts.js";
import { element } from "./markdown.js";
import { number, t } from "./words.js";

const MAX_TEXTS = 20;

/** Cosine similarity of two vectors. */
export function cosine(a, b) {
  let product = 0;
  let lengthA = 0;
  let lengthB = 0;
  for (let i = 0; i < a.length; i++) {
    product += a[i] * b[i];
    lengthA += a[i] ** 2;
    lengthB += b[i] ** 2;
  }
  return product / Math.sqrt(lengthA * lengthB);
}

function examples(model) {
  const url = new URL("v1", document.baseURI).href;
  // quoted as JSON, and for the shell: a model's name may hold anything
  const body = JSON.stringify({ model, input: ["a text", "another"] });
  const shell = `curl ${url}/embeddings \\\n  -H "Content-Type: application/json" \\\n  -d '${body.replaceAll("'", "'\\''")}'`;
  const python = [
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${JSON.stringify(url)}, api_key="-")`,
    `answer = client.embeddings.create(model=${JSON.stringify(model)}, input=["a text", "another"], encoding_format="float")`,
    "vectors = [entry.embedding for entry in answer.data]",
  ].join("\n");
  return [
    element({ type: "code", info: "shell", text: shell }),
    element({ type: "code", info: "python", text: python }),
  ];
}

function similarities(texts, vectors) {
  const heads = texts.map((text) => (text.length > 40 ? `${text.slice(0, 39)}…` : text));
  return el(
    "table",
    {},
    el("caption", { class: "unseen" }, t("encoder_result")),
    el("thead", {}, el("tr", {}, el("td"), ...heads.map((text, i) => el("th", { scope: "col", title: text }, String(i + 1))))),
    el(
      "tbody",
      {},
      ...heads.map((text, row) => {
        const values = vectors.map((vector) => cosine(vectors[row], vector));
        const cells = values.map((value) => {
          // five steps of a colour beside the number, not instead of it
          const step = Math.min(4, Math.max(0, Math.floor(value * 5)));
          return el("td", { class: `right near-${step}` }, number(value, 3));
        });
        return el("tr", {}, el("th", { scope: "row", dir: "auto" }, `${row + 1}. ${text}`), ...cells);
      }),
    ),
  );
}

export class EmbeddingsView {
  constructor(root, model) {
    const note = el("p", { class: "note error", role: "alert" });
    const result = el("div", { class: "table", id: "similarities", tabindex: "0", role: "region", "aria-label": t("encoder_result"), hidden: true });
    const box = el("textarea", { id: "prompt", rows: "5", dir: "auto" });
    const button = el("button", { class: "main", id: "compare" }, t("encoder_compare"));
    const compare = async (event) => {
      event.preventDefault();
      const texts = box.value.split("\n").map((line) => line.trim()).filter(Boolean).slice(0, MAX_TEXTS);
      note.textContent = texts.length < 2 ? t("encoder_few") : "";
      if (texts.length < 2) return;
      button.disabled = true;
      try {
        const response = await request("v1/embeddings", { body: { model: model.id, input: texts, encoding_format: "float" } });
        const { data } = await response.json();
        const vectors = [...data].sort((a, b) => a.index - b.index).map((entry) => entry.embedding);
        result.replaceChildren(similarities(texts, vectors));
        result.hidden = false;
        announce(t("encoder_result"));
      } catch (error) {
        note.textContent = errorText(error);
      } finally {
        button.disabled = false;
        button.focus();
      }
    };
    root.replaceChildren(
      el(
        "div",
        { class: "document", id: "encoder" },
        el("h2", {}, t("encoder_title", { model: model.id })),
        el("p", {}, t("encoder_help")),
        el("h3", {}, t("encoder_try")),
        el("form", { onsubmit: compare }, el("label", { for: "prompt" }, t("encoder_texts")), box, el("div", { class: "row" }, button), note),
        result,
        el("h3", {}, t("encoder_example")),
        ...examples(model.id),
      ),
    );
  }

  show() {}

  focus() {
    document.getElementById("prompt").focus();
  }
}
