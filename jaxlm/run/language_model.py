"""A loaded model with what it can do: write, chat, embed, predict."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxlm.data import chat_template, fill_tokens
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.generation import beam, cache, speculative
from jaxlm.generation.decode import pad_prompts
from jaxlm.generation.engine import Engine
from jaxlm.generation.requests import Request
from jaxlm.generation.settings import Settings
from jaxlm.generation.shared import Shared
from jaxlm.generation.speculative import Draft
from jaxlm.generation.text import TextStream
from jaxlm.models.embedder import Embedder, Embedding
from jaxlm.run.predict import Predictor, predict_values

Kind = Literal["decoder", "encoder_decoder", "encoder", "predictor"]
# texts that are embedded together
ROWS = 16


@dataclasses.dataclass(frozen=True)
class LanguageModel:
    """A model with its tokenizer: `generate`, `stream` and `chat` write, `embed` gives vectors, `predict` what its task
    predicts; each is refused by a model that cannot do it."""

    name: str
    kind: Kind
    model: Any
    params: Any
    tokenizer: Tokenizer
    # settings of requests that do not say otherwise
    defaults: Settings
    mesh: Mesh | None = None
    # a decoder that reads prompts in both directions
    is_prefix: bool = False
    # control tokens before and after a prompt or source, and those that a target begins with
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    # text before every prompt or source
    prefix: str = ""
    start: tuple[int, ...] = ()
    # of the weights while writing; None: as they are
    dtype: Any = None
    # how `embed` makes vectors
    embedding: Embedding = Embedding()
    # makes what `predict` uses; None: the model has no task that predicts
    make_predictor: Callable[[], Predictor] | None = None

    @property
    def chat_template(self) -> chat_template.Template | None:
        """The template of a chat model; None if the model has none."""
        return self.tokenizer.chat_template

    def frame(self, text: str) -> list[int]:
        """The ids of a prompt, or of an encoder's input, with the control tokens that the model was trained with."""
        most = self.embedding.max_len
        room = None if most is None else max(most - len(self.before) - len(self.after), 0)
        ids = [*self.before, *self.tokenizer.encode(self.prefix + text)[:room], *self.after]
        if not ids and self.tokenizer.eos_id is not None:
            # as after the text before, in models such as GPT-2
            ids = [self.tokenizer.eos_id]
        if not ids:
            raise ValueError("the prompt is empty, and the model has no token to begin a text with")
        return ids

    def settings(self, **given: Any) -> Settings:
        """The defaults with the given fields.

        Raises:
            ValueError: an unknown field or a value out of range.
        """
        known = [f.name for f in dataclasses.fields(Settings)]
        for name in given:
            if name not in known:
                raise ValueError(f"no setting {name!r}; there are {', '.join(known)}")
        return dataclasses.replace(self.defaults, **given)

    def request(self, text: str, settings: Settings) -> Request:
        """The request to continue a prompt, or to write the target of a source."""
        self._check_writes()
        ids = self.frame(text)
        if self.kind == "encoder_decoder":
            return Request(self.start, settings, ids)
        return Request(ids, settings)

    def fill_request(self, prefix: str, suffix: str, settings: Settings) -> Request:
        """The request to write what stands between two texts; only for decoders that were trained for it."""
        if self.kind != "decoder":
            raise ValueError(f"{self.name} is no decoder, and only decoders fill in the middle")
        encode = self.tokenizer.encode
        try:
            ids = fill_tokens.prompt(self.tokenizer, encode(prefix), encode(suffix))
        except ValueError as e:
            raise ValueError(f"{self.name}: {e}") from None
        return Request([*self.before, *ids], settings)

    def chat_request(self, messages: Sequence[Mapping[str, Any]], settings: Settings) -> Request:
        """The request to answer the last message of a conversation."""
        if self.kind != "decoder":
            raise ValueError(f"{self.name} is no decoder, and only decoders chat")
        if self.chat_template is None:
            raise ValueError(
                f"{self.name} has no chat template: it was not trained on conversations; use generate"
            )
        return Request(chat_template.render(self.chat_template, self.tokenizer, messages), settings)

    def engine(self, *, slots: int = 16, max_len: int | None = None) -> Engine:
        """An engine for requests to this model; see `generation.engine`."""
        self._check_writes()
        return Engine(
            self.model,
            self.params,
            tokenizer=self.tokenizer,
            slots=slots,
            max_len=max_len,
            mesh=self.mesh,
            is_prefix=self.is_prefix,
            dtype=self.dtype,
        )

    def _check_writes(self) -> None:
        if self.kind == "encoder":
            raise ValueError(f"{self.name} is an encoder: it embeds texts, it writes none")
        if self.kind == "predictor":
            raise ValueError(f"{self.name} writes no texts: use predict")

    @functools.cached_property
    def _predictor(self) -> Predictor:
        if self.make_predictor is None:
            does = {"encoder": "embed"}.get(self.kind, "generate")
            raise ValueError(f"{self.name} has no task that predicts: use {does}")
        return self.make_predictor()

    @functools.cached_property
    def _adjusted(self) -> dict[str, Predictor]:
        return {}

    def predict(self, inputs: Any, **settings: Any) -> Any:
        """The prediction of the model's task for an input, or for each of several, as in `jaxlm predict`.

        Args:
            inputs: a text, a pair (text, second text) or a dict with the columns of a row; or a list of these.
            settings: other values of settings of the task that can be changed after training, such as num_beams=1.

        Raises:
            ValueError: the model has no task that predicts, or no such setting, or an input cannot be used; the message
                has its index.
        """
        if not settings:
            return predict_values(self._predictor, inputs)
        known, key = self._adjusted, repr(sorted(settings.items()))
        if key not in known:
            known[key] = self._predictor.adjusted(settings)
        return predict_values(known[key], inputs)

    @functools.cached_property
    def _engine(self) -> Engine:
        return self.engine(slots=64)

    @functools.cached_property
    def _shared(self) -> Shared:
        return Shared(self._engine)

    def generate(self, prompts: str | Sequence[str], **settings: Any) -> Any:
        """The continuation of a prompt, or of each of several; for an encoder-decoder the target of a source.

        Args:
            prompts: a text or several.
            settings: fields of `generation.settings.Settings`, such as max_new_tokens, temperature or stop.
        """
        texts = _texts(prompts)
        chosen = self.settings(**settings)
        written = [""] * len(texts)
        for piece in write(self._shared, self, [self.request(t, chosen) for t in texts]):
            written[piece.request] += piece.text
        return written[0] if isinstance(prompts, str) else written

    def fill(self, prefix: str, suffix: str, **settings: Any) -> str:
        """What a model that was trained to fill in the middle writes between two texts; settings as of `generate`."""
        request = self.fill_request(prefix, suffix, self.settings(**settings))
        return "".join(piece.text for piece in write(self._shared, self, [request]))

    def beam_search(
        self,
        prompts: Sequence[str],
        *,
        beams: int = 4,
        length_penalty: float = 1.0,
        max_new_tokens: int = 64,
    ) -> list[list[tuple[str, float]]]:
        """The most probable texts that a beam search finds for each prompt or source, best first, with their scores.

        Args:
            prompts: texts to continue, or sources.
            beams: number of texts that are kept; see `generation.beam`.
            length_penalty: power of the length that scores are divided by.
            max_new_tokens: maximum length of a text.
        """
        if self.tokenizer.eos_id is None:
            raise ValueError(
                f"{self.name} has no end token, without which beam search cannot compare texts"
            )
        for name, value in dict(beams=beams, max_new_tokens=max_new_tokens).items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value!r} must be a whole number of at least 1")
        if not math.isfinite(length_penalty):
            raise ValueError(f"length_penalty={length_penalty!r} must be a finite number")
        requests = [self.request(text, self.settings()) for text in _texts(prompts)]
        found: list[list[tuple[str, float]]] = []
        for first in range(0, len(requests), ROWS):
            part = requests[first : first + ROWS]
            tokens, scores = beam.search_requests(
                self.model,
                self._engine.params,
                part,
                beams=beams,
                max_new_tokens=max_new_tokens,
                eos_id=self.tokenizer.eos_id,
                length_penalty=length_penalty,
                vocab_size=self._engine.vocab_size,
            )
            for request, row, values in zip(part, tokens, scores):
                prompt = request.prompt if self.kind == "decoder" else ()
                settings = dataclasses.replace(self.defaults, stop_ids=self.tokenizer.end_ids)
                streams = [TextStream(self.tokenizer, settings, prompt) for _ in row]
                texts = ["".join(_pieces(ids, each)) for ids, each in zip(row.tolist(), streams)]
                found.append(list(zip(texts, values.tolist())))
        return found

    def stream(
        self, prompt: str, *, draft: Draft | None = None, lookahead: int = 4, **settings: Any
    ) -> Iterator[str]:
        """As `generate`, for one prompt, piece by piece.

        Args:
            prompt: text to continue.
            draft: proposes `lookahead` tokens at a time that the model only checks, see `generation.speculative`:
                `LookUp()`, or the `draft()` of a smaller model.
            lookahead: tokens that the draft proposes at a time.
            settings: as of `generate`.
        """
        request = self.request(prompt, self.settings(**settings))
        if draft is None:
            return (piece.text for piece in write(self._shared, self, [request]) if piece.text)
        engine = self._engine
        tokens = speculative.generate(
            self.model,
            engine.params,
            request,
            draft,
            vocab_size=engine.vocab_size,
            lookahead=lookahead,
        )
        return _pieces(tokens, TextStream(self.tokenizer, request.settings, request.prompt))

    def draft(self) -> Draft:
        """This model as the draft of a larger one with the same tokenizer."""
        if self.kind != "decoder":
            raise ValueError(f"{self.name} is no decoder, and only decoders are drafts")
        return speculative.DraftModel(self.model, self._engine.params)

    def chat(self, messages: Sequence[Mapping[str, Any]], **settings: Any) -> Iterator[str]:
        """The answer to a conversation, piece by piece; messages are {"role": ..., "content": ...}."""
        request = self.chat_request(messages, self.settings(**settings))
        pieces = write(self._shared, self, [request], is_continued=False)
        return (piece.text for piece in pieces if piece.text)

    def embed(self, texts: str | Sequence[str], *, prompt: str | None = None) -> np.ndarray:
        """A vector for each text [B, D].

        A run of task embedding or a folder of sentence-transformers says how: pooling, normalisation, the length to
        which texts are cut. Of another encoder it is the mean of the last hidden states as a unit vector.

        Args:
            texts: a text or several.
            prompt: name of a prompt of the model, such as "query", that is put before the texts; default: the model's
                default prompt, if it has one.
        """
        if self.kind != "encoder":
            raise ValueError(f"{self.name} is no encoder: only encoders embed texts")
        several = _texts(texts)
        ids = [self.frame(self.embedding.text(text, prompt)) for text in several]
        for text, row in zip(several, ids):
            if len(row) > self.model.config.max_len:
                raise ValueError(
                    f"a text of {len(row):,} tokens is longer than the {self.model.config.max_len:,} of the model: "
                    f"{text[:40]!r}..."
                )
        vectors = np.zeros((len(ids), self.model.config.dim), np.float32)
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        for first in range(0, len(order), ROWS):
            rows = order[first : first + ROWS]
            part = [ids[i] for i in rows]
            size = next(size for size in self._embedded_lengths if size >= max(map(len, part)))
            tokens, lengths = pad_prompts(part, 0, rows=ROWS, length=size)
            pooled = _vectors(self.model, self.params, tokens, lengths)
            vectors[rows] = np.asarray(pooled)[: len(rows)]
        return vectors[0] if isinstance(texts, str) else vectors

    @property
    def _embedded_lengths(self) -> list[int]:
        """The lengths to which `embed` pads texts."""
        longest = self.model.config.max_len
        return [min(size, longest) for size in cache.lengths(16, longest)]

    def warm_up_embed(
        self, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> None:
        """Compiles what `embed` needs for texts of any length; see `Engine.warm_up`."""
        sizes = self._embedded_lengths
        for done, size in enumerate(sizes):
            progress(done, len(sizes))
            tokens, lengths = pad_prompts([[0] * size], 0, rows=ROWS, length=size)
            jax.block_until_ready(_vectors(self.model, self.params, tokens, lengths))


def _texts(given: Any) -> list[str]:
    """One text or several as a list."""
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"give a text or a list of texts, not {given!r:.60}")
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as e:
            raise ValueError(f"a text has half a character at {e.start}: {text!r:.60}") from None
    return list(texts)


def _pieces(tokens: Iterable[int], stream: TextStream) -> Iterator[str]:
    """The text of tokens, up to a stop string."""
    for token in tokens:
        if piece := stream.add(token):
            yield piece
        if stream.stopped:
            return
    if piece := stream.finish():
        yield piece


@functools.partial(jax.jit, static_argnums=0)
def _vectors(model: Embedder, params: Any, tokens: jax.Array, lengths: jax.Array) -> Any:
    is_text = jnp.arange(tokens.shape[1]) < lengths[:, None]
    return model.apply({"params": params}, tokens, segment_ids=is_text.astype(jnp.int32))


class Unusable(ValueError):
    """A request cannot be used; `index` says which of several."""

    def __init__(self, message: str, index: int):
        """The message is that of the engine."""
        super().__init__(message)
        self.index = index


class Piece(NamedTuple):
    """What a token adds to the text of a request."""

    # its index
    request: int
    # may be empty
    text: str
    # set on the last piece
    reason: Literal["stop", "length", "error"] | None


def write(
    engine: Shared, model: LanguageModel, requests: Sequence[Request], *, is_continued: bool = True
) -> Iterator[Piece]:
    """The pieces of text of each request as they come, one for each token.

    If the caller stops to iterate, what is not written yet is dropped.

    Args:
        engine: of the model.
        model: the model.
        requests: what to write.
        is_continued: whether the texts of a decoder continue their prompts, so that a space between them counts.
    """
    is_continued = is_continued and model.kind == "decoder"
    numbers = {}
    for i, request in enumerate(requests):
        try:
            numbers[engine.add(request)] = i
        except ValueError as e:
            for number in numbers:
                engine.cancel(number)
            raise Unusable(str(e), i) from None
    streams = [
        TextStream(model.tokenizer, request.settings, request.prompt if is_continued else ())
        for request in requests
    ]
    try:
        while tokens := engine.step(numbers):
            for token in tokens:
                # a text that has stopped gets no more
                if token.request not in numbers:
                    continue
                stream = streams[numbers[token.request]]
                text = stream.add(token.id)
                if token.reason:
                    text += stream.finish()
                reason = "stop" if stream.stopped else token.reason
                yield Piece(numbers[token.request], text, reason)
                if reason:
                    del numbers[token.request]
                    engine.cancel(token.request)
    finally:
        for number in numbers:
            engine.cancel(number)


def results(
    model: LanguageModel, requests: Sequence[Request], *, slots: int = 16
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each request's index with its "text", the number of "tokens" and the "reason" of its end, as it is done."""
    texts: list[list[str]] = [[] for _ in requests]
    for index, text, reason in write(Shared(model.engine(slots=slots)), model, requests):
        texts[index].append(text)
        if reason:
            pieces = texts[index]
            yield index, {"text": "".join(pieces), "tokens": len(pieces), "reason": reason}
