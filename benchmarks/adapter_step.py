"""Seconds and memory of a training step with low-rank adapters, against the step that trains every parameter.

    python benchmarks/adapter_step.py

The steps of both take turns in one process, so that the ratio of their medians holds on a busy machine as well. The
last line is JSON.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxlm import CausalLM, DecoderConfig, FinetuneConfig, LoraConfig, OptimizerConfig
from jaxlm.config import llama_style
from jaxlm.models import heads, lora
from jaxlm.tasks import CausalLMConfig
from jaxlm.tasks.pretraining.decoder import next_token_loss
from jaxlm.training import phases
from jaxlm.training.state import TrainState
from jaxlm.training.step import make_train_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the benchmark."""

    # of the model, in the style of Llama
    num_layers: int = 8
    dim: int = 384
    num_heads: int = 6
    vocab_size: int = 8192
    # of the batch
    batch_size: int = 4
    seq_len: int = 256
    # of the adapters, on all matrices
    rank: int = 16
    # steps of each side
    steps: int = 15


def main(options: Options) -> None:
    """Prints the medians and their ratio."""
    o = options
    config = DecoderConfig(
        **llama_style(),
        num_layers=o.num_layers,
        dim=o.dim,
        num_heads=o.num_heads,
        vocab_size=o.vocab_size,
        max_len=o.seq_len,
    )
    model = CausalLM(config)
    tokens = np.random.default_rng(0).integers(0, o.vocab_size, (o.batch_size, o.seq_len))
    batch = {
        "tokens": jnp.asarray(tokens, jnp.int32),
        "targets": jnp.asarray(np.roll(tokens, -1, 1), jnp.int32),
        "weights": jnp.ones(tokens.shape),
        "valid": jnp.ones(o.batch_size),
    }
    sides = {}
    for name, adapters in (("all", LoraConfig()), ("adapters", LoraConfig(rank=o.rank))):
        run = FinetuneConfig(
            task=CausalLMConfig(), lora=adapters, optimizer=OptimizerConfig(warmup_steps=0)
        )
        params = jax.jit(lambda key: heads.init_params(model, key))(jax.random.key(0))
        if adapters.rank:
            params = lora.add(params, jax.random.key(1), adapters)
        [phase] = phases.make_phases(run, (), params)
        loss = lambda p, b, context: next_token_loss(model, p, b, context)
        step = jax.jit(make_train_step(loss, phase, seed=0), donate_argnums=0)
        state = TrainState(jnp.int32(0), params, phase.init(params))
        memory = step.lower(state, batch).compile().memory_analysis()
        state, _ = step(state, batch)
        sides[name] = [step, state, [], memory]
    for _ in range(o.steps):
        for side in sides.values():
            step, state, seconds, _ = side
            began = time.perf_counter()
            side[1] = jax.block_until_ready(step(state, batch)[0])
            seconds.append(time.perf_counter() - began)
    result = {}
    for name, (_, _, seconds, memory) in sides.items():
        result[name] = {
            "seconds": round(statistics.median(seconds), 4),
            "least_seconds": round(min(seconds), 4),
            "argument_mib": round(memory.argument_size_in_bytes / 2**20, 1),
            "temporary_mib": round(memory.temp_size_in_bytes / 2**20, 1),
        }
        print(name, result[name])
    ratios = [a / b for a, b in zip(sides["all"][2], sides["adapters"][2])]
    result["times_as_fast"] = round(statistics.median(ratios), 2)
    print(json.dumps(result))


if __name__ == "__main__":
    main(tyro.cli(Options))
