"""A language model's training step as `training.loop` compiles it, on a batch of random tokens, for the benchmarks."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlm import sharding
from jaxlm.config import (
    ComputeConfig,
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    MeshConfig,
    OptimizerConfig,
    TrainConfig,
)
from jaxlm.models import heads
from jaxlm.ops import losses
from jaxlm.training import batches, host_memory
from jaxlm.training.optimizer import make_optimizer
from jaxlm.training.state import abstract_state, create_state
from jaxlm.training.step import make_train_step


@dataclasses.dataclass
class Step:
    """A compiled step with its state; calling it trains once and returns the loss, not yet waited for."""

    compiled: Any
    state: Any
    batch: dict[str, jax.Array]

    def __call__(self) -> jax.Array:
        """The mean loss of the batch."""
        self.state, metrics = self.compiled(self.state, self.batch)
        return metrics["loss"] / metrics["weight"]

    @property
    def num_params(self) -> int:
        """Parameters of the model."""
        return sum(x.size for x in jax.tree.leaves(self.state.params))


def compile_step(
    model: DecoderConfig | EncoderConfig,
    batch: dict[str, np.ndarray],
    *,
    compute: ComputeConfig,
    mesh: MeshConfig | None = None,
    learning_rate: float = 1e-4,
) -> Step:
    """AdamW with clipping on all devices.

    Args:
        model: with vocab_size set; an encoder is trained as a masked language model.
        batch: tokens [B, T]; targets and weights [B, T], or [B, P] with the places `at` [B, P] that are restored.
        compute: dtype, attention, rematerialisation.
        mesh: of all devices; the default replicates the model on each.
        learning_rate: constant.
    """
    host_memory.keep_freed()
    length = batch["tokens"].shape[1]
    lm: Any = (heads.CausalLM if isinstance(model, DecoderConfig) else heads.MaskedLM)(
        model, compute
    )
    # as the data pipeline gives them, for rows that are one document each
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), batch["tokens"].shape)
    batch = batch | {"positions": np.array(positions), "segment_ids": np.ones_like(batch["tokens"])}

    def loss(params, batch, key):
        inputs = {name: batch[name] for name in ("segment_ids", "positions", "at") if name in batch}
        hidden = lm.apply({"params": params}, batch["tokens"], **inputs, key=key, method="hidden")
        sums = losses.token_cross_entropy(
            hidden,
            heads.unembedding(params),
            batch["targets"],
            batch["weights"],
            bias=heads.unembedding_bias(params),
            shards=sharding.batch_shards(),
        )
        return sums.loss, {"loss": sums.loss, "weight": batch["weights"].sum()}

    config = TrainConfig(
        model=model,
        data=DataConfig(seq_len=length),
        optimizer=OptimizerConfig(learning_rate=learning_rate, schedule="constant", warmup_steps=0),
        batch_size=len(batch["tokens"]),
    )
    devices = sharding.make_mesh(mesh or MeshConfig())
    with jax.set_mesh(devices):
        init = functools.partial(heads.init_params, lm)
        optimizer = make_optimizer(config, jax.eval_shape(init, jax.random.key(0)))
        abstract = abstract_state(init, optimizer, devices)
        placement = jax.tree.map(lambda x: x.sharding, abstract)
        everywhere = NamedSharding(devices, P())
        step = jax.jit(
            make_train_step(loss, optimizer, seed=0),
            donate_argnums=0,
            out_shardings=(placement, everywhere),
        )
        shapes = batches.abstract_batch(batch, devices, config.batch_size)
        compiled = step.lower(abstract, shapes).compile()
        state = create_state(init, optimizer, abstract, seed=0)
        placed = batches.to_devices(batch, devices, config.batch_size, np.arange(config.batch_size))
    return Step(compiled, state, placed)
