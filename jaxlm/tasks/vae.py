"""The text VAE: reconstruct each text from a latent variable whose distribution is kept close to a prior."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm import sharding
from jaxlm.config import PhaseConfig, RunConfig, VAEConfig
from jaxlm.data.loader import Batch, Dataset
from jaxlm.data.mixture import Mixture
from jaxlm.data.tokenizer import Tokenizer, TwoTokenizers
from jaxlm.generation import latents
from jaxlm.models import flops, vae, vocabulary
from jaxlm.ops import latent, losses
from jaxlm.ops.latent import Gaussian
from jaxlm.tasks import elbo, task, vae_diagnostics, vae_rows, vae_schemes
from jaxlm.tasks.elbo import ElboConfig
from jaxlm.tasks.task import Context, Loss, Piece, Purpose, Task
from jaxlm.tasks.vae_rows import Documents
from jaxlm.tasks.vae_schemes import Scheme


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextVAEConfig(ElboConfig):
    """Reconstruct each text from a latent variable (VAE, Bowman et al. 2016, 1511.06349)."""

    # fraction of the decoder's input tokens that are hidden in training, so that it needs the latent (Bowman et al.,
    # section 3.1), and of the encoder's (denoising)
    decoder_word_dropout: float = 0.0
    encoder_word_dropout: float = 0.0
    # joint: everything is trained in all steps; decoder_last: first everything, then the decoder alone with the encoder
    # frozen; encoder_first: first the encoder with the decoder frozen, then everything; fresh_decoder: first an
    # autoencoder (weight 0), then a new decoder (Li et al. 2019, 1909.00868); aggressive: first several updates of the
    # encoder for each of the decoder (He et al. 2019, 1901.05534), then everything
    scheme: Scheme = "joint"
    # fraction of the steps in the first phase of a scheme
    first_fraction: float = 0.5
    # with aggressive: updates of the encoder alone before each update of the decoder alone
    encoder_updates: int = 4
    # texts longer than a row: refuse them, or cut them into several
    long_texts: Literal["refuse", "cut"] = "refuse"
    # samples per text, and texts, for the importance-weighted bound at the end of a run
    importance_samples: int = 50
    importance_texts: int = 500

    def __post_init__(self):
        super().__post_init__()
        self.check_fractions("decoder_word_dropout", "encoder_word_dropout")
        for name in ("encoder_updates", "importance_samples", "importance_texts"):
            if getattr(self, name) < 1:
                raise ValueError(f"task.{name}={getattr(self, name)} must be at least 1")
        if not 0 < self.first_fraction < 1:
            raise ValueError(f"task.first_fraction={self.first_fraction} is not between 0 and 1")
        self.check_used("first_fraction", self.scheme != "joint", "task.scheme=joint")
        self.check_used(
            "encoder_updates", self.scheme == "aggressive", f"task.scheme={self.scheme}"
        )
        if self.min_rate and self.scheme == "fresh_decoder":
            raise ValueError("task.min_rate does not fit task.scheme=fresh_decoder: use free_bits")


class TextVAE(Task):
    """See `TextVAEConfig`."""

    Config = TextVAEConfig
    name = "text_vae"
    backbones = (VAEConfig,)
    # of the decoder, and of the encoder, which may have a tokenizer of its own
    roles = ("eos", "bos")
    encoder_roles = ("cls", "sep")
    # free bits and batch normalisation compare the texts of a whole batch
    coupled = True
    adjustable = dict.fromkeys(
        ("importance_samples", "importance_texts", "long_texts"), ("validation",)
    )

    def __init__(self, config: RunConfig, tokenizer: Tokenizer):
        """Checks that the settings fit the model."""
        super().__init__(config, tokenizer)
        self.encoder_tokenizer = vae_rows.reader_of(tokenizer)
        for role in self.encoder_roles:
            if getattr(self.encoder_tokenizer, f"{role}_id") is None:
                raise ValueError(
                    f"task {self.name} needs a tokenizer with a {role} token for the encoder; this one has none"
                )
        s, c = self.settings, self.backbone
        if s.free_bits and s.free_bits_per == "dimension" and c.prior != "normal":
            raise ValueError(
                "task.free_bits_per=dimension needs model.prior=normal, because a mixture has no divergence by "
                "dim: use free_bits_per=total"
            )
        # a text of n tokens carries at most n log V nats
        most = config.data.seq_len * float(np.log(max(c.decoder.vocab_size or 2, 2)))
        least = s.free_bits * (c.latent_dim if s.free_bits_per == "dimension" else 1)
        for name, value in (("free_bits", least), ("min_rate", s.min_rate)):
            if value > most:
                raise ValueError(
                    f"task.{name} asks for {value:.5g} nats of divergence per text, but a text of data.seq_len="
                    f"{config.data.seq_len} tokens has at most {most:.5g}: lower it"
                )
        if s.long_texts == "cut" and isinstance(tokenizer, TwoTokenizers):
            raise ValueError(
                "task.long_texts=cut does not fit an encoder and a decoder with different tokenizers: leave it unset"
            )
        for side, name in (
            ("decoder", "decoder_word_dropout"),
            ("encoder", "encoder_word_dropout"),
        ):
            if getattr(s, name) and self._hidden_id(side) is None:
                raise ValueError(
                    f"task.{name} needs a tokenizer with a mask or unk token for the {side}; this one has none"
                )
        vae_schemes.check(config, c, self.encoder_params())
        if c.mean_scale and s.kl_weight == 0:
            raise ValueError("model.mean_scale has no effect with task.kl_weight=0: leave it unset")

    # ---- rows

    @property
    def texts_per_row(self) -> int:
        """M: the number of latents of a row."""
        return vae_rows.texts_per_row(self.config.data.seq_len)

    def token_documents(self, text: Any) -> list[Any]:
        """The texts of a split as token ids of the decoder and, if it has a tokenizer of its own, of the encoder."""
        return vae_rows.split_documents(text, self.tokenizer)

    def tokenize(self, texts: Sequence[str]) -> Documents:
        """Texts as the documents that `rows` takes."""
        return vae_rows.text_documents(texts, self.tokenizer)

    def rows(self, data: Documents, purpose: Purpose) -> Dataset:
        """Whole texts, as the encoder reads them and as the decoder writes them, several in a row."""
        c, cut = self.config, self.settings.long_texts == "cut"
        # words count in evaluations alone
        counts_words = purpose == "validation" and vae_rows.shows_words(self.tokenizer)
        return vae_rows.pack(
            data, self.tokenizer, c.data.seq_len, c.seed, cut=cut, counts_words=counts_words
        )

    # ---- model and phases

    def make_model(self) -> vae.TextVAE:
        """Encoder, latent and decoder."""
        return vae.TextVAE(self.backbone, self.config.compute)

    def init(self, key: jax.Array) -> Any:
        """Random parameters."""
        return vae.init_params(self.model, key)

    def init_state(self) -> Any:
        """The Lagrange multiplier of `min_rate`, and the running mean and variance of `mean_scale`."""
        state = elbo.init_state(self.settings)
        if self.backbone.mean_scale:
            width = self.backbone.latent_dim
            state |= {
                "mean": jnp.zeros(width),
                "variance": jnp.zeros(width),
                "weight": jnp.zeros(()),
            }
        return state or None

    def encoder_params(self) -> tuple[str, ...]:
        """The parameters of posterior and prior; the rest are the decoder's."""
        return vae_schemes.encoder_params(self.backbone)

    def phases(self) -> tuple[PhaseConfig, ...]:
        """Those of the scheme."""
        return vae_schemes.phases(self.config, self.backbone, self.encoder_params())

    def kl_weight(self, step: jax.Array, phase: int) -> jax.Array | float:
        """The weight of the divergence at a step of training."""
        if self.settings.scheme == "fresh_decoder" and phase == 0:
            return 0.0
        return elbo.scheduled_weight(self.settings, step, self._schedule_start)

    @property
    def _schedule_start(self) -> int:
        """Steps before the schedule of the weight of the divergence begins."""
        return vae_schemes.schedule_start(self.config)

    def note(self) -> str | None:
        """Whether the weight of the divergence stays below its value."""
        return elbo.schedule_note(self.settings, self.config.steps - self._schedule_start)

    # ---- loss

    def loss(self, params: Any, batch: dict, context: Context) -> Loss:
        """Reconstruction plus weighted divergence, in nats per text; in evaluation with the final weight."""
        return self.bound(params, batch, context)[0]

    def bound(self, params: Any, batch: dict, context: Context) -> tuple[Loss, Gaussian]:
        """The loss, and the posterior of each text."""
        dropout, key = jax.random.split(context.key)
        words, noise, sampling = jax.random.split(key, 3)
        encoder_key = decoder_key = None
        if context.train:
            batch = self._drop_words(batch, words, noise)
            encoder_key, decoder_key = jax.random.split(dropout)
        counts = (self.exists(batch) * batch["valid"][:, None]).ravel()
        moving: jax.Array | None = counts if context.train else None
        if vae_schemes.is_encoder_fixed(self.config, context.phase):
            encoder_key = moving = None
        posterior, statistics = self.posterior(params, batch, context.state, moving, encoder_key)
        z = latent.sample(posterior, elbo.sampling_key(sampling, context, batch["tokens"]))
        kl = self._kl(params, posterior, z)
        weights = batch["weights"] * batch["valid"][:, None]
        tokens = vocabulary.token_cross_entropy(
            self._hidden(params, batch, z, decoder_key),
            vae.output_table(params),
            batch["targets"],
            weights,
            softcap=self.backbone.decoder.logit_softcap,
        )
        sums = elbo.sums(
            self.settings,
            tokens.loss,
            kl.reshape(-1, kl.shape[-1]),
            posterior.mean.reshape(len(counts), -1),
            counts,
        )
        weight = self.kl_weight(context.step, context.phase)
        loss = elbo.loss(self.settings, sums, context, weight)
        means = {
            **loss.means,
            "accuracy": (tokens.correct, weights.sum()),
            "tokens_per_text": (weights.sum(), sums.examples),
        }
        if not context.train and "words" in batch:
            means["words_per_text"] = ((batch["words"] * batch["valid"]).sum(), sums.examples)
        state = None if loss.state is None else {**loss.state, **statistics}
        return loss._replace(means=means, state=state), posterior

    def exists(self, batch: dict) -> jax.Array:
        """1 for each text that a row has, 0 for each latent without a text [B, M]."""
        count = batch["segment_ids"].max(axis=1, keepdims=True)
        return (jnp.arange(self.texts_per_row) < count).astype(jnp.float32)

    def posterior(
        self,
        params: Any,
        batch: dict,
        state: Any,
        counts: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[Gaussian, dict]:
        """The posterior of each text [B, M, Z], and the new running statistics of its means.

        With `counts` [B * M], `mean_scale` normalises over these texts, otherwise by the running statistics.
        """
        mean, log_variance = self.model.apply(
            {"params": params},
            batch["tokens"],
            segment_ids=batch["segment_ids"],
            positions=batch["positions"],
            texts=self.texts_per_row,
            key=key,
            method="encode",
        )
        scale = self.backbone.mean_scale
        if not scale:
            return Gaussian(mean, log_variance), {}
        statistics = {}
        if counts is None:
            # running means that began with zeros, as in Adam; before the first step they are not used
            weight = jnp.maximum(state["weight"], 1e-6)
            center, spread = state["mean"] / weight, state["variance"] / weight
        else:
            center, spread = latent.mean_and_variance(mean.reshape(len(counts), -1), counts)
            new = {"mean": center, "variance": spread, "weight": jnp.ones(())}
            statistics = {
                name: 0.99 * state[name] + 0.01 * jax.lax.stop_gradient(x)
                for name, x in new.items()
            }
        return Gaussian(latent.normalise(mean, center, spread, scale), log_variance), statistics

    def _kl(self, params: Any, posterior: Gaussian, z: jax.Array) -> jax.Array:
        """Divergence from the prior [B, M, Z], or [B, M, 1] from the sample where it has no closed form."""
        if self.backbone.prior == "normal":
            return latent.kl_to_standard_normal(posterior)
        prior = vae.make_prior(self.model, params)
        return (latent.log_density(z, posterior) - prior.log_density(z))[..., None]

    def _hidden(self, params: Any, batch: dict, z: jax.Array, key: jax.Array | None) -> jax.Array:
        return self.model.apply(
            {"params": params},
            batch["decoder_tokens"],
            z,
            segment_ids=batch["decoder_segment_ids"],
            positions=batch["decoder_positions"],
            key=key,
            method="hidden",
        )

    def log_likelihood(self, params: Any, batch: dict, z: jax.Array) -> jax.Array:
        """log p(text | z) of each text [B, M]."""
        scores = losses.per_token_log_probs(
            self._hidden(params, batch, z, None),
            vae.output_table(params),
            batch["targets"],
            softcap=self.backbone.decoder.logit_softcap,
            shards=sharding.batch_shards(),
        )
        own = vae.membership(batch["decoder_segment_ids"], self.texts_per_row)
        return jnp.einsum("BMT,BT->BM", own, scores * batch["weights"])

    def _drop_words(self, batch: dict, words: jax.Array, noise: jax.Array) -> dict:
        s = self.settings
        for side, start, rate, key in (
            ("decoder", "decoder_", s.decoder_word_dropout, words),
            ("encoder", "", s.encoder_word_dropout, noise),
        ):
            if rate:
                name, hidden = f"{start}tokens", self._hidden_id(side)
                assert hidden is not None, "checked when the task is made"
                may_hide = batch[f"{start}positions"] > 0
                batch = {
                    **batch,
                    name: latent.hide_words(batch[name], may_hide, rate, hidden, key),
                }
        return batch

    def _hidden_id(self, side: str) -> int | None:
        """What stands for a hidden word."""
        tokenizer = self.tokenizer if side == "decoder" else self.encoder_tokenizer
        return tokenizer.unk_id if tokenizer.mask_id is None else tokenizer.mask_id

    # ---- metrics

    def metrics(self, means: dict, sums: dict) -> dict[str, float]:
        """Nats per text, perplexity per token and in evaluation per word from the bound, and active units."""
        found = {
            **means,
            "perplexity": task.perplexity(means["neg_elbo"] / means["tokens_per_text"]),
            "active_units": elbo.active_units(sums),
        }
        if "words_per_text" in means:
            word = task.perplexity(means["neg_elbo"] / means["words_per_text"])
            found["word_perplexity"] = word
        return found

    # ---- diagnostics

    def analyse(self, params: Any, batch: dict, context: Context) -> dict[str, jax.Array]:
        """See `vae_diagnostics.analyse`; and a text from the prior for each row, "written" [B, T]."""
        key = jax.random.fold_in(context.key, 1)
        z = vae.make_prior(self.model, params).sample(key, len(batch["tokens"]))
        written = self._generate(params, z, key, 0.0)
        return {**vae_diagnostics.analyse(self, params, batch, context), "written": written}

    def examples(self, rows: Any) -> int:
        """The texts of packed rows, or the pieces of those that were cut."""
        parts: Any = rows.parts if isinstance(rows, Mixture) else (rows,)
        return sum(len(part.packed.packing.pieces) for part in parts)

    def analysed_rows(self, rows: Any) -> int:
        """As many as have `importance_texts` texts on average."""
        return -(-self.settings.importance_texts * len(rows) // self.examples(rows))

    def diagnose(self, outputs: Any, metrics: Any) -> dict[str, float]:
        """See `vae_diagnostics.diagnose`."""
        found = vae_diagnostics.diagnose(outputs, metrics)
        written = [np.asarray(row["written"]) for row in outputs]
        return found | {
            "distinct_samples": vae_diagnostics.distinct(written, self.tokenizer.eos_id)
        }

    def verdict(self, metrics: Any) -> str:
        """Whether the decoder uses the latent."""
        s = self.settings
        new = s.scheme == "joint" and getattr(self.config, "init_decoder", None) is None
        if s.min_rate:
            reached = metrics["kl"] >= s.min_rate
            advice = "raise task.min_rate" if reached else "train longer, or raise task.min_rate"
        elif not s.kl_weight:
            # nothing draws an autoencoder's posteriors to the prior
            advice = "train longer"
        else:
            advice = "raise task.free_bits" + (", or use task.scheme=fresh_decoder" if new else "")
        return vae_diagnostics.verdict(metrics, s.min_rate, advice)

    def cost(self, seq_len: int) -> float:
        """FLOPs of encoder and decoder with logits at every position."""
        return flops.flops_per_token(self.backbone, seq_len)

    # ---- previews and samples

    def preview(self, row: Batch) -> list[Piece]:
        """The texts of a row as the decoder writes them."""
        starts = task.begins(row["decoder_segment_ids"])
        real = row["decoder_segment_ids"] > 0
        return [
            Piece(self.tokenizer.piece(int(target)), bool(weight), None, bool(new))
            for target, weight, new in zip(row["targets"][real], row["weights"][real], starts[real])
        ]

    def sample(self, params: Any, key: jax.Array) -> str:
        """Three texts from the prior, decoded greedily."""
        choose, write = jax.random.split(key)
        z = vae.make_prior(self.model, params).sample(choose, 3)
        texts = self.decode_latents(params, z, write)
        return "\n".join(text if text.strip() else "(empty)" for text in texts)

    def decode_latents(
        self, params: Any, z: jax.Array, key: jax.Array, *, temperature: float = 0.0
    ) -> list[str]:
        """The text of each latent [N, Z]; temperature 0 is greedy."""
        tokens = np.asarray(self._write(temperature)(params, z, key))
        out = []
        for row in tokens:
            end = np.flatnonzero(row == self.tokenizer.eos_id)
            out.append(self.tokenizer.decode(row[: end[0] if len(end) else None].tolist()))
        return out

    @functools.cache  # noqa: B019 - a task lives as long as its run
    def _write(self, temperature: float):
        return jax.jit(functools.partial(self._generate, temperature=temperature))

    def _generate(self, params: Any, z: jax.Array, key: jax.Array, temperature: float) -> jax.Array:
        """The tokens of each latent's text [N, T]."""
        eos_id = self.tokenizer.eos_id
        assert eos_id is not None, "one of the roles"
        return latents.generate(
            self.model,
            params,
            z,
            key,
            start_id=vae_rows.start_id(self.tokenizer),
            eos_id=eos_id,
            vocab_size=self.tokenizer.vocab_size,
            length=self.config.data.seq_len - 1,
            temperature=temperature,
        )
