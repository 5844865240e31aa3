"""Span corruption: an encoder-decoder writes what stood behind the sentinels of its input (T5)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from jaxlm.config import EncoderDecoderConfig, ModelConfig, RunConfig, SpanCorruptionConfig
from jaxlm.data import corruption
from jaxlm.data.documents import TokenDocuments
from jaxlm.data.loader import Batch
from jaxlm.data.ragged import framed
from jaxlm.data.rows import PairRows, piece_keys
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.models import heads
from jaxlm.ops import losses
from jaxlm.sharding import batch_shards
from jaxlm.tasks import task
from jaxlm.tasks.pretraining import causal_lm
from jaxlm.tasks.task import Corpora, Piece, Sums, Task

load = task.load_documents


@dataclasses.dataclass(frozen=True)
class Denoiser:
    """One way to corrupt: how much, in spans of which length, and the token that says so."""

    density: float
    # None: one span, the end of the text
    mean_span: float | None
    # name of the token before the input; None: there is none
    mode: str | None = None

    def longest_piece(self, input_capacity: int, target_capacity: int | None) -> int:
        """Tokens of the longest piece whose corrupted sides fit a row, with the ends that stand behind both."""
        inputs = input_capacity - 1 - int(self.mode is not None)
        targets = None if target_capacity is None else target_capacity - 1
        return corruption.longest_piece(self.density, self.mean_span, inputs, targets)


@dataclasses.dataclass(frozen=True)
class SpanRows:
    """Rows of pieces that one denoiser corrupts."""

    pairs: PairRows
    denoiser: Denoiser
    sentinels: np.ndarray
    mode_id: int | None
    eos_id: int
    seed: int

    @classmethod
    def of(
        cls,
        docs: TokenDocuments,
        denoiser: Denoiser,
        tokenizer: Tokenizer,
        *,
        input_capacity: int,
        target_capacity: int,
        sentinels: np.ndarray,
        seed: int,
    ) -> SpanRows:
        """Cuts the documents into pieces whose corrupted sides fit, and packs these."""
        assert tokenizer.eos_id is not None
        longest = denoiser.longest_piece(input_capacity, target_capacity)
        inputs, targets = corruption.corrupted_lengths(
            np.arange(longest + 1), denoiser.density, denoiser.mean_span
        )
        mode_id = None if denoiser.mode is None else int(tokenizer.ids_of([denoiser.mode])[0])
        pairs = pair_rows(
            docs,
            inputs + 1 + int(mode_id is not None),
            targets + 1,
            tokenizer,
            input_capacity=input_capacity,
            target_capacity=target_capacity,
        )
        return cls(pairs, denoiser, sentinels, mode_id, tokenizer.eos_id, seed)

    def __len__(self) -> int:
        return len(self.pairs)

    def describe(self, examples: int) -> str:
        """One line for people."""
        return self.pairs.describe(examples)

    def rows(self, indices: np.ndarray, epochs: np.ndarray) -> Batch:
        """See `PairRows.lay`."""
        members = self.pairs.members(indices)
        inputs, targets = corruption.corrupt_spans(
            self.pairs.take(members),
            keys=piece_keys(self.seed, epochs, members),
            density=self.denoiser.density,
            mean_span=self.denoiser.mean_span,
            sentinels=self.sentinels,
            at_end=self.denoiser.mean_span is None,
        )
        inputs = framed(inputs, self.mode_id, self.eos_id)
        return self.pairs.lay(inputs, framed(targets, None, self.eos_id), members)


def pair_rows(
    docs: TokenDocuments,
    inputs: np.ndarray,
    targets: np.ndarray,
    tokenizer: Tokenizer,
    *,
    input_capacity: int,
    target_capacity: int,
) -> PairRows:
    """See `PairRows.of`; the decoder starts with bos or, as T5's, with padding."""
    assert tokenizer.pad_id is not None
    return PairRows.of(
        docs,
        inputs,
        targets,
        input_capacity=input_capacity,
        target_capacity=target_capacity,
        pad_id=tokenizer.pad_id,
        start_id=tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.pad_id,
    )


def sentinel_names(denoisers: list[Denoiser], input_capacity: int, target_len: int | None):
    """As many of T5's names for sentinels as the longest piece has spans."""
    most = 0
    for d in denoisers:
        longest = np.array([d.longest_piece(input_capacity, target_len)])
        _, spans = corruption.noise_counts(longest, d.density, d.mean_span)
        most = max(most, int(spans[0]))
    return [f"<extra_id_{i}>" for i in range(most)]


def target_capacity(denoiser: Denoiser, input_capacity: int) -> int:
    """Target tokens that belong to the longest piece whose inputs fit."""
    longest = np.array([denoiser.longest_piece(input_capacity, None)])
    return (
        int(corruption.corrupted_lengths(longest, denoiser.density, denoiser.mean_span)[1][0]) + 1
    )


def denoiser_of(config: RunConfig) -> tuple[Denoiser, int]:
    """What the config asks for, and the target tokens in a row."""
    settings = config.task
    assert isinstance(settings, SpanCorruptionConfig)
    denoiser = Denoiser(settings.density, settings.mean_span)
    fitting = target_capacity(denoiser, config.data.seq_len)
    return denoiser, settings.target_len or fitting


def added_tokens(config: RunConfig) -> list[str]:
    """The sentinels."""
    denoiser, target_len = denoiser_of(config)
    return sentinel_names([denoiser], config.data.seq_len, target_len)


def build(config: RunConfig, model: ModelConfig, tokenizer: Tokenizer, corpora: Corpora) -> Task:
    """The task over the documents of `corpora`."""
    denoiser, target_len = denoiser_of(config)
    sentinels = tokenizer.ids_of(added_tokens(config))
    rows = lambda docs, training: SpanRows.of(
        docs,
        denoiser,
        tokenizer,
        input_capacity=config.data.seq_len,
        target_capacity=target_len,
        sentinels=sentinels,
        seed=config.seed,
    )
    return text_to_text(config, model, tokenizer, corpora, "span_corruption", target_len, rows)


def text_to_text(
    config: RunConfig,
    model: ModelConfig,
    tokenizer: Tokenizer,
    corpora: Corpora,
    name: str,
    target_len: int,
    rows: Any,
) -> Task:
    """The task in which an encoder-decoder writes targets; `rows` is the `make` of `task.datasets`."""
    backbone = task.need_model(model, EncoderDecoderConfig, name)
    task.need_roles(tokenizer, name, "eos", "pad")
    if target_len > backbone.max_len:
        raise ValueError(
            f"targets of {target_len} tokens are longer than model.max_len={backbone.max_len}: raise it, or set "
            "task.target_len or data.seq_len lower"
        )
    lm = heads.Seq2SeqLM(backbone, config.compute)
    train, validation = task.datasets(config, corpora, tokenizer, rows)
    return Task(
        model=lm,
        train=train,
        validation=validation,
        loss=lambda params, batch, key: target_loss(lm, params, batch, key),
        summarize=causal_lm.summarize,
        output_share=target_len / config.data.seq_len,
        metric="loss",
        metric_is_lower=True,
        preview=lambda row: preview(row, tokenizer),
    )


def target_loss(
    lm: heads.Seq2SeqLM, params: Any, batch: dict, key: jax.Array | None
) -> tuple[jax.Array, Sums]:
    """Cross entropy of the target's tokens."""
    names = ("segment_ids", "positions", "decoder_segment_ids", "decoder_positions")
    hidden: Any = lm.apply(
        {"params": params},
        batch["tokens"],
        batch["decoder_tokens"],
        **{name: batch[name] for name in names},
        key=key,
        method="hidden",
    )
    sums = losses.token_cross_entropy(
        hidden,
        heads.unembedding(params),
        batch["targets"],
        batch["weights"],
        bias=heads.unembedding_bias(params),
        softcap=lm.config.logit_softcap,
        shards=batch_shards(),
    )
    weight = batch["weights"].sum()
    return sums.loss, {"loss": sums.loss, "correct": sums.correct, "weight": weight}


def preview(row: dict[str, np.ndarray], tokenizer: Tokenizer) -> list[Piece]:
    """Each pair of a row: the input, an arrow, and what the decoder reads with what it is to write."""
    text = lambda i: tokenizer.decode([int(i)], skip_special=False)
    pieces = []
    for number in range(1, int(row["decoder_segment_ids"].max()) + 1):
        inputs = row["tokens"][row["segment_ids"] == number]
        here = row["decoder_segment_ids"] == number
        pieces += [Piece(text(i), begins=number > 1 and not k) for k, i in enumerate(inputs)]
        pieces.append(Piece(" => "))
        last = int(here.sum()) - 1
        pieces += [
            Piece(text(read), True, text(target) if k == last else None)
            for k, (read, target) in enumerate(
                zip(row["decoder_tokens"][here], row["targets"][here])
            )
        ]
    return pieces
