"""Accepted tokens have the model's distribution, whatever the draft."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.ops import speculation

DRAWS, COUNT, VOCAB = 40_000, 2, 5


def distributions(seed, rows):
    return np.random.default_rng(seed).dirichlet(np.full(VOCAB, 0.7), rows)


@pytest.mark.parametrize("draft", ["other", "same", "sure"])
def test_the_text_has_the_distribution_of_the_model(draft):
    # the model's distribution depends on the token before, as in a text
    first, second = distributions(0, 1)[0], distributions(1, VOCAB)
    q = {
        "other": distributions(2, COUNT),
        "same": np.tile(first, (COUNT, 1)),
        "sure": np.eye(VOCAB)[:COUNT],
    }[draft]

    def run(key):
        keys = jax.random.split(key, 3)
        tokens = jax.vmap(lambda k, p: jax.random.categorical(k, jnp.log(p)))(
            keys[:COUNT], jnp.asarray(q)
        )
        model = jnp.stack([jnp.asarray(first), *(jnp.asarray(second)[t] for t in tokens)])
        kept, following = speculation.accept(keys[2], tokens, jnp.asarray(q), model)
        # the first two tokens of the text; after a rejected first one there is only one
        pair = jnp.where(jnp.arange(COUNT) < kept, tokens, following)
        return pair[0], jnp.where(kept > 0, pair[1], -1)

    a, b = map(np.asarray, jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), DRAWS)))
    np.testing.assert_allclose(np.bincount(a, minlength=VOCAB) / DRAWS, first, atol=0.012)
    for token in range(VOCAB):
        after = b[(a == token) & (b >= 0)]
        if len(after) > 1000:
            counts = np.bincount(after, minlength=VOCAB) / len(after)
            np.testing.assert_allclose(counts, second[token], atol=2.5 / len(after) ** 0.5)


def test_greedy_keeps_what_the_model_would_have_written():
    eye = jnp.eye(VOCAB)
    for model, kept, following in (([1, 3, 4], 2, 4), ([1, 2, 4], 1, 2), ([0, 3, 4], 0, 0)):
        got = speculation.accept(
            jax.random.key(0), jnp.array([1, 3]), eye[jnp.array([1, 3])], eye[jnp.array(model)]
        )
        assert [int(x) for x in got] == [kept, following]
