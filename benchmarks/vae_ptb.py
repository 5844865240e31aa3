"""Sentences of the Penn Treebank: the VAE of configs/vae_ptb.py, and beside it what it is compared with.

    python benchmarks/vae_ptb.py --data data/ptb --out runs/ptb --seeds 0 1 2

Trains each system with each seed, evaluates it on the test sentences, and prints the table of docs/case_study_vae.md as
Markdown, in nats per sentence. OUT/results.json holds what is known so far: a command that was interrupted goes on from
the last checkpoint of its run. --systems chooses some.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Literal

import jax
import numpy as np
import tyro
from mean_deviation import mean_deviation

from jaxlm import CausalLMConfig, TextVAEConfig, TrainConfig, pretrain, sharding
from jaxlm.config import files
from jaxlm.data.documents import tokenize
from jaxlm.data.rows import next_tokens
from jaxlm.run import evaluate, restore
from jaxlm.tasks.pretraining.decoder import text_rows

CONFIG = pathlib.Path(__file__).resolve().parent.parent / "configs" / "vae_ptb.py"
System = Literal["vae", "continued", "collapsed", "autoencoder", "language_model"]
TITLES = {
    "vae": "VAE, free bits 0.15 a dim",
    "continued": "the same, continued",
    "collapsed": "VAE, weight 1 from the start",
    "autoencoder": "autoencoder (weight 0)",
    "language_model": "its decoder as a language model, without a latent",
}
# metric -> decimals
COLUMNS = {
    "iw_nll": 1,
    "neg_elbo": 1,
    "reconstruction": 1,
    "kl": 1,
    "mutual_information": 1,
    "swap_loss": 1,
    "active_units": 1,
    "distinct_samples": 2,
}


def config_of(system: System, data: pathlib.Path, folder: pathlib.Path, seed: int) -> TrainConfig:
    """The run of a system; `continued` is that of `vae` with half as many steps more."""
    config = files.load_python(CONFIG)
    sources = [(str(data / f"ptb.{part}.txt"),) for part in ("train", "valid")]
    changes = {
        "vae": {},
        "continued": dict(steps=config.steps * 3 // 2),
        "collapsed": dict(task=TextVAEConfig(kl_schedule="constant")),
        "autoencoder": dict(task=TextVAEConfig(kl_schedule="constant", kl_weight=0.0)),
        "language_model": dict(model=config.model.decoder, task=CausalLMConfig()),
    }[system]
    run_name = f"{'vae' if system == 'continued' else system}_{seed}"
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, train=sources[0], validation=sources[1]),
        name=run_name,
        seed=seed,
        run_dir=str(folder / run_name),
        **changes,
    )


def sentence_nll(folder: pathlib.Path, source: pathlib.Path, rows_at_once: int = 16) -> float:
    """Negative log-likelihood under a language model in nats per sentence, each whole and by itself, with its end.

    What `iw_nll` of a VAE bounds. (`jaxlm evaluate` of a language model reads windows, which cut sentences.)
    """
    lines = source.read_text(encoding="utf-8").splitlines()
    sentences = [line for line in lines if line.strip()]
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


def measure(config: TrainConfig, test: pathlib.Path) -> dict[str, float]:
    """Trains the run to its last step; its metrics on the test sentences."""
    pretrain(config)
    folder = pathlib.Path(config.run_dir or "")
    if isinstance(config.task, CausalLMConfig):
        return {"iw_nll": sentence_nll(folder, test)}
    found = restore.find(folder, mesh=sharding.make_mesh(config.mesh))
    return evaluate.evaluate(restore.with_rows(found, (str(test),), "validation")).metrics


def row_of(system: System, runs: list[dict[str, float]]) -> str:
    """A row of the table: mean and standard deviation over the seeds."""
    cells = []
    for name, digits in COLUMNS.items():
        values = [run[name] for run in runs if name in run]
        cells.append(mean_deviation(values, f".{digits}f") if values else "")
    return f"| {TITLES[system]} | {len(runs)} | {' | '.join(cells)} |"


def main(
    data: pathlib.Path,
    out: pathlib.Path = pathlib.Path("runs/ptb"),
    systems: tuple[System, ...] = tuple(TITLES),
    seeds: tuple[int, ...] = (0, 1, 2),
) -> None:
    """Trains and evaluates what is missing, and prints the table.

    Args:
        data: folder of ptb.train.txt, ptb.valid.txt and ptb.test.txt.
        out: folder of the runs and results.json.
        systems: which to train; `continued` goes on from the run of `vae`.
        seeds: of the trainings.
    """
    file = out / "results.json"
    results = json.loads(file.read_text()) if file.is_file() else {}
    for seed in seeds:
        # in the order of TITLES: the run that is continued has been evaluated before
        for system in (name for name in TITLES if name in systems):
            known = results.setdefault(system, {})
            if str(seed) not in known:
                known[str(seed)] = measure(
                    config_of(system, data, out, seed), data / "ptb.test.txt"
                )
                file.write_text(json.dumps(results, indent=1))
                print(json.dumps({"system": system, "seed": seed, **known[str(seed)]}), flush=True)
    print(f"\n| model | seeds | {' | '.join(COLUMNS)} |\n|---|---|{'---|' * len(COLUMNS)}")
    for system in (name for name in TITLES if name in results):
        print(row_of(system, list(results[system].values())))


if __name__ == "__main__":
    tyro.cli(main)
