"""Common parts of encoder-decoder objectives: rows of pairs, span corruption, the loss on targets, previews."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from jaxlm.config import EncoderDecoderConfig
from jaxlm.data import corruption
from jaxlm.data.documents import TokenDocuments
from jaxlm.data.loader import Batch
from jaxlm.data.packing import Members
from jaxlm.data.ragged import framed
from jaxlm.data.rows import CorruptedRows, Keys, PairRows
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.models import flops, heads
from jaxlm.tasks.pretraining.token_loss import token_loss, with_perplexity
from jaxlm.tasks.task import Context, Loss, Piece, Task


class EncoderDecoderTask(Task):
    """An objective in which an encoder-decoder predicts a target text."""

    backbones = (EncoderDecoderConfig,)
    roles: ClassVar[tuple[str, ...]] = ("eos", "pad")

    def __init__(self, config, tokenizer):
        """Also checks that the model supports the length of the targets."""
        super().__init__(config, tokenizer)
        if self.target_len > self.backbone.max_len:
            raise ValueError(
                f"targets of {self.target_len} tokens are longer than model.max_len={self.backbone.max_len}: raise it, "
                "or lower task.target_len or data.seq_len"
            )

    @property
    def target_len(self) -> int:
        """Target tokens per row."""
        return self.config.data.seq_len

    @classmethod
    def shorten(cls, settings: Any, seq_len: int, full_seq_len: int) -> Any:
        """Targets whose length is set are shortened like the inputs."""
        target_len = getattr(settings, "target_len", None)
        if target_len is None:
            return settings
        shorter = max(3, -(-target_len * seq_len // full_seq_len))
        return dataclasses.replace(settings, target_len=shorter)

    def make_model(self) -> heads.Seq2SeqLM:
        """An encoder-decoder with an output table."""
        return heads.Seq2SeqLM(self.backbone, self.config.compute)

    def pair_rows(
        self, docs: TokenDocuments, input_sizes: np.ndarray, target_sizes: np.ndarray
    ) -> PairRows:
        """Documents cut and packed, see `PairRows.of`; the decoder input starts with bos or, as in T5, with padding."""
        t = self.tokenizer
        assert t.pad_id is not None and t.start_id is not None
        return PairRows.of(
            docs,
            input_sizes,
            target_sizes,
            input_capacity=self.config.data.seq_len,
            target_capacity=self.target_len,
            pad_id=t.pad_id,
            start_id=t.start_id,
        )

    def loss(self, params: Any, batch: dict, context: Context) -> Loss:
        """Cross entropy of the target's tokens."""
        return self.target_loss(params, batch, context)

    def target_loss(self, params: Any, batch: dict, context: Context, **options: Any) -> Loss:
        """See `loss`; `options` are those of `token_loss`."""
        names = ("segment_ids", "positions", "decoder_segment_ids", "decoder_positions")
        hidden: Any = self.model.apply(
            {"params": params},
            batch["tokens"],
            batch["decoder_tokens"],
            **{name: batch[name] for name in names},
            key=context.dropout_key,
            method="hidden",
        )
        return token_loss(hidden, params, batch, softcap=self.model.config.logit_softcap, **options)

    def metrics(self, means: dict, sums: dict) -> dict[str, float]:
        """Loss in nats per target token, perplexity, and the fraction of tokens predicted correctly."""
        return with_perplexity(means)

    def cost(self, seq_len: int) -> float:
        """FLOPs with logits at every target position."""
        fraction = self.target_len / self.config.data.seq_len
        return flops.flops_per_token(self.backbone, seq_len, output_fraction=fraction)

    def preview(self, row: Batch) -> list[Piece]:
        """Each pair: the input, an arrow, and the decoder's input and targets."""
        text = lambda i: self.tokenizer.piece(int(i))
        pieces = []
        for index in range(1, int(row["decoder_segment_ids"].max()) + 1):
            inputs = row["tokens"][row["segment_ids"] == index]
            here = row["decoder_segment_ids"] == index
            pieces += [Piece(text(i), begins=index > 1 and not k) for k, i in enumerate(inputs)]
            pieces.append(Piece(" => "))
            last = int(here.sum()) - 1
            pieces += [
                Piece(text(read), True, text(target) if k == last else None)
                for k, (read, target) in enumerate(
                    zip(row["decoder_tokens"][here], row["targets"][here])
                )
            ]
        return pieces


def check_target_len(target_len: int | None) -> None:
    """Raises ValueError for targets with no room for a sentinel, a token and the end."""
    if target_len is not None and target_len < 3:
        raise ValueError(f"task.target_len={target_len} must be at least 3")


@dataclasses.dataclass(frozen=True)
class Denoiser:
    """Settings of span corruption: fraction of noise tokens, mean span length, and mode token."""

    noise_fraction: float
    # None: one span, the end of the text
    mean_span: float | None
    # name of the token before the input; None: there is none
    mode: str | None = None

    def longest_piece(self, input_capacity: int, target_capacity: int | None) -> int:
        """Tokens of the longest piece whose inputs and targets, each with an end-of-text token, fit in a row."""
        inputs = input_capacity - 1 - int(self.mode is not None)
        targets = None if target_capacity is None else target_capacity - 1
        return corruption.longest_piece(self.noise_fraction, self.mean_span, inputs, targets)

    def target_len(self, input_capacity: int) -> int:
        """Number of target tokens of the longest piece whose input fits."""
        longest = np.array([self.longest_piece(input_capacity, None)])
        lengths = corruption.corrupted_lengths(longest, self.noise_fraction, self.mean_span)[1]
        return int(lengths[0]) + 1

    def most_spans(self, input_capacity: int, target_capacity: int) -> int:
        """Number of spans in the longest piece."""
        longest = np.array([self.longest_piece(input_capacity, target_capacity)])
        return int(corruption.noise_counts(longest, self.noise_fraction, self.mean_span)[1][0])


def sentinel_names(denoisers: Sequence[Denoiser], seq_len: int, target_len: int) -> list[str]:
    """Names of sentinels as in T5, as many as the longest piece has spans."""
    most = max(d.most_spans(seq_len, target_len) for d in denoisers)
    return [f"<extra_id_{i}>" for i in range(most)]


def span_rows(
    task: EncoderDecoderTask, docs: TokenDocuments, denoiser: Denoiser, sentinels: np.ndarray
) -> CorruptedRows:
    """Rows of pieces corrupted by one denoiser."""
    t = task.tokenizer
    longest = denoiser.longest_piece(task.config.data.seq_len, task.target_len)
    inputs, targets = corruption.corrupted_lengths(
        np.arange(longest + 1), denoiser.noise_fraction, denoiser.mean_span
    )
    mode_id = None if denoiser.mode is None else int(t.ids_of([denoiser.mode])[0])
    packed = task.pair_rows(docs, inputs + 1 + int(mode_id is not None), targets + 1)
    corrupt = functools.partial(
        corrupt_spans, denoiser=denoiser, sentinels=sentinels, mode_id=mode_id, tokenizer=t
    )
    return CorruptedRows(packed, corrupt, task.config.seed)


def corrupt_spans(
    packed: PairRows,
    members: Members,
    keys: Keys,
    *,
    denoiser: Denoiser,
    sentinels: np.ndarray,
    mode_id: int | None,
    tokenizer: Tokenizer,
) -> Batch:
    """See `PairRows.build_rows`."""
    inputs, targets = corruption.corrupt_spans(
        packed.take(members),
        keys=keys.pieces,
        noise_fraction=denoiser.noise_fraction,
        mean_span=denoiser.mean_span,
        sentinels=sentinels,
        at_end=denoiser.mean_span is None,
    )
    eos = tokenizer.eos_id
    return packed.build_rows(framed(inputs, mode_id, eos), framed(targets, None, eos), members)
