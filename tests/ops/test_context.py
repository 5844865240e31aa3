"""Attention of rows whose positions are split over devices, against one device, and what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import sharding
from jaxlm.config import MeshConfig
from jaxlm.ops import attention, context, masks

RNG = np.random.default_rng(0)
LENGTH = 1024
SEGMENTS = np.repeat([[1] * 300 + [2] * (LENGTH - 300)], 2, axis=0)
TEXTS = dict(q_segment_ids=SEGMENTS, kv_segment_ids=SEGMENTS)


@functools.cache
def mesh():
    return sharding.make_mesh(MeshConfig(data=1, context=4, tensor=2))


def arrays(length):
    return [RNG.normal(size=(2, length, n, 16)).astype(np.float32) for n in (4, 2, 2)]


def gradients(implementation, q, k, v, mask, **options):
    """The output of attention, and the gradients of the sum of its squares."""

    def run(q, k, v):
        y = attention.attend(q, k, v, mask, implementation=implementation, **options)
        return (y**2).sum(), y

    return jax.jit(jax.grad(run, argnums=(0, 1, 2), has_aux=True))(q, k, v)


def assert_same(got, want):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())


def test_every_device_has_an_early_and_a_late_chunk():
    assert context.balanced_order(12, 3).tolist() == [0, 1, 10, 11, 2, 3, 8, 9, 4, 5, 6, 7]


@pytest.mark.parametrize("count", [2, 4, 8])
def test_chunks_are_exchanged_in_this_order_and_back(count):
    split = jax.P(None, "context")
    x = np.arange(2 * 32).reshape(2, 32)

    def exchange(function):
        return jax.shard_map(lambda x: function(x, 1), in_specs=split, out_specs=split)

    with jax.set_mesh(sharding.make_mesh(MeshConfig(context=count))):
        there = jax.jit(exchange(context.balanced))(x)
        back = jax.jit(exchange(context.unbalanced))(there)
    np.testing.assert_array_equal(there, x[:, context.balanced_order(32, count)])
    np.testing.assert_array_equal(back, x)


# rules, and the same as a matrix; a bias by key alone
@pytest.mark.parametrize(
    ("mask", "bias"),
    [
        (
            masks.Mask(
                causal=True,
                window=9,
                q_segment_ids=SEGMENTS[:, -96:],
                kv_segment_ids=SEGMENTS[:, -96:],
            ),
            96,
        ),
        (masks.Mask(dense=np.tril(np.ones((1, 1, 96, 96), bool))), 1),
    ],
    ids=["rules", "matrix"],
)
def test_blocks_of_the_queries_of_each_device_equal_one_device(mask, bias, monkeypatch):
    q, k, v = arrays(96)
    options = dict(bias=RNG.normal(size=(1, 4, bias, 96)).astype(np.float32), softcap=5.0)
    want = gradients("xla", q, k, v, mask, **options)
    # rows x heads of a device x its positions x keys, in four blocks
    monkeypatch.setattr(context, "MAX_SCORES", 2 * 2 * 24 * 96 // 4)
    with jax.set_mesh(mesh()):
        assert context._block_count(q, 96) == 4
        assert_same(gradients("xla", q, k, v, mask, **options), want)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mask", "softcap"),
    [
        (masks.Mask(causal=True), None),
        (masks.Mask(causal=True, **TEXTS), 5.0),
        (masks.Mask(causal=True, window=100, **TEXTS), None),
        (masks.Mask(**TEXTS), None),
    ],
    ids=["causal", "segments", "window", "encoder"],
)
def test_splash_on_gathered_keys_equals_one_device(mask, softcap):
    q, k, v = arrays(LENGTH)
    want = gradients("xla", q, k, v, mask, softcap=softcap)
    with jax.set_mesh(mesh()):
        assert_same(gradients("splash", q, k, v, mask, softcap=softcap), want)


def test_kernels_refuse_rows_that_they_cannot_split():
    q, k, v = (jnp.asarray(x, jnp.bfloat16) for x in arrays(256))
    with jax.set_mesh(mesh()):
        message = "splash does not support lengths 256 and 256 that are not multiples of 128 x mesh.context=4"
        with pytest.raises(ValueError, match=message):
            attention.attend(q, k, v, masks.Mask(), implementation="splash")
        with pytest.raises(ValueError, match="cudnn does not support rows split over"):
            attention.attend(q, k, v, masks.Mask(), implementation="cudnn")
