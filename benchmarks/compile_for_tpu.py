"""A training step compiled for TPU pods on a machine without one, beside MaxText's, for cost and memory on paper.

    pip install libtpu && python benchmarks/compile_for_tpu.py                 # every row: an hour on 2 idle cores
    python benchmarks/compile_for_tpu.py --rows llama_2_7b_2                   # one row
    python benchmarks/compile_for_tpu.py --rows llama_2_7b_2 --text hlo.txt    # and the compiled program

libtpu compiles for a topology of chips that are not there and says what it planned: its own estimate of the time
(without the Pallas kernels of attention, on both sides), bytes of memory, bytes read and written. It counts the body of
a loop once. Layers are therefore unrolled here, as in MaxText's figures, and XLA does not cut products with gathered
weights into loops ("windowed einsum"); for time and bytes read and written the loss has one chunk of positions, and its
blocks of a large vocabulary are unrolled; for memory both are as in a run. `flops` of the program must then be those
on paper without attention's scores; the ratio is printed. Unrolled blocks share products that a run computes twice: a
third more for the logits. MaxText's figures were recorded with the same jaxlib, libtpu, topology and flag (`RECORDED`).
The last line is JSON.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import time
import unittest.mock
from importlib.metadata import version
from typing import Any, Literal, get_args

os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    # no lock file: nothing here touches a chip
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}

import jax
import numpy as np
import tyro
from jax.experimental import topologies
from our_step import lower_step
from rich.console import Console
from rich.table import Table

from jaxlm import sharding
from jaxlm.config import (
    ComputeConfig,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    MeshConfig,
    ModelConfig,
    llama_style,
    t5_style,
)
from jaxlm.models.flops import flops_per_token
from jaxlm.ops import losses

Row = Literal[
    "llama_2_7b_4", "llama_2_7b_2", "llama_2_7b_tensor", "llama_3_8b", "bert_base", "t5_base"
]
Remat = Literal["none", "minimal", "dots", "offload", "attention", "full"]

# MaxText 0.2.5, jax and jaxlib 0.12.0.1, libtpu 0.0.52, Python 3.12.1:
# python -m maxtext.trainers.pre_train.train_compile base.yml model_name=llama2-7b override_model_config=true
#   base_num_decoder_layers=4 scan_layers=false compile_topology=v5p-64 compile_topology_num_slices=1
#   per_device_batch_size=4 max_target_length=4096 ici_fsdp_parallelism=-1 remat_policy=minimal
#   enable_checkpointing=false compile_xla_flags="--xla_jf_spmd_threshold_for_windowed_einsum_mib=1000000"
RECORDED: dict[str, dict[str, float]] = {
    "llama_2_7b_4": dict(optimal_ms=254.73, temporaries_gb=8.340, accessed_gb=102.76),
    # bytes accessed: from those of 1 and 4 layers
    "llama_2_7b_2": dict(optimal_ms=145.68, temporaries_gb=5.55, accessed_gb=58.2),
    # base_num_decoder_layers=1 ici_fsdp_parallelism=8 ici_tensor_parallelism=4
    "llama_2_7b_tensor": dict(optimal_ms=98.66, temporaries_gb=4.655, accessed_gb=61.92),
    # model_name=llama3-8b base_num_decoder_layers=2
    "llama_3_8b": dict(optimal_ms=257.49, temporaries_gb=12.783, accessed_gb=85.62),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A model, and the rows of a device."""

    model: ModelConfig
    rows: int
    length: int
    remat: Remat
    tensor: int = 1
    # MaxText splits activations between layers along `tensor`, by their width
    sequence_parallel: bool = False
    # predicted positions; 0: all
    predicted: int = 0


def llama(layers: int, **sizes: Any) -> DecoderConfig:
    """The shape of Llama 2 7B with some of its layers, or with other sizes."""
    own = dict(vocab_size=32_000, dim=4096, num_heads=32, mlp_dim=11_008, max_len=4096)
    return DecoderConfig(**llama_style() | own | sizes, num_layers=layers)


# two layers (four, one) of each model are enough to see what another one costs
CASES: dict[Row, Case] = {
    "llama_2_7b_4": Case(model=llama(4), rows=4, length=4096, remat="dots"),
    "llama_2_7b_2": Case(model=llama(2), rows=4, length=4096, remat="dots"),
    "llama_2_7b_tensor": Case(
        model=llama(1), rows=4, length=4096, remat="dots", tensor=4, sequence_parallel=True
    ),
    "llama_3_8b": Case(
        model=llama(2, vocab_size=128_256, num_kv_heads=8, mlp_dim=14_336, rope_theta=5e5),
        rows=4,
        length=4096,
        remat="dots",
    ),
    "bert_base": Case(
        model=EncoderConfig(
            vocab_size=30_528, dim=768, num_layers=2, num_heads=12, attention_dropout=0.0
        ),
        rows=32,
        length=512,
        remat="none",
        predicted=77,
    ),
    "t5_base": Case(
        model=EncoderDecoderConfig(
            **t5_style(),
            vocab_size=32_128,
            dim=768,
            num_layers=2,
            num_heads=12,
            head_dim=64,
            mlp_dim=2048,
            dropout=0.0,
        ),
        rows=16,
        length=512,
        remat="none",
        predicted=128,
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the benchmark."""

    rows: tuple[Row, ...] = get_args(Row)
    topology: str = "v5p:4x4x2"
    # layers of each stack; 0: those of the row
    layers: int = 0
    # auto: that of the row
    remat: Literal["auto", Remat] = "auto"
    # file for the text of the compiled program of the last row
    text: str = ""


def measure(options: Options, name: Row) -> dict[str, Any]:
    """What the compiler plans for a row, of one device."""
    case = CASES[name]
    model = case.model
    if options.layers:
        model = dataclasses.replace(model, num_layers=options.layers)
    remat = case.remat if options.remat == "auto" else options.remat
    chips = topologies.get_topology_desc(platform="tpu", topology_name=options.topology).devices
    mesh = sharding.make_mesh(MeshConfig(data=1, fsdp=-1, tensor=case.tensor), list(chips))
    batch = batch_of(case, model, len(chips))
    compute = ComputeConfig(
        dtype="bfloat16", remat=remat, unroll=1000, sequence_parallel=case.sequence_parallel
    )

    def compiled() -> jax.stages.Compiled:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            lowered = lower_step(model, batch, compute=compute, mesh=mesh).lowered
        return lowered.compile(
            compiler_options={"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}
        )

    began = time.perf_counter()
    as_run = compiled()
    memory = as_run.memory_analysis()
    unrolled = functools.partial(jax.lax.scan, unroll=True)
    with (
        unittest.mock.patch.dict(losses.MAX_LOGITS, tpu=2**62),
        unittest.mock.patch.object(jax.lax, "scan", unrolled),
    ):
        cost = compiled().cost_analysis()
    if options.text:
        pathlib.Path(options.text).write_text(as_run.as_text())
    tokens, targets = batch["tokens"], batch["targets"]
    per_token = flops_per_token(model, case.length, output_fraction=targets.size / tokens.size)
    row = {
        "row": name,
        "layers": model.num_layers,
        "remat": remat,
        "mesh": dict(mesh.shape),
        "optimal_ms": round(cost["optimal_seconds"] * 1e3, 2),
        "temporaries_gb": round(memory.temp_size_in_bytes / 1e9, 3),
        "accessed_gb": round(cost["bytes accessed"] / 1e9, 2),
        "arguments_gb": round(memory.argument_size_in_bytes / 1e9, 3),
        "flops": cost["flops"],
        "flops_of_paper": round(cost["flops"] * len(chips) / (per_token * tokens.size), 4),
        "compile_seconds": round(time.perf_counter() - began, 1),
    }
    if name in RECORDED and not options.layers:
        row["of_maxtext"] = {k: round(row[k] / v, 3) for k, v in RECORDED[name].items()}
    return row


def batch_of(case: Case, model: ModelConfig, devices: int) -> dict[str, np.ndarray]:
    """A batch of which only shapes and dtypes matter."""
    rows = case.rows * devices
    shape = (rows, case.predicted or case.length)
    batch = {
        "tokens": np.zeros((rows, case.length), np.int32),
        "targets": np.zeros(shape, np.int32),
        "weights": np.ones(shape, np.float32),
    }
    # the positions that an encoder predicts, or the tokens of a decoder
    names = {EncoderConfig: "at", EncoderDecoderConfig: "decoder_tokens"}
    if type(model) in names:
        batch[names[type(model)]] = np.zeros(shape, np.int32)
    return batch


def main(options: Options):
    """Prints a table and one line of JSON."""
    rows = []
    for name in options.rows:
        rows.append(measure(options, name))
        print(json.dumps(rows[-1]), flush=True)
    columns = ("optimal_ms", "temporaries_gb", "accessed_gb")
    table = Table("", *(f"{name} (of MaxText's)" for name in columns), "flops of paper")
    for row in rows:
        ratios = row.get("of_maxtext", {})
        cells = [f"{row[c]} ({ratios[c]})" if c in ratios else f"{row[c]}" for c in columns]
        table.add_row(row["row"], *cells, str(row["flops_of_paper"]))
    Console().print(table)
    versions = {p: version(p) for p in ("jax", "jaxlib", "libtpu", "flax")}
    print(json.dumps({"topology": options.topology, "rows": rows, **versions}))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
