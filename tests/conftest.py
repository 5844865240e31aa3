"""Eight CPU devices for tests of sharding, and a compilation cache shared by all processes of a session."""

import gc
import os
import pathlib
import tempfile
from importlib import metadata

import pytest

os.environ["JAX_PLATFORMS"] = "cpu"
flags = [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8"]
# Tiny programs compile for longer than they run. The passes of XLA are as ever, only LLVM leaves the loops as they are:
# that takes a quarter of the time. With JAX_DISABLE_MOST_OPTIMIZATIONS=0 the tests run what users run.
quick = os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") == "1"
if quick and metadata.version("jaxlib").startswith("0.10."):
    # the older way to write a fusion as LLVM code takes half of what is left; later versions have only the newer one
    flags.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join(flags)


def pytest_configure(config):
    """Compiled programs are shared between tests, workers and the commands that they start."""
    if hasattr(config, "workerinput"):
        return
    store = tempfile.TemporaryDirectory()
    config.add_cleanup(store.cleanup)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = store.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"


# mappings of memory of a process, half of what Linux allows: at its limit XLA crashes
_MOST_MAPPINGS = 30_000


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Forgets compiled programs, of which each has about ten mappings, before a worker has too many of them."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > _MOST_MAPPINGS:
        import jax

        jax.clear_caches()
        gc.collect()


# styles of models that many tests are made with and that compile longest
_RARE_STYLES = ("olmo", "bloom", "deberta", "albert", "mpnet", "gptj", "umt5")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Puts tests of runs first, so that no worker is idle at the end while another starts a long one.

    Tests of some styles are slow only because they are many.
    """
    for item in items:
        if item.path.parent.name in ("nn", "models") and any(
            x in item.name.partition("[")[2] for x in _RARE_STYLES
        ):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: item.path.parent.name != "training")
