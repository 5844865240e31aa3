"""Topologies: names, their shapes, and compilers that are not installed."""

import pytest

from jaxlm.plan import topology
from jaxlm.plan.chips import CHIPS, usable_memory


@pytest.mark.parametrize(
    ("name", "platform", "size", "per_node"),
    [
        ("v5p:4x4x4", "tpu", 64, 64),
        ("v5e:4x8", "tpu", 32, 32),
        ("h100:8", "gpu", 8, 8),
        ("h200:2x8", "gpu", 16, 8),
        ("h200:512x8", "gpu", 4096, 8),
        ("v5p:28x20x16", "tpu", 8960, 8960),
        ("cpu:8", "cpu", 8, 8),
    ],
)
def test_names_are_read(name, platform, size, per_node):
    place = topology.parse(name)
    assert (place.platform, place.size, place.per_node) == (platform, size, per_node)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v9:2x2", "unknown; use one such as v5p:4x4x4"),
        ("v5p", "needs a shape"),
        ("v5p:4x0x4", "needs a shape"),
        ("v5p:4x4", "v5p has 3 dimension"),
        ("h100:2x2x8", "h100 has 1 or 2 dimension"),
        # a compiler would take some of these, and end the process for others
        ("v5e:32x32", "the largest slice is v5e:16x16"),
        ("v6e:32x8", "the largest slice is v6e:16x16"),
        ("v5p:4x4x32", "the largest slice is v5p:16x20x28"),
        ("h100:16", "a node has at most 8 GPUs: say nodes x GPUs, as in h100:2x8"),
        ("h200:1x9999", "a node has at most 8 GPUs"),
        ("cpu:2049", "JAX simulates at most 2048 devices"),
    ],
)
def test_other_names_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        topology.parse(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5e:2x2", "needs the package libtpu: pip install libtpu"),
        (
            "h100:8",
            "needs jax-cuda13-plugin, jax-cuda13-pjrt, nvidia-cuda-nvcc: pip install jax-cuda13-plugin",
        ),
    ],
)
def test_a_compiler_that_is_not_installed_is_named(monkeypatch, name, message):
    monkeypatch.setattr(topology.importlib.util, "find_spec", lambda module: None)
    with pytest.raises(ValueError, match=message):
        topology.parse(name).devices()


def test_more_cpus_than_are_simulated_are_refused():
    assert len(topology.parse("cpu:8").devices()) == 8
    with pytest.raises(ValueError, match="simulates 8 CPU device"):
        topology.parse("cpu:16").devices()


def test_the_memory_of_a_gpu_is_the_part_that_jax_reserves(monkeypatch):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    assert usable_memory(CHIPS["h100"]) == pytest.approx(0.75 * CHIPS["h100"].memory)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")
    assert usable_memory(CHIPS["h100"]) == pytest.approx(0.9 * CHIPS["h100"].memory)
    assert usable_memory(CHIPS["v5p"]) == CHIPS["v5p"].memory


@pytest.mark.parametrize("fraction", ["", "most", "nan", "0", "90"])
def test_a_part_of_a_gpu_that_is_none_is_refused(monkeypatch, fraction):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", fraction)
    message = f"XLA_PYTHON_CLIENT_MEM_FRACTION={fraction}: must be more than 0 and at most 1"
    with pytest.raises(ValueError, match=message):
        usable_memory(CHIPS["h100"])


def test_every_chip_with_speeds_has_a_peak_and_a_source():
    for name, chip in CHIPS.items():
        if name != "cpu":
            assert chip.flops and chip.bandwidth and chip.link
            assert chip.source.startswith("https://")
            assert 0 < chip.efficiency < 1 and chip.reached
