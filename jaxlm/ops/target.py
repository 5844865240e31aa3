"""The platform that traced code is compiled for, and whether it gets the implementations tuned for CPUs.

This is the one place where the package asks for the platform. `jax.default_backend()` alone is the wrong question: it
names the platform of this machine, and a step may be compiled here for a TPU pod that this machine has not.
"""

from __future__ import annotations

import contextlib
from typing import Literal, get_args

import jax

Platform = Literal["cpu", "gpu", "tpu"]

# part of the cache key of jax.jit, so that no function traced for one platform is reused for another
_platform = jax.make_user_context(None)
_plain = jax.make_user_context(False)


def platform() -> Platform:
    """The platform that the code being traced will run on.

    In this order: what `compile_for` says, the devices of the current mesh (`jax.set_mesh`,
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
    """A context in which code is traced for a platform other than the mesh's or this machine's.

    Raises:
        ValueError: no such platform.
    """
    if platform not in get_args(Platform):
        names = ", ".join(get_args(Platform))
        raise ValueError(f"compile_for: platform={platform!r} is unknown; use one of {names}")
    return _platform(platform)


def plain_formulas() -> contextlib.AbstractContextManager:
    """A context in which CPUs get the plain formulas too: slower, but JAX can differentiate them in every way.

    What is tuned for CPUs has gradients written by hand for reverse mode: `jax.jvp`, `jax.jacfwd` and `jax.hessian` of
    a model on a CPU need this context. Other platforms have the plain formulas always.
    """
    return _plain(True)


def uses_cpu_ops() -> bool:
    """Whether to use `jaxlm.ops.cpu` in place of the plain formula."""
    return platform() == "cpu" and not _plain.value
