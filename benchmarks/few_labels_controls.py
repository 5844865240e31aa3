"""Why a collapsed VAE tells classes apart: its means standardised and as they are, and those of an untrained encoder.

    python benchmarks/few_labels_controls.py --source data/yelp_sentences --out runs/few_labels

Reads the runs of `few_labels.py yelp --systems collapsed --trainings 3`; 100 labels, 10 choices, 2,000 test sentences.
"""

from __future__ import annotations

import dataclasses
import pathlib
import warnings

import few_labels
import few_labels_data
import few_labels_runs
import jax
import numpy as np
import tyro
from mean_deviation import mean_deviation

from jaxlm.run import latents


def main(
    source: pathlib.Path, out: pathlib.Path = pathlib.Path("runs/few_labels"), trainings: int = 3
) -> None:
    """Prints mean and standard deviation of the accuracy for each.

    Args:
        source: folder of the data set.
        out: folder of the runs.
        trainings: of the collapsed VAE.
    """
    warnings.simplefilter("ignore")
    data = few_labels_data.yelp(source, out / "yelp")
    test = data.test.take(np.linspace(0, len(data.test) - 1, 2000).astype(int))
    draws = [data.pool.draw(100, seed) for seed in range(10)]
    texts = sorted({text for chosen in draws for text in chosen.texts})
    names = [few_labels_runs.run_name("collapsed", seed) for seed in range(trainings)]
    models = {name: latents.load(out / "yelp" / name) for name in names}
    run = models[names[0]].run
    untrained = dataclasses.replace(run, params=run.task.init(jax.random.key(7)))
    models["untrained"] = latents.TrainedVAE(untrained)
    for name, model in models.items():
        known = dict(zip(texts, model.encode(texts).means))
        x_test = model.encode(test.texts).means
        for standardise in (True, False):
            found = [
                few_labels.classify(
                    np.stack([known[t] for t in c.texts]), c.labels, x_test, standardise
                )
                for c in draws
            ]
            values = [100 * float(np.mean(predicted == test.labels)) for predicted in found]
            how = "standardised" if standardise else "as they are"
            print(f"{name} {how} {mean_deviation(values)}", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
