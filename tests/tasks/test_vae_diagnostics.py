"""Diagnostics of the text VAE: bounds against each other and against the loss, and a latent that is not used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_text_vae import batch_of, built, context, loss_of, params_of, with_posterior

from jaxlm.ops import latent
from jaxlm.tasks import vae_diagnostics

SAMPLES = 16


@pytest.fixture(scope="module")
def analyse():
    task = built(importance_samples=SAMPLES)
    run = jax.jit(task.analyse)
    return lambda params: jax.device_get(run(params, batch_of(), context(train=False)))


def test_the_importance_weighted_bound_is_above_the_evidence_bound_of_every_text(analyse):
    out = analyse(params_of(built()))
    real = out["exists"] > 0
    # the last row only fills up the batch
    assert real[:-1].any(axis=1).all()
    assert not real[-1].any()
    assert (out["bound"] > out["elbo"])[real].all()


def test_with_the_prior_as_posterior_every_sample_weighs_its_likelihood(analyse):
    params = with_posterior(params_of(built()), mean=0.0, log_variance=0.0)
    out = analyse(params)
    real = out["exists"] > 0
    np.testing.assert_allclose(out["mean"][real], 0, atol=1e-6)
    # log p(z) = log q(z | x): the bounds are means of likelihoods
    task = built()
    keys = jax.random.split(context(train=False).key, SAMPLES)
    posterior = latent.Gaussian(out["mean"], out["log_variance"])
    scores = np.stack(
        [task.log_likelihood(params, batch_of(), latent.sample(posterior, k)) for k in keys[:2]]
    )
    np.testing.assert_allclose(out["own"][real], scores[0][real], rtol=1e-4)
    assert (out["bound"][real] <= out["elbo"][real] + np.log(SAMPLES)).all()


def test_likelihoods_of_texts_add_up_to_the_reconstruction_of_the_loss(analyse):
    # so little variance that every sample is the mean
    params = with_posterior(params_of(built()), log_variance=-40.0)
    out = analyse(params)
    means = jax.jit(loss_of(built(), train=False))(params)[1][0]
    total = out["own"][out["exists"] > 0].sum()
    np.testing.assert_allclose(-total, means["reconstruction"][0], rtol=1e-4)


def test_a_decoder_that_ignores_its_latent_is_recognised(analyse):
    metrics = {"neg_elbo": 50.0, "tokens_per_text": 10.0, "kl": 3.0}

    def result(params):
        out = analyse(params)
        rows = [{name: x[i] for name, x in out.items()} for i in range(len(out["exists"]))]
        return vae_diagnostics.diagnose(rows, metrics)

    params = params_of(built())
    used = result(params)
    assert abs(used["swap_loss"]) > vae_diagnostics.COLLAPSED
    assert 0 < used["mutual_information"] <= np.log(used["analysed_texts"])
    assert used["iw_nll"] < metrics["neg_elbo"]
    assert used["iw_perplexity"] == pytest.approx(np.exp(used["iw_nll"] / 10))
    memory = jax.tree.map(np.zeros_like, params["head"]["memory"])
    ignored = result({**params, "head": {**params["head"], "memory": memory}})
    assert ignored["swap_loss"] == 0
    assert "is not used" in vae_diagnostics.verdict({**metrics, **ignored})
    assert "is used: the divergence is 3.0 nats" in vae_diagnostics.verdict(
        {**metrics, "swap_loss": 2.0}
    )
    assert "is not used" in vae_diagnostics.verdict({**metrics, "swap_loss": 2.0, "kl": 0.02})
    assert "min_rate=4 is not reached" in vae_diagnostics.verdict(
        {**metrics, "swap_loss": 2.0}, min_rate=4.0
    )


def test_texts_of_the_prior_that_differ_only_after_their_end_are_the_same():
    texts = [np.array(x) for x in ([5, 2, 7], [5, 2, 8], [5, 6, 7], [5, 6, 2])]
    assert vae_diagnostics.distinct(texts, 2) == 3 / 4
    assert vae_diagnostics.distinct(texts, None) == 1


def test_a_text_gets_the_latent_of_the_next_text_whatever_row_it_is_in():
    z = jnp.arange(9.0).reshape(3, 3, 1)
    exists = jnp.array([[1.0, 1, 0], [0, 0, 0], [1, 0, 0]])
    other, paired = vae_diagnostics.of_next(z, exists)
    np.testing.assert_array_equal(paired, exists)
    assert (other[0, 0, 0], other[0, 1, 0], other[2, 0, 0]) == (1, 6, 0)
    # a batch of one row has pairs, one of a single text has none
    other, paired = vae_diagnostics.of_next(z[:1], exists[:1])
    assert (other[0, 0, 0], other[0, 1, 0]) == (1, 0)
    assert paired.sum() == 2
    alone = jnp.zeros((3, 3)).at[2, 0].set(1)
    assert vae_diagnostics.of_next(z, alone)[1].sum() == 0


def test_one_text_says_nothing_about_the_use_of_the_latent():
    metrics = {"neg_elbo": 50.0, "tokens_per_text": 10.0, "kl": 3.0}
    row = {
        **{name: np.zeros((2, 3), np.float32) for name in ("mean", "log_variance", "z")},
        **{name: np.ones(2, np.float32) for name in ("elbo", "bound", "own", "other")},
        "exists": np.array([1.0, 0]),
        "other_exists": np.zeros(2),
    }
    found = vae_diagnostics.diagnose([row], metrics)
    assert "swap_loss" not in found
    assert "cannot be told" in vae_diagnostics.verdict({**metrics, **found})


@pytest.mark.parametrize("broken", [{"kl": np.nan}, {"swap_loss": np.nan}, {"kl": np.inf}])
def test_a_divergence_that_is_no_number_is_not_praised(broken):
    verdict = vae_diagnostics.verdict({"kl": 3.0, "swap_loss": 2.0, **broken})
    assert verdict.startswith("the model is broken")
