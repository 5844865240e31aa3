"""Bodies of requests as values: what OpenAI's clients may ask, checked."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxlm.serve.fields import Fields, check_text, kind_of
from jaxlm.serve.refusal import Refusal, bad_field
from jaxlm.serve.sampling import read_constraint, read_labels, read_sampling, read_stream

# log-probabilities beside the chosen one's
MAX_TOP = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generation:
    """What both kinds of generating requests have."""

    # arguments of Settings; max_new_tokens is apart, because its default depends on the prompt
    sampling: dict[str, Any]
    max_new_tokens: int | None
    n: int
    stream: bool
    usage_in_stream: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Completion(Generation):
    """The body of /v1/completions."""

    # texts, or token ids
    prompts: list[str | list[int]]
    suffix: str | None
    echo: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chat(Generation):
    """The body of /v1/chat/completions."""

    messages: list[dict[str, Any]]
    # empty: none are offered to the model
    tools: list[dict[str, Any]]
    # auto; required; or the name of the one that must be called
    tool_choice: str
    # whether an answer may have several calls
    parallel_calls: bool
    template_options: dict[str, Any]


def check_model(body: Fields, names: tuple[str, ...]) -> None:
    """Refuses a request for another model."""
    name = body.text("model")
    if name is not None and name not in names:
        raise Refusal(
            404,
            f"model: {name[:100]!r} is not served here; there is {', '.join(names)}",
            param="model",
            code="model_not_found",
        )


def read_completion(value: dict[str, Any], names: tuple[str, ...], vocab_size: int) -> Completion:
    """The body of /v1/completions."""
    body = Fields(value)
    check_model(body, names)
    sampling = read_sampling(body, vocab_size)
    logprobs = body.whole("logprobs", 0, MAX_TOP)
    if logprobs is not None:
        sampling["logprobs"] = logprobs
    if (constraint := read_constraint(body)) is not None:
        sampling["constraint"] = constraint
    n = body.whole("n", 1) or 1
    best_of = body.whole("best_of", 1)
    if best_of is not None and best_of != n:
        raise body.wrong("best_of", "is only offered equal to n")
    stream, usage = read_stream(body)
    read_labels(body)
    echo = body.flag("echo")
    limit = body.whole("max_tokens", 0)
    if limit == 0 and not echo:
        raise body.wrong("max_tokens", "must be at least 1, or 0 with echo=true")
    completion = Completion(
        sampling=sampling,
        max_new_tokens=16 if limit is None else limit,  # OpenAI's default
        n=n,
        stream=stream,
        usage_in_stream=usage,
        prompts=read_prompts(body, vocab_size),
        suffix=body.text("suffix"),
        echo=echo,
    )
    body.end()
    if completion.suffix is not None and completion.echo:
        raise body.wrong("echo", "contradicts suffix")
    return completion


def read_prompts(body: Fields, vocab_size: int) -> list[str | list[int]]:
    """A text, a list of texts, token ids, or a list of lists of them."""
    value = body.require("prompt", body.take("prompt"))
    if isinstance(value, str):
        return [check_text("prompt", value)]
    if not isinstance(value, list):
        raise body.wrong("prompt", f"must be a text, token ids or a list, not {kind_of(value)}")
    if not value:
        raise body.wrong("prompt", "is an empty list")
    if isinstance(value[0], int):
        return [token_ids("prompt", value, vocab_size)]
    prompts: list[str | list[int]] = []
    for i, item in enumerate(value):
        path = f"prompt[{i}]"
        if isinstance(item, list):
            prompts.append(token_ids(path, item, vocab_size))
        else:
            prompts.append(check_text(path, item))
    return prompts


def token_ids(path: str, value: list[Any], vocab_size: int) -> list[int]:
    """Token ids, each within the vocabulary."""
    if not value:
        raise bad_field(path, "is an empty list of token ids")
    for i, item in enumerate(value):
        if isinstance(item, bool) or not isinstance(item, int):
            raise bad_field(f"{path}[{i}]", f"must be a token id, not {kind_of(item)}")
        if not 0 <= item < vocab_size:
            raise bad_field(f"{path}[{i}]", f"must be a token id below {vocab_size}, not {item}")
    return value


def read_chat(value: dict[str, Any], names: tuple[str, ...], vocab_size: int) -> Chat:
    """The body of /v1/chat/completions."""
    body = Fields(value)
    check_model(body, names)
    sampling = read_sampling(body, vocab_size)
    wants, top = body.flag("logprobs"), body.whole("top_logprobs", 0, MAX_TOP)
    if top is not None and not wants:
        raise body.wrong("top_logprobs", "is only for logprobs=true")
    if wants:
        sampling["logprobs"] = top or 0
    if (constraint := read_constraint(body)) is not None:
        sampling["constraint"] = constraint
    stream, usage = read_stream(body)
    read_labels(body)
    old, new = body.whole("max_tokens", 1), body.whole("max_completion_tokens", 1)
    if None not in (old, new) and old != new:
        raise body.wrong("max_tokens", "contradicts max_completion_tokens: give one of them")
    body.absent("modalities", 'only ["text"] is offered', (["text"],))
    for name in ("functions", "function_call"):
        body.absent(name, "is obsolete: use tools and tool_choice")
    for name in ("audio", "prediction", "web_search_options", "reasoning_effort", "verbosity"):
        body.absent(name, "is not offered by this server")
    options = body.take("chat_template_kwargs")
    if not isinstance(options, (dict, type(None))):
        raise body.wrong("chat_template_kwargs", f"must be an object, not {kind_of(options)}")
    tools = _tools(body)
    chat = Chat(
        sampling=sampling,
        max_new_tokens=new or old,
        n=body.whole("n", 1) or 1,
        stream=stream,
        usage_in_stream=usage,
        messages=read_messages(body),
        tools=tools,
        tool_choice=_tool_choice(body, [tool["function"]["name"] for tool in tools]),
        parallel_calls=body.flag("parallel_tool_calls", True),
        template_options=options or {},
    )
    body.end()
    if chat.tool_choice == "none":
        chat = dataclasses.replace(chat, tools=[], tool_choice="auto")
    if chat.tools and constraint is not None:
        raise body.wrong("response_format", "contradicts tools: a call is not of that format")
    return chat


def read_messages(body: Fields) -> list[dict[str, Any]]:
    """The messages for the template; a content in parts is joined, as it may only have texts."""
    entries = body.require("messages", body.objects("messages"))
    if not entries:
        raise body.wrong("messages", "is an empty list")
    return [_message(entry) for entry in entries]


def _message(entry: Fields) -> dict[str, Any]:
    roles = ("system", "developer", "user", "assistant", "tool")
    role = entry.require("role", entry.choice("role", roles))
    message: dict[str, Any] = {"role": role}
    content = entry.take("content")
    if content is not None:
        message["content"] = _content(entry, content)
    if (name := entry.text("name")) is not None:
        message["name"] = name
    if role == "assistant":
        calls = [_call(call) for call in entry.objects("tool_calls") or []]
        if calls:
            message["tool_calls"] = calls
        for label in ("refusal", "audio", "function_call"):
            entry.absent(label, "is not offered by this server")
        message.setdefault("content", "")
        if content is None and not calls:
            raise entry.wrong("content", "is missing")
    else:
        entry.require("content", content)
    if role == "tool":
        message["tool_call_id"] = entry.require("tool_call_id", entry.text("tool_call_id"))
    entry.end()
    return message


def _content(entry: Fields, content: Any) -> str:
    path = entry.path("content")
    if isinstance(content, str):
        return check_text(path, content)
    if not isinstance(content, list):
        raise entry.wrong("content", f"must be a text or a list of parts, not {kind_of(content)}")
    texts = []
    for i, value in enumerate(content):
        part = Fields(value, f"{path}[{i}]")
        kind = part.require("type", part.text("type"))
        if kind != "text":
            raise part.wrong("type", f"{kind[:40]!r} is not offered; only text is")
        texts.append(part.require("text", part.text("text")))
        part.end()
    return "\n".join(texts)


def _call(call: Fields) -> dict[str, Any]:
    call.choice("type", ("function",))
    call.take("index")
    identifier = call.text("id")
    function = call.require("function", call.object("function"))
    named = {
        "name": function.require("name", function.text("name")),
        "arguments": function.require("arguments", function.text("arguments")),
    }
    function.end()
    call.end()
    return {"id": identifier, "type": "function", "function": named}


def _tools(body: Fields) -> list[dict[str, Any]]:
    tools = []
    for entry in body.objects("tools") or []:
        entry.require("type", entry.choice("type", ("function",)))
        function = entry.require("function", entry.object("function"))
        named: dict[str, Any] = {"name": function.require("name", function.text("name"))}
        if (description := function.text("description")) is not None:
            named["description"] = description
        parameters = function.take("parameters")
        if not isinstance(parameters, (dict, type(None))):
            raise function.wrong("parameters", f"must be an object, not {kind_of(parameters)}")
        named["parameters"] = parameters or {"type": "object", "properties": {}}
        function.flag("strict")
        function.end()
        entry.end()
        tools.append({"type": "function", "function": named})
    return tools


def _tool_choice(body: Fields, names: list[str]) -> str:
    value = body.take("tool_choice")
    if isinstance(value, dict):
        choice = Fields(value, "tool_choice")
        choice.require("type", choice.choice("type", ("function",)))
        function = choice.require("function", choice.object("function"))
        name = function.require("name", function.text("name"))
        function.end()
        choice.end()
        if name not in names:
            raise function.wrong("name", f"{name[:64]!r} is not the name of one of the tools")
        return f"function {name}"
    if value is None:
        return "auto"
    if value not in ("none", "auto", "required"):
        raise body.wrong("tool_choice", "must be none, auto, required, or name a function")
    if value == "required" and not names:
        raise body.wrong("tool_choice", "required needs tools")
    return value


def read_embedding(
    value: dict[str, Any], names: tuple[str, ...], dim: int
) -> tuple[list[str], bool]:
    """The texts of /v1/embeddings, and whether the vectors are wanted in base64."""
    body = Fields(value)
    check_model(body, names)
    wanted = body.require("input", body.take("input"))
    texts = [wanted] if isinstance(wanted, str) else wanted
    if not isinstance(texts, list):
        raise body.wrong("input", f"must be a text or a list of texts, not {kind_of(wanted)}")
    if not texts:
        raise body.wrong("input", "is an empty list")
    if isinstance(texts[0], (int, list)):
        raise body.wrong(
            "input",
            "token ids are refused, because clients compute them with another model's tokenizer; send texts "
            "(in LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))",
        )
    for i, text in enumerate(texts):
        check_text("input" if isinstance(wanted, str) else f"input[{i}]", text)
    base64 = body.choice("encoding_format", ("float", "base64")) == "base64"
    wants = body.whole("dimensions", 1)
    if wants not in (None, dim):
        raise body.wrong("dimensions", f"must be {dim}, the model's, not {wants}")
    body.take("user")
    body.end()
    return texts, base64
