"""The engine: writes the continuations of many prompts at once, each as if it were alone.

Requests wait in a queue, come into a slot when one is free, and leave it when they are done (continuous batching). The
prompt is processed by `prefill`; every token, the first one too, comes from the same compiled programs of `step`. The
device works on a step while the host reads the tokens of the one before.
"""

from __future__ import annotations

import collections
import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxlm.config import EncoderDecoderConfig
from jaxlm.generation import cache, prefill, weights
from jaxlm.generation.constraints import Compiler, Matcher
from jaxlm.generation.prompts import Job, Prompts
from jaxlm.generation.requests import Request, Row, Token
from jaxlm.generation.scoring import Scores, score
from jaxlm.generation.settings import Constraint, Settings, check_ids
from jaxlm.generation.slots import check_banned
from jaxlm.generation.state import Shape, State
from jaxlm.generation.step import Output
from jaxlm.models.heads import CausalLM, Seq2SeqLM
from jaxlm.sharding import batch_shards

# Steps with few requests before the number of slots is reduced.
PATIENCE = 32


class _Pending(NamedTuple):
    """A step whose tokens are not read yet."""

    rows: list[Row]
    output: Output


class Engine:
    """A language model with slots for requests; one thread uses it."""

    def __init__(
        self,
        model: CausalLM | Seq2SeqLM,
        params: Any,
        *,
        tokenizer: Any = None,
        vocab_size: int | None = None,
        slots: int = 16,
        max_len: int | None = None,
        mesh: Mesh | None = None,
        is_prefix: bool = False,
        block: int = 128,
        dtype: Any = None,
    ):
        """Takes the weights apart by layer.

        Args:
            model: the language model.
            params: its parameters, stacked or by layer.
            tokenizer: for constraints, and for the size of the vocabulary.
            vocab_size: ids from this one on are never written; default: the tokenizer's, or else the model's.
            slots: largest number of requests at a time.
            max_len: largest number of tokens of prompt and text together; default: the model's.
            mesh: of the parameters.
            is_prefix: the model was trained as a prefix language model: prompts are read in both directions.
            block: cache lengths are powers of two times this.
            dtype: of the weights while generating; default: as they are.

        Raises:
            ValueError: the model is no language model, or a number is out of range.
        """
        if not isinstance(model, (CausalLM, Seq2SeqLM)):
            raise ValueError(f"only language models write text, not {type(model).__name__}")
        self.model, self._mesh = model, mesh
        config: Any = model.config
        self._has_source = isinstance(config, EncoderDecoderConfig)
        decoder = config.decoder if self._has_source else config
        # where a text gets other rotary frequencies; a prefix is not read a second time as one
        self._switch = None if self._has_source or is_prefix else decoder.rope_switch
        own = decoder.max_cached_len if self._switch is None else decoder.max_len
        self.max_len = own if max_len is None else max_len
        if not 2 <= self.max_len <= own:
            why = "the model's length"
            if own < decoder.max_len:
                why = "the length up to which its rotary frequencies stay the same"
            raise ValueError(f"max_len={max_len} is out of range: 2 to {own}, {why}")
        if slots < 1:
            raise ValueError(f"slots={slots} is out of range: at least 1")
        if vocab_size is None:
            vocab_size = config.vocab_size if tokenizer is None else tokenizer.vocab_size
        self.vocab_size: int = min(vocab_size, config.vocab_size)
        shards = 1 if mesh is None else batch_shards(mesh)
        counts = [shards]
        while counts[-1] < slots:
            counts.append(min(4 * counts[-1], -(-slots // shards) * shards))
        self._row_counts = tuple(counts)
        self._lengths = cache.lengths(block, self.max_len)
        self._source_lengths = cache.lengths(block, self.max_source) if self._has_source else ()
        # prompts processed together
        self._prompt_counts = tuple(n for n in (shards, 8 * shards) if n == shards or n <= slots)
        self._compiler = None if tokenizer is None else Compiler(tokenizer, self.vocab_size)
        with self._on_mesh():
            self.params = weights.by_layer(params, dtype)
        # without a mesh everything is bound to the one device: a program is compiled again for each argument that is
        # bound in one call and not in another, or bound to a mesh of one device
        devices = {device for x in jax.tree.leaves(self.params) for device in x.devices()}
        if mesh is None and len(devices) > 1:
            raise ValueError(f"the parameters are on {len(devices)} devices: name their mesh")
        self._device = devices.pop() if mesh is None else None
        self.params = self._bind(self.params)
        self._prompts = Prompts(
            model,
            self.params,
            lengths=self._lengths,
            source_lengths=self._source_lengths,
            counts=self._prompt_counts,
            switch=self._switch,
            is_prefix=is_prefix,
        )
        self._make_state = functools.partial(
            State,
            config=decoder,
            compute=model.compute,
            vocab_size=self.vocab_size,
            max_len=self.max_len,
            block=block,
            place=self._bind,
        )
        self._state: State | None = None
        self._rows: dict[int, Row] = {}
        self._waiting: collections.deque[Row] = collections.deque()
        self._pending: _Pending | None = None
        self._next_number = 0
        self._idle_steps = 0

    @property
    def max_source(self) -> int:
        """Largest number of tokens of a source."""
        return self.model.config.max_len

    @property
    def max_prompt(self) -> int:
        """Largest number of tokens of a prompt."""
        return self.max_len - 1

    @property
    def active(self) -> int:
        """Number of requests being processed."""
        return len(self._rows) + len(self._prompts.rows)

    @property
    def waiting(self) -> int:
        """Number of requests in the queue."""
        return len(self._waiting)

    def add(self, request: Request) -> int:
        """Puts a request into the queue and returns its number.

        Raises:
            ValueError: the prompt or a setting does not fit the model; the message says which.
        """
        prompt, settings = list(request.prompt), request.settings
        if not prompt:
            raise ValueError("the prompt is empty: it needs at least one token")
        check_ids(prompt, self.vocab_size, "prompt")
        settings.check_ids(self.vocab_size)
        if len(prompt) > self.max_prompt:
            raise ValueError(
                f"the prompt has {len(prompt):,} tokens, more than the {self.max_prompt:,} that fit into the model"
            )
        if self._has_source != (request.source is not None):
            raise ValueError(
                "an encoder-decoder needs a source"
                if self._has_source
                else "source: only an encoder-decoder reads one"
            )
        if request.source is not None:
            if not 1 <= len(request.source) <= self.max_source:
                raise ValueError(
                    f"the source has {len(request.source):,} tokens; 1 to {self.max_source:,} fit into the model"
                )
            check_ids(request.source, self.vocab_size, "source")
        limit = min(settings.max_new_tokens, self.max_len - len(prompt))
        if settings.min_new_tokens > limit:
            raise ValueError(
                f"min_new_tokens={settings.min_new_tokens} is more than the {limit} tokens that fit after the prompt"
            )
        row = Row(self._next_number, request, limit, prompt)
        check_banned(settings)
        if settings.constraint is not None:
            row.matcher = self.compile(settings.constraint)
        self._next_number += 1
        self._waiting.append(row)
        return row.number

    def compile(self, constraint: Constraint) -> Matcher:
        """The matcher of a constraint; any thread may compile it before `add`, which takes no time for it then.

        Raises:
            ValueError: see `constraints.Compiler.matcher`.
        """
        if self._compiler is None:
            raise ValueError("a constraint needs an engine with a tokenizer")
        return self._compiler.matcher(constraint)

    def cancel(self, number: int) -> None:
        """Drops a request that waits or is being processed; there are no more tokens of it."""
        self._waiting = collections.deque(row for row in self._waiting if row.number != number)
        for row in self._prompts.rows:
            row.cancelled |= row.number == number
        if (running := self._rows.get(number)) is not None:
            running.cancelled = True
            self._release(running)

    def step(self) -> list[Token]:
        """Advances all requests; returns the tokens that have arrived, at most one of each request, maybe none."""
        with self._on_mesh():
            tokens: list[Token] = []
            self._admit()
            tokens += self._advance_prompts()
            pending, self._pending = self._pending, None
            rows = self._runnable(pending)
            if any(map(self._must_start_again, rows)):
                tokens += self._read(pending)
                for row in filter(self._must_start_again, list(self._rows.values())):
                    self._start_again(row)
                pending, rows = None, self._runnable(None)
            if rows and self._needs_new_shape(rows):
                # rows are moved by what the host knows of them, so it must know all
                tokens += self._read(pending)
                pending, rows = None, self._runnable(None)
                self._reshape()
            if rows:
                self._pending = self._dispatch(rows)
            return tokens + self._read(pending)

    def run(self, requests: Sequence[Request]) -> list[list[Token]]:
        """The tokens of each request, when all are done."""
        order = {self.add(request): i for i, request in enumerate(requests)}
        results: list[list[Token]] = [[] for _ in requests]
        while self.active or self.waiting:
            for token in self.step():
                results[order[token.request]].append(token)
        return results

    def score(
        self,
        texts: Sequence[Sequence[int]],
        *,
        top: int = 0,
        sources: Sequence[Sequence[int]] | None = None,
    ) -> list[Scores]:
        """Log-probabilities of the tokens of given texts, each after the tokens before it; see `scoring.score`."""
        for text in texts:
            check_ids(text, self.vocab_size, "text")
            if len(text) > self.max_len:
                raise ValueError(
                    f"the text has {len(text):,} tokens, more than the {self.max_len:,} that fit into the model"
                )
        with self._on_mesh():
            return score(
                self.model, self.params, texts, top=top, vocab_size=self.vocab_size, sources=sources
            )

    def warm_up(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Compiles the programs of all shapes that requests can lead to, so that none is compiled later.

        Args:
            progress: called with the shapes that are done and all there are.
        """
        if self.active or self.waiting:
            raise ValueError("warm_up needs an engine without requests")
        sizes = [min(size, self.max_prompt) for size in (*prefill.BUCKETS, *self._lengths)]
        sources = self._source_lengths or (0,)
        shapes: list[Callable[[], object]] = [
            functools.partial(self._warm_prefill, size, source, count)
            for size in sorted(set(sizes))
            for source in sources
            for count in self._prompt_counts
        ]
        shapes += [
            functools.partial(self._warm_step, count, length, memory)
            for count in self._row_counts
            for length in self._lengths
            for memory in sources
        ]
        if not self._has_source:
            shapes += [
                functools.partial(self.score, [[0] * min(size, self.max_len)])
                for size in cache.lengths(16, self.max_len)
            ]
        for done, warm in enumerate(shapes):
            progress(done, len(shapes))
            warm()
        self._state = None

    def _warm_prefill(self, size: int, source: int, count: int) -> None:
        given = [0] * min(source, self.max_source) if source else None
        settings = Settings(max_new_tokens=1, temperature=0.0)
        self.run([Request([0] * size, settings, given)] * count)

    def _warm_step(self, count: int, length: int, memory: int) -> None:
        shape = Shape(count, length, memory)
        # one after the other takes the place of the state before, so that no more than two are in memory
        others = self._state = self._make_state(shape)
        self._state = self._make_state(shape)
        row = Row(-1, Request([0, 0], Settings(), [0] if memory else None), 1, [0, 0])
        self._state.insert(row, others.caches, 0)
        self._dispatch([])

    # --- from the queue into a slot ---

    def _admit(self) -> None:
        """Takes requests from the queue while there are slots."""
        free = self._row_counts[-1] - self.active
        self._prompts.add([self._waiting.popleft() for _ in range(min(free, self.waiting))])

    def _must_start_again(self, row: Row) -> bool:
        """Whether the next step is the first one with other rotary frequencies, so that its keys are of no use."""
        return self._switch is not None and not row.is_long and row.length > self._switch

    def _start_again(self, row: Row) -> None:
        """Processes a text from its beginning, as transformers' Phi-3 does there."""
        self._release(row)
        self._prompts.add([row])

    def _advance_prompts(self) -> list[Token]:
        """Processes a chunk of the oldest prompts; all of them if no request would wait for it."""
        tokens: list[Token] = []
        while self._prompts:
            job = self._prompts.process_chunk()
            rows = [] if job is None else [row for row in job.rows if not row.cancelled]
            if job is not None and rows:
                tokens += self._move_into_slots(job, rows)
            if self._rows:
                break
        return tokens

    def _move_into_slots(self, job: Job, rows: list[Row]) -> list[Token]:
        tokens: list[Token] = []
        needed = self._needed_shape([*self._rows.values(), *rows], len(rows))
        if self._state is None or not self._state.shape.holds(needed):
            tokens += self._read(self._pending)
            self._pending = None
            self._reshape(rows)
        assert self._state is not None
        for row in rows:
            self._rows[row.number] = row
            self._state.insert(row, job.caches, job.rows.index(row))
        return tokens

    # --- a step ---

    def _runnable(self, pending: _Pending | None) -> list[Row]:
        """Rows that can get a token now; with a constraint, the last one must have been read."""
        unread = {row.number for row in pending.rows} if pending else set()
        return [
            row
            for row in self._rows.values()
            if row.asked < row.limit and not (row.matcher is not None and row.number in unread)
        ]

    def _dispatch(self, rows: list[Row]) -> _Pending:
        assert self._state is not None
        output = self._state.step(self.model, self.params, rows)
        for row in rows:
            row.asked += 1
        return _Pending(list(rows), output)

    def _read(self, pending: _Pending | None) -> list[Token]:
        """The tokens of a step; requests that end with theirs leave their slots."""
        if pending is None:
            return []
        ids = np.asarray(pending.output.token)
        log_probs, top, top_log_probs = None, None, None
        if any(row.request.settings.logprobs is not None for row in pending.rows):
            log_probs, top, top_log_probs = map(np.asarray, pending.output[1:])
        tokens = []
        for row in pending.rows:
            # a row that ended or was cancelled meanwhile got one more token, for nothing
            if row.cancelled or row.slot is None:
                continue
            slot, settings = row.slot, row.request.settings
            token = Token(row.number, int(ids[slot]))
            if settings.logprobs is not None:
                assert log_probs is not None and top is not None and top_log_probs is not None
                best = zip(top[slot].tolist(), top_log_probs[slot].tolist())
                token = token._replace(
                    log_prob=float(log_probs[slot]), top=list(best)[: settings.logprobs]
                )
            token = token._replace(reason=row.read(token.id))
            if token.reason:
                self._release(row)
            tokens.append(token)
        return tokens

    def _release(self, row: Row) -> None:
        if row.slot is not None:
            assert self._state is not None
            self._state.slots.release(row.slot)
            row.slot = None
        self._rows.pop(row.number, None)

    # --- the shape of the state ---

    def _row_count(self, coming: int = 0) -> int:
        """Number of slots for all requests that are here and `coming` more that left the queue."""
        wanted = self.active + coming + self.waiting
        return cache.smallest(self._row_counts, min(max(wanted, 1), self._row_counts[-1]))

    def _needed_shape(self, rows: Sequence[Row], coming: int = 0) -> Shape:
        """Slots for all requests, and caches in which every one of these rows can get one more token."""
        longest = max(row.length + 1 for row in rows)
        length = cache.smallest(self._lengths, min(longest, self.max_len))
        memory = 0
        if self._has_source:
            memory = cache.smallest(self._source_lengths, max(row.source_length for row in rows))
        # with those that come soon, so that rows are not moved for each
        return Shape(self._row_count(coming), length, memory)

    def _needs_new_shape(self, rows: Sequence[Row]) -> bool:
        """Whether a row would outgrow the caches, or few requests have been in many slots for a while."""
        assert self._state is not None
        needed, shape = self._needed_shape(rows), self._state.shape
        is_idle = needed.slots < shape.slots
        self._idle_steps = self._idle_steps + 1 if is_idle else 0
        return needed.length > shape.length or self._idle_steps > PATIENCE

    def _reshape(self, coming: Sequence[Row] = ()) -> None:
        """Moves the rows into a state of the shape that they and those that come need."""
        everyone = [*self._rows.values(), *coming]
        if not everyone:
            return
        needed = self._needed_shape(everyone, len(coming))
        old, self._state = self._state, self._make_state(needed)
        self._idle_steps = 0
        for row in self._rows.values():
            assert old is not None and row.slot is not None
            self._state.insert(row, old.caches, row.slot)

    # --- where arrays are ---

    def _bind(self, arrays: Any) -> Any:
        """The arrays, bound to the engine's device; on a mesh as they are."""
        return arrays if self._device is None else jax.device_put(arrays, self._device)

    def _on_mesh(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext() if self._mesh is None else jax.set_mesh(self._mesh)
