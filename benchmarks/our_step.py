"""A language model's training step as `training.loop` compiles it, on a batch of random tokens, for the benchmarks."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlm import sharding
from jaxlm.config import (
    ComputeConfig,
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    MeshConfig,
    OptimizerConfig,
    TaskConfig,
    TrainConfig,
)
from jaxlm.models import heads, vocabulary
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
    devices = sharding.make_mesh(mesh or MeshConfig())
    with jax.set_mesh(devices):
        plan = lower_step(model, batch, compute=compute, mesh=devices, learning_rate=learning_rate)
        compiled = plan.lowered.compile()
        state = create_state(plan.task, plan.phase, plan.state, seed=0)
        rows = len(batch["tokens"])
        placed = batches.to_devices(with_inputs(batch), devices, rows, np.arange(rows))
    return Step(compiled, state, placed)


@dataclasses.dataclass
class Lowered:
    """A training step that is not compiled yet, and what its state is made from."""

    lowered: jax.stages.Lowered
    task: Task
    phase: phases.Phase
    state: Any


def lower_step(
    model: DecoderConfig | EncoderConfig | EncoderDecoderConfig,
    batch: dict[str, np.ndarray],
    *,
    compute: ComputeConfig,
    mesh: Mesh,
    learning_rate: float = 1e-4,
) -> Lowered:
    """The step of `compile_step` for a mesh that is set, with devices or without.

    An encoder-decoder has `decoder_tokens` [B, P] as well, and predicts P targets.
    """
    batch = with_inputs(batch)
    rows, length = batch["tokens"].shape
    config = TrainConfig(
        model=model,
        task=TaskConfig(),
        compute=compute,
        data=DataConfig(seq_len=length),
        optimizer=OptimizerConfig(learning_rate=learning_rate, schedule="constant", warmup_steps=0),
        batch_size=rows,
    )
    no_tokenizer: Any = None
    task = _LanguageModel(config, no_tokenizer)
    [phase] = phases.make_phases(config, (), jax.eval_shape(task.init, jax.random.key(0)))
    state = abstract_state(task, phase, mesh)
    placement = jax.tree.map(lambda x: x.sharding, state)
    step = jax.jit(
        make_train_step(task.loss, phase, seed=0),
        donate_argnums=0,
        out_shardings=(placement, NamedSharding(mesh, P())),
    )
    shapes = batches.abstract_batch(batch, mesh, rows)
    return Lowered(step.lower(state, shapes), task, phase, state)


def with_inputs(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The batch with positions and segments as from the data pipeline, for rows of one document each."""
    own = dict(batch)
    for prefix in ("", "decoder_"):
        tokens = batch.get(f"{prefix}tokens")
        if tokens is not None:
            positions = np.arange(tokens.shape[1], dtype=np.int32)
            own[f"{prefix}positions"] = np.array(np.broadcast_to(positions, tokens.shape))
            own[f"{prefix}segment_ids"] = np.ones_like(tokens)
    return own


class _LanguageModel(Task):
    """Causal or masked language modeling on given arrays."""

    Config, name = TaskConfig, "benchmark"
    backbones = (DecoderConfig, EncoderConfig, EncoderDecoderConfig)

    def make_model(self) -> heads.CausalLM | heads.MaskedLM | heads.Seq2SeqLM:
        kinds = {EncoderConfig: heads.MaskedLM, EncoderDecoderConfig: heads.Seq2SeqLM}
        return kinds.get(type(self.backbone), heads.CausalLM)(self.backbone, self.config.compute)

    def loss(self, params: Any, batch: dict[str, jax.Array], context: Context) -> Loss:
        inputs = {name: x for name, x in batch.items() if name not in ("targets", "weights")}
        hidden: Any = self.model.apply(
            {"params": params}, **inputs, key=context.dropout_key, method="hidden"
        )
        sums = vocabulary.token_cross_entropy(
            hidden,
            heads.unembedding(params),
            batch["targets"],
            batch["weights"],
            bias=heads.unembedding_bias(params),
        )
        return Loss(sums.loss, batch["weights"].sum())
