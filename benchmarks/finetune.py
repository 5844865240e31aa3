"""Steps a second of fine-tuning a classifier, ours against transformers with the same weights, in turn in one process.

    python benchmarks/finetune.py --folder DIR [--rows 32 --length 48 --rounds 5 --steps 5]

A folder of a BERT in the Hugging Face layout (all-MiniLM-L6-v2 in docs/results.md), with a new head of two classes, on
batches in the shape of SST-2: sentences of different lengths padded to the longest. A step is forward, backward,
clipping of the gradient norm to 1 and AdamW in float32, with dropout, as the Trainer of transformers runs it (fused
AdamW). Ours is the step that `jaxlm finetune` compiles. The last line is JSON: the median over rounds of ours, of
theirs, and of their ratio. Needs `pip install -e .[bench]`.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable

import in_turn
import jax
import numpy as np
import tyro
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlm import sharding
from jaxlm.config import DataConfig, FinetuneConfig, MeshConfig, OptimizerConfig
from jaxlm.run import init_from
from jaxlm.tasks.downstream.classification import Classification, ClassificationConfig
from jaxlm.training import batches, host_memory, phases
from jaxlm.training.state import abstract_state, create_state
from jaxlm.training.step import make_train_step

RATE = 2e-5


def batch_of(rows: int, length: int, vocab_size: int) -> dict[str, np.ndarray]:
    """Random sentences of 4 to `length` tokens, and their classes."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.normal(length * 0.45, length * 0.2, rows), 4, length).astype(int)
    lengths[0] = length
    real = np.arange(length) < lengths[:, None]
    tokens = np.where(real, rng.integers(1000, vocab_size, (rows, length)), 0)
    return {
        "tokens": tokens.astype(np.int32),
        "segment_ids": real.astype(np.int32),
        "token_types": np.zeros((rows, length), np.int32),
        "labels": rng.integers(0, 2, rows).astype(np.int32),
        "valid": np.ones(rows, np.float32),
    }


def our_step(folder: pathlib.Path, batch: dict[str, np.ndarray]) -> Callable[[], float]:
    """A step that returns the gradient's norm."""
    host_memory.keep_freed()
    rows, length = batch["tokens"].shape
    source = init_from.of_hf(folder)
    config = FinetuneConfig(
        init=str(folder),
        model=source.model,
        task=ClassificationConfig(labels=("0", "1")),
        data=DataConfig(seq_len=length),
        optimizer=OptimizerConfig(learning_rate=RATE, schedule="constant", warmup_steps=0),
        batch_size=rows,
    )
    task = Classification(config, source.tokenizer)
    mesh = sharding.make_mesh(MeshConfig())
    with jax.set_mesh(mesh):
        [phase] = phases.make_phases(config, (), jax.eval_shape(task.init, jax.random.key(0)))
        abstract = abstract_state(task, phase, mesh)
        placement = jax.tree.map(lambda x: x.sharding, abstract)
        step = jax.jit(
            make_train_step(task.loss, phase, seed=0),
            donate_argnums=0,
            out_shardings=(placement, NamedSharding(mesh, P())),
        )
        shapes = batches.abstract_batch(batch, mesh, rows)
        compiled = step.lower(abstract, shapes).compile()
        state = [create_state(task, phase, abstract, seed=0)]
        placed = batches.to_devices(batch, mesh, rows, np.arange(rows))

    def run() -> float:
        state[0], metrics = compiled(state[0], placed)
        return float(metrics["grad_norm"])

    return run


def their_step(folder: pathlib.Path, batch: dict[str, np.ndarray]) -> Callable[[], float]:
    """A step that returns the loss."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    kind = transformers.AutoModelForSequenceClassification
    model = kind.from_pretrained(folder, num_labels=2, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, fused=True)
    inputs = {
        "input_ids": torch.tensor(batch["tokens"]).long(),
        "attention_mask": torch.tensor(batch["segment_ids"]).long(),
        "labels": torch.tensor(batch["labels"]).long(),
    }

    def run() -> float:
        loss = model(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return run


def main(
    folder: pathlib.Path, rows: int = 32, length: int = 48, rounds: int = 5, steps: int = 5
) -> None:
    """Measures and prints.

    Args:
        folder: a BERT in the Hugging Face layout.
        rows: sentences of a batch.
        length: tokens of the longest.
        rounds: measurements of each side, in turn.
        steps: steps of a measurement.
    """
    batch = batch_of(rows, length, 30_000)
    sides = {"ours": our_step(folder, batch), "theirs": their_step(folder, batch)}
    for run in sides.values():
        run(), run()
    result = {
        "benchmark": "finetune",
        **in_turn.measure(sides, rounds=rounds, steps=steps),
        "shape": {"rows": rows, "length": length},
        **in_turn.machine(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    tyro.cli(main)
