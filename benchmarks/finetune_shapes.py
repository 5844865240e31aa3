"""Steps a second of fine-tuning at Marian's shape and of adapters on SmolLM2's, against transformers, in turn.

    pip install -e '.[bench]' peft
    python benchmarks/finetune_shapes.py marian
    python benchmarks/finetune_shapes.py adapters

Random weights in float32 without dropout, the same on both sides. A step is forward, backward, clipping of the gradient
norm to 1 and AdamW (fused on their side), as the Trainer of transformers runs it; `adapters` trains those of rank 16 on
all matrices of the blocks (peft). The first losses must agree. The last line is JSON.
"""

from __future__ import annotations

import json
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any, Literal

import in_turn
import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
import tyro
from our_step import with_inputs

from jaxlm import FinetuneConfig, LoraConfig, OptimizerConfig, hf
from jaxlm.models import heads, lora, vocabulary
from jaxlm.tasks import CausalLMConfig
from jaxlm.tasks.task import Loss
from jaxlm.training import host_memory, phases
from jaxlm.training.state import TrainState
from jaxlm.training.step import make_train_step

RATE, RANK = 2e-5, 16
Kind = Literal["marian", "adapters"]


def random_model(kind: Kind) -> Any:
    """Of opus-mt's or SmolLM2-135M's shape."""
    torch.manual_seed(0)
    if kind == "marian":
        config = transformers.MarianConfig(
            vocab_size=32_001,
            decoder_vocab_size=32_001,
            encoder_layers=6,
            decoder_layers=6,
            d_model=512,
            encoder_attention_heads=8,
            decoder_attention_heads=8,
            encoder_ffn_dim=2048,
            decoder_ffn_dim=2048,
            activation_function="swish",
            scale_embedding=True,
            max_position_embeddings=512,
            pad_token_id=32_000,
            eos_token_id=0,
            decoder_start_token_id=32_000,
            dropout=0.0,
            attention_dropout=0.0,
            activation_dropout=0.0,
        )
        return transformers.MarianMTModel(config)
    config = transformers.LlamaConfig(
        vocab_size=49_152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=None,
    )
    return transformers.LlamaForCausalLM(config)


def batch_of(kind: Kind, rows: int, length: int) -> dict[str, np.ndarray]:
    """Random tokens; targets of the same length."""
    tokens, targets = np.random.default_rng(0).integers(3, 30_000, (2, rows, length), np.int32)
    batch = {"tokens": tokens, "targets": targets, "weights": np.ones((rows, length), np.float32)}
    if kind == "marian":
        start = np.full((rows, 1), 32_000, np.int32)
        batch["decoder_tokens"] = np.concatenate([start, targets[:, :-1]], 1)
    return with_inputs(batch) | {"valid": np.ones(rows, np.float32)}


def our_step(kind: Kind, folder: pathlib.Path, batch: dict[str, np.ndarray]) -> Callable[[], float]:
    """A step that returns the loss."""
    host_memory.keep_freed()
    loaded = hf.load(folder)
    model, params = loaded.model, loaded.params
    adapters = LoraConfig(rank=RANK) if kind == "adapters" else LoraConfig()
    config = FinetuneConfig(
        task=CausalLMConfig(),
        lora=adapters,
        optimizer=OptimizerConfig(learning_rate=RATE, schedule="constant", warmup_steps=0),
    )
    if adapters.rank:
        params = lora.add(params, jax.random.key(1), adapters)
    [phase] = phases.make_phases(config, (), params)

    def loss(params, batch, context):
        inputs = {k: x for k, x in batch.items() if k not in ("targets", "weights", "valid")}
        hidden = model.apply({"params": params}, **inputs, method="hidden")
        table, bias = heads.unembedding(params), heads.unembedding_bias(params)
        sums = vocabulary.token_cross_entropy(
            hidden, table, batch["targets"], batch["weights"], bias=bias
        )
        return Loss(sums.loss, batch["weights"].sum())

    step = jax.jit(make_train_step(loss, phase, seed=0), donate_argnums=0)
    placed = jax.tree.map(jnp.asarray, batch)
    state = [TrainState(jnp.int32(0), params, phase.init(params))]

    def run() -> float:
        state[0], metrics = step(state[0], placed)
        total, weight = metrics["sums"]["means"]["loss"]
        return float(total / weight)

    return run


def their_step(kind: Kind, model: Any, batch: dict[str, np.ndarray]) -> Callable[[], float]:
    """A step that returns the loss."""
    if kind == "adapters":
        import peft

        model = peft.get_peft_model(
            model, peft.LoraConfig(r=RANK, target_modules="all-linear", lora_dropout=0.0)
        )
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, fused=True)
    inputs = {"input_ids": torch.tensor(batch["tokens"]).long()}
    if kind == "marian":
        inputs["decoder_input_ids"] = torch.tensor(batch["decoder_tokens"]).long()
    targets = torch.tensor(batch["targets"]).long().flatten()

    def run() -> float:
        logits = model(**inputs).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return run


def main(
    kind: tyro.conf.Positional[Kind],
    rows: int = 8,
    length: int = 64,
    rounds: int = 5,
    steps: int = 2,
) -> None:
    """Measures and prints.

    Args:
        kind: what is trained.
        rows: of a batch.
        length: tokens of each.
        rounds: measurements of each side, in turn.
        steps: steps of a measurement.
    """
    batch = batch_of(kind, rows, length)
    model = random_model(kind)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        ours = our_step(kind, pathlib.Path(folder), batch)
    sides = {"ours": ours, "theirs": their_step(kind, model, batch)}
    first = {name: run() for name, run in sides.items()}
    np.testing.assert_allclose(first["ours"], first["theirs"], rtol=1e-4)
    # ours is compiled again for a state that comes from a step
    for run in sides.values():
        run()
    result = {
        "benchmark": f"finetune_shapes {kind}",
        **in_turn.measure(sides, rounds=rounds, steps=steps),
        "first_loss": first,
        "shape": {"rows": rows, "length": length},
        **in_turn.machine(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    tyro.cli(main)
