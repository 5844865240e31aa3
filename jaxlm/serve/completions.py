"""/v1/completions."""

from __future__ import annotations

from typing import Any

from jaxlm.generation.requests import Request
from jaxlm.serve import bodies
from jaxlm.serve.answers import Answers
from jaxlm.serve.choice import Choice, Part, Scored
from jaxlm.serve.exchange import Exchange
from jaxlm.serve.pieces import Offsets
from jaxlm.serve.protocol import Completion, read_completion
from jaxlm.serve.refusal import bad_field
from jaxlm.serve.served import Prompt, Served
from jaxlm.serve.worker import Worker


async def complete(served: Served, worker: Worker, exchange: Exchange, value: Any) -> None:
    """Answers a body of /v1/completions."""
    asked = read_completion(value, (served.name,), served.vocab_size)
    answers_asked = len(asked.prompts) * asked.n
    if answers_asked > exchange.limits.answers:
        raise bad_field(
            "n" if asked.n > 1 else "prompt",
            f"{answers_asked:,} answers are too many for one request; "
            f"at most {exchange.limits.answers:,}",
        )
    if asked.echo and served.kind != "decoder":
        raise bad_field("echo", "an encoder-decoder's text does not contain its source")
    if asked.echo and served.is_prefix and asked.sampling.get("logprobs") is not None:
        raise bad_field("echo", "a prefix language model gives its prompt no log-probabilities")
    size = sum(map(len, asked.prompts)) + len(asked.suffix or "")
    client = exchange.record.client
    prompts = await served.text_work.run(client, lambda: _prompts(served, asked), characters=size)
    answer = _Answer(served, asked, prompts, exchange)
    exchange.record.id = answer.head["id"]
    exchange.record.prompt_tokens = answer.prompt_tokens
    with Answers(worker, client) as answers:
        answer.plan(answers)
        await served.compile_constraint(answers.requests, client)
        answers.submit()
        if asked.stream:
            await answer.stream(answers)
        else:
            await answer.collect(answers)


def _prompts(served: Served, asked: Completion) -> list[Prompt]:
    if asked.suffix is not None:
        return [served.fill_prompt(prompt, asked.suffix) for prompt in asked.prompts]
    return [served.token_ids(prompt) for prompt in asked.prompts]


class _Answer:
    """One answer under way."""

    def __init__(
        self, served: Served, asked: Completion, prompts: list[Prompt], exchange: Exchange
    ):
        self.served, self.asked, self.prompts, self.exchange = served, asked, prompts, exchange
        self.head = bodies.head("cmpl", "text_completion", served.name)
        self.prompt_tokens = sum(prompt.tokens for prompt in prompts)
        self.choices: list[Choice] = []
        # index of the prompt -> its text and scores, for echo
        self.echoes: dict[int, Part] = {}
        self.scored = asked.echo and asked.sampling.get("logprobs") is not None

    def plan(self, answers: Answers) -> None:
        """Adds the jobs."""
        asked, served = self.asked, self.served
        sampling = dict(asked.sampling)
        if asked.suffix is not None:
            # what stands between two texts ends where the model would begin another part
            fill = served.fill_tokens() or ()
            sampling["stop_ids"] = (*served.defaults.stop_ids, *fill)
        for p, prompt in enumerate(self.prompts):
            new_tokens = served.room(prompt, asked.max_new_tokens, self.exchange.limits)
            if asked.echo:
                self.echoes[p] = Part(prompt.text, [])
            if self.scored:
                answers.add(("score", p), "score", (prompt.ids, asked.sampling["logprobs"]))
            if new_tokens == 0:
                # only the prompt is wanted
                settings = served.settings(sampling, max_new_tokens=1)
                requests: list[Request | None] = [None] * asked.n
            else:
                requests = [*served.requests(prompt, sampling, new_tokens, asked.n)]
            for request in requests:
                start = len(prompt.text) if asked.echo else 0
                used = settings if request is None else request.settings
                choice = Choice(
                    len(self.choices),
                    used,
                    served.pieces,
                    served.tokenizer,
                    # the space before a word depends on what the text continues
                    prompt=prompt.ids if served.kind == "decoder" else (),
                    start=start,
                )
                self.choices.append(choice)
                if request is None:
                    choice.reason = "length"
                else:
                    answers.add(choice.index, "generate", request)

    def receive(self, answers: Answers, key: Any, result: Any) -> Part | None:
        """A result as a part of its choice; None: it was a score."""
        if isinstance(key, tuple):
            answers.done(key)
            p = key[1]
            self.echoes[p] = _echo(self.prompts[p], result, self.served)
            return None
        self.exchange.record.note_token()
        return answers.add_to(self.choices[key], result)

    def body(
        self, index: int, text: str, tokens: list[Scored], reason: str | None
    ) -> dict[str, Any]:
        """A choice, or what a chunk adds to it."""
        logprobs = None
        if self.asked.sampling.get("logprobs") is not None:
            logprobs = bodies.completion_logprobs(tokens, self.served.pieces)
        return dict(index=index, text=text, logprobs=logprobs, finish_reason=reason)

    def usage(self) -> dict[str, int]:
        """Tokens so far."""
        generated = sum(choice.generated for choice in self.choices)
        self.exchange.record.generated_tokens = generated
        return bodies.usage(self.prompt_tokens, generated)

    async def collect(self, answers: Answers) -> None:
        """Sends the whole answer."""
        texts: list[list[str]] = [[] for _ in self.choices]
        tokens: list[list[Scored]] = [[] for _ in self.choices]
        try:
            async for key, result in answers:
                part = self.receive(answers, key, result)
                if part is not None:
                    texts[key].append(part.text)
                    tokens[key] += part.tokens
        finally:
            usage = self.usage()
        choices = []
        for choice in self.choices:
            i = choice.index
            echo = self.echoes.get(i // self.asked.n, Part("", []))
            text = echo.text + "".join(texts[i])
            choices.append(self.body(i, text, echo.tokens + tokens[i], choice.reason))
        await self.exchange.send_json({**self.head, "choices": choices, "usage": usage})

    async def stream(self, answers: Answers) -> None:
        """Sends the answer chunk by chunk."""
        held: list[tuple[int, Part, str | None]] = []
        opened = False
        try:
            async for key, result in answers:
                part = self.receive(answers, key, result)
                if part is not None:
                    held.append((key, part, self.choices[key].reason))
                if any(answers.is_open(("score", p)) for p in self.echoes):
                    continue
                if not opened:
                    await self._open()
                    opened = True
                for index, ready, reason in held:
                    if ready.text or ready.tokens or reason is not None:
                        choice = self.body(index, ready.text, ready.tokens, reason)
                        await self._send(choice)
                held.clear()
            if not opened:
                await self._open()
        finally:
            usage = self.usage()
        if self.asked.usage_in_stream:
            await self.exchange.send_event({**self.head, "choices": [], "usage": usage})
        await self.exchange.end_stream()

    async def _open(self) -> None:
        """First chunks in the order of their indices: clients number choices as they come."""
        if len(self.choices) == 1 and not self.echoes:
            return
        for choice in self.choices:
            echo = self.echoes.get(choice.index // self.asked.n, Part("", []))
            # without a job there will be no other chunk
            reason = choice.reason if choice.generated == 0 else None
            await self._send(self.body(choice.index, echo.text, echo.tokens, reason))

    async def _send(self, choice: dict[str, Any]) -> None:
        more = dict(usage=None) if self.asked.usage_in_stream else {}
        await self.exchange.send_event({**self.head, "choices": [choice], **more})


def _echo(prompt: Prompt, scores: Any, served: Served) -> Part:
    """A prompt's text with the log-probabilities of its tokens."""
    unwritten = () if prompt.from_ids else served.tokenizer.special_ids
    written = b"".join(served.pieces.bytes(i) for i in prompt.ids if i not in unwritten)
    # the tokenizer may have put a space before the text, as Llama's does
    has_space = written == b" " + prompt.text.encode()
    offsets = Offsets(served.pieces, start=-1 if has_space else 0, unwritten=unwritten)
    tokens = [
        Scored(i, log_prob, list(top or []), max(0, offsets.next(i)))
        for i, log_prob, top in zip(
            prompt.ids, [None, *scores.log_probs], [None, *scores.top], strict=True
        )
    ]
    return Part(prompt.text, tokens)
