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
from typing import Literal

import jax
import numpy as np
import tyro
from run_step import RunStep

from jaxlm import CausalLMConfig, TrainConfig, sharding
from jaxlm.config import files
from jaxlm.run import prepare
from jaxlm.tasks import task_class

CONFIG = pathlib.Path(__file__).resolve().parent.parent / "configs" / "vae_ptb.py"


def side(config: TrainConfig, mesh: jax.sharding.Mesh) -> tuple[RunStep, float]:
    """A compiled step, and the FLOPs of a token on paper."""
    kind = task_class(config.task, ())
    config, data = prepare.read_data(config, kind)
    tokenizer = kind.prepare_tokenizer(config, prepare.tokenizer_of(config, data))
    config = dataclasses.replace(config, model=prepare.with_vocab(config.model, tokenizer))
    config, plan = prepare.make_plan(config, kind, tokenizer, data)
    return RunStep(config, plan, mesh), plan.task.cost(config.data.seq_len)


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
        sides, flops = zip(*(side(config, mesh) for config in (vae, language_model)))
        # the first one compiles
        ours, decoder = np.array([[s.seconds() for s in sides] for _ in range(repeat + 1)])[1:].T
    ratio = float(np.median(ours / decoder))
    on_paper = flops[0] / flops[1]
    print(
        json.dumps(
            {
                "vae_seconds": float(np.median(ours)),
                "decoder_seconds": float(np.median(decoder)),
                "ratio": round(ratio, 3),
                "flops_ratio": round(on_paper, 3),
                "of_flops": round(ratio / on_paper, 3),
                "repeat": repeat,
            }
        )
    )


if __name__ == "__main__":
    tyro.cli(main)
