"""A language model's training step as `training.loop` compiles it, on a batch of random tokens, for the benchmarks."""

from __future__ import annotations

import dataclasses
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
    TaskConfig,
    TrainConfig,
)
from jaxlm.models import heads
from jaxlm.ops import losses
from jaxlm.tasks.task import Context, Loss, Task
from jaxlm.training import batches, host_memory, phases
from jaxlm.training.state import abstract_state, create_state
from jaxlm.training.step import make_train_step


@dataclasses.dataclass
class Step:
    """A compiled step with its state; calling it runs one step and returns the loss without waiting for it."""

    compiled: Any
    state: Any
    batch: dict[str, jax.Array]

    def __call__(self) -> jax.Array:
        """The mean loss of the batch."""
        self.state, metrics = self.compiled(self.state, self.batch)
        total, weight = metrics["sums"]["means"]["loss"]
        return total / weight

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
    """A training step with AdamW and clipping, on all devices.

    Args:
        model: with vocab_size set; an encoder is trained as a masked language model.
        batch: tokens [B, T]; targets and weights [B, T], or [B, P] with the positions `at` [B, P] that are predicted.
        compute: dtype, attention, rematerialization.
        mesh: of all devices; default: each has a replica of the model.
        learning_rate: constant.
    """
    host_memory.keep_freed()
    length = batch["tokens"].shape[1]
    # as from the data pipeline, for rows of one document each
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), batch["tokens"].shape)
    batch = batch | {"positions": np.array(positions), "segment_ids": np.ones_like(batch["tokens"])}
    config = TrainConfig(
        model=model,
        task=TaskConfig(),
        compute=compute,
        data=DataConfig(seq_len=length),
        optimizer=OptimizerConfig(learning_rate=learning_rate, schedule="constant", warmup_steps=0),
        batch_size=len(batch["tokens"]),
    )
    no_tokenizer: Any = None
    task = _LanguageModel(config, no_tokenizer)
    devices = sharding.make_mesh(mesh or MeshConfig())
    with jax.set_mesh(devices):
        [phase] = phases.make_phases(config, (), jax.eval_shape(task.init, jax.random.key(0)))
        abstract = abstract_state(task, phase, devices)
        placement = jax.tree.map(lambda x: x.sharding, abstract)
        everywhere = NamedSharding(devices, P())
        step = jax.jit(
            make_train_step(task.loss, phase, seed=0),
            donate_argnums=0,
            out_shardings=(placement, everywhere),
        )
        shapes = batches.abstract_batch(batch, devices, config.batch_size)
        compiled = step.lower(abstract, shapes).compile()
        state = create_state(task, phase, abstract, seed=0)
        placed = batches.to_devices(batch, devices, config.batch_size, np.arange(config.batch_size))
    return Step(compiled, state, placed)


class _LanguageModel(Task):
    """Causal or masked language modeling on given arrays."""

    Config, name, backbones = TaskConfig, "benchmark", (DecoderConfig, EncoderConfig)

    def make_model(self) -> heads.CausalLM | heads.MaskedLM:
        is_decoder = isinstance(self.backbone, DecoderConfig)
        return (heads.CausalLM if is_decoder else heads.MaskedLM)(
            self.backbone, self.config.compute
        )

    def loss(self, params: Any, batch: dict[str, jax.Array], context: Context) -> Loss:
        inputs = {name: batch[name] for name in ("segment_ids", "positions", "at") if name in batch}
        hidden: Any = self.model.apply(
            {"params": params}, batch["tokens"], **inputs, key=context.dropout_key, method="hidden"
        )
        sums = losses.token_cross_entropy(
            hidden,
            heads.unembedding(params),
            batch["targets"],
            batch["weights"],
            bias=heads.unembedding_bias(params),
            shards=sharding.batch_shards(),
        )
        return Loss(sums.loss, batch["weights"].sum())
