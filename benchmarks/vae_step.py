"""Time of a training step of the text VAE, against its decoder alone as a language model and the ratio of their FLOPs.

    python benchmarks/vae_step.py --data data/ptb

Both are those of configs/vae_ptb.py on rows of the same shape, in one process, a step of each in turn. The optimizer is
AdamW instead of Muon, whose products the FLOPs on paper do not count. The last line is JSON; `of_flops` is the ratio of
the times divided by that of the FLOPs.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from typing import Literal

import jax
import numpy as np
import tyro

from jaxlm import CausalLMConfig, TrainConfig, sharding
from jaxlm.config import files
from jaxlm.run import prepare
from jaxlm.tasks import task_class
from jaxlm.training import batches
from jaxlm.training.programs import Programs
from jaxlm.training.state import create_state

CONFIG = pathlib.Path(__file__).resolve().parent.parent / "configs" / "vae_ptb.py"


class Side:
    """A compiled step, its state and its batches."""

    def __init__(self, config: TrainConfig, mesh: jax.sharding.Mesh):
        kind = task_class(config.task, ())
        config, data = prepare.read_data(config, kind)
        tokenizer = kind.prepare_tokenizer(config, prepare.tokenizer_of(config, data))
        config = dataclasses.replace(config, model=prepare.with_vocab(config.model, tokenizer))
        config, plan = prepare.make_plan(config, kind, tokenizer, data)
        made = Programs(config, plan, mesh)
        self.step = made.step(made.segments[0], 1)
        self.state = create_state(plan.task, made.phases[0], made.abstract[0], 0)
        self.mesh, self.size = mesh, plan.rows_per_step(0)
        self.rows = batches.local_rows(self.size, mesh)
        self.loader = plan.loader(0, 0, seed=0, rows=self.rows, workers=0)
        self.flops = plan.task.cost(config.data.seq_len)

    def seconds(self) -> float:
        """Takes a step; without the time to read its batch."""
        batch = batches.to_devices(next(self.loader), self.mesh, self.size, self.rows)
        began = time.perf_counter()
        self.state, metrics = self.step(self.state, batch, None)
        jax.block_until_ready((self.state.params, metrics))
        return time.perf_counter() - began


def main(
    data: pathlib.Path, repeat: int = 30, optimizer: Literal["adamw", "muon"] = "adamw"
) -> None:
    """Prints a line of JSON.

    Args:
        data: folder of ptb.train.txt and ptb.valid.txt.
        repeat: steps of each side.
        optimizer: of both sides.
    """
    vae = files.load_python(CONFIG)
    sources = {
        "train": (str(data / "ptb.train.txt"),),
        "validation": (str(data / "ptb.valid.txt"),),
    }
    vae = dataclasses.replace(
        vae,
        data=dataclasses.replace(vae.data, **sources),
        optimizer=dataclasses.replace(vae.optimizer, name=optimizer),
    )
    language_model = dataclasses.replace(vae, model=vae.model.decoder, task=CausalLMConfig())
    mesh = sharding.make_mesh(vae.mesh)
    with jax.set_mesh(mesh):
        sides = [Side(config, mesh) for config in (vae, language_model)]
        # the first one compiles
        ours, decoder = np.array([[s.seconds() for s in sides] for _ in range(repeat + 1)])[1:].T
    ratio = float(np.median(ours / decoder))
    flops = sides[0].flops / sides[1].flops
    print(
        json.dumps(
            {
                "vae_seconds": float(np.median(ours)),
                "decoder_seconds": float(np.median(decoder)),
                "ratio": round(ratio, 3),
                "flops_ratio": round(flops, 3),
                "of_flops": round(ratio / flops, 3),
                "repeat": repeat,
            }
        )
    )


if __name__ == "__main__":
    tyro.cli(main)
