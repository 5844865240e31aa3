"""The model that is served, with what the endpoints need to know about it."""

from __future__ import annotations

import dataclasses
import functools
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from jaxlm.data import chat_template, fill_tokens
from jaxlm.generation.requests import Request
from jaxlm.generation.settings import Settings
from jaxlm.serve import tools
from jaxlm.serve.limits import Limits
from jaxlm.serve.pieces import Pieces
from jaxlm.serve.refusal import Refusal, bad_field
from jaxlm.serve.text_work import TextWork


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt as tokens, and as text for echo."""

    ids: list[int]
    source: list[int] | None = None
    text: str = ""
    # whether the text has the control tokens by name, because ids were given
    from_ids: bool = False

    @property
    def tokens(self) -> int:
        """Tokens that the client pays for: those of the source, if there is one."""
        return len(self.ids if self.source is None else self.source)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Served:
    """A model behind the endpoints."""

    name: str
    # decoder, encoder_decoder, or encoder
    kind: str
    tokenizer: Any
    # None for an encoder
    engine: Any
    # None for all others
    embed: Callable[[list[str]], np.ndarray] | None
    defaults: Settings
    template: Any
    # text -> the token ids of the prompt (or of the source), with the control tokens that the model expects
    frame: Callable[[str], list[int]]
    # those before a prompt
    before: tuple[int, ...] = ()
    # of an encoder-decoder: the tokens that its decoder begins with
    decoder_start: list[int] | None = None
    # a decoder that reads its prompt in both directions
    is_prefix: bool = False
    pieces: Pieces
    # of vectors
    dim: int = 0
    # number of them
    parameters: int = 0
    # what is done with texts before the engine gets them
    text_work: TextWork = dataclasses.field(default_factory=TextWork)

    @property
    def vocab_size(self) -> int:
        """One more than the highest token id of the tokenizer."""
        return self.tokenizer.vocab_size

    @functools.cached_property
    def _most_characters(self) -> int:
        """More than a prompt can have: every token would be the longest one, and cleaning would leave a quarter."""
        longest = max(map(len, self.tokenizer.vocab))
        return 4 * longest * max(self.engine.max_prompt, getattr(self.engine, "max_source", 0) or 0)

    def check_length(self, texts: Sequence[str], field: str) -> None:
        """Refuses what cannot fit before its tokens are counted: that would take minutes for some megabytes.

        Raises:
            Refusal: the texts are too long.
        """
        count = sum(map(len, texts))
        if self.engine is not None and count > self._most_characters:
            message = f"has {count:,} characters, far more than fit into the model"
            raise bad_field(field, message)

    def framed(self, text: str, field: str) -> list[int]:
        """The ids of a text with the control tokens that the model expects.

        Raises:
            Refusal: the text is empty, and the model has no token to begin one with.
        """
        try:
            return self.frame(text)
        except ValueError as e:
            raise Refusal(400, " ".join(str(e).split()), param=field) from None

    def token_ids(self, prompt: str | list[int]) -> Prompt:
        """The prompt of a completion, from text or token ids; a Refusal as `framed`."""
        if isinstance(prompt, str):
            self.check_length([prompt], "prompt")
            ids, text = self.framed(prompt, "prompt"), prompt
        else:
            ids, text = prompt, self.tokenizer.decode(prompt, skip_special=False)
        if self.decoder_start is not None:
            return Prompt(ids=self.decoder_start, source=ids, text=text)
        return Prompt(ids=ids, text=text, from_ids=not isinstance(prompt, str))

    def fill_tokens(self) -> tuple[int, ...] | None:
        """The control tokens of fill-in-the-middle, if the model was trained for it."""
        return fill_tokens.ids(self.tokenizer) if self.kind == "decoder" else None

    def fill_prompt(self, prefix: str | list[int], suffix: str) -> Prompt:
        """The prompt whose continuation is what stands between two texts."""
        if self.fill_tokens() is None:
            raise bad_field("suffix", "this model was not trained to fill in the middle")
        self.check_length([prefix, suffix] if isinstance(prefix, str) else [suffix], "prompt")
        ids = self.tokenizer.encode(prefix) if isinstance(prefix, str) else prefix
        filled = fill_tokens.prompt(self.tokenizer, ids, self.tokenizer.encode(suffix))
        return Prompt(ids=[*self.before, *filled])

    def chat_prompt(
        self,
        messages: list[dict[str, Any]],
        offered: list[dict[str, Any]],
        variables: dict[str, Any],
        add_generation_prompt: bool = True,
    ) -> Prompt:
        """The prompt of a conversation."""
        if self.kind != "decoder":
            kind = self.kind.replace("_", "-")
            instead = "/v1/embeddings" if self.kind == "encoder" else "/v1/completions"
            raise Refusal(400, f"the model is an {kind}, which does not chat: use {instead}")
        if self.template is None:
            raise Refusal(
                400,
                "the model has no chat template: use /v1/completions",
                param="messages",
                code="no_chat_template",
            )
        if offered and self.call_format() is None:
            raise bad_field("tools", "the model's chat template has no tools in a known format")
        self.check_length([_content(message) for message in messages], "messages")
        try:
            ids = chat_template.render(
                self.template,
                self.tokenizer,
                messages,
                tools=offered or None,
                add_generation_prompt=add_generation_prompt,
                variables=variables,
            )
        except ValueError as e:
            raise Refusal(400, " ".join(str(e).split()), param="messages") from None
        return Prompt(ids=ids)

    def call_format(self) -> tools.Format | None:
        """How the model writes calls of tools."""
        return tools.find_format(self.template)

    def room(
        self, prompt: Prompt, wanted: int | None, limits: Limits, field: str = "prompt"
    ) -> int:
        """How many tokens may be generated: what is wanted, or as many as fit.

        Args:
            field: what the prompt is called in the request.

        Raises:
            Refusal: the prompt is empty or too long, or more is wanted than fits.
        """
        own = self.engine.max_prompt if prompt.source is None else self.engine.max_source
        most = min(own, limits.prompt_tokens or own)
        if not 0 < prompt.tokens <= most:
            what = "is empty" if not prompt.tokens else f"has {prompt.tokens:,} tokens"
            raise bad_field(field, f"{what}; it must have 1 to {most:,}", "context_length_exceeded")
        room = self.engine.max_len - len(prompt.ids)
        allowed = min(room, limits.new_tokens or room)
        if wanted is None:
            wanted = allowed
        if wanted > allowed or allowed < 0:
            held = "" if prompt.source is not None else f" after {len(prompt.ids):,} of the prompt"
            raise bad_field(
                "max_tokens",
                f"{wanted:,} new tokens are too many; {max(0, allowed):,} are possible{held}",
                "context_length_exceeded",
            )
        return wanted

    def settings(self, sampling: dict[str, Any], **more: Any) -> Settings:
        """Settings of the model with what the request gives.

        Raises:
            Refusal: they contradict each other.
        """
        try:
            return dataclasses.replace(self.defaults, **{**sampling, **more})
        except ValueError as e:
            message = " ".join(str(e).split())
            if message.startswith("min_new_tokens"):
                raise bad_field("min_tokens", message.replace("_new_", "_")) from None
            raise Refusal(400, message) from None

    def requests(
        self, prompt: Prompt, sampling: dict[str, Any], new_tokens: int, n: int
    ) -> list[Request]:
        """The n requests for a prompt; they differ in the seed."""
        seed = sampling.get("seed", secrets.randbits(31))
        return [
            Request(
                prompt.ids,
                self.settings(sampling, seed=(seed + j) % 2**31, max_new_tokens=new_tokens),
                prompt.source,
            )
            for j in range(n)
        ]

    async def compile_constraint(self, requests: Iterable[Request], client: str) -> None:
        """Compiles the constraint, which all answers to a request share, so that the engine need not wait for it.

        Raises:
            Refusal: it is wrong.
        """
        given = (request.settings.constraint for request in requests)
        constraint = next((x for x in given if x is not None), None)
        if constraint is None:
            return
        try:
            await self.text_work.run(client, lambda: self.engine.compile(constraint))
        except ValueError as e:
            message = " ".join(str(e).split())
            raise Refusal(400, message, param="response_format") from None


def _content(message: dict[str, Any]) -> str:
    """The text of a message, whose content may come in parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content if isinstance(part, dict))
