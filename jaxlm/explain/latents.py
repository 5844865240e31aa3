"""What the latent of a text VAE holds of a text: nats by dim, and what each token gains from it.

Letters: Z width of the latent, T tokens, K samples.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxlm.explain.reading import together
from jaxlm.models.vae import make_prior, output_table
from jaxlm.ops import latent, losses
from jaxlm.ops.latent import Gaussian
from jaxlm.run.latents import TrainedVAE
from jaxlm.tasks.vae import TextVAE


class Held(NamedTuple):
    """What the latent holds of one text."""

    pieces: list[str]
    # divergence of the posterior from N(0, 1) in nats, by dim
    kl: Float[np.ndarray, " Z"]
    # what each token gains, in nats
    gain: Float[np.ndarray, " T"]


def token_gain(given: Float[Array, " T"], unknown: Float[Array, "K T"]) -> Float[Array, " T"]:
    """log p(x_t | x_<t, z) - log p(x_t | x_<t), in nats.

    Without z, p(x_t | x_<t) = sum_k w_k(t) p(x_t | x_<t, z_k), where z_k are samples of the prior and w_k(t) is in
    proportion to p(x_<t | z_k): what the tokens before already say about z is not counted as a gain of z. (Pointwise
    mutual information of x_t and z given x_<t.)

    Args:
        given: log p(x_t | x_<t, z) for the text's own z.
        unknown: the same for K samples of the prior.
    """
    before = jnp.cumsum(unknown, axis=1) - unknown
    weights = jax.nn.log_softmax(before, axis=0)
    return given - jax.nn.logsumexp(weights + unknown, axis=0)


def held(vae: TrainedVAE, text: str, *, samples: int = 64, seed: int = 0) -> Held:
    """What the latent of a trained VAE holds of a text; its own z is the posterior mean.

    Args:
        vae: from `run.latents.load`.
        text: the text.
        samples: K.
        seed: of the samples.

    Raises:
        ValueError: the text has no tokens, or more than fit.
    """
    posterior = vae.encode([text])
    kl = latent.kl_to_standard_normal(Gaussian(*(jnp.asarray(x[0]) for x in posterior)))
    run, task = vae.run, vae.run.task
    assert isinstance(task, TextVAE)
    batch = task.rows(task.tokenize([text]), "predict").rows(np.array([0]), np.array([0]))
    prior = make_prior(task.model, run.params).sample(jax.random.key(seed), samples)
    z = jnp.concatenate([jnp.asarray(posterior.means), prior])

    @jax.jit
    def log_probabilities(params: Any, z: Array) -> Float[Array, "K1 T"]:
        def one(z: Array) -> Array:
            # the row has room for several texts; this one is the first
            own = jnp.broadcast_to(z, (1, task.texts_per_row, len(z)))
            hidden = task.model.apply(
                {"params": params},
                batch["decoder_tokens"],
                own,
                segment_ids=batch["decoder_segment_ids"],
                positions=batch["decoder_positions"],
                method="hidden",
            )
            softcap = task.backbone.decoder.logit_softcap
            return losses.per_token_log_probs(
                hidden, output_table(params), jnp.asarray(batch["targets"]), softcap=softcap
            )[0]

        return jax.lax.map(one, z, batch_size=together(task.backbone.decoder))

    with jax.set_mesh(run.mesh):
        found = log_probabilities(run.params, z)
    counts = np.flatnonzero(batch["weights"][0] > 0)
    gain = token_gain(found[0], jnp.where(batch["weights"][0] > 0, found[1:], 0.0))
    pieces = [task.tokenizer.piece(int(i)) for i in batch["targets"][0][counts]]
    return Held(pieces, np.asarray(kl), np.asarray(gain)[counts])
