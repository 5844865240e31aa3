"""The language model beside configs/vae_ptb.py: its decoder without a latent, trained on as many tokens.

    python benchmarks/ptb_lm.py --data data/ptb --out runs/ptb_lm

Prints the negative log-likelihood of the test sentences in nats per sentence, each whole and by itself, with its end:
what `iw_nll` of the VAE bounds. (`jaxlm evaluate` of a language model reads windows, which cut sentences.)
"""

from __future__ import annotations

import dataclasses
import json
import pathlib

import jax
import numpy as np
import tyro

from jaxlm import CausalLMConfig, pretrain
from jaxlm.config import files
from jaxlm.data.documents import tokenize
from jaxlm.data.rows import next_tokens
from jaxlm.run import restore
from jaxlm.tasks.pretraining.decoder import text_rows

VAE = pathlib.Path(__file__).resolve().parent.parent / "configs" / "vae_ptb.py"


def sentence_nll(folder: pathlib.Path, sentences: list[str], rows_at_once: int = 16) -> float:
    """Negative log-likelihood of sentences under a language model, in nats per sentence."""
    run = restore.restore_model(folder)
    tokenizer = run.task.tokenizer
    rows = text_rows(tokenize(sentences, tokenizer), tokenizer, run.config.data.seq_len)
    assert len(rows.pieces) == len(sentences), "a sentence is empty or longer than a row"
    loss = jax.jit(lambda params, batch, context: run.task.loss(params, batch, context).total)
    total = 0.0
    with jax.set_mesh(run.mesh):
        for first in range(0, len(rows), rows_at_once):
            at = np.arange(first, first + rows_at_once)
            members = rows.members(np.minimum(at, len(rows) - 1))
            batch = next_tokens(rows.build_rows(rows.take(members), members))
            valid = (at < len(rows)).astype(np.float32)
            batch["weights"] *= valid[:, None]
            total += float(loss(run.params, {**batch, "valid": valid}, run.context))
    return total / len(sentences)


def main(
    data: pathlib.Path,
    out: pathlib.Path = pathlib.Path("runs/ptb_lm"),
    steps: int | None = None,
) -> None:
    """Trains unless the run is complete, and prints a line of JSON.

    Args:
        data: folder of ptb.train.txt, ptb.valid.txt and ptb.test.txt.
        out: folder of the run.
        steps: default: those of the VAE.
    """
    vae = files.load_python(VAE)
    sources = {
        "train": (str(data / "ptb.train.txt"),),
        "validation": (str(data / "ptb.valid.txt"),),
    }
    config = dataclasses.replace(
        vae,
        model=vae.model.decoder,
        task=CausalLMConfig(),
        data=dataclasses.replace(vae.data, **sources),
        steps=steps or vae.steps,
        name="ptb_lm",
        run_dir=str(out),
    )
    if not (out / "summary.json").is_file():
        pretrain(config)
    result = {}
    for part in ("valid", "test"):
        lines = (data / f"ptb.{part}.txt").read_text(encoding="utf-8").splitlines()
        sentences = [line for line in lines if line.strip()]
        result[part] = sentence_nll(out, sentences)
    print(json.dumps({"sentences": len(sentences), "nll": result}))


if __name__ == "__main__":
    tyro.cli(main)
