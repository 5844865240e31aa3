"""The linear layer against einsum."""

import jax
import numpy as np
import pytest

from jaxlm.ops.linear import linear

pytestmark = pytest.mark.usefixtures("formulas")


@pytest.mark.parametrize(
    ("shape", "kernel_shape", "dims", "sum_over"),
    [
        ((2, 3, 4), (4, 5), 1, "abd,df->abf"),
        ((2, 3, 4), (4, 2, 5), 1, "abd,dnh->abnh"),
        ((2, 3, 4, 5), (4, 5, 6), 2, "abnh,nhd->abd"),
    ],
)
def test_linear_contracts_the_last_dims_with_the_first_dims_of_the_kernel(
    shape, kernel_shape, dims, sum_over
):
    x, kernel, bias = (
        np.random.default_rng(i).normal(size=s).astype(np.float32)
        for i, s in enumerate([shape, kernel_shape, kernel_shape[dims:]])
    )
    want = np.einsum(sum_over, x, kernel)
    np.testing.assert_allclose(linear(x, kernel, dims=dims), want, atol=1e-5)
    np.testing.assert_allclose(linear(x, kernel, bias, dims=dims), want + bias, atol=1e-5)


def test_computes_in_the_dtype_of_its_input():
    x = jax.numpy.ones((2, 4), jax.numpy.bfloat16)
    assert linear(x, np.ones((4, 3), np.float32), np.ones(3, np.float32)).dtype == x.dtype


@pytest.mark.parametrize(
    ("shape", "kernel_shape", "dims", "sums"),
    [
        ((2, 3, 4), (4, 5), 1, ("abf,df->abd", "abd,abf->df")),
        ((2, 3, 6), (6, 5), 1, ("abf,df->abd", "abd,abf->df")),
        ((2, 3, 4), (4, 4), 1, ("abf,df->abd", "abd,abf->df")),
        ((2, 3, 4, 5), (4, 5, 6), 2, ("abd,nhd->abnh", "abnh,abd->nhd")),
    ],
    ids=["wider", "narrower", "equal", "two dims"],
)
def test_gradients_are_the_sums_by_hand(shape, kernel_shape, dims, sums):
    rng = np.random.default_rng(0)
    x, kernel = (rng.normal(size=s).astype(np.float32) for s in (shape, kernel_shape))
    y, back = jax.vjp(lambda x, kernel: linear(x, kernel, dims=dims), x, kernel)
    d_y = rng.normal(size=y.shape).astype(np.float32)
    d_x, d_kernel = back(d_y)
    np.testing.assert_allclose(d_x, np.einsum(sums[0], d_y, kernel), atol=1e-5)
    np.testing.assert_allclose(d_kernel, np.einsum(sums[1], x, d_y), atol=1e-5)
