"""The linear layer against the sum that it stands for."""

import jax
import numpy as np
import pytest

from jaxlm.ops.linear import linear


@pytest.mark.parametrize(
    ("shape", "kernel_shape", "dims", "sum_over"),
    [
        ((2, 3, 4), (4, 5), 1, "abd,df->abf"),
        ((2, 3, 4), (4, 2, 5), 1, "abd,dnh->abnh"),
        ((2, 3, 4, 5), (4, 5, 6), 2, "abnh,nhd->abd"),
    ],
)
def test_it_is_the_sum_over_the_dims_in_common(shape, kernel_shape, dims, sum_over):
    x, kernel, bias = (
        np.random.default_rng(i).normal(size=s).astype(np.float32)
        for i, s in enumerate([shape, kernel_shape, kernel_shape[dims:]])
    )
    want = np.einsum(sum_over, x, kernel)
    np.testing.assert_allclose(linear(x, kernel, dims=dims), want, atol=1e-5)
    np.testing.assert_allclose(linear(x, kernel, bias, dims=dims), want + bias, atol=1e-5)


def test_it_computes_in_the_dtype_of_its_input():
    x = jax.numpy.ones((2, 4), jax.numpy.bfloat16)
    assert linear(x, np.ones((4, 3), np.float32), np.ones(3, np.float32)).dtype == x.dtype
