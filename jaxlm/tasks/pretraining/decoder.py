"""Common parts of decoder objectives: rows of whole texts, the loss on next tokens, previews and samples."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config import DecoderConfig
from jaxlm.data.documents import TokenDocuments
from jaxlm.data.loader import Batch
from jaxlm.data.rows import TextRows
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.generation import decode
from jaxlm.models import flops, heads
from jaxlm.tasks import task
from jaxlm.tasks.pretraining.token_loss import token_loss, with_perplexity
from jaxlm.tasks.task import Context, Loss, Piece, Task


class DecoderTask(Task):
    """An objective of a causal language model on plain text."""

    backbones = (DecoderConfig,)

    def make_model(self) -> heads.CausalLM:
        """A decoder with an output table."""
        return heads.CausalLM(self.backbone, self.config.compute)

    def loss(self, params: Any, batch: dict, context: Context) -> Loss:
        """Cross entropy of the next tokens."""
        return next_token_loss(self.model, params, batch, context)

    def metrics(self, means: dict, sums: dict) -> dict[str, float]:
        """Loss in nats per token, perplexity, and the fraction of tokens predicted correctly."""
        return with_perplexity(means)

    def cost(self, seq_len: int) -> float:
        """FLOPs of a decoder with logits at every position."""
        return flops.flops_per_token(self.backbone, seq_len)

    def preview(self, row: Batch) -> list[Piece]:
        """Each token, whether its prediction counts, and its target if that is not the next token."""
        text = lambda i: self.tokenizer.piece(int(i))
        tokens, targets = row["tokens"], row["targets"]
        is_next = np.append(targets[:-1] == tokens[1:], False)
        starts = task.begins(row["segment_ids"])
        return [
            Piece(text(token), bool(weight), None if follows else text(target), bool(new))
            for token, weight, target, follows, new in zip(
                tokens, row["weights"], targets, is_next, starts
            )
        ]

    def sample(self, params: Any, key: jax.Array) -> str | None:
        """A text sampled without a prompt, at temperature 0.8."""
        t = self.tokenizer
        start = t.bos_id if t.bos_id is not None else t.eos_id
        if start is None:
            return None
        return t.decode(np.asarray(self._write(start)(params, key))[0].tolist())

    @functools.cache  # noqa: B019 - a task lives as long as its run
    def _write(self, start: int):
        prompts, lengths = decode.pad_prompts([[start]], start)
        length = min(self.config.data.seq_len, self.model.config.max_cached_len) - 1

        @jax.jit
        def write(params, key):
            return decode.generate(
                self.model,
                params,
                jnp.asarray(prompts),
                jnp.asarray(lengths),
                key,
                max_new_tokens=length,
                temperature=0.8,
                eos_id=self.tokenizer.eos_id,
                vocab_size=self.tokenizer.vocab_size,
            )

        return write


def next_token_loss(
    model: heads.CausalLM, params: Any, batch: dict, context: Context, **options: Any
) -> Loss:
    """Cross entropy of a decoder's next tokens; `options` are those of `ops.losses.token_cross_entropy`."""
    inputs = {n: batch[n] for n in ("segment_ids", "positions", "prefix") if n in batch}
    hidden: Any = model.apply(
        {"params": params}, batch["tokens"], **inputs, key=context.dropout_key, method="hidden"
    )
    return token_loss(hidden, params, batch, softcap=model.config.logit_softcap, **options)


def bos_before(tokenizer: Tokenizer) -> int | None:
    """The bos token before a document; None if bos and eos are the same token, as in GPT-2: only eos is added then."""
    return tokenizer.bos_id if tokenizer.bos_id != tokenizer.eos_id else None


def text_rows(docs: TokenDocuments, tokenizer: Tokenizer, seq_len: int, extra: int = 0) -> TextRows:
    """Rows of whole texts for a decoder; `extra` reserves room in each text for tokens that a corruption adds."""
    assert tokenizer.eos_id is not None
    return TextRows.of(
        docs,
        seq_len,
        pad_id=tokenizer.pad_id if tokenizer.pad_id is not None else tokenizer.eos_id,
        prefix_id=bos_before(tokenizer),
        suffix_id=tokenizer.eos_id,
        extra=extra,
    )
