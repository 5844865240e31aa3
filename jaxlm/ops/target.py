"""The platform that traced code is compiled for, and whether to use the implementations tuned for CPUs.

All platform checks of the package are here. `jax.default_backend()` alone is not enough: it is the platform of this
machine, but code may be compiled for another one, such as a TPU pod.
"""

from __future__ import annotations

import contextlib
from typing import Literal, get_args

import jax

Platform = Literal["cpu", "gpu", "tpu"]

# part of the cache key of jax.jit, so that no function traced for one platform is reused for another
_platform = jax.make_user_context(None)
_plain = jax.make_user_context(False)
_stand_ins = jax.make_user_context(False)


def platform() -> Platform:
    """The platform that the code being traced will run on.

    Checked in this order: `compile_for`, the devices of the current mesh (`jax.set_mesh`,
    `jax.sharding.use_abstract_mesh`), `jax.default_device`, the default backend.
    """
    name = _platform.value
    if name is None:
        default = jax.config.jax_default_device  # type: ignore[attr-defined]
        device = jax.sharding.get_abstract_mesh().abstract_device or default
        # jax.default_device takes a name as well
        name = getattr(device, "platform", device) or jax.default_backend()
    return "gpu" if name in ("cuda", "rocm") else name


def compile_for(platform: Platform) -> contextlib.AbstractContextManager:
    """A context in which code is traced for `platform`, regardless of the mesh and of this machine.

    Raises:
        ValueError: the platform is unknown.
    """
    if platform not in get_args(Platform):
        names = ", ".join(get_args(Platform))
        raise ValueError(f"compile_for: platform={platform!r} is unknown; use one of {names}")
    return _platform(platform)


def plain_formulas() -> contextlib.AbstractContextManager:
    """A context in which CPUs use the plain formulas too, which are slower but support all of JAX's differentiation.

    The implementations tuned for CPUs have gradients for reverse mode only: `jax.jvp`, `jax.jacfwd` and `jax.hessian`
    of a model on a CPU need this context. Other platforms always use the plain formulas.
    """
    return _plain(True)


def uses_cpu_ops() -> bool:
    """Whether to use `jaxlm.ops.cpu` in place of the plain formula."""
    return platform() == "cpu" and not _plain.value


def kernel_stand_ins() -> contextlib.AbstractContextManager:
    """A context in which cuDNN's kernels are replaced by operations that need the same memory and give wrong results.

    To see how much memory a program for GPUs needs on a machine without cuDNN, where it can be compiled and not run.
    """
    return _stand_ins(True)


def uses_kernel_stand_ins() -> bool:
    """Whether the code being traced is compiled for its memory alone, see `kernel_stand_ins`."""
    return bool(_stand_ins.value)
