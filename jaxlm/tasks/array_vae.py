"""The VAE of rows of numbers: the objective of the text VAE, on images, tables and other arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxlm.config import DenseVAEConfig, RunConfig
from jaxlm.data.bad_rows import BadRow
from jaxlm.data.records import Column, Records
from jaxlm.data.rows import ArrayRows
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.models import dense_vae, flops
from jaxlm.ops import latent
from jaxlm.tasks import elbo
from jaxlm.tasks.elbo import ElboConfig
from jaxlm.tasks.task import Context, Loss, Purpose, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArrayVAEConfig(ElboConfig):
    """Reconstruct each row of numbers from a latent variable (VAE, Kingma and Welling 2014, 1312.6114)."""

    # array of a .npz file, or column of another file, with the rows
    column: str = "x"


class ArrayVAE(Task):
    """See `ArrayVAEConfig`. Its prediction for a row is the mean of the posterior."""

    Config = ArrayVAEConfig
    name = "array_vae"
    backbones = (DenseVAEConfig,)
    reads_text = False
    # free bits compare the rows of a whole batch
    coupled = True

    @classmethod
    def columns(cls, config: RunConfig, purpose: Purpose) -> Mapping[str, Column]:
        """The rows; labels are not read."""
        return {"x": Column(config.task.column, "numbers", option="task.column")}  # type: ignore[attr-defined]

    def __init__(self, config: RunConfig, tokenizer: Tokenizer | None):
        """Checks that the length of a row is that of the model."""
        super().__init__(config, tokenizer)
        if config.data.seq_len != self.backbone.inputs:
            raise ValueError(
                f"data.seq_len={config.data.seq_len} is not model.inputs={self.backbone.inputs}: both are the number "
                "of numbers in a row"
            )

    @classmethod
    def select(cls, settings: Any, records: Records, config: RunConfig) -> Records:
        """The rows that have the model's length and no number that its likelihood excludes."""
        model: Any = config.model  # type: ignore[attr-defined]
        bad: dict[int, BadRow] = {}
        if not isinstance(model, cls.backbones):
            # told when the task is made
            return records
        for i, row in enumerate(records.columns["x"]):
            if len(row) != model.inputs:
                bad[i] = BadRow(
                    "another number of columns",
                    f"{len(row):,} numbers, but model.inputs={model.inputs}: set it (and data.seq_len) to the number "
                    "of columns of the array",
                )
            elif model.likelihood == "bernoulli" and (row.min() < 0 or row.max() > 1):
                outside = row[np.argmax((row < 0) | (row > 1))]
                bad[i] = BadRow(
                    "a number outside of [0, 1]",
                    f"{outside:g} is not in [0, 1], as model.likelihood=bernoulli needs: scale the numbers, or use "
                    "gaussian",
                )
        return records.without(bad, config.data.on_bad_row)

    def rows(self, data: Records, purpose: Purpose) -> ArrayRows:
        """The rows as one array [n, inputs]."""
        if not len(data):
            raise ValueError(f"no row can be used; {data.counts}")
        return ArrayRows({"x": np.stack(data.columns["x"])})

    def make_model(self) -> dense_vae.DenseVAE:
        """Encoder, latent and decoder."""
        return dense_vae.DenseVAE(self.backbone, self.config.compute)

    def init(self, key: jax.Array) -> Any:
        """Random parameters."""
        return dense_vae.init_params(self.model, key)

    def note(self) -> str | None:
        """Whether the weight of the divergence stays below its value."""
        return elbo.schedule_note(self.settings, self.config.steps)

    def init_state(self) -> Any:
        """The Lagrange multiplier of `min_rate`."""
        return elbo.init_state(self.settings) or None

    def loss(self, params: Any, batch: dict, context: Context) -> Loss:
        """Reconstruction plus weighted divergence, in nats per row; in evaluation with the final weight."""
        apply = lambda *inputs, method: self.model.apply({"params": params}, *inputs, method=method)
        posterior = apply(batch["x"], method="encode")
        z = latent.sample(posterior, elbo.sampling_key(context.key, context, batch["x"]))
        likelihood = apply(batch["x"], z, method="log_likelihood")
        sums = elbo.sums(
            self.settings,
            -(likelihood * batch["valid"]).sum(),
            latent.kl_to_standard_normal(posterior),
            posterior.mean,
            batch["valid"],
        )
        weight = elbo.scheduled_weight(self.settings, context.step)
        return elbo.loss(self.settings, sums, context, weight)

    def metrics(self, means: dict, sums: dict) -> dict[str, float]:
        """Nats per row, and active units."""
        return {**means, "active_units": elbo.active_units(sums)}

    def cost(self, seq_len: int) -> float:
        """FLOPs for each number of a row."""
        return flops.flops_per_row(self.backbone) / seq_len

    def predict(self, params: Any, batch: dict, key: jax.Array) -> jax.Array:
        """The means of the posteriors [B, Z]."""
        return self.model.apply({"params": params}, batch["x"], method="encode").mean

    def read(self, outputs: Sequence[Any], record: dict[str, Any]) -> dict[str, Any]:
        """The mean of a row's posterior."""
        return {"mean": outputs[0].tolist()}
