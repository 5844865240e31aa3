"""Eight CPU devices for the tests of sharding, and one store of compiled programs for all processes of a session."""

import os
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)


def pytest_configure(config):
    """The tests compile many programs more than once; workers and the commands that they start share the results."""
    if hasattr(config, "workerinput"):
        return
    store = tempfile.TemporaryDirectory()
    config.add_cleanup(store.cleanup)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = store.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
