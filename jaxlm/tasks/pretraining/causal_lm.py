"""Causal language modelling: predict each token of a document from those before it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config import CausalLMConfig, DecoderConfig, ModelConfig, RunConfig
from jaxlm.data import counter, packing
from jaxlm.data.documents import TokenDocuments
from jaxlm.data.loader import Batch, times
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.generation import decode
from jaxlm.models import heads
from jaxlm.ops import losses
from jaxlm.sharding import batch_shards
from jaxlm.tasks import task
from jaxlm.tasks.task import Corpora, Piece, Sums, Task

load = task.load_documents
added_tokens = task.no_tokens


@dataclasses.dataclass(frozen=True)
class Windows:
    """Rows cut from documents joined end to end; each epoch begins at another offset if `seed` is given."""

    docs: TokenDocuments
    seq_len: int
    seed: int | None
    prefix_id: int | None
    suffix_id: int | None

    def __len__(self) -> int:
        added = int(self.prefix_id is not None) + int(self.suffix_id is not None)
        return packing.num_windows(self.docs, self.seq_len, added)

    def describe(self, examples: int) -> str:
        """One line for people."""
        return f"{len(self):,} windows of {self.seq_len} tokens; {times(examples, len(self))}"

    def rows(self, indices: np.ndarray, epochs: np.ndarray) -> Batch:
        """See `data.packing.windows`."""
        offset: np.ndarray | int = 0
        if self.seed is not None and len(self) > 1:
            offset = (counter.bits(self.seed, epochs) % np.uint64(self.seq_len)).astype(np.int64)
        marks = dict(prefix_id=self.prefix_id, suffix_id=self.suffix_id)
        return packing.windows(self.docs, indices, self.seq_len, offset, **marks)


def build(config: RunConfig, model: ModelConfig, tokenizer: Tokenizer, corpora: Corpora) -> Task:
    """The task over the documents of `corpora`."""
    settings = config.task
    assert isinstance(settings, CausalLMConfig)
    backbone = task.need_model(model, DecoderConfig, "causal_lm")
    lm = heads.CausalLM(backbone, config.compute)
    bos, eos = task.bos_before(tokenizer), tokenizer.eos_id

    def windows(docs: TokenDocuments, training: bool) -> Windows:
        seed = config.seed if training and settings.shift_windows else None
        return Windows(docs, config.data.seq_len, seed, bos, eos)

    def loss(params: Any, batch: dict, key: jax.Array | None) -> tuple[jax.Array, Sums]:
        training = key is not None
        return decoder_loss(
            lm,
            params,
            batch,
            key,
            z_loss=settings.z_loss if training else 0.0,
            label_smoothing=settings.label_smoothing if training else 0.0,
        )

    train, validation = task.datasets(config, corpora, tokenizer, windows)
    return Task(
        model=lm,
        train=train,
        validation=validation,
        loss=loss,
        summarize=summarize,
        output_share=1.0,
        metric="loss",
        metric_is_lower=True,
        preview=lambda row: preview(row, tokenizer),
        sample=sampler(lm, tokenizer, config.data.seq_len),
    )


def decoder_loss(
    lm: heads.CausalLM, params: Any, batch: dict, key: jax.Array | None, **options: Any
) -> tuple[jax.Array, Sums]:
    """Cross entropy of a decoder's next tokens; `options` are those of `ops.losses.token_cross_entropy`."""
    inputs = {n: batch[n] for n in ("segment_ids", "positions", "prefix") if n in batch}
    hidden: Any = lm.apply({"params": params}, batch["tokens"], **inputs, key=key, method="hidden")
    sums = losses.token_cross_entropy(
        hidden,
        heads.unembedding(params),
        batch["targets"],
        batch["weights"],
        softcap=lm.config.logit_softcap,
        shards=batch_shards(),
        **options,
    )
    weight = batch["weights"].sum()
    return sums.loss, {"loss": sums.loss, "correct": sums.correct, "weight": weight}


def summarize(sums: dict[str, np.ndarray]) -> dict[str, float]:
    """Loss in nats per token, perplexity, and the share of tokens predicted right."""
    loss = float(sums["loss"] / sums["weight"])
    accuracy = float(sums["correct"] / sums["weight"])
    return {"loss": loss, "perplexity": task.perplexity(loss), "accuracy": accuracy}


def preview(row: dict[str, np.ndarray], tokenizer: Tokenizer) -> list[Piece]:
    """Each token of a row, whether its prediction counts, and what is to be predicted if not the next token."""
    text = lambda i: tokenizer.decode([int(i)], skip_special=False)
    tokens, targets = row["tokens"], row["targets"]
    is_next = np.append(targets[:-1] == tokens[1:], False)
    begins = task.begins(row["segment_ids"])
    return [
        Piece(text(token), bool(weight), None if follows else text(target), bool(new))
        for token, weight, target, follows, new in zip(
            tokens, row["weights"], targets, is_next, begins
        )
    ]


def sampler(lm: heads.CausalLM, tokenizer: Tokenizer, length: int):
    """A function (params, key) -> text that the model writes from nothing."""
    start = tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.eos_id
    if start is None:
        return None
    prompts, lengths = decode.pad_prompts([[start]], start)

    @jax.jit
    def write(params, key):
        return decode.generate(
            lm,
            params,
            jnp.asarray(prompts),
            jnp.asarray(lengths),
            key,
            max_new_tokens=min(length, lm.config.max_len) - 1,
            temperature=0.8,
            eos_id=tokenizer.eos_id,
            vocab_size=tokenizer.vocab_size,
        )

    return lambda params, key: tokenizer.decode(np.asarray(write(params, key))[0].tolist())
