"""Position encodings: their properties, their formulas, and frequency scaling as in transformers."""

import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config import RopeScaling
from jaxlm.ops import positions, target

GOLDEN = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "rope.json").read_text())
RNG = np.random.default_rng(0)


def rotate(x, token_positions, rotary_dim, theta=10_000.0, scaling=None):
    token_positions = jnp.broadcast_to(jnp.asarray(token_positions), x.shape[:2])
    tables = positions.rope_tables(token_positions, rotary_dim, theta, scaling)
    return positions.rope(jnp.asarray(x, jnp.float32), tables)


def test_rotation_is_a_complex_product_of_first_and_second_half():
    x, token_positions = RNG.normal(size=(2, 5, 3, 8)), np.array([[0, 1, 2, 3, 4], [7, 8, 9, 0, 1]])
    freqs = 10_000.0 ** (-np.arange(4) / 4)
    turned = (x[..., :4] + 1j * x[..., 4:]) * np.exp(1j * token_positions[..., None, None] * freqs)
    want = np.concatenate([turned.real, turned.imag], -1)
    np.testing.assert_allclose(rotate(x, token_positions, 8), want, atol=2e-6)


def test_neighbours_are_rotated_as_complex_numbers():
    x, token_positions = RNG.normal(size=(2, 5, 3, 9)), np.array([[0, 1, 2, 3, 4], [7, 8, 9, 0, 1]])
    tables = positions.rope_tables(jnp.asarray(token_positions), 6, 10_000.0)
    got = positions.rope(jnp.asarray(x, jnp.float32), tables, pairs="neighbours")
    freqs = 10_000.0 ** (-np.arange(3) / 3)
    turned = (x[..., :6:2] + 1j * x[..., 1:6:2]) * np.exp(
        1j * token_positions[..., None, None] * freqs
    )
    np.testing.assert_allclose(got[..., :6:2], turned.real, atol=2e-6)
    np.testing.assert_allclose(got[..., 1:6:2], turned.imag, atol=2e-6)
    np.testing.assert_allclose(got[..., 6:], x[..., 6:], rtol=1e-6)


def test_products_depend_on_the_distance_only():
    q, k = RNG.normal(size=(2, 1, 6, 1, 16))

    def products(shift):
        turned = [rotate(x, np.arange(6)[None] + shift, 16)[0, :, 0] for x in (q, k)]
        return turned[0] @ turned[1].T

    here, there = products(0), products(37)
    np.testing.assert_allclose(here, there, atol=1e-4)
    # and they do depend on it
    assert np.abs(here - np.einsum("abch,dech->be", q, k)).max() > 0.1


def test_only_the_rotary_dims_of_a_head_are_rotated():
    x = RNG.normal(size=(1, 4, 2, 16))
    got = rotate(x, np.arange(4)[None], 4)
    np.testing.assert_allclose(got[..., :4], rotate(x[..., :4], np.arange(4)[None], 4), atol=0)
    np.testing.assert_allclose(got[..., 4:], x[..., 4:], rtol=1e-6)
    assert np.abs(got[0, 1:, :, :4] - x[0, 1:, :, :4]).min() > 0


def test_half_precision_is_rounded_once():
    x = jnp.asarray(RNG.normal(size=(1, 4, 1, 8)), jnp.bfloat16)
    token_positions = jnp.arange(4)[None] + 1000
    got = positions.rope(x, positions.rope_tables(token_positions, 8, 10_000.0))
    assert got.dtype == jnp.bfloat16
    want = rotate(x.astype(jnp.float32), token_positions, 8).astype(jnp.bfloat16)
    np.testing.assert_array_equal(got.astype(np.float32), want.astype(np.float32))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("pairs", ["halves", "neighbours"])
def test_rotation_on_tpus_is_the_same_function(pairs, dtype):
    x, slope = jnp.asarray(RNG.normal(size=(2, 2, 5, 3, 10)), dtype)
    tables = positions.rope_tables(jnp.arange(10).reshape(2, 5) + 1000, 6, 10_000.0)
    run = lambda x: positions.rope(x, tables, pairs=pairs)
    want, pull = jax.vjp(run, x)
    with target.compile_for("tpu"):
        got, pull_on_tpu = jax.vjp(run, x)
        assert "dot_general" in str(jax.make_jaxpr(run)(x))
    assert got.dtype == dtype
    # the product only moves numbers
    exact = dict(rtol=0, atol=0) if dtype == jnp.bfloat16 else dict(atol=1e-6)
    np.testing.assert_allclose(got.astype(np.float32), want.astype(np.float32), **exact)
    [gradient], [expected] = pull_on_tpu(slope), pull(slope)
    half = jnp.finfo(dtype).eps
    np.testing.assert_allclose(
        gradient.astype(np.float32), expected.astype(np.float32), atol=4 * half
    )


@pytest.mark.parametrize("case", GOLDEN)
def test_scaled_frequencies_equal_those_of_transformers(case):
    golden = GOLDEN[case]
    tuples = {k: tuple(x) if isinstance(x, list) else x for k, x in golden["scaling"].items()}
    scaling, size = RopeScaling(**tuples), (golden["head_dim"], golden["theta"])
    freqs, factor = positions.rope_frequencies(*size, scaling)
    assert factor == pytest.approx(golden["factor"], rel=1e-6)
    if "length" not in golden:
        np.testing.assert_allclose(freqs, golden["frequencies"], rtol=2e-6)
    # of a row of this length, or of the longest whose frequencies are the original ones
    lengths = jnp.array([golden.get("length", scaling.original_max_len)])
    cos, sin = positions.rope_tables(jnp.ones((1, 1), int), *size, scaling, lengths=lengths)
    got = np.arctan2(sin[0, 0, 0], cos[0, 0, 0])
    np.testing.assert_allclose(got, golden["frequencies"], rtol=2e-6, atol=1e-7)


def test_llama3_scales_only_long_wavelengths():
    scaling = RopeScaling(kind="llama3", factor=8.0, original_max_len=512)
    freqs, _ = positions.rope_frequencies(64, 10_000.0, scaling)
    plain, _ = positions.rope_frequencies(64, 10_000.0)
    turns = 512 * plain / (2 * math.pi)
    short, long = turns > 4, turns < 1
    assert short.any()
    assert long.any()
    np.testing.assert_array_equal(freqs[short], plain[short])
    np.testing.assert_allclose(freqs[long], plain[long] / 8, rtol=1e-12)
    between = ~short & ~long
    assert ((plain / 8 < freqs) & (freqs < plain))[between].all()


def test_yarn_scales_cosine_and_sine():
    scaling = RopeScaling(kind="yarn", factor=4.0, original_max_len=256)
    cos, sin = positions.rope_tables(jnp.arange(5)[None], 16, 10_000.0, scaling)
    np.testing.assert_allclose(cos**2 + sin**2, (0.1 * math.log(4) + 1) ** 2, rtol=1e-5)


def test_sinusoidal():
    token_positions, dim = np.array([[0, 3, 11]]), 6
    want = np.zeros((1, 3, dim))
    for t, i in np.ndindex(3, 3):
        angle = token_positions[0, t] / 10_000 ** (2 * i / dim)
        want[0, t, i], want[0, t, 3 + i] = math.sin(angle), math.cos(angle)
    np.testing.assert_allclose(
        positions.sinusoidal(jnp.asarray(token_positions), dim), want, atol=1e-6
    )


def test_sinusoidal_of_tensor2tensor_includes_the_longest_wavelength():
    got = positions.sinusoidal(jnp.asarray([[9]]), 8, inclusive=True)
    angles = 9 / 10_000 ** (np.arange(4) / 3)
    np.testing.assert_allclose(got[0, 0], [*np.sin(angles), *np.cos(angles)], atol=1e-6)


def test_relative_buckets():
    # 8 buckets up to distance 8: causal 0 1 2 3 and four that grow by 2^(1/4); else four before and four after
    distance = np.arange(-10, 4)
    causal = positions.relative_buckets(distance, 8, causal=True, max_distance=8)
    assert causal.tolist() == [7, 7, 7, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0, 0]
    both = positions.relative_buckets(distance, 8, causal=False, max_distance=8)
    assert both.tolist() == [3, 3, 3, 3, 3, 3, 3, 2, 2, 1, 0, 5, 6, 6]


def test_relative_bias_is_a_row_of_the_table_for_each_distance():
    table = RNG.normal(size=(8, 3)).astype(np.float32)
    token_positions = jnp.asarray([[0, 1, 5], [6, 7, 40]])
    for causal in (True, False):
        options = dict(causal=causal, max_distance=12)
        distance = jnp.arange(20) - token_positions[..., None]
        got = positions.relative_bias(jnp.asarray(table), distance, **options)
        assert got.shape == (2, 3, 3, 20)
        for b, t, s in np.ndindex(2, 3, 20):
            bucket = positions.relative_buckets(
                np.array([s - token_positions[b, t]]), 8, **options
            )[0]
            np.testing.assert_array_equal(got[b, :, t, s], table[bucket])


def test_sinusoidal_of_odd_width_has_that_width():
    assert positions.sinusoidal(jnp.arange(4)[None], 5).shape == (1, 4, 5)


def test_disentangled_buckets_by_hand():
    # one for each distance up to 2, one for 3 to 9, and one beyond, which is clipped for earlier keys
    got = positions.disentangled_buckets(13, 8, 10)
    assert got.tolist() == [7] * 10 + [6, 5, 4, 3, 2] + [1] * 7 + [0] * 3
    # as many buckets as distances: each has its own
    got = positions.disentangled_buckets(5, 6, 3)
    assert got.tolist() == [5, 5, 5, 4, 3, 2, 1, 0, 0]


def test_products_by_distance_equal_a_gather():
    x = RNG.normal(size=(2, 5, 3, 4)).astype(np.float32)
    vectors = RNG.normal(size=(9, 3, 4)).astype(np.float32)
    got = positions.by_distance(jnp.asarray(x), jnp.asarray(vectors))
    assert got.shape == (2, 3, 5, 5)
    for t, s in np.ndindex(5, 5):
        want = np.einsum("BNH,NH->BN", x[:, t], vectors[4 - (t - s)])
        np.testing.assert_allclose(got[:, :, t, s], want, atol=1e-5)


def test_alibi_is_the_slope_times_the_distance():
    # the paper's slopes for 8 heads, and its authors' code for 12
    np.testing.assert_allclose(positions.alibi_slopes(8), 0.5 ** np.arange(1, 9))
    more = 2.0 ** -np.array([0.5, 1.5, 2.5, 3.5])
    np.testing.assert_allclose(positions.alibi_slopes(12), [*0.5 ** np.arange(1, 9), *more])
    got = positions.alibi_bias(jnp.arange(5)[None], 8, scale=0.25)
    distances = np.arange(5) - np.arange(5)[:, None]
    want = 0.25 * positions.alibi_slopes(8)[:, None, None] * distances
    shifted = want - want[:, :, :1]
    np.testing.assert_allclose(
        np.broadcast_to(got[0], want.shape) - got[0][..., :1], shifted, atol=1e-6
    )
    rounded = positions.alibi_bias(jnp.array([[1, 1000]]), 16, dtype="bfloat16")
    assert rounded.dtype == jnp.float32
    np.testing.assert_array_equal(rounded, rounded.astype(jnp.bfloat16).astype(jnp.float32))
