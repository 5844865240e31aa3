"""Eight CPU devices for the tests of sharding, and what keeps compiling short in all processes of a session."""

import os
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
# Tiny programs compile for longer than they run. XLA works as ever, only LLVM leaves the loops as they are: that takes
# a quarter of the time. With JAX_DISABLE_MOST_OPTIMIZATIONS=0 the tests run what users run.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")


def pytest_configure(config):
    """The tests compile many programs more than once; workers and the commands that they start share the results."""
    if hasattr(config, "workerinput"):
        return
    store = tempfile.TemporaryDirectory()
    config.add_cleanup(store.cleanup)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = store.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"


def pytest_collection_modifyitems(items):
    """Runs come first: a worker that starts with one at the end leaves the other idle."""
    items.sort(key=lambda item: item.path.parent.name != "training")
