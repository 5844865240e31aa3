// The OpenAI protocol over fetch: requests, API key, errors, server-sent events.

const KEY = "jaxlm.key";

/** An error that the server, or the way to it, gave. `status` is 0 if there was no answer. */
export class ApiError extends Error {
  constructor(message, { status = 0, retryAfter = null, tooLong = false } = {}) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.retryAfter = retryAfter;
    // the messages do not fit into the model
    this.tooLong = tooLong;
  }
}

let memoryKey = "";
let askKey = async () => null;
let asking = null;

/** `ask(rejected)` resolves to a key that a person typed, or to null. */
export function onKeyNeeded(ask) {
  askKey = ask;
}

function storedKey() {
  try {
    return sessionStorage.getItem(KEY) ?? memoryKey;
  } catch {
    return memoryKey;
  }
}

function storeKey(key) {
  memoryKey = key;
  try {
    sessionStorage.setItem(KEY, key);
  } catch {
    // kept until the page is closed
  }
}

/** Seconds of a Retry-After header (a number or a date), or null. */
export function retrySeconds(header, now = Date.now()) {
  if (!header) return null;
  if (/^\s*\d+(\.\d+)?\s*$/.test(header)) return Number(header);
  const date = Date.parse(header);
  return Number.isNaN(date) ? null : Math.max(0, Math.ceil((date - now) / 1000));
}

function messageOf(body, fallback) {
  const error = body?.error;
  if (typeof error === "string") return error;
  return typeof error?.message === "string" ? error.message : fallback;
}

async function errorOf(response) {
  const text = await response.text().catch(() => "");
  let message = text.slice(0, 500) || response.statusText || `HTTP ${response.status}`;
  let tooLong = response.status === 413;
  try {
    const body = JSON.parse(text);
    message = messageOf(body, message);
    tooLong ||= body?.error?.param === "messages" && body.error.code === "context_length_exceeded";
  } catch {
    // not JSON: perhaps a proxy's page, shown as text
  }
  const retryAfter = retrySeconds(response.headers.get("Retry-After"));
  return new ApiError(message, { status: response.status, retryAfter, tooLong });
}

/** The server's response to GET, or to POST if there is a body; asks for an API key after 401, as often as it takes. */
export async function request(path, { body, signal, started } = {}) {
  for (;;) {
    const key = storedKey();
    const headers = {};
    if (body) headers["Content-Type"] = "application/json";
    if (key) headers.Authorization = `Bearer ${key}`;
    let response;
    started?.();
    try {
      response = await fetch(new URL(path, document.baseURI), {
        method: body ? "POST" : "GET",
        headers,
        body: body && JSON.stringify(body),
        signal,
        cache: "no-store",
        credentials: "same-origin",
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(error.message);
    }
    if (response.ok) return response;
    const error = await errorOf(response);
    if (response.status !== 401) throw error;
    // requests that fail together ask once; one that failed with an older key takes the newer
    if (storedKey() === key) {
      asking ??= askKey(key !== "").finally(() => (asking = null));
      const typed = await asking;
      if (signal?.aborted) throw new DOMException("stopped", "AbortError");
      if (!typed) throw error;
      storeKey(typed);
    }
  }
}

/** The data of each server-sent event of a stream of bytes. */
export async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      buffer += done ? "\n\n" : value;
      // a carriage return at the end may be the first half of a line's end
      const held = buffer.endsWith("\r") ? "\r" : "";
      const lines = buffer.slice(0, buffer.length - held.length).split(/\r\n|\n|\r/);
      buffer = lines.pop() + held;
      for (const line of lines) {
        if (line === "" && data.length) {
          yield data.join("\n");
          data = [];
        } else if (line.startsWith("data:")) {
          data.push(line.slice(line[5] === " " ? 6 : 5));
        }
      }
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function piece(body) {
  // the status of an event in a stream was sent before the error: 500, unless the error has a code
  if (body?.error) throw new ApiError(messageOf(body, "error"), { status: Number(body.error.code) || 500 });
  const choice = body?.choices?.[0];
  const text = choice?.delta?.content ?? choice?.message?.content ?? choice?.text ?? "";
  return { text: String(text), finish: choice?.finish_reason ?? null, usage: body?.usage ?? null };
}

/** Streams a completion: pieces `{text, finish, usage}` as they arrive. Ends with an ApiError if the stream breaks off. */
export async function* generate(path, body, { signal, started } = {}) {
  const response = await request(path, {
    body: { ...body, stream: true, stream_options: { include_usage: true } },
    signal,
    started,
  });
  if (!response.headers.get("Content-Type")?.startsWith("text/event-stream")) {
    yield piece(await response.json());
    return;
  }
  let finished = false;
  try {
    for await (const data of events(response.body)) {
      if (data === "[DONE]") return;
      let parsed;
      try {
        parsed = JSON.parse(data);
      } catch {
        throw new ApiError(`not JSON in the stream: ${data.slice(0, 100)}`);
      }
      const next = piece(parsed);
      finished ||= next.finish !== null;
      yield next;
    }
  } catch (error) {
    if (error instanceof ApiError || error.name === "AbortError") throw error;
    throw new ApiError(error.message);
  }
  if (!finished) throw new ApiError("");
}
