"""Model FLOPs utilization."""

import pytest

from jaxlm.report import flops


def test_mfu_is_a_fraction_of_the_peak_of_all_devices():
    assert flops.mfu(1e6, 6e8, 8, "TPU v5 lite") == pytest.approx(6e14 / (8 * 197e12))
    assert flops.mfu(None, 6e8, 8, "TPU v5 lite") is None
    assert flops.mfu(1e6, 6e8, 8, "cpu") is None
    assert flops.mfu(1e6, 6e8, 1, "NVIDIA A100-SXM4-40GB MIG 1g.5gb") is None
