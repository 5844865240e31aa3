"""Tokens per second of a training step in jaxlm and in PyTorch, with the same model, batch, optimizer and threads.

    python benchmarks/train_step.py                     all cases
    python benchmarks/train_step.py --case gpt_small    one of them

Needs `pip install -e .[bench]` and runs on a CPU. Both sides run float32 without dropout: forward, backward, clipping
of the gradient norm to 1 and AdamW. Each side runs in a separate process, so that their thread pools do not interfere;
in a round each runs some steps while the others sleep. Speed varies by some percent between processes of the same
program, so all are restarted --launches times, every other time in reverse order; the ratio is the median over the
rounds of all launches. PyTorch runs the transformers model with its fused kernels (AdamW, tanh gelu) and with each of
--torch; the fastest is compared.

BertForMaskedLM computes logits at all positions. jaxlm computes them only at masked positions, as in
`tasks.pretraining.masked_lm`; the variant with all positions is measured as well. The last line is JSON.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Literal

import numpy as np
import tyro


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, the shape of its batch, and the number of steps per side and round."""

    kind: Literal["gpt", "bert"]
    num_layers: int
    dim: int
    num_heads: int
    length: int
    batch_size: int
    vocab_size: int
    steps: int


CASES = {
    "gpt_small": Case("gpt", 6, 384, 6, 256, 16, 128, 1),
    "gpt_tiny": Case("gpt", 4, 128, 4, 64, 12, 128, 40),
    "bert_small": Case("bert", 4, 256, 4, 128, 32, 8192, 2),
}
MASK_FRACTION = 0.15
LEARNING_RATE = 1e-4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the benchmark."""

    case: Literal["all", "gpt_small", "gpt_tiny", "bert_small"] = "all"
    # how often all processes are restarted
    launches: int = 4
    # rounds per launch
    rounds: int = 5
    # steps per side and round; 0: those of the case, about two seconds
    steps: int = 0
    threads: int = 2
    # ways to run the PyTorch model; compiled is sdpa under torch.compile and needs a C++ compiler
    torch: tuple[Literal["eager", "sdpa", "compiled"], ...] = ("eager", "sdpa")


def batch_of(case: Case) -> dict[str, np.ndarray]:
    """Random tokens [B, T] and targets; for BERT also the masked positions `at` [B, P], ascending."""
    rng = np.random.default_rng(0)
    shape = (case.batch_size, case.length)
    tokens, targets = rng.integers(0, case.vocab_size, (2, *shape), dtype=np.int32)
    count = round(MASK_FRACTION * case.length)
    at = np.argsort(rng.random(shape), axis=1)[:, :count]
    return {"tokens": tokens, "targets": targets, "at": np.sort(at, axis=1).astype(np.int32)}


def jax_step(case: Case, variant: str) -> tuple[Callable[[], float], int]:
    """A training step of jaxlm that returns its loss, and the number of parameters."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    from our_step import compile_step

    from jaxlm.config import ComputeConfig, DecoderConfig, EncoderConfig

    model = (DecoderConfig if case.kind == "gpt" else EncoderConfig)(
        vocab_size=case.vocab_size,
        dim=case.dim,
        num_layers=case.num_layers,
        num_heads=case.num_heads,
        max_len=case.length,
        dropout=0.0,
        attention_dropout=0.0,
    )
    batch = batch_of(case)
    at = batch.pop("at")
    weights = np.ones(batch["targets"].shape, np.float32)
    if variant == "all positions":
        weights[:] = 0
        np.put_along_axis(weights, at, 1, axis=1)
    elif case.kind == "bert":
        batch |= {"at": at, "targets": np.take_along_axis(batch["targets"], at, axis=1)}
        weights = weights[:, : at.shape[1]]
    step = compile_step(
        model,
        batch | {"weights": weights},
        compute=ComputeConfig(),
        learning_rate=LEARNING_RATE,
    )
    return lambda: float(step()), step.num_params


def torch_step(case: Case, variant: str, threads: int) -> tuple[Callable[[], float], int]:
    """A training step of PyTorch that returns its loss, and the number of parameters."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    attention = "eager" if variant == "eager" else "sdpa"
    if case.kind == "gpt":
        config = transformers.GPT2Config(
            vocab_size=case.vocab_size,
            n_positions=case.length,
            n_embd=case.dim,
            n_layer=case.num_layers,
            n_head=case.num_heads,
            activation_function="gelu_pytorch_tanh",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            use_cache=False,
            bos_token_id=None,
            eos_token_id=None,
            attn_implementation=attention,
        )
        model = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.BertConfig(
            vocab_size=case.vocab_size,
            hidden_size=case.dim,
            num_hidden_layers=case.num_layers,
            num_attention_heads=case.num_heads,
            intermediate_size=4 * case.dim,
            max_position_embeddings=case.length,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            attn_implementation=attention,
        )
        model = transformers.BertForMaskedLM(config)
    parameters = sum(p.numel() for p in model.parameters())
    forward = torch.compile(model) if variant == "compiled" else model
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    batch = batch_of(case)
    targets = batch["targets"]
    if case.kind == "bert":
        kept = np.full_like(targets, -100)
        np.put_along_axis(kept, batch["at"], np.take_along_axis(targets, batch["at"], 1), axis=1)
        targets = kept
    tokens, labels = (torch.from_numpy(x.astype(np.int64)) for x in (batch["tokens"], targets))

    def run() -> float:
        logits = forward(input_ids=tokens).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return run, parameters


def side(connection, case: Case, name: str, threads: int) -> None:
    """Runs in a new process: sends (parameters, first loss), then runs the requested steps and sends the seconds."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    framework, variant = name.split(", ")
    if framework == "jaxlm":
        step, parameters = jax_step(case, variant)
    else:
        step, parameters = torch_step(case, variant, threads)
    losses = [step() for _ in range(3)]
    connection.send((parameters, losses[0]))
    while count := connection.recv():
        start = time.perf_counter()
        for _ in range(count):
            step()
        connection.send(time.perf_counter() - start)


def measure(case: Case, options: Options, reverse: bool) -> dict[str, list[float]]:
    """Tokens per second of each side, one value per round of a launch; `reverse`: start the sides in reverse order."""
    names = ["jaxlm, as trained", *(f"torch, {variant}" for variant in options.torch)]
    if case.kind == "bert":
        names.insert(1, "jaxlm, all positions")
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for name in names[:: -1 if reverse else 1]:
        pipes[name], child_end = context.Pipe()
        processes.append(
            context.Process(target=side, args=(child_end, case, name, options.threads), daemon=True)
        )
        processes[-1].start()
        child_end.close()
        # one after another, so that compilation and warm-up do not slow each other down
        parameters, loss = pipes[name].recv()
        print(f"  {name}: {parameters:,} parameters, first loss {loss:.3f}", flush=True)
    speeds: dict[str, list[float]] = {name: [] for name in names}
    count = options.steps or case.steps
    for turn in range(options.rounds):
        # every other round in reverse order, so that none is always first
        for name in names[:: -1 if turn % 2 else 1]:
            time.sleep(0.3)  # spinning worker threads go to sleep
            pipes[name].send(count)
            seconds = pipes[name].recv()
            speeds[name].append(count * case.batch_size * case.length / seconds)
    for name in names:
        pipes[name].send(0)
    for process in processes:
        process.join()
    return speeds


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Median over rounds of ours / theirs."""
    return statistics.median(a / b for a, b in zip(ours, theirs))


def processor() -> str:
    """The name of the processor, from /proc/cpuinfo if it exists."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(
                line.split(":")[1].strip() for line in file if line.startswith("model name")
            )
    except (OSError, StopIteration):
        return platform.processor()


def main(options: Options) -> None:
    """Measures, then prints a table per case and the JSON line."""
    ratios, tokens_per_second = {}, {}
    for label, case in CASES.items():
        if options.case not in ("all", label):
            continue
        print(f"{label}: {case}", flush=True)
        launches = [measure(case, options, i % 2 == 1) for i in range(options.launches)]
        speeds = {name: [x for each in launches for x in each[name]] for name in launches[0]}
        medians = {name: statistics.median(x) for name, x in speeds.items()}
        best = max((name for name in medians if name.startswith("torch")), key=medians.get)
        for name, values in speeds.items():
            against = ratio(values, speeds[best])
            print(
                f"  {name:18s} {medians[name]:9.0f} tokens/s ({min(values):.0f} to {max(values):.0f}), "
                f"{against:.2f} x {best}; by launch "
                + ", ".join(f"{ratio(each[name], each[best]):.2f}" for each in launches),
                flush=True,
            )
        tokens_per_second[label] = {name: round(x) for name, x in medians.items()}
        ratios[label] = {
            name: round(ratio(speeds[name], speeds[best]), 3)
            for name in speeds
            if name.startswith("jaxlm")
        } | {"against": best}
    packages = ("jax", "jaxlib", "flax", "optax", "torch", "transformers")
    result = {
        "benchmark": "train_step",
        "ratio": ratios,
        "tokens_per_second": tokens_per_second,
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "threads": options.threads,
        "launches": options.launches,
        "rounds": options.rounds,
        "machine": {
            "processor": processor(),
            "cpus": os.cpu_count(),
            "system": platform.platform(),
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
