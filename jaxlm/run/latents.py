"""What people do with a trained text VAE: texts to latents and back, samples, interpolation, neighbours, a map.

    vae = latents.load("runs/vae_ptb")
    means, log_variances = vae.encode(["the market fell", "stocks rose sharply"])
    print(vae.interpolate("the market fell", "stocks rose sharply", steps=5))

Letters: N texts, Z width of the latent.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxlm.data.bad_rows import RowCounts
from jaxlm.data.columns import Column
from jaxlm.data.ragged import owners_and_offsets
from jaxlm.models import vae
from jaxlm.ops import latent
from jaxlm.ops.latent import Gaussian
from jaxlm.run import folder as run_folder
from jaxlm.run import restore
from jaxlm.tasks import vae_diagnostics, vae_rows
from jaxlm.tasks.vae import TextVAE

# a row of the encoder holds several texts, a row of the decoder one
ROWS_ENCODED, ROWS_DECODED = 16, 64


class Posteriors(NamedTuple):
    """The Gaussian posterior of each of N texts."""

    # [N, Z]
    means: np.ndarray
    # [N, Z]
    log_variances: np.ndarray


class Neighbour(NamedTuple):
    """A text that is near another one."""

    text: str
    # cosine of the angle between the posterior means
    similarity: float


class Projection(NamedTuple):
    """Posterior means in two dimensions."""

    # [N, 2]
    points: np.ndarray
    # fraction of the variance along each of the two [2]
    fractions: np.ndarray


NO_LABEL = "(no label)"


class Texts(NamedTuple):
    """Texts of some sources."""

    texts: list[str]
    # None: no column of labels was asked for; NO_LABEL for a text without one
    labels: list[str] | None
    # number of texts that were left out because they do not fit a row
    too_long: int
    # number of those that fit, of which these may be a choice
    fitting: int
    # rows that were read, and those that were skipped because they have no text
    counts: RowCounts


def load(run_dir: str | os.PathLike, *, step: run_folder.Step = None) -> TrainedVAE:
    """The text VAE of a run folder, on one device.

    Args:
        run_dir: folder of the run.
        step: of the checkpoint; default: the newest.

    Raises:
        ValueError: there is no such run, or it is none of a text VAE.
    """
    config = run_folder.read_config(run_dir)
    if not isinstance(config.task, TextVAE.Config):
        raise ValueError(f"{run_dir}: a run of {type(config.task).__name__}, not of a text VAE")
    return TrainedVAE(restore.restore_model(run_dir, step=step))


@dataclasses.dataclass(frozen=True)
class TrainedVAE:
    """A text VAE with its parameters.

    All methods that take texts raise ValueError if one has no tokens, or more than a row of the run has room for.
    Texts are written greedily, or sampled token by token where `temperature` is above 0; equal seeds give equal texts.
    """

    run: restore.Model

    # ---- texts to latents and back

    def encode(self, texts: Sequence[str]) -> Posteriors:
        """The posterior of each text."""
        if not len(texts):
            return Posteriors(*np.zeros((2, 0, self.width), np.float32))
        out = self._of_texts(texts, self._encode)
        return Posteriors(out["mean"], out["log_variance"])

    def log_likelihoods(self, texts: Sequence[str]) -> Float[np.ndarray, " N"]:
        """Lower bounds of log p(text) in nats, from `task.importance_samples` samples for each text.

        Of VAEs that were trained on one class each, the one with the largest bound tells the class of a text (a
        generative classifier, Ding and Gimpel 2019, 1910.00382).
        """
        return self._of_texts(texts, self._analyse)["bound"]

    def decode(
        self, z: Float[np.ndarray, "N Z"], *, temperature: float = 0.0, seed: int = 0
    ) -> list[str]:
        """The text of each latent."""
        return self._decode(z, jax.random.key(seed), temperature)

    def sample(self, n: int, *, temperature: float = 0.0, seed: int = 0) -> list[str]:
        """`n` texts from the prior."""
        if n < 1:
            raise ValueError(f"n={n} must be at least 1")
        choose, write = jax.random.split(jax.random.key(seed))
        with jax.set_mesh(self.run.mesh):
            z = self._sample_prior(self.run.params, choose, n)
        return self._decode(z, write, temperature)

    def reconstruct(
        self, texts: Sequence[str], *, temperature: float = 0.0, seed: int = 0
    ) -> list[str]:
        """Each text as it is decoded from its posterior mean."""
        return self.decode(self.encode(texts).means, temperature=temperature, seed=seed)

    # ---- directions in the latent space

    def interpolate(
        self, a: str, b: str, *, steps: int = 8, temperature: float = 0.0, seed: int = 0
    ) -> list[str]:
        """`steps` texts on the arc between the posterior means of two texts, with the reconstructions as its ends."""
        if steps < 2:
            raise ValueError(f"steps={steps} must be at least 2: both ends are among them")
        first, last = self.encode([a, b]).means
        # by formula the ends are equal but for rounding
        z = np.array(latent.interpolate(jnp.asarray(first), jnp.asarray(last), steps))
        z[0], z[-1] = first, last
        return self.decode(z, temperature=temperature, seed=seed)

    def traverse(
        self,
        text: str,
        dim: int,
        values: Sequence[float],
        *,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[str]:
        """The text with one dim of its posterior mean set to each of the values."""
        if not 0 <= dim < self.width:
            raise ValueError(f"dim={dim}: the latent has dims 0 to {self.width - 1}")
        if not np.all(np.abs(np.asarray(values, float)) <= np.finfo(np.float32).max):
            raise ValueError(f"values={tuple(values)} has one that is not a finite number")
        z = np.repeat(self.encode([text]).means, len(values), axis=0)
        z[:, dim] = values
        return self.decode(z, temperature=temperature, seed=seed)

    def informative_dim(self, text: str) -> int:
        """The dim whose posterior differs most from a standard normal."""
        posterior = Gaussian(*(jnp.asarray(x[0]) for x in self.encode([text])))
        return int(jnp.argmax(latent.kl_to_standard_normal(posterior)))

    def analogy(self, a: str, b: str, c: str, *, temperature: float = 0.0, seed: int = 0) -> str:
        """What is to c as b is to a: the text of z_b - z_a + z_c (Optimus, Li et al. 2020, 2004.04092)."""
        first, second, third = self.encode([a, b, c]).means
        # in this order a = b gives exactly z_c
        z = (second - first) + third
        return self.decode(z[None], temperature=temperature, seed=seed)[0]

    def neighbours(self, query: str, texts: Sequence[str], k: int = 5) -> list[Neighbour]:
        """The `k` texts whose posterior means have the smallest angle to the query's, the nearest first."""
        if k < 1:
            raise ValueError(f"k={k} must be at least 1")
        means = self.encode([query, *texts]).means
        units = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        cosines = units[1:] @ units[0]
        return [
            Neighbour(texts[i], float(cosines[i])) for i in np.argsort(-cosines, kind="stable")[:k]
        ]

    # ---- sizes

    @property
    def width(self) -> int:
        """Z."""
        return self.run.config.model.latent_dim

    @property
    def longest(self) -> int:
        """Tokens of the longest text that fits: the encoder adds two to each."""
        return self.run.config.data.seq_len - 2

    def lengths(self, texts: Sequence[str]) -> np.ndarray:
        """Tokens of each text [N]."""
        return vae_rows.lengths(self._task.tokenize(texts))

    def unknown(self, texts: Sequence[str]) -> list[str]:
        """The words, or parts of words, that are not in the vocabulary, in the order of the texts."""
        read, written = self._task.encoder_tokenizer, self._task.tokenizer
        words: list[str] = []
        for text in texts:
            own = written.unknown(text)
            words += own
            if read is not written:
                words += [word for word in read.unknown(text) if word not in own]
        return words

    # ---- computation; everything is compiled once for each shape

    def _of_texts(self, texts: Sequence[str], run: Any) -> dict[str, np.ndarray]:
        """The arrays [N, ...] of the texts that `run` computes as [B, M, ...] from a batch of rows."""
        if isinstance(texts, str):
            raise ValueError(f"{_shorten(texts)} is one text, not several: write [text]")
        documents = self._task.tokenize(texts)
        for i, (text, length) in enumerate(zip(texts, vae_rows.lengths(documents))):
            if not 0 < length <= self.longest:
                many = f"{length} tokens, but a row of this run has room for {self.longest}"
                raise ValueError(
                    f"text {i + 1} ({_shorten(text)}) has {many if length else 'no tokens'}"
                )
        if not len(texts):
            raise ValueError("there are no texts")
        rows: Any = self._task.rows(documents, "predict")
        size = _batch_size(len(rows), ROWS_ENCODED)
        out: dict[str, np.ndarray] = {}
        for first in range(0, len(rows), size):
            # the last batch is filled up with its last row
            indices = np.minimum(np.arange(first, first + size), len(rows) - 1)
            batch = rows.rows(indices, np.zeros_like(indices)) | {
                "valid": np.ones(size, np.float32)
            }
            with jax.set_mesh(self.run.mesh):
                found = jax.device_get(run(self.run.params, batch, self.run.context))
            members = rows.packed.members(indices)
            place = owners_and_offsets(np.bincount(members.rows, minlength=size))
            for name, x in found.items():
                if name not in out:
                    out[name] = np.zeros((len(texts), *x.shape[2:]), x.dtype)
                out[name][members.pieces] = x[place]
        return out

    def _decode(self, z: Any, key: jax.Array, temperature: float) -> list[str]:
        z = np.asarray(z, np.float32)
        if z.ndim != 2 or z.shape[1] != self.width:
            raise ValueError(f"latents have shape {z.shape}, expected [texts, {self.width}]")
        if not np.all(np.isfinite(z)):
            raise ValueError("latents have values that are not finite numbers")
        if not 0 <= temperature < np.inf:
            raise ValueError(f"temperature={temperature} must be a finite number, not negative")
        size = _batch_size(len(z), ROWS_DECODED)
        texts: list[str] = []
        for first in range(0, len(z), size):
            # the last batch is filled up with its last latent
            batch = jnp.asarray(z[np.minimum(np.arange(first, first + size), len(z) - 1)])
            with jax.set_mesh(self.run.mesh):
                texts += self._task.decode_latents(
                    self.run.params, batch, jax.random.fold_in(key, first), temperature=temperature
                )
        return texts[: len(z)]

    @property
    def _task(self) -> TextVAE:
        task = self.run.task
        assert isinstance(task, TextVAE)
        return task

    @functools.cached_property
    def _encode(self) -> Any:
        def encode(params, batch, context):
            return self._task.posterior(params, batch, context.state)[0]._asdict()

        return jax.jit(encode)

    @functools.cached_property
    def _analyse(self) -> Any:
        return jax.jit(functools.partial(vae_diagnostics.analyse, self._task))

    @functools.cached_property
    def _sample_prior(self) -> Any:
        def sample(params, key, n):
            return vae.make_prior(self._task.model, params).sample(key, n)

        return jax.jit(sample, static_argnums=2)


def project(means: Float[np.ndarray, "N Z"]) -> Projection:
    """The two principal components of posterior means; of each, the largest weight is positive.

    Raises:
        ValueError: there are fewer than two.
    """
    if len(means) < 2:
        raise ValueError(f"a map needs at least two texts, not {len(means)}")
    centered = np.asarray(means, np.float64) - np.mean(means, axis=0)
    _, sizes, directions = np.linalg.svd(centered, full_matrices=False)
    variances = np.append(np.square(sizes), 0.0)[:2]
    directions = np.vstack([directions, np.zeros_like(directions[:1])])[:2]
    largest = np.abs(directions).argmax(axis=1, keepdims=True)
    directions = directions * np.where(np.take_along_axis(directions, largest, 1) < 0, -1, 1)
    return Projection(centered @ directions.T, variances / max(np.square(sizes).sum(), 1e-12))


def read_texts(
    model: TrainedVAE,
    sources: tuple[str, ...] = (),
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Texts:
    """Texts of some sources that fit a row.

    Args:
        model: the VAE.
        sources: as in `data.validation`, read as the run's own data; default: the run's validation data.
        text_column: default: as in the run's own data.
        label_column: column of a class, if it is to be read too.
        limit: at most this many texts, chosen at random; default: all.
        seed: of that choice.

    Raises:
        ValueError: a source cannot be read, or there is no text that fits.
    """
    data = model.run.config.data
    columns = {"text": Column(text_column or data.text_column, "text")}
    if label_column is not None:
        columns["label"] = Column(label_column, "label", required=False)
    records = restore.read(data, sources, columns)
    if records is None:
        raise ValueError(f"{model.run.folder} has no validation data: name some with --data")
    lengths = model.lengths(records.columns["text"])
    fits = np.flatnonzero((lengths > 0) & (lengths <= model.longest))
    if not len(fits):
        raise ValueError(f"none of {len(records):,} texts has 1 to {model.longest} tokens")
    too_long, fitting = len(records) - len(fits), len(fits)
    if limit is not None and len(fits) > limit:
        fits = np.sort(np.random.default_rng(seed).choice(fits, limit, replace=False))
    chosen = records.take(fits.tolist()).columns
    labels = chosen.get("label")
    if labels is not None:
        labels = [NO_LABEL if label is None else label for label in labels]
        if set(labels) == {NO_LABEL}:
            raise ValueError(f"no text has a label in a column {label_column!r}")
    return Texts(chosen["text"], labels, too_long, fitting, records.counts)


def _batch_size(count: int, most: int) -> int:
    """The power of two from `count` on, at most `most`: few shapes, so that little is compiled."""
    return min(1 << max(count - 1, 0).bit_length(), most)


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
