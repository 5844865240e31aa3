"""The scan over layers of several kinds: which layers are scanned, and equality with a Python loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.nn.layer_scan import find_repetition, scan_layers


@pytest.mark.parametrize(
    ("kinds", "repetition"),
    [
        ("a", (0, 1, 1)),
        ("ab", (0, 2, 1)),
        ("aaaa", (0, 1, 4)),
        ("abababab", (0, 2, 4)),
        # Gemma 3 with 26 layers: two layers are left over
        ("aaaaab" * 4 + "aa", (0, 6, 4)),
        # ModernBERT-base: the first of 22 layers has no norm, so that the rest is periodic
        ("r" + "llg" * 7, (1, 3, 7)),
        ("raaaa", (1, 1, 4)),
        ("abcd", (0, 4, 1)),
    ],
)
def test_the_scan_leaves_the_fewest_layers_to_compile(kinds, repetition):
    assert find_repetition(tuple(kinds)) == repetition


FUNCTIONS = {"a": jnp.sin, "b": jnp.cos, "r": jnp.tanh}


def layer(kind, x, arrays):
    w, key = arrays
    x = FUNCTIONS[kind](x @ w) + jax.random.uniform(key, x.shape)
    return x, {"sum": x.sum(), "empty": None}


@pytest.mark.parametrize("unroll", [1, 4, 99])
@pytest.mark.parametrize("kinds", ["aaab" * 2 + "aa", "raabaab", "aaa", "ab"])
def test_values_and_gradients_equal_a_python_loop(kinds, unroll):
    kinds = tuple(kinds)
    w = jax.random.normal(jax.random.key(0), (len(kinds), 3, 3))
    x, keys = jnp.ones((2, 3)), jax.random.split(jax.random.key(1), len(kinds))

    def scanned(w, x):
        x, outputs = scan_layers(layer, x, (w, keys), kinds, unroll=unroll)
        return (x * x).sum(), (x, outputs["sum"])

    def looped(w, x):
        sums = []
        for i, kind in enumerate(kinds):
            x, output = layer(kind, x, (w[i], keys[i]))
            sums.append(output["sum"])
        return (x * x).sum(), (x, jnp.stack(sums))

    got, want = (
        jax.tree.leaves(jax.jit(jax.value_and_grad(f, (0, 1), has_aux=True))(w, x))
        for f in (scanned, looped)
    )
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_repeated_layers_are_traced_once():
    traced = []

    def counted(kind, x, w):
        traced.append(kind)
        return x * w, None

    kinds = tuple("aab" * 5 + "aa")
    jax.make_jaxpr(lambda w: scan_layers(counted, 1.0, w, kinds))(jnp.ones(len(kinds)))
    # the scan over "aa" in the scan over "aab", "b", and the scan over the last "aa"
    assert "".join(traced) == "aba"
