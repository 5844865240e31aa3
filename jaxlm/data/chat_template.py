"""Chat templates: messages to the token ids that a chat model was trained on.

A template is a Jinja program that writes control tokens and the texts of the messages into one string. Text of a person
that spells a control token must not become one, so its first letter is exchanged for a private one while the template
runs: what the template wrote itself is then told from what was passed through it.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import tokenizers

from jaxlm.data import template_sandbox
from jaxlm.data.tokenizer import Tokenizer, encoding_of
from jaxlm.data.tokenizer_config import Template
from jaxlm.data.tokenizer_config import read_template as read

__all__ = ["DEFAULT", "DEFAULT_TOKENS", "ROLES", "Template", "read", "render"]

# ChatML, for a run that has no template of its own, and its control tokens
DEFAULT_TOKENS = ("<|im_start|>", "<|im_end|>")
DEFAULT = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ROLES = ("system", "developer", "user", "assistant", "tool")
_PROBE = "qzxjv"


def render(
    template: Template | None,
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    variables: Mapping[str, Any] | None = None,
) -> list[int]:
    """The token ids of a conversation, as transformers' `apply_chat_template` gives them for ordinary text.

    Text of messages and tools that spells a control token is encoded as text. Control tokens are the special ones, and
    in texts that the model did not write also other added tokens that the template spells, such as `<tool_call>`.

    Args:
        template: None: `DEFAULT`.
        messages: each with a role of `ROLES` and its content, a text or a list of parts that are texts.
        tools: what the model may call, each a JSON schema as in the OpenAI protocol.
        add_generation_prompt: end where the model's answer begins.
        variables: further variables of the template, such as `enable_thinking`.

    Raises:
        ValueError: wrong messages, or a template that is wrong, works too long, refuses the messages or leaves one out.
    """
    conversation = Conversation(template, tokenizer, messages, tools=tools, variables=variables)
    return conversation.encode(add_generation_prompt=add_generation_prompt).ids


class Encoded(NamedTuple):
    """A rendered conversation."""

    ids: list[int]
    # the characters of the rendered text that each token stands for, start and end
    offsets: list[tuple[int, int]]


class Conversation:
    """Messages and the template that renders them; arguments and errors are those of `render`."""

    def __init__(
        self,
        template: Template | None,
        tokenizer: Tokenizer,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ):
        """Checks the messages."""
        source = DEFAULT if template is None else _choose(template, tools)
        self.chat = [_message(message, i, source) for i, message in enumerate(messages)]
        if not self.chat:
            raise ValueError("messages is empty: a chat begins with a message")
        names = {f"{role}_token": name for role, name in tokenizer.role_names.items()}
        self._variables = names | dict(documents=None) | dict(variables or {})
        self._source, self._tokenizer, self._tools = source, tokenizer, tools
        try:
            self._marks = _Marks(tokenizer, source, (self.chat, tools))
            self._marked = self._marks.occurrences(self.chat), self._marks.occurrences(tools)
        except RecursionError:
            raise ValueError("messages or tools are nested too deeply") from None
        self._texts: dict[tuple[int, bool], str] = {}

    def text(self, count: int, *, add_generation_prompt: bool) -> str:
        """The rendering of the first `count` messages, in which texts of messages spell no control token."""
        key = count, add_generation_prompt
        if key not in self._texts:
            messages, tools = self._marked
            self._texts[key] = self._run(messages[:count], tools, add_generation_prompt)
        return self._texts[key]

    def control_tokens(self, text: str) -> list[re.Match[str]]:
        """The special tokens in a part of `text`, all of them written by the template."""
        return list(self._marks.special.finditer(text))

    def encode(self, *, add_generation_prompt: bool) -> Encoded:
        """The ids of all messages."""
        marks = self._marks
        marked = self.text(len(self.chat), add_generation_prompt=add_generation_prompt)
        letters = marks.letters(self.chat), marks.letters(self._tools)
        no_letters = self._run(*letters, add_generation_prompt)
        if marks.special_in(no_letters) != marks.special_in(marked):
            # with no letter left from which one could come together, the template writes other control tokens
            raise ValueError(
                "the chat template joins texts of messages into a control token; change the messages"
            )
        rendered = marks.restore(marked)
        run = lambda changed: self._run(changed, self._tools, add_generation_prompt)
        _check_complete(self.chat, rendered, run)
        if rendered == marked and not marks.appear_by_cleaning:
            return Encoded(*self._tokenizer.offsets_with_control(rendered))
        return Encoded(*marks.encode(marked))

    def _run(self, messages: Any, tools: Any, add_generation_prompt: bool) -> str:
        variables = {"add_generation_prompt": add_generation_prompt, **self._variables}
        return _run(self._source, variables, messages, tools)


def _choose(template: Template, tools: Any) -> str:
    if isinstance(template, str):
        return template
    name = "tool_use" if tools and "tool_use" in template else "default"
    if name not in template:
        raise ValueError(f"none of the chat templates {', '.join(template)} is the default")
    return template[name]


def _message(message: Any, i: int, source: str) -> dict[str, Any]:
    """The message as templates expect it: content as one text, arguments of calls as an object, no nulls."""
    where = f"messages[{i}]"
    if not isinstance(message, Mapping):
        raise ValueError(f"{where} is {_short(message)}, not an object with role and content")
    result = {key: value for key, value in message.items() if value is not None}
    role = result.get("role")
    if role not in ROLES:
        raise ValueError(f"{where}.role is {_short(role)}, not one of {', '.join(ROLES)}")
    if role == "developer" and "developer" not in source:
        result["role"] = "system"
    content = result.get("content")
    if isinstance(content, Sequence) and not isinstance(content, str):
        for part in content:
            if not isinstance(part, Mapping) or not isinstance(part.get("text"), str):
                raise ValueError(
                    f"{where}.content has {_short(part)}; only parts of type text are supported"
                )
        result["content"] = content = "\n".join(part["text"] for part in content)
    if not isinstance(content, str) and not (content is None and result.get("tool_calls")):
        raise ValueError(f"{where}.content is {_short(content)}, not a text")
    if "tool_calls" in result:
        result["tool_calls"] = [_call(call, where) for call in result["tool_calls"]]
    reasoning = next((result[x] for x in _REASONING if x in result), None)
    if reasoning is not None:
        result = {"thinking": reasoning, **result, "reasoning_content": reasoning}
    return result


# names under which what a model thought before its answer is passed; templates read the first, or the second
_REASONING = ("reasoning_content", "thinking", "reasoning")


def _call(call: Any, where: str) -> Any:
    """A call with its arguments as an object: the OpenAI protocol has them as JSON in a text."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"] or "{}")
    except (ValueError, RecursionError) as e:
        reason = "nested too deeply" if isinstance(e, RecursionError) else e
        raise ValueError(f"{where}.tool_calls: its arguments are not JSON: {reason}") from e
    return {**call, "function": {**function, "arguments": arguments}}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


@functools.lru_cache(maxsize=16)
def _compiled(source: str) -> Any:
    environment = template_sandbox.environment()
    try:
        return environment.from_string(source)
    except Exception as e:  # whatever a stranger's text does to the compiler
        raise ValueError(f"the chat template is not valid: {_reason(e)}") from e


def _run(source: str, variables: Mapping[str, Any], messages: Any, tools: Any) -> str:
    """The text that the template writes."""
    compiled = _compiled(source)
    parts: list[str] = []
    length = 0
    try:
        with template_sandbox.limits():
            for part in compiled.generate(messages=messages, tools=tools, **variables):
                parts.append(part)
                length += len(part)
                if length > template_sandbox.MAX_CHARACTERS:
                    raise template_sandbox.TemplateLimitError("writes a text without end")
    except (template_sandbox.TemplateLimitError, RecursionError, MemoryError) as e:
        raise ValueError(f"the chat template {_reason(e) or 'needs too much memory'}") from e
    except Exception as e:  # templates raise what they like
        raise ValueError(f"the chat template refuses these messages: {_reason(e)}") from e
    # UTF-8 has no lone surrogates
    return "".join(parts).encode("utf-8", "replace").decode()


def _reason(e: BaseException) -> str:
    line = getattr(e, "lineno", None)
    reason = " ".join((str(e) or type(e).__name__).split())[:200]
    return reason if line is None else f"{reason} (line {line})"


def _check_complete(
    chat: list[dict[str, Any]], rendered: str, run: Callable[[list[dict[str, Any]]], str]
) -> None:
    """Raises ValueError if the template leaves a message out without a word."""
    # the template may have changed a text, as it cuts what a model thought: ask with one that it cannot change
    probes = {}
    for i, message in enumerate(chat):
        content = message.get("content", "").strip()
        if content and content not in rendered:
            probes[i] = f"{_PROBE}{i}{_PROBE}"
    if not probes:
        return
    changed = run([m | {"content": probes[i]} if i in probes else m for i, m in enumerate(chat)])
    for i, probe in probes.items():
        if probe not in changed:
            role = chat[i]["role"]
            what = "a system prompt" if role == "system" else f"a message of role {role}"
            raise ValueError(f"the chat template has no place for {what} (messages[{i}])")


class _Marks:
    """Exchanges letters of texts from outside for private ones, so that they spell no control token.

    Lengths stay as they are, so that templates may cut and trim.
    """

    def __init__(self, tokenizer: Tokenizer, source: str, texts: Any):
        self.tokenizer = tokenizer
        special = tokenizer.special_names
        others = tuple(n for n in tokenizer.added_tokens if n not in special and n in source)
        self.special = _any_of(special)
        self._all = _any_of((*special, *others))
        self.names = (*special, *others)
        known = set(source + json.dumps(texts, ensure_ascii=False, default=str))
        letters = sorted({name[0] for name in self.names})
        free = (chr(i) for i in range(0xF0000, 0x10FFFE) if chr(i) not in known)
        self._private = dict(zip(letters, free))
        self._to = str.maketrans(self._private)
        self._back = str.maketrans({mark: letter for letter, mark in self._private.items()})

    def occurrences(self, value: Any, pattern: re.Pattern[str] | None = None) -> Any:
        """The value with the first letter of each control token in it exchanged."""
        pattern = pattern or self._all
        if isinstance(value, str):
            # once more, because one may begin within another
            while (changed := pattern.sub(self._exchanged, value)) != value:
                value = changed
            return value
        if isinstance(value, Mapping):
            # what the model wrote may hold its tokens for calls and thoughts
            inner = self.special if value.get("role") == "assistant" else pattern
            return {
                self.occurrences(k, pattern): v if k == "role" else self.occurrences(v, inner)
                for k, v in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.occurrences(x, pattern) for x in value]
        return value

    def _exchanged(self, match: re.Match[str]) -> str:
        return self._private[match[0][0]] + match[0][1:]

    def letters(self, value: Any) -> Any:
        """The value with every letter exchanged with which a control token begins."""
        if isinstance(value, str):
            return value.translate(self._to)
        if isinstance(value, Mapping):
            return {
                self.occurrences(k): v if k == "role" else self.letters(v) for k, v in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.letters(x) for x in value]
        return value

    def restore(self, text: str) -> str:
        """The text with its own letters."""
        return text.translate(self._back)

    def special_in(self, text: str) -> list[str]:
        """The special tokens in a text, in order."""
        return self.special.findall(text)

    @property
    def appear_by_cleaning(self) -> bool:
        """Whether the tokenizer finds control tokens also in text that it has cleaned, such as full-width letters."""
        added = self.tokenizer.added_tokens
        cleans = self.tokenizer.backend.normalizer is not None
        return cleans and any(added[n].normalized for n in self.names if n in added)

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids and offsets of a marked text: control tokens as such, and each stretch between them as text."""
        first, later = _text_backends(self.tokenizer, tuple(self.names))
        names = sorted(self.names, key=len, reverse=True)
        vocab = self.tokenizer.vocab
        control = {vocab[name] for name in names} - {self.tokenizer.unk_id}
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        end = 0

        def add_text(text: str) -> None:
            backend = later if end else first
            encoding = encoding_of(backend, text)
            new = encoding.ids
            if control & set(new):
                name = next(n for n in names if vocab[n] in new)
                raise ValueError(f"the tokenizer makes the control token {name} of plain text")
            ids.extend(new)
            offsets.extend((end + a, end + b) for a, b in encoding.offsets)

        for match in re.finditer("|".join(map(self._pattern, names)) or "(?!)", text):
            add_text(self.restore(text[end : match.start()]))
            assert match.lastindex is not None
            ids.append(vocab[names[match.lastindex - 1]])
            offsets.append(match.span(match.lastindex))
            end = match.end()
        add_text(self.restore(text[end:]))
        return ids, offsets

    def _pattern(self, name: str) -> str:
        """The name as the tokenizer matches it, with the blanks that it swallows."""
        token = self.tokenizer.added_tokens.get(name)
        pattern = f"({re.escape(name)})"
        if token is None:
            return pattern
        if token.single_word:
            pattern = rf"(?<!\w){pattern}(?!\w)"
        return (
            rf"\s*{pattern}" * token.lstrip + pattern * (not token.lstrip) + r"\s*" * token.rstrip
        )


@functools.lru_cache(maxsize=32)
def _text_backends(
    tokenizer: Tokenizer, names: tuple[str, ...]
) -> tuple[tokenizers.Tokenizer, tokenizers.Tokenizer]:
    """Backends for which these tokens are text: for the beginning of a text, and for what follows a token."""
    parts = json.loads(tokenizer.text_backend.to_str())
    for token in parts["added_tokens"]:
        token["special"] = token["special"] or token["content"] in names
    both = [parts, json.loads(json.dumps(parts))]
    for split in _metaspaces(both[1]["pre_tokenizer"]):
        if split.get("prepend_scheme") == "first":
            split["prepend_scheme"] = "never"
    backends = [tokenizers.Tokenizer.from_str(json.dumps(x)) for x in both]
    for backend in backends:
        backend.encode_special_tokens = True
    return backends[0], backends[1]


def _metaspaces(pre_tokenizer: Any) -> list[dict[str, Any]]:
    if not isinstance(pre_tokenizer, dict):
        return []
    inner = [x for part in pre_tokenizer.get("pretokenizers", ()) for x in _metaspaces(part)]
    return inner + ([pre_tokenizer] if pre_tokenizer.get("type") == "Metaspace" else [])


def _any_of(names: Sequence[str]) -> re.Pattern[str]:
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
