"""Options of XLA for accelerators, which have to be in the environment before JAX starts its backend."""

from __future__ import annotations

import importlib.util
import mmap
import os
import pathlib
import re
from collections.abc import Mapping, MutableMapping, Sequence

import jax
from jax._src import xla_bridge

from jaxlm.config import RunConfig

# After MaxText's scripts for H100s (configs/a3) and JAX-Toolbox's GPU_performance.md: collectives run beside matrix
# products, and few large ones instead of many small ones.
_GPU = {
    "xla_gpu_enable_latency_hiding_scheduler": "true",
    "xla_gpu_all_reduce_combine_threshold_bytes": "1073741824",
    "xla_gpu_all_gather_combine_threshold_bytes": "1073741824",
    "xla_gpu_reduce_scatter_combine_threshold_bytes": "134217728",
    "xla_gpu_enable_pipelined_all_gather": "true",
    "xla_gpu_enable_pipelined_reduce_scatter": "true",
    "xla_gpu_enable_pipelined_all_reduce": "true",
    "xla_gpu_enable_while_loop_double_buffering": "true",
    "xla_gpu_enable_all_gather_combine_by_dim": "false",
    "xla_gpu_enable_reduce_scatter_combine_by_dim": "false",
    # command buffers that hold collectives can hang (marin#5675)
    "xla_gpu_enable_command_buffer": "",
}
# collective matrix products: the parts of a product over the axis `tensor` are sent while others are computed
_GPU_TENSOR = {
    "xla_gpu_threshold_for_windowed_einsum_mib": "0",
    "xla_gpu_multi_streamed_windowed_einsum": "true",
}
# MaxText's configs/v5p/llama2_70b.sh
_TPU = {
    "xla_tpu_enable_async_collective_fusion": "true",
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather": "true",
    "xla_tpu_enable_async_collective_fusion_multiple_steps": "true",
    "xla_tpu_megacore_fusion_allow_ags": "false",
    "xla_enable_async_collective_permute": "true",
    "xla_enable_async_all_gather": "true",
    "xla_tpu_enable_ag_backward_pipelining": "true",
    "xla_tpu_enable_data_parallel_all_reduce_opt": "true",
    "xla_tpu_data_parallel_opt_different_sized_ops": "true",
    "xla_tpu_overlap_compute_collective_tc": "true",
}

# set where the options have been added
_DONE = "JAXLM_COMPUTE_FLAGS"


def apply(config: RunConfig) -> str | None:
    """With `compute.flags` auto: sets the options for the accelerator of this machine; returns a line about it.

    Options that the environment sets already keep their values, and those that the installed XLA does not know are
    left out, because it would end the process.
    """
    if config.compute.flags == "none":
        return None
    if os.environ.get(_DONE) == "1":
        # by an earlier run in this process, or by the process that started this one
        return None
    if xla_bridge.backends_are_initialized():
        return "compute.flags=auto has no effect: JAX has started its backend before the run"
    kind = accelerator()
    if kind is None:
        return "compute.flags=auto has no effect: there is no GPU and no TPU here"
    name = "XLA_FLAGS" if kind == "gpu" else "LIBTPU_INIT_ARGS"
    wanted = recommended(kind, config.mesh.tensor != 1, _is_alone(config, kind))
    known = _known(wanted, _libraries(kind))
    added = add(os.environ, name, {flag: wanted[flag] for flag in known})
    os.environ[_DONE] = "1"
    line = f"compute.flags=auto: {len(added)} options in {name}"
    if own := [flag for flag in known if flag not in added]:
        line += f"; {', '.join(own)} as the environment has them"
    if unknown := [flag for flag in wanted if flag not in known]:
        line += f"; not known to this XLA: {', '.join(unknown)}"
    return line


def recommended(kind: str, splits_products: bool, is_alone: bool) -> dict[str, str]:
    """The options and their values.

    Args:
        kind: `gpu` or `tpu`.
        splits_products: whether the mesh has an axis `tensor`.
        is_alone: whether the run has a single device, which keeps XLA's own command buffers.
    """
    if kind == "tpu":
        return dict(_TPU)
    flags = _GPU | (_GPU_TENSOR if splits_products else {})
    if is_alone:
        del flags["xla_gpu_enable_command_buffer"]
    return flags


def add(environment: MutableMapping[str, str], name: str, flags: Mapping[str, str]) -> list[str]:
    """Adds options to a variable of the environment unless it has them already; returns those that were added."""
    present = environment.get(name, "")
    given = set(re.findall(r"--?(\w+)", present))
    added = [flag for flag in flags if flag not in given]
    words = [present] if present else []
    environment[name] = " ".join(words + [f"--{flag}={flags[flag]}" for flag in added])
    return added


def accelerator() -> str | None:
    """`gpu` or `tpu` if JAX will use one, without starting its backend."""
    wanted = (jax.config.jax_platforms or "").split(",")[0]  # type: ignore[attr-defined]
    if wanted:
        return {"cuda": "gpu", "gpu": "gpu", "tpu": "tpu"}.get(wanted)
    has = lambda module: importlib.util.find_spec(module) is not None
    if pathlib.Path("/dev/nvidia0").exists() and any(has(f"jax_cuda{n}_plugin") for n in (12, 13)):
        return "gpu"
    chips = [*pathlib.Path("/dev").glob("accel[0-9]*"), *pathlib.Path("/dev/vfio").glob("[0-9]*")]
    return "tpu" if chips and has("libtpu") else None


def _is_alone(config: RunConfig, kind: str) -> bool:
    several = config.distributed.enable or config.distributed.coordinator is not None
    gpus = len([*pathlib.Path("/dev").glob("nvidia[0-9]*")])
    return kind == "gpu" and gpus < 2 and not several


def _libraries(kind: str) -> list[pathlib.Path]:
    """The libraries that read the options."""
    patterns = {
        "gpu": {
            "jaxlib": "libjax_common.so",
            "jax_plugins.xla_cuda12": "xla_cuda_plugin.so",
            "jax_plugins.xla_cuda13": "xla_cuda_plugin.so",
        },
        "tpu": {"libtpu": "libtpu.so"},
    }
    found = []
    for module, pattern in patterns[kind].items():
        try:
            spec = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            continue
        for folder in (spec.submodule_search_locations or []) if spec else []:
            found += sorted(pathlib.Path(folder).glob(pattern))
    return found


def _known(flags: Mapping[str, str], libraries: Sequence[pathlib.Path]) -> list[str]:
    """The options whose names are in all of these libraries."""
    known = list(flags)
    for path in libraries:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as m:
            known = [flag for flag in known if m.find(b"\0" + flag.encode() + b"\0") >= 0]
    return known
