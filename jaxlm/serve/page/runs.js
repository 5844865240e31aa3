// One answer while it is written: the request, the text as it comes, its speed.

import { ApiError, generate } from "./client.js";
import { add, messages } from "./conversations.js";

const RANDOM_SEEDS = 2 ** 31;

/** The request's fields for a person's settings. Without a seed a random one is sent, so that an answer can be had again. */
function fields(settings, kind) {
  const { max_tokens: limit, stop, ...rest } = settings;
  const body = { ...rest };
  body.seed ??= crypto.getRandomValues(new Uint32Array(1))[0] % RANDOM_SEEDS;
  if (limit !== undefined) body[kind === "chat" ? "max_completion_tokens" : "max_tokens"] = limit;
  if (stop?.length) body.stop = stop;
  return body;
}

/** Starts to answer `parent`, a user's message. `changed(run)` is called when the text grows, `ended(run)` once at the end. */
export function start({ conversation, parent, model, changed, ended }) {
  const controller = new AbortController();
  const node = add(conversation, parent.id, "assistant", "");
  node.state = "writing";
  const run = { conversation, node, stop: () => controller.abort() };
  const body = { model: model.id, ...fields(conversation.settings, conversation.kind) };
  let path = "v1/completions";
  if (conversation.kind === "chat") {
    path = "v1/chat/completions";
    body.messages = messages(conversation, parent);
  } else {
    body.prompt = parent.text;
  }
  node.facts = { model: model.id, seed: body.seed };
  run.done = write(run, path, body, controller.signal, changed).finally(() => ended(run));
  return run;
}

async function write(run, path, body, signal, changed) {
  const { node } = run;
  const { facts } = node;
  let begun = performance.now();
  let first = null;
  let last = null;
  let pieces = 0;
  const measure = (tokens) => {
    const seconds = (last - first) / 1000;
    if (tokens > 1 && seconds > 0) facts.rate = (tokens - 1) / seconds;
  };
  try {
    // time at the dialog for a key is not the server's
    const started = () => (begun = performance.now());
    for await (const piece of generate(path, body, { signal, started })) {
      if (piece.text) {
        last = performance.now();
        first ??= last;
        facts.first = (first - begun) / 1000;
        node.text += piece.text;
        // about a token each, until the server says how many there were
        measure(++pieces);
      }
      if (piece.finish) facts.finish = piece.finish;
      if (piece.usage) {
        facts.tokens = piece.usage.completion_tokens;
        facts.promptTokens = piece.usage.prompt_tokens;
        measure(facts.tokens);
      }
      changed(run);
    }
    node.state = "done";
  } catch (error) {
    if (error.name === "AbortError") {
      node.state = "stopped";
    } else {
      node.state = "error";
      const known = error instanceof ApiError;
      if (!known) console.error(error);
      // without a status: no answer at all if there was no text yet, otherwise a stream that broke off
      const { message, status, retryAfter = null, tooLong = false } = error;
      node.error = { message, status: known ? status : 0, retryAfter, tooLong, at: Date.now() };
    }
  }
}
