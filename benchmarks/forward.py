"""Forward pass and model loading of jaxlm and of transformers, on the same CPU in one run.

    python benchmarks/forward.py                        both cases, and loading a model of 124 million parameters
    python benchmarks/forward.py --case bert_mini --no-imports

Needs `pip install -e .[bench]`. Random weights are written once by `jaxlm.hf.export` and loaded by both sides, so the
logits must agree: the benchmark stops if they do not. Float32, the same number of threads, each side in a separate
process; in a round each side runs some passes while the other sleeps, and the ratio is the median over rounds.
PyTorch runs under inference_mode with each of --torch; the fastest is compared.

Loading is measured in new processes with the file in the page cache: seconds from the call of `load` until the
parameters are on the device, and the peak resident memory of the process minus that before loading, relative to the
size of the file. The last line is JSON.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import pathlib
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import tyro


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, given by a preset and changes to it, and the shape of its batch."""

    preset: str
    batch_size: int
    length: int
    # passes per side and round
    passes: int
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)


TINY = dict(dim=32, num_layers=2, num_heads=2, mlp_dim=64, vocab_size=128, max_len=64)
CASES = {
    "bert_mini": Case("bert-mini", 16, 128, 10),
    "gpt2_small": Case("gpt2", 4, 128, 1),
    "tiny": Case("gpt2", 2, 16, 5, TINY),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the benchmark."""

    # tiny: to test the benchmark
    case: Literal["all", "bert_mini", "gpt2_small", "tiny"] = "all"
    rounds: int = 9
    threads: int = 2
    # ways to run the PyTorch model; compiled is sdpa under torch.compile and needs a C++ compiler
    torch: tuple[Literal["eager", "sdpa", "compiled"], ...] = ("eager", "sdpa")
    # also measure loading
    imports: bool = True


def tokens_of(case: Case, vocab_size: int) -> np.ndarray:
    """Random tokens [B, T]."""
    shape = (case.batch_size, case.length)
    return np.random.default_rng(0).integers(0, vocab_size, shape, dtype=np.int32)


def write_model(connection, case: Case, folder: str) -> None:
    """Writes random weights of the case as a Hugging Face folder; sends the number of parameters."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax

    from jaxlm.config import DecoderConfig
    from jaxlm.hf import export
    from jaxlm.models import heads
    from jaxlm.models.presets import PRESETS

    config: Any = dataclasses.replace(PRESETS[case.preset], **case.changes)
    kind = heads.CausalLM if isinstance(config, DecoderConfig) else heads.MaskedLM
    model = kind(config)
    params = jax.jit(lambda key: heads.init_params(model, key))(jax.random.key(0))
    export.save(folder, model, params)
    connection.send(sum(x.size for x in jax.tree.leaves(params)))


def jax_pass(folder: str, tokens: np.ndarray) -> Callable[[], np.ndarray]:
    """A forward pass of jaxlm."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    from jaxlm import hf

    loaded = hf.load(folder)
    return lambda: np.asarray(loaded(tokens))


def torch_pass(
    folder: str, tokens: np.ndarray, variant: str, threads: int
) -> Callable[[], np.ndarray]:
    """A forward pass of transformers."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(threads)
    attention = "eager" if variant == "eager" else "sdpa"
    model = torch_model(folder, attn_implementation=attention)
    forward = torch.compile(model) if variant == "compiled" else model
    ids = torch.from_numpy(tokens.astype(np.int64))
    mask = torch.ones_like(ids)

    def run() -> np.ndarray:
        with torch.inference_mode():
            return forward(input_ids=ids, attention_mask=mask, **extra(model)).logits.numpy()

    return run


def extra(model) -> dict[str, Any]:
    """Arguments with which a decoder does no additional work."""
    return {"use_cache": False} if hasattr(model, "lm_head") else {}


def torch_model(folder: str, **options):
    """The model of the class that config.json names."""
    import transformers

    name = json.loads((pathlib.Path(folder) / "config.json").read_text())["architectures"][0]
    return getattr(transformers, name).from_pretrained(folder, **options).eval()


def side(connection, folder: str, tokens: np.ndarray, name: str, threads: int) -> None:
    """Runs in a new process: sends its logits, then runs the requested numbers of passes and sends the seconds."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    framework, _, variant = name.partition(", ")
    if framework == "jaxlm":
        run = jax_pass(folder, tokens)
    else:
        run = torch_pass(folder, tokens, variant, threads)
    logits = [run() for _ in range(3)][-1]
    connection.send(logits[:, -1])
    while count := connection.recv():
        start = time.perf_counter()
        for _ in range(count):
            run()
        connection.send(time.perf_counter() - start)


def measure(case: Case, folder: str, vocab_size: int, options: Options) -> dict[str, list[float]]:
    """Tokens per second of each side, one value per round."""
    names = ["jaxlm", *(f"torch, {variant}" for variant in options.torch)]
    tokens = tokens_of(case, vocab_size)
    context = multiprocessing.get_context("spawn")
    pipes, processes, logits = {}, [], {}
    for name in names:
        pipes[name], child_end = context.Pipe()
        arguments = (child_end, folder, tokens, name, options.threads)
        processes.append(context.Process(target=side, args=arguments, daemon=True))
        processes[-1].start()
        child_end.close()
        logits[name] = pipes[name].recv()
        difference = float(np.abs(logits[name] - logits["jaxlm"]).max())
        print(f"  {name}: logits differ from ours by at most {difference:.1e}", flush=True)
        if difference > 1e-3:
            raise SystemExit(f"{name} computes something else")
    speeds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(options.rounds):
        # every other round in reverse order, so that none is always first
        for name in names[:: -1 if turn % 2 else 1]:
            time.sleep(0.3)  # spinning worker threads go to sleep
            pipes[name].send(case.passes)
            seconds = pipes[name].recv()
            speeds[name].append(case.passes * tokens.size / seconds)
    for name in names:
        pipes[name].send(0)
    for process in processes:
        process.join()
    return speeds


def import_side(connection, folder: str, framework: str) -> None:
    """Runs in a new process: sends the seconds of loading a model, and the increase of memory."""
    if framework == "jaxlm":
        os.environ["JAX_PLATFORMS"] = "cpu"
        import jax
        import jax.numpy as jnp

        from jaxlm import hf

        jnp.zeros(1).block_until_ready()
        load = lambda: jax.block_until_ready(hf.load(folder).params)
    else:
        import torch
        import transformers

        transformers.logging.set_verbosity_error()
        # transformers imports modules lazily
        name = json.loads((pathlib.Path(folder) / "config.json").read_text())["architectures"][0]
        getattr(transformers, name)
        torch.zeros(1)
        load = lambda: torch_model(folder)
    before = resident()
    start = time.perf_counter()
    kept = load()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    connection.send((seconds, peak - before))
    del kept


def resident() -> int:
    """Resident memory of this process in bytes."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def measure_import(folder: str, rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds, and the increase of memory relative to the file size, of both sides in turn."""
    path = pathlib.Path(folder) / "model.safetensors"
    path.read_bytes()  # into the page cache
    size = path.stat().st_size
    context = multiprocessing.get_context("spawn")
    measured: dict[str, list[tuple[float, int]]] = {"jaxlm": [], "torch": []}
    for _ in range(rounds):
        for framework, values in measured.items():
            parent_end, child_end = context.Pipe()
            process = context.Process(target=import_side, args=(child_end, folder, framework))
            process.start()
            child_end.close()
            values.append(parent_end.recv())
            process.join()
    result = {}
    for framework, values in measured.items():
        seconds = statistics.median(x for x, _ in values)
        memory = statistics.median(x for _, x in values) / size
        result[framework] = {"seconds": round(seconds, 3), "memory_of_file": round(memory, 3)}
        print(f"  loading, {framework}: {seconds:.2f} s, {memory:.2f} x the file", flush=True)
    return result


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Median over rounds of ours / theirs."""
    return statistics.median(a / b for a, b in zip(ours, theirs))


def vocab_size_of(folder: str) -> int:
    """vocab_size of config.json."""
    return json.loads((pathlib.Path(folder) / "config.json").read_text())["vocab_size"]


def main(options: Options) -> None:
    """Measures, then prints a table per case and the JSON line."""
    chosen = ["bert_mini", "gpt2_small"] if options.case == "all" else [options.case]
    ratios, tokens_per_second, imports = {}, {}, {}
    with tempfile.TemporaryDirectory() as root:
        context = multiprocessing.get_context("spawn")
        folders = {}
        imported = "tiny" if options.case == "tiny" else "gpt2_small"
        needed = [*chosen, imported] if options.imports else chosen
        for label in dict.fromkeys(needed):
            folders[label] = f"{root}/{label}"
            parent_end, child_end = context.Pipe()
            process = context.Process(
                target=write_model, args=(child_end, CASES[label], folders[label])
            )
            process.start()
            print(f"{label}: {CASES[label]}, {parent_end.recv():,} parameters", flush=True)
            process.join()
        for label in chosen:
            print(label, flush=True)
            folder = folders[label]
            speeds = measure(CASES[label], folder, vocab_size_of(folder), options)
            medians = {name: statistics.median(x) for name, x in speeds.items()}
            best = max((name for name in medians if name != "jaxlm"), key=medians.__getitem__)
            for name, values in speeds.items():
                against = ratio(values, speeds[best])
                print(
                    f"  {name:14s} {medians[name]:9.0f} tokens/s ({min(values):.0f} to "
                    f"{max(values):.0f}), {against:.2f} x {best}",
                    flush=True,
                )
            tokens_per_second[label] = {name: round(x) for name, x in medians.items()}
            ratios[label] = round(ratio(speeds["jaxlm"], speeds[best]), 3)
        if options.imports:
            imports = measure_import(folders[imported], min(options.rounds, 5))
    packages = ("jax", "jaxlib", "flax", "torch", "transformers")
    result = {
        "benchmark": "forward",
        "ratio": ratios,
        "tokens_per_second": tokens_per_second,
        "import": imports,
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "threads": options.threads,
        "rounds": options.rounds,
        "machine": {"cpus": os.cpu_count(), "system": platform.platform()},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
