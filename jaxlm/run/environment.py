"""The versions and devices that `jaxlm env` prints, for bug reports."""

from __future__ import annotations

import importlib.metadata
import platform

import jax

_NEEDED = (
    "jaxlm",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "tokenizers",
    "datasets",
    "safetensors",
    "numpy",
    "tyro",
)
# optional package -> what it is needed for
_OPTIONAL = {
    "libtpu": "TPUs, and compiling for them: pip install 'jaxlm[tpu]'",
    "jax-cuda13-plugin": "NVIDIA GPUs: pip install 'jaxlm[cuda]'",
    "dp-accounting": "private training: pip install 'jaxlm[privacy]'",
    "uvicorn": "the server: pip install 'jaxlm[serve]'",
    "pytest": "the tests: pip install 'jaxlm[test]'",
    "transformers": "benchmarks against PyTorch: pip install 'jaxlm[bench]'",
}


def describe() -> str:
    """Versions, devices and missing optional packages, as text."""
    lines = [f"python              {platform.python_version()} on {platform.platform()}"]
    lines += [f"{name:<19} {_version(name) or 'MISSING'}" for name in _NEEDED]
    lines.append(f"backend             {jax.default_backend()}")
    for device in jax.local_devices():
        stats = device.memory_stats() or {}
        memory = stats.get("bytes_limit")
        size = f", {memory / 2**30:.1f} GiB" if memory else ""
        lines.append(f"device {device.id:<12} {device.device_kind}{size}")
    lines.append(f"processes           {jax.process_count()}")
    for name, use in _OPTIONAL.items():
        version = _version(name)
        lines.append(f"{name:<19} {version or f'not installed; needed for {use}'}")
    return "\n".join(lines)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
