"""/v1/chat/completions."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxlm.serve import bodies, tools
from jaxlm.serve.answers import Answers
from jaxlm.serve.choice import Choice, Scored
from jaxlm.serve.exchange import Exchange
from jaxlm.serve.protocol import Chat, read_chat
from jaxlm.serve.refusal import bad_field
from jaxlm.serve.served import Prompt, Served
from jaxlm.serve.worker import Worker


@dataclasses.dataclass(frozen=True)
class _Delta:
    """What a step adds to a message."""

    content: str
    calls: list[tools.Call]
    tokens: list[Scored]
    reason: str | None

    def __bool__(self) -> bool:
        return bool(self.content or self.calls or self.tokens)


async def chat(served: Served, worker: Worker, exchange: Exchange, value: Any) -> None:
    """Answers a body of /v1/chat/completions."""
    asked = read_chat(value, (served.name,), served.vocab_size)
    if asked.n > exchange.limits.answers:
        raise bad_field("n", f"must be at most {exchange.limits.answers}, not {asked.n}")
    # a template may work for seconds
    client = exchange.record.client
    prompt = await served.text_work.run(
        client, lambda: served.chat_prompt(asked.messages, asked.tools, asked.template_options)
    )
    answer = _Answer(served, asked, prompt, exchange)
    exchange.record.id = answer.head["id"]
    exchange.record.prompt_tokens = prompt.tokens
    with Answers(worker, client) as answers:
        answer.plan(answers)
        await served.compile_constraint(answers.requests, client)
        answers.submit()
        if asked.stream:
            await answer.stream(answers)
        else:
            await answer.collect(answers)


class _Answer:
    """One answer under way."""

    def __init__(self, served: Served, asked: Chat, prompt: Prompt, exchange: Exchange):
        self.served, self.asked, self.prompt, self.exchange = served, asked, prompt, exchange
        kind = "chat.completion.chunk" if asked.stream else "chat.completion"
        self.head = bodies.head("chatcmpl", kind, served.name)
        self.choices: list[Choice] = []
        self.readers: list[tools.CallReader] = []

    def plan(self, answers: Answers) -> None:
        """Adds the jobs."""
        asked, served = self.asked, self.served
        sampling, spelled = dict(asked.sampling), {}
        form = served.call_format()
        if asked.tools and form is not None:
            control = served.tokenizer.special_ids
            vocab = served.tokenizer.vocab
            marks = [mark for mark in (form.begin, form.end) if vocab.get(mark) in control]
            spelled = {vocab[mark]: mark for mark in marks}
            self.readers = [
                tools.CallReader(form, [tool["function"]["name"] for tool in asked.tools])
                for _ in range(asked.n)
            ]
            if asked.tool_choice != "auto":
                sampling["constraint"] = tools.enforce(
                    form, asked.tools, asked.tool_choice, bool(marks)
                )
        limits = self.exchange.limits
        new_tokens = served.room(self.prompt, asked.max_new_tokens, limits, "messages")
        for request in served.requests(self.prompt, sampling, new_tokens, asked.n):
            choice = Choice(
                len(self.choices),
                request.settings,
                served.pieces,
                served.tokenizer,
                spelled=spelled,
            )
            self.choices.append(choice)
            answers.add(choice.index, "generate", request)

    def receive(self, answers: Answers, key: int, result: Any) -> _Delta:
        """What a token adds to its choice."""
        self.exchange.record.note_token()
        choice = self.choices[key]
        part = answers.add_to(choice, result)
        if not self.readers:
            return _Delta(part.text, [], part.tokens, choice.reason)
        reader = self.readers[key]
        content, calls = reader.add(part.text)
        if calls and not self.asked.parallel_calls:
            calls = calls[:1]
            choice.end()
            answers.close_job(key)
            return _Delta(content, calls, part.tokens, "tool_calls")
        reason = choice.reason
        if reason is not None:
            rest, more = reader.finish()
            content, calls = content + rest, calls + more
            if reason == "stop" and reader.calls:
                reason = "tool_calls"
        return _Delta(content, calls, part.tokens, reason)

    def logprobs(self, tokens: list[Scored]) -> dict[str, Any] | None:
        """`logprobs` of a choice, if they are wanted."""
        if self.asked.sampling.get("logprobs") is None:
            return None
        return bodies.chat_logprobs(tokens, self.served.pieces)

    def usage(self) -> dict[str, int]:
        """Tokens so far."""
        generated = sum(choice.generated for choice in self.choices)
        self.exchange.record.generated_tokens = generated
        return bodies.usage(self.prompt.tokens, generated)

    async def collect(self, answers: Answers) -> None:
        """Sends the whole answer."""
        deltas: list[list[_Delta]] = [[] for _ in self.choices]
        try:
            async for key, result in answers:
                deltas[key].append(self.receive(answers, key, result))
        finally:
            usage = self.usage()
        choices = []
        for index, parts in enumerate(deltas):
            content = "".join(part.content for part in parts)
            calls = [call.body() for part in parts for call in part.calls]
            message: dict[str, Any] = dict(role="assistant", content=content, refusal=None)
            if calls:
                message |= dict(content=content or None, tool_calls=calls)
            tokens = [token for part in parts for token in part.tokens]
            choices.append(
                dict(
                    index=index,
                    message=message,
                    logprobs=self.logprobs(tokens),
                    finish_reason=parts[-1].reason,
                )
            )
        await self.exchange.send_json({**self.head, "choices": choices, "usage": usage})

    async def stream(self, answers: Answers) -> None:
        """Sends the answer chunk by chunk."""
        opened = False
        calls = [0] * len(self.choices)
        try:
            async for key, result in answers:
                part = self.receive(answers, key, result)
                if not opened:
                    # in the order of their indices: clients number choices as they come
                    for choice in self.choices:
                        await self._send(choice.index, dict(role="assistant", content=""))
                    opened = True
                if part:
                    delta: dict[str, Any] = {}
                    if part.content or not part.calls:
                        delta["content"] = part.content
                    if part.calls:
                        numbered = enumerate(part.calls, calls[key])
                        delta["tool_calls"] = [dict(index=i, **c.body()) for i, c in numbered]
                        calls[key] += len(part.calls)
                    await self._send(key, delta, part.tokens)
                if part.reason is not None:
                    await self._send(key, {}, reason=part.reason)
        finally:
            usage = self.usage()
        if self.asked.usage_in_stream:
            await self.exchange.send_event({**self.head, "choices": [], "usage": usage})
        await self.exchange.end_stream()

    async def _send(
        self,
        index: int,
        delta: dict[str, Any],
        tokens: list[Scored] | None = None,
        reason: str | None = None,
    ) -> None:
        logprobs = self.logprobs(tokens) if tokens else None
        choice = dict(index=index, delta=delta, logprobs=logprobs, finish_reason=reason)
        more = dict(usage=None) if self.asked.usage_in_stream else {}
        await self.exchange.send_event({**self.head, "choices": [choice], **more})
