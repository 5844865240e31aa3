"""Training speed and memory on the GPUs or TPUs of this host, relative to the speed of a large matrix product.

    python benchmarks/accelerator.py                             all models, every attention implementation
    python benchmarks/accelerator.py --models llama_1b --attention splash --mesh.fsdp -1 --mesh.data 1
    python benchmarks/accelerator.py --tiny                      the same path in a minute, on a CPU too

GPT-2 (124M parameters), a Llama of 1B and BERT-base train in bfloat16 with AdamW on random tokens. Each pair of model
and attention runs in a separate process, so that peak memory is measured separately and running out of memory does not
affect the others. Model FLOPs utilization is the model's theoretical FLOPs (`jaxlm.models.flops`) per second, divided
by the speed of a large bfloat16 matrix product in the same process, measured before and after. The last line is JSON.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import platform
import statistics
import time
import traceback
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from jaxlm.config import (
    ComputeConfig,
    DecoderConfig,
    EncoderConfig,
    MeshConfig,
    ModelConfig,
    llama_style,
)

ModelName = Literal["gpt_124m", "llama_1b", "bert_base"]
Attention = Literal["xla", "cudnn", "splash"]
Remat = Literal["none", "minimal", "dots", "offload", "attention", "full"]
MASK_FRACTION = 0.15


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A model, the batch size per device, and the rematerialization policy."""

    model: ModelConfig
    rows: int
    remat: Remat


CASES: dict[ModelName, Case] = {
    "gpt_124m": Case(
        model=DecoderConfig(vocab_size=50_304, dim=768, num_layers=12, num_heads=12, max_len=1024),
        rows=16,
        remat="none",
    ),
    # the sizes of Llama 3.2 1B
    "llama_1b": Case(
        model=DecoderConfig(
            **llama_style() | {"tie_embeddings": True},
            vocab_size=128_256,
            dim=2048,
            num_layers=16,
            num_heads=32,
            num_kv_heads=8,
            mlp_dim=8192,
            max_len=2048,
            rope_theta=500_000.0,
        ),
        rows=4,
        remat="dots",
    ),
    "bert_base": Case(
        model=EncoderConfig(
            vocab_size=30_528,
            dim=768,
            num_layers=12,
            num_heads=12,
            max_len=512,
            # the fast kernels do not support dropout of attention probabilities
            attention_dropout=0.0,
        ),
        rows=32,
        remat="none",
    ),
}
# sizes of every model with --tiny
TINY = dict(vocab_size=512, dim=256, num_layers=2, num_heads=2, num_kv_heads=None, max_len=128)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the benchmark."""

    models: tuple[ModelName, ...] = ("gpt_124m", "llama_1b", "bert_base")
    # default: all that this backend supports
    attention: tuple[Attention, ...] = ()
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    # batch size per device; 0: that of the case
    rows: int = 0
    # auto: that of the case
    remat: Literal["auto", Remat] = "auto"
    # number of measured groups of steps, with a synchronization after each group
    groups: int = 5
    # steps per group
    steps: int = 10
    # width of the square matrices of the reference product
    matmul: int = 8192
    # small shapes, to test the benchmark
    tiny: bool = False


def shrunk(options: Options) -> Options:
    """The options, with smaller sizes if --tiny is set."""
    if not options.tiny:
        return options
    return dataclasses.replace(options, rows=options.rows or 2, groups=2, steps=2, matmul=512)


def measure(options: Options, name: ModelName, attention: Attention) -> dict[str, Any]:
    """Speed and memory of one model with one attention."""
    import jax
    from our_step import compile_step

    from jaxlm.models import flops as model_flops
    from jaxlm.report import flops

    case = CASES[name]
    model = dataclasses.replace(case.model, mlp_dim=None, **TINY) if options.tiny else case.model
    devices = jax.devices()
    batch = random_batch(model, (options.rows or case.rows) * len(devices))
    remat = case.remat if options.remat == "auto" else options.remat
    began = time.perf_counter()
    step = compile_step(
        model,
        batch,
        compute=ComputeConfig(dtype="bfloat16", attention=attention, remat=remat),
        mesh=options.mesh,
    )
    compile_seconds = time.perf_counter() - began
    for _ in range(3):
        loss = step()
    first_loss = float(loss)

    matmul = [matmul_flops(options.matmul)]
    seconds = []
    for _ in range(options.groups):
        began = time.perf_counter()
        for _ in range(options.steps):
            loss = step()
        loss.block_until_ready()
        seconds.append((time.perf_counter() - began) / options.steps)
    matmul.append(matmul_flops(options.matmul))

    tokens_per_second = batch["tokens"].size / statistics.median(seconds)
    per_token = model_flops.flops_per_token(
        model, model.max_len, output_fraction=batch["targets"].size / batch["tokens"].size
    )
    memory = step.compiled.memory_analysis()
    stats = devices[0].memory_stats() or {}
    return {
        "device": devices[0].device_kind,
        "devices": len(devices),
        "mesh": dataclasses.asdict(options.mesh),
        "parameters": step.num_params,
        "batch": list(batch["tokens"].shape),
        "remat": remat,
        "loss": [first_loss, float(loss)],
        "compile_seconds": round(compile_seconds, 1),
        "tokens_per_second": round(tokens_per_second),
        "spread": round((max(seconds) - min(seconds)) / statistics.median(seconds), 3),
        "matmul_tflops": round(max(matmul) / 1e12, 2),
        "of_matmul": round(tokens_per_second * per_token / len(devices) / max(matmul), 4),
        "of_peak": flops.mfu(tokens_per_second, per_token, len(devices), devices[0].device_kind),
        # measured by the device (None if it does not), and planned by XLA
        "peak_bytes": stats.get("peak_bytes_in_use"),
        "planned_bytes": int(memory.argument_size_in_bytes + memory.temp_size_in_bytes),
    }


def random_batch(model: ModelConfig, rows: int) -> dict[str, np.ndarray]:
    """Random tokens and targets; for an encoder only at masked positions, as in `tasks.pretraining.masked_lm`."""
    rng = np.random.default_rng(0)
    shape = (rows, model.max_len)
    tokens, targets = rng.integers(0, model.vocab_size, (2, *shape), dtype=np.int32)
    batch = {"tokens": tokens, "targets": targets}
    if isinstance(model, EncoderConfig):
        at = np.argsort(rng.random(shape), axis=1)[:, : round(MASK_FRACTION * model.max_len)]
        batch["at"] = np.sort(at, axis=1).astype(np.int32)
        batch["targets"] = np.take_along_axis(targets, at, axis=1)
    return batch | {"weights": np.ones(batch["targets"].shape, np.float32)}


def matmul_flops(width: int, repeats: int = 20) -> float:
    """FLOP/s of bfloat16 products of two square matrices on one device, the best of three tries."""
    import jax
    import jax.numpy as jnp

    x = jax.random.normal(jax.random.key(0), (width, width), jnp.bfloat16)

    @jax.jit
    def chain(x):
        # each product depends on the previous one, so that none can be eliminated
        return jax.lax.fori_loop(0, repeats, lambda _, y: (x @ y) / width, x)

    chain(x).block_until_ready()
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        chain(x).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return repeats * 2 * width**3 / min(seconds)


def child(connection, function, *arguments) -> None:
    """Runs in a new process: sends the result of the function, or the error as one line."""
    try:
        connection.send(function(*arguments))
    except Exception as error:  # runtimes raise various types; the other cases continue
        traceback.print_exc()
        connection.send({"error": str(error).splitlines()[0][:200]})


def in_own_process(function, *arguments) -> Any:
    """The result of the function, called in a new process."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(sender, function, *arguments))
    process.start()
    sender.close()
    try:
        result = receiver.recv()
    except EOFError:
        result = None
    process.join()
    return {"error": f"the process exited with {process.exitcode}"} if result is None else result


def available() -> tuple[str, ...]:
    """The attention implementations that this backend supports."""
    import jax

    return {"gpu": ("xla", "cudnn"), "tpu": ("xla", "splash")}.get(jax.default_backend(), ("xla",))


def main(options: Options) -> None:
    """Measures, then prints a table and the JSON line."""
    options = shrunk(options)
    results: dict[str, dict[str, Any]] = {}
    for name in options.models:
        for attention in options.attention or in_own_process(available):
            print(f"{name}, attention {attention} ...", flush=True)
            results[f"{name}, {attention}"] = in_own_process(measure, options, name, attention)
    show(results)
    packages = ("jax", "jaxlib", "flax", "optax")
    result = {
        "benchmark": "accelerator",
        "ratio": {case: r["of_matmul"] for case, r in results.items() if "error" not in r},
        "results": results,
        "tiny": options.tiny,
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "machine": {"cpus": os.cpu_count(), "system": platform.platform()},
    }
    print(json.dumps(result))


def show(results: dict[str, dict[str, Any]]) -> None:
    """Prints the results as a table."""
    table = Table("model, attention", "batch", "tokens/s", "of matmul", "peak GiB", "planned GiB")
    gib = lambda count: "?" if count is None else f"{count / 2**30:.2f}"
    for case, r in results.items():
        if "error" in r:
            table.add_row(case, "", r["error"])
            continue
        table.add_row(
            case,
            " x ".join(map(str, r["batch"])),
            f"{r['tokens_per_second']:,}",
            f"{r['of_matmul']:.1%}",
            gib(r["peak_bytes"]),
            gib(r["planned_bytes"]),
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
