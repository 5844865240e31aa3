"""The engine: writes the continuations of many prompts at once, each as if it were alone.

Requests wait in a queue, come into a slot when one is free, and leave it when they are done (continuous batching). The
prompt is processed by `prefill`; every token, the first one too, comes from the same compiled programs of `step`. The
device works on a step while the host reads the tokens of the one before.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxlm.config import EncoderDecoderConfig
from jaxlm.generation import cache, prefill, weights
from jaxlm.generation.constraints import Compiler, Matcher
from jaxlm.generation.decode import pad_prompts
from jaxlm.generation.scoring import Scores, score
from jaxlm.generation.settings import Constraint, Settings, check_ids
from jaxlm.generation.slots import Slots
from jaxlm.generation.step import Output, Texts, forward, insert, write
from jaxlm.models.heads import CausalLM, Seq2SeqLM
from jaxlm.sharding import batch_shards

_LOG = logging.getLogger("jaxlm.generation")
# Steps with few requests before the number of slots is reduced.
PATIENCE = 32


class Request(NamedTuple):
    """A prompt and how to continue it."""

    # ids; at least one
    prompt: Sequence[int]
    settings: Settings = Settings()
    # ids of the input of an encoder-decoder
    source: Sequence[int] | None = None


class Token(NamedTuple):
    """A token of a request."""

    request: int
    id: int
    # of this token and of the most probable ones, as the model gives them: before penalties and temperature
    log_prob: float | None = None
    top: list[tuple[int, float]] | None = None
    # set on the last token of a request: an end token or a finished constraint, the maximum length, or a constraint
    # that fails, as a grammar does that grows beyond llguidance's limits
    reason: Literal["stop", "length", "error"] | None = None


@dataclasses.dataclass
class _Row:
    """A request that is being processed."""

    number: int
    request: Request
    # tokens that it may get, within the model's length
    limit: int
    tokens: list[int]
    slot: int | None = None
    # tokens asked for; some may not be read yet
    asked: int = 0
    matcher: Matcher | None = None
    cancelled: bool = False
    # whether its caches are those of a text beyond `rope_switch`
    is_long: bool = False

    @property
    def processed(self) -> int:
        """Tokens that the caches have when it comes into a slot: all but the newest."""
        return len(self.tokens) - 1

    @property
    def written(self) -> int:
        """Tokens that were read."""
        return len(self.tokens) - len(self.request.prompt)


@dataclasses.dataclass
class _Prefill:
    """Prompts of similar length that are being processed together."""

    rows: list[_Row]
    # in chunks [B, chunks, C]
    prompts: np.ndarray
    lengths: np.ndarray
    length: int
    sources: tuple[np.ndarray, np.ndarray] | None
    # tokens of the texts, where the rotary frequencies depend on them
    text_lengths: np.ndarray | None
    start: int = 0
    caches: cache.Caches | None = None


class _Pending(NamedTuple):
    """A step whose tokens are not read yet."""

    rows: list[_Row]
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
        self.model, self._mesh, self._is_prefix, self._block = model, mesh, is_prefix, block
        config: Any = model.config
        self._has_source = isinstance(config, EncoderDecoderConfig)
        # of the decoder
        self._config = config.decoder if self._has_source else config
        # where a text gets other rotary frequencies; a prefix is not read a second time as one
        self._switch = None if self._has_source or is_prefix else self._config.rope_switch
        own = self._config.max_cached_len if self._switch is None else self._config.max_len
        self.max_len = own if max_len is None else max_len
        if not 2 <= self.max_len <= own:
            why = "the model's length"
            if own < self._config.max_len:
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
        self._prefill_rows = tuple(n for n in (shards, 8 * shards) if n == shards or n <= slots)
        self._compiler = None if tokenizer is None else Compiler(tokenizer, self.vocab_size)
        with self._on_mesh():
            self.params = weights.by_layer(params, dtype)
        # without a mesh everything is bound to the one device: a program is compiled again for each argument that is
        # bound in one call and not in another, or bound to a mesh of one device
        devices = {device for x in jax.tree.leaves(self.params) for device in x.devices()}
        if mesh is None and len(devices) > 1:
            raise ValueError(f"the parameters are on {len(devices)} devices: name their mesh")
        self._device = devices.pop() if mesh is None else None
        self.params = self._placed(self.params)
        self._slots = Slots(self._row_counts[0], self.vocab_size)
        self._caches: cache.Caches | None = None
        # entries of the caches for tokens, and for tokens of the source
        self._length, self._memory = 0, 0
        self._texts = self._empty_texts()
        self._rows: dict[int, _Row] = {}
        self._waiting: collections.deque[_Row] = collections.deque()
        self._prefills: collections.deque[_Prefill] = collections.deque()
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
        return len(self._rows) + sum(len(job.rows) for job in self._prefills)

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
        row = _Row(self._next_number, request, limit, prompt)
        self._slots.check(settings)
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
        for job in self._prefills:
            for row in job.rows:
                row.cancelled |= row.number == number
        if (running := self._rows.get(number)) is not None:
            running.cancelled = True
            self._release(running)

    def step(self) -> list[Token]:
        """Advances all requests; returns the tokens that have arrived, at most one of each request, maybe none."""
        with self._on_mesh():
            tokens: list[Token] = []
            self._admit()
            tokens += self._advance_prefills()
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
                self._reshape(list(self._rows.values()))
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
            for count in self._prefill_rows
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
        self._caches = None

    def _warm_prefill(self, size: int, source: int, count: int) -> None:
        given = [0] * min(source, self.max_source) if source else None
        settings = Settings(max_new_tokens=1, temperature=0.0)
        self.run([Request([0] * size, settings, given)] * count)

    def _warm_step(self, count: int, length: int, memory: int) -> None:
        self._make_slots(count, length, memory)
        row = _Row(-1, Request([0], Settings(), [0] if memory else None), 1, [0])
        row.slot, others = 0, self._caches
        self._make_slots(count, length, memory)
        self._place(row, others, 0, 1)
        self._dispatch([])

    # --- from the queue into a slot ---

    def _admit(self) -> None:
        """Takes requests from the queue while there are slots, and groups them by the length of their prompts."""
        free = self._row_counts[-1] - self.active
        groups: dict[Any, list[_Row]] = {}
        while free > 0 and self._waiting:
            row = self._waiting.popleft()
            free -= 1
            groups.setdefault(self._prefill_shape(row), []).append(row)
        for (chunk, length, source_size), rows in groups.items():
            # a long prompt is processed alone, so that few programs have to be compiled
            most = self._prefill_rows[-1] if chunk == length else self._prefill_rows[0]
            while rows:
                self._prefills.append(self._start(rows[:most], chunk, length, source_size))
                rows = rows[most:]

    def _prefill_shape(self, row: _Row) -> tuple[int, int, int]:
        """Tokens at a time, length of the caches, and padded length of the source."""
        sizes = [size for size in prefill.BUCKETS if size <= self._lengths[-1]]
        source_size = 0
        if row.request.source is not None:
            sources = [size for size in prefill.BUCKETS if size < self._source_lengths[0]]
            source_size = cache.smallest([*sources, *self._source_lengths], len(row.request.source))
        count = self._to_process(row)
        if count <= sizes[-1]:
            size = cache.smallest(sizes, count)
            return size, size, source_size
        length = cache.smallest(self._lengths, count)
        # a prefix is read in both directions, so it cannot come in chunks
        whole = self._is_prefix or self._has_source
        return (length if whole else sizes[-1]), length, source_size

    def _to_process(self, row: _Row) -> int:
        """Tokens that prefill reads: all but the last, which the first step reads, unless it belongs to a prefix."""
        return len(row.request.prompt) if self._is_prefix or self._has_source else row.processed

    def _must_start_again(self, row: _Row) -> bool:
        """Whether the next step is the first one with other rotary frequencies, so that its keys are of no use."""
        length = len(row.request.prompt) + row.asked
        return self._switch is not None and not row.is_long and length > self._switch

    def _start_again(self, row: _Row) -> None:
        """Processes a text from its beginning, as transformers' Phi-3 does there."""
        self._release(row)
        self._prefills.append(self._start([row], *self._prefill_shape(row)))

    def _start(self, rows: list[_Row], chunk: int, length: int, source_size: int) -> _Prefill:
        count = cache.smallest(self._prefill_rows, len(rows))
        padded = rows + [rows[-1]] * (count - len(rows))
        total = -(-length // chunk) * chunk
        texts = [row.tokens[: self._to_process(row)] for row in padded]
        prompts, lengths = pad_prompts(texts, 0, length=total)
        sources = None
        if source_size:
            given = [row.request.source or () for row in padded]
            sources = pad_prompts(given, 0, length=source_size)
        whole = None
        if self._switch is not None:
            whole = np.array([len(row.tokens) for row in padded], np.int32)
            for row in rows:
                row.is_long = len(row.tokens) > self._switch
        return _Prefill(rows, prompts.reshape(count, -1, chunk), lengths, length, sources, whole)

    def _advance_prefills(self) -> list[Token]:
        """Processes a chunk of the oldest prompts; all of them if no request would wait for it."""
        tokens: list[Token] = []
        while self._prefills:
            job = self._prefills[0]
            if self._process_chunk(job):
                self._prefills.popleft()
                rows = [row for row in job.rows if not row.cancelled]
                if rows:
                    tokens += self._move_into_slots(job, rows)
            if self._rows:
                break
        return tokens

    def _process_chunk(self, job: _Prefill) -> bool:
        """Whether the prompts of the job are processed now."""
        chunk = job.prompts.shape[2]
        if not job.lengths.any():
            return True
        if job.caches is None:
            job.caches = prefill.begin(
                self.model,
                self.params,
                job.prompts[:, 0],
                job.lengths,
                *(job.sources or ()),
                text_lengths=job.text_lengths,
                length=job.length,
                is_prefix=self._is_prefix,
            )
        else:
            part = job.prompts[:, job.start // chunk]
            start = np.int32(job.start)
            job.caches = prefill.proceed(
                self.model, self.params, part, start, job.caches, job.text_lengths
            )
        job.start += chunk
        return bool(job.start >= job.lengths.max())

    def _move_into_slots(self, job: _Prefill, rows: list[_Row]) -> list[Token]:
        tokens: list[Token] = []
        everyone = [*self._rows.values(), *rows]
        # of those that come soon too, so that rows are not moved for each
        count = self._row_count(len(rows))
        length, memory = self._needed_lengths(everyone)
        if (
            self._caches is None
            or count > self._slots.count
            or length > self._length
            or memory > self._memory
        ):
            tokens += self._read(self._pending)
            self._pending = None
            self._reshape(list(self._rows.values()), rows)
        for row in rows:
            row.slot = self._slots.take(row.request)
            self._rows[row.number] = row
            self._place(row, job.caches, job.rows.index(row), row.processed)
        return tokens

    # --- a step ---

    def _runnable(self, pending: _Pending | None) -> list[_Row]:
        """Rows that can get a token now; with a constraint, the last one must have been read."""
        unread = {row.number for row in pending.rows} if pending else set()
        return [
            row
            for row in self._rows.values()
            if row.asked < row.limit and not (row.matcher is not None and row.number in unread)
        ]

    def _dispatch(self, rows: list[_Row]) -> _Pending:
        assert self._caches is not None
        control = self._slots.control(
            [
                (
                    row.slot,
                    row.asked,
                    self._forced(row),
                    row.matcher.bits() if row.matcher else None,
                )
                for row in rows
                if row.slot is not None
            ]
        )
        logits, self._caches = forward(
            self.model, self.params, self._caches, self._texts, vocab_size=self.vocab_size
        )
        self._texts, output = write(logits, self._texts, self._slots.settings(), control)
        for row in rows:
            row.asked += 1
        for x in output if self._slots.has_log_probs else output[:1]:
            x.copy_to_host_async()
        return _Pending(list(rows), output)

    def _forced(self, row: _Row) -> int:
        settings = row.request.settings
        if row.asked == 0 and settings.forced_first is not None:
            return settings.forced_first
        if row.asked == row.limit - 1 and settings.forced_last is not None:
            return settings.forced_last
        return -1

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
            row.tokens.append(token.id)
            token = token._replace(reason=_end(row, token.id))
            if token.reason:
                self._release(row)
            tokens.append(token)
        return tokens

    def _release(self, row: _Row) -> None:
        if row.slot is not None:
            self._slots.release(row.slot)
            row.slot = None
        self._rows.pop(row.number, None)

    # --- the shape of the state ---

    def _row_count(self, coming: int = 0) -> int:
        """Number of slots for all requests that are here and `coming` more that left the queue."""
        wanted = self.active + coming + self.waiting
        return cache.smallest(self._row_counts, min(max(wanted, 1), self._row_counts[-1]))

    def _needed_lengths(self, rows: Sequence[_Row]) -> tuple[int, int]:
        """Entries of caches in which every row can get one more token, and of those for its source."""
        longest = max(len(row.request.prompt) + row.asked + 1 for row in rows)
        length = cache.smallest(self._lengths, min(longest, self.max_len))
        if not self._has_source:
            return length, 0
        source = max(len(row.request.source or ()) for row in rows)
        return length, cache.smallest(self._source_lengths, source)

    def _needs_new_shape(self, rows: Sequence[_Row]) -> bool:
        """Whether a row would outgrow the caches, or few requests have been in many slots for a while."""
        is_idle = self._row_count() < self._slots.count
        self._idle_steps = self._idle_steps + 1 if is_idle else 0
        return self._needed_lengths(rows)[0] > self._length or self._idle_steps > PATIENCE

    def _reshape(self, rows: Sequence[_Row], coming: Sequence[_Row] = ()) -> None:
        """Moves the rows into caches of the size that they and those that come need."""
        everyone = [*rows, *coming]
        if not everyone:
            return
        old, old_slots = self._caches, {row.number: row.slot for row in rows}
        self._make_slots(self._row_count(len(coming)), *self._needed_lengths(everyone))
        self._idle_steps = 0
        for row in rows:
            row.slot = self._slots.take(row.request)
            self._place(row, old, old_slots[row.number], len(row.tokens) - 1)

    def _make_slots(self, count: int, length: int, memory: int) -> None:
        """Empty slots."""
        self._slots = Slots(count, self.vocab_size)
        self._length, self._memory = length, memory
        caches = cache.empty(
            self._config,
            rows=count,
            length=length,
            memory=memory,
            block=self._block,
            compute=self.model.compute,
        )
        self._caches, self._texts = self._placed((caches, self._empty_texts()))

    def _placed(self, arrays: Any) -> Any:
        """The arrays, bound to the engine's device; on a mesh as they are."""
        return arrays if self._device is None else jax.device_put(arrays, self._device)

    def _empty_texts(self) -> Texts:
        zeros = np.zeros(self._slots.count, np.int32)
        history = np.zeros((self._slots.count, self.max_len), np.int32)
        # copies, because each is an array of its own whose memory is reused
        return Texts(jnp.array(zeros), jnp.array(zeros), jnp.array(history), jnp.array(zeros))

    def _place(self, row: _Row, source: cache.Caches | None, index: int | None, count: int) -> None:
        """Brings a row into its slot: `count` tokens from row `index` of some caches, and its newest token."""
        assert self._caches is not None and row.slot is not None
        source_length = len(row.request.source or ())
        if source is not None:  # None: a prompt of one token
            assert index is not None
            self._caches = cache.copy_row(
                source,
                index,
                self._caches,
                row.slot,
                tokens=count,
                memory_tokens=source_length,
                block=self._block,
            )
        padded = np.zeros(self.max_len, np.int32)
        padded[: len(row.tokens)] = row.tokens
        slot, length = np.int32(row.slot), np.int32(len(row.tokens))
        self._texts = insert(self._texts, slot, padded, length, np.int32(source_length))

    def _on_mesh(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext() if self._mesh is None else jax.set_mesh(self._mesh)


def _end(row: _Row, token: int) -> Literal["stop", "length", "error"] | None:
    """Why a request ends with this token, if it does."""
    if token in row.request.settings.stop_ids:
        return "stop"
    if row.matcher is not None:
        try:
            if row.matcher.accept(token):
                return "stop"
        except Exception:
            # of this request alone: the others go on
            _LOG.exception("the constraint of a request failed; the request ends")
            return "error"
    return "length" if row.written == row.limit else None
