"""Attention alone on a GPU: error against float32, and time of forward and backward pass, by implementation.

    python benchmarks/attention.py

Every implementation that jaxlm has for a GPU, with and without the segments of packed rows, and, for comparison, cuDNN
without segments and JAX's Pallas kernel for Triton. Errors are relative norms of output and gradients against the plain
implementation in float32 on the same bfloat16 inputs. The last line is JSON.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxlm.ops import attention, masks

# batch, positions, heads, key heads, head width: GPT-2, Llama 1B, BERT-base
SHAPES = {
    "gpt_124m": (16, 1024, 12, 12, 64),
    "llama_1b": (4, 2048, 32, 8, 64),
    "bert_base": (32, 512, 12, 12, 64),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the benchmark."""

    shapes: tuple[str, ...] = tuple(SHAPES)
    # measured repetitions
    repeats: int = 10
    # documents per row
    documents: int = 4


def inputs(shape, documents: int):
    """Random q, k, v, upstream gradient and segment_ids."""
    batch, length, heads, kv_heads, width = shape
    rng = np.random.default_rng(0)
    q, g = (rng.normal(size=(batch, length, heads, width)) for _ in range(2))
    k, v = (rng.normal(size=(batch, length, kv_heads, width)) for _ in range(2))
    starts = np.zeros((batch, length), np.int32)
    for row in starts:
        row[rng.choice(np.arange(1, length), documents - 1, replace=False)] = 1
    segments = jnp.asarray(np.cumsum(starts, axis=1) + 1, jnp.int32)
    return [jnp.asarray(x, jnp.bfloat16) for x in (q, k, v, g)], segments


def ours(implementation: str, causal: bool, segments):
    """`jaxlm.ops.attention.attend` with one implementation."""
    mask = masks.Mask(causal=causal, q_segment_ids=segments, kv_segment_ids=segments)
    return lambda q, k, v: attention.attend(q, k, v, mask, implementation=implementation)


def triton(causal: bool, segments):
    """JAX's own Pallas kernel; it needs as many key heads as query heads."""
    from jax.experimental.pallas.ops.gpu import attention as pallas

    def attend(q, k, v):
        k, v = (jnp.repeat(x, q.shape[2] // x.shape[2], axis=2) for x in (k, v))
        return pallas.mha(q, k, v, segments, sm_scale=q.shape[-1] ** -0.5, causal=causal)

    return attend


def both_passes(attend):
    """Output and gradients, jitted."""

    @jax.jit
    def run(q, k, v, g):
        out, back = jax.vjp(attend, q, k, v)
        return out, *back(g.astype(out.dtype))

    return run


def milliseconds(run, arguments, repeats: int) -> float:
    """Median over groups of ten calls."""
    jax.block_until_ready(run(*arguments))
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(10):
            out = run(*arguments)
        jax.block_until_ready(out)
        times.append((time.perf_counter() - began) / 10)
    return 1e3 * statistics.median(times)


def main(options: Options) -> None:
    """Measures and prints."""
    results = {}
    for name in options.shapes:
        arguments, segments = inputs(SHAPES[name], options.documents)
        causal = name != "bert_base"
        cases = {
            "xla, segments": (ours("xla", causal, segments), segments),
            "cudnn, segments": (ours("cudnn", causal, segments), segments),
            "triton, segments": (triton(causal, segments), segments),
            "xla": (ours("xla", causal, None), None),
            "cudnn": (ours("cudnn", causal, None), None),
            "triton": (triton(causal, None), None),
        }
        exact = {}
        for case, (attend, given) in cases.items():
            try:
                if (given is None) not in exact:
                    wide = [x.astype(jnp.float32) for x in arguments]
                    with jax.default_matmul_precision("highest"):
                        exact[given is None] = both_passes(ours("xla", causal, given))(*wide)
                run = both_passes(attend)
                got = run(*arguments)
                norm = lambda x: float(jnp.linalg.norm(x.astype(jnp.float32).ravel()))
                errors = [norm(a - b) / norm(b) for a, b in zip(got, exact[given is None])]
                result = {
                    "ms": round(milliseconds(run, arguments, options.repeats), 3),
                    "errors": [round(x, 5) for x in errors],
                }
            except Exception as error:  # kernels and runtimes raise various types
                result = {"error": str(error).splitlines()[0][:160]}
            results[f"{name}, {case}"] = result
            print(f"{name}, {case}: {result}", flush=True)
    packages = ("jax", "jaxlib")
    about = {"device": jax.devices()[0].device_kind} | {p: version(p) for p in packages}
    print(json.dumps({"benchmark": "attention", "results": results, "about": about}))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
