"""The text VAE: packed texts keep to themselves, the latent reaches its own text, and writing equals the full pass."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from styles import F32, filled

from jaxlm.config import DecoderConfig, EncoderConfig, VAEConfig
from jaxlm.generation import latents
from jaxlm.models import vae
from jaxlm.models.encoder import Encoder
from jaxlm.models.language_models import logits
from jaxlm.models.vae import Mixture, StandardNormal
from jaxlm.ops.latent import Gaussian

Z, V = 3, 40
TINY = VAEConfig(
    encoder=EncoderConfig(vocab_size=V, dim=16, num_layers=1, num_heads=2, max_len=12),
    decoder=DecoderConfig(vocab_size=V, dim=24, num_layers=1, num_heads=2, max_len=12),
    latent_dim=Z,
)
EVERY = ("memory", "embedding", "prefix")
INJECT = {
    **{way: dataclasses.replace(TINY, inject=(way,)) for way in EVERY},
    "all three": dataclasses.replace(TINY, inject=EVERY),
}

# two texts of 5 and 4 tokens, as the encoder and as the decoder read them; all tokens of the decoder are different
READ, WRITTEN = (np.arange(1, 6), np.arange(6, 10)), (np.arange(11, 15), np.arange(15, 18))
S, T = 11, 9
SEGMENTS = np.repeat([1, 2, 0], [4, 3, 2])
LATENTS = np.random.default_rng(0).normal(size=(2, Z)).astype(np.float32)


def row(*texts, length, padding):
    """Tokens, segments and positions of a row with these texts."""
    rest = length - sum(map(len, texts))
    numbers = [np.full(len(x), i + 1) for i, x in enumerate(texts)]
    return (
        np.concatenate([*texts, np.full(rest, padding)]),
        np.concatenate([*numbers, np.zeros(rest, int)]),
        np.concatenate([*(np.arange(len(x)) for x in texts), np.zeros(rest, int)]),
    )


def rows(texts, length):
    """Rows of: both texts, the first alone, the second alone, the first alone with other padding."""
    made = (
        row(*texts, length=length, padding=0),
        row(texts[0], length=length, padding=0),
        row(texts[1], length=length, padding=0),
        row(texts[0], length=length, padding=33),
    )
    tokens, segments, positions = map(np.stack, zip(*made))
    return tokens, dict(segment_ids=segments, positions=positions)


@functools.cache
def params(config):
    """Random parameters of the model, none of which is zero."""
    model = vae.TextVAE(config, F32)
    return filled(jax.eval_shape(lambda: vae.init_params(model, jax.random.key(0))))


@functools.partial(jax.jit, static_argnums=0, static_argnames=("method", "texts"))
def apply(config, tree, *args, method, **inputs):
    return vae.TextVAE(config, F32).apply({"params": tree}, *args, method=method, **inputs)


@functools.partial(jax.jit, static_argnums=0)
def encoded(config, tree, inputs):
    return Encoder(config, F32).apply({"params": tree}, inputs)


# --- the encoder ---


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_the_posterior_of_a_text_does_not_depend_on_its_row(pooling):
    config = dataclasses.replace(TINY, pooling=pooling)
    tokens, inputs = rows(READ, S)
    posterior = apply(config, params(config), tokens, method="encode", texts=2, **inputs)
    for part in posterior:
        packed, first, second, other = np.asarray(part)
        assert packed.shape == (2, Z)
        np.testing.assert_allclose(packed, [first[0], second[0]], atol=1e-5)
        np.testing.assert_array_equal(other[0], first[0])
        assert np.abs(packed[0] - packed[1]).max() > 0.01
        assert np.isfinite(part).all()


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_posteriors_of_texts_and_of_learned_inputs_are_computed_from_pooled_states(pooling):
    config = dataclasses.replace(TINY, pooling=pooling, prior="vamp", pseudo_inputs=5, pseudo_len=4)
    tree = params(config)
    ones = np.ones((1, 5), int)
    posterior = apply(config, tree, np.stack(READ[:1]), method="encode", texts=1, segment_ids=ones)
    parts = jax.jit(lambda tree: vae.make_prior(vae.TextVAE(config, F32), tree).parts)(tree)
    learned = tree["head"]["pseudo_inputs"]
    assert learned.shape == (5, 4, 16)
    for got, inputs in ((posterior, np.stack(READ[:1])), (parts, learned)):
        states = np.asarray(encoded(config.encoder, tree["backbone"]["encoder"], inputs), float)
        pooled = states.mean(1) if pooling == "mean" else states[:, 0]
        head = jax.tree.map(lambda x: np.asarray(x, float), tree["head"]["posterior"])
        want = pooled @ head["kernel"] + head["bias"]
        got = np.concatenate(got, axis=-1).reshape(want.shape)
        np.testing.assert_allclose(got, want, atol=1e-5)


# --- the decoder ---


@pytest.mark.parametrize("config", INJECT.values(), ids=INJECT)
def test_the_hidden_states_of_a_text_do_not_depend_on_its_row(config):
    tokens, inputs = rows(WRITTEN, T)
    one, two = LATENTS
    z = np.stack([[one, two], [one, one + 1], [two, two + 1], [one, one + 2]])
    hidden = apply(config, params(config), tokens, z, method="hidden", **inputs)
    packed, first, second, other = np.asarray(hidden)
    np.testing.assert_allclose(packed[:4], first[:4], atol=2e-5)
    np.testing.assert_allclose(packed[4:7], second[:3], atol=2e-5)
    # neither the padding's ids nor the latent of a text that the row lacks matter
    np.testing.assert_array_equal(first[:4], other[:4])


@pytest.mark.parametrize("config", INJECT.values(), ids=INJECT)
def test_a_token_depends_on_the_latent_of_its_text_and_on_the_tokens_before_it(config):
    tokens, segments, positions = row(*WRITTEN, length=T, padding=39)
    tree = params(config)
    direction = np.random.default_rng(1).normal(size=config.decoder.dim).astype(np.float32)

    def read(z, table):
        changed = jax.tree.map(lambda x: x, tree)
        changed["backbone"]["decoder"]["embed"]["token"]["embedding"] = table
        hidden = vae.TextVAE(config, F32).apply(
            {"params": changed},
            tokens[None],
            z[None],
            segment_ids=segments[None],
            positions=positions[None],
            method="hidden",
        )
        return hidden[0] @ direction

    table = tree["backbone"]["decoder"]["embed"]["token"]["embedding"]
    by_latent, by_token = jax.jit(jax.jacrev(read, (0, 1)))(LATENTS, table)
    real = segments > 0
    reached = np.abs(by_latent).max(-1) > 0
    np.testing.assert_array_equal(reached[real], (segments[:, None] == [1, 2])[real])
    seen = np.abs(by_token[:, tokens]).max(-1) > 0
    own = (segments[:, None] == segments) & np.tri(T, dtype=bool)
    np.testing.assert_array_equal(seen[real], own[real])


@pytest.mark.parametrize("config", INJECT.values(), ids=INJECT)
def test_writing_greedily_equals_the_argmax_of_the_full_pass(config):
    tree, start, eos, entries = params(config), 2, 3, 36
    z = 3 * np.random.default_rng(2).normal(size=(4, Z)).astype(np.float32)

    @jax.jit
    def write(z):
        return latents.generate(
            vae.TextVAE(config, F32),
            tree,
            z,
            jax.random.key(0),
            start_id=start,
            eos_id=eos,
            vocab_size=entries,
            length=T,
            temperature=0.0,
        )

    written = np.asarray(write(z))
    assert written.shape == (4, T)
    assert written.max() < entries
    # the latents give different texts
    assert len({tuple(text) for text in written.tolist()}) > 1
    read = np.concatenate([np.full((4, 1), start), written[:, :-1]], axis=1)
    # the same compiled function as above, with a second latent that no token belongs to
    inputs = dict(segment_ids=np.ones_like(read), positions=np.tile(np.arange(T), (4, 1)))
    hidden = apply(config, tree, read, np.stack([z, z], 1), method="hidden", **inputs)
    want = np.asarray(logits(hidden, vae.output_table(tree)))[..., :entries].argmax(-1)
    ended = np.cumsum(read == eos, axis=1) > 0
    np.testing.assert_array_equal(written, np.where(ended, eos, want))


# --- the prior ---


def test_the_standard_normal_prior_has_its_density_and_its_samples():
    prior = StandardNormal(Z)
    want = -0.5 * np.square(LATENTS).sum(-1) - Z / 2 * np.log(2 * np.pi)
    np.testing.assert_allclose(prior.log_density(LATENTS), want, rtol=1e-5)
    z = np.asarray(prior.sample(jax.random.key(0), 10_000))
    assert z.shape == (10_000, Z)
    assert np.abs(z.mean(0)).max() < 0.04
    assert np.abs(z.std(0) - 1).max() < 0.03


def test_the_density_of_a_mixture_equals_the_sum_over_its_parts():
    rng = np.random.default_rng(3)
    mean, log_variance, z = (rng.normal(size=shape) for shape in ((5, Z), (5, Z), (2, 4, Z)))
    variance = np.exp(log_variance)
    square = np.square(z[..., None, :] - mean) / variance
    by_part = np.prod(np.exp(-0.5 * square) / np.sqrt(2 * np.pi * variance), axis=-1)
    prior = Mixture(Gaussian(jnp.float32(mean), jnp.float32(log_variance)))
    got = prior.log_density(jnp.float32(z))
    np.testing.assert_allclose(got, np.log(by_part.mean(-1)), rtol=1e-5, atol=1e-5)


def test_the_samples_of_a_mixture_are_of_all_its_parts_alike():
    means = 100.0 * jnp.arange(4)[:, None] * jnp.ones(Z)
    z = np.asarray(Mixture(Gaussian(means, jnp.zeros((4, Z)))).sample(jax.random.key(0), 4000))
    part = np.rint(z / 100)
    # a sample is of one part in all dims
    assert (part == part[:, :1]).all()
    counts = np.bincount(part[:, 0].astype(int), minlength=4)
    assert (np.abs(counts - 1000) < 4 * np.sqrt(4000 * 0.25 * 0.75)).all()
    noise = z - 100 * part
    assert np.abs(noise.mean(0)).max() < 0.07
    assert np.abs(noise.std(0) - 1).max() < 0.05


def test_without_learned_inputs_the_prior_is_standard_normal():
    assert isinstance(vae.make_prior(vae.TextVAE(TINY, F32), params(TINY)), StandardNormal)


# --- the configuration ---


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(latent_dim=0), "model.latent_dim=0 must be at least 1"),
        (dict(pseudo_inputs=0), "model.pseudo_inputs=0 must be at least 1"),
        (dict(pseudo_len=0), "model.pseudo_len=0 must be at least 1"),
        (dict(pseudo_inputs=5), "model.pseudo_inputs has no effect with model.prior=normal"),
        (dict(pseudo_len=3), "model.pseudo_len has no effect with model.prior=normal"),
        (
            dict(prior="vamp", encoder=TINY.encoder, pseudo_len=13),
            "model.pseudo_len=13 is more than model.encoder.max_len=12",
        ),
        (dict(inject=()), "model.inject is empty: the decoder would never see the latent"),
        (dict(inject=("memory", "memory")), "names a way twice"),
        (dict(mean_scale=-0.1), "model.mean_scale=-0.1 must not be negative"),
    ],
)
def test_a_wrong_config_is_rejected_in_one_line(wrong, message):
    with pytest.raises(ValueError, match=message) as e:
        VAEConfig(**wrong)
    assert "\n" not in str(e.value)


def test_a_text_is_as_long_as_both_sides_allow():
    short = dataclasses.replace(TINY.encoder, max_len=8)
    assert VAEConfig(encoder=short, decoder=TINY.decoder).max_len == 8
    assert VAEConfig(encoder=TINY.encoder, decoder=TINY.decoder).max_len == 12
