"""The difference in accuracy between two ways to train a classifier, on the same examples, with its uncertainty.

    python benchmarks/paired_accuracy.py --ours runs/sst2_0 runs/sst2_1 --theirs runs/scratch_0 runs/scratch_1 \
        --data DATA/sst2/dev.tsv DATA/sst2/test.tsv

Ours and theirs are run folders, for example of several seeds. The score of an example is the fraction of a side's runs
that classify it correctly. The 95 percent confidence interval of the mean difference is by bootstrap with 10,000
resamples (Efron and Tibshirani 1993, chapter 13); p is by a sign-flip permutation test with 10,000 permutations (Dror
et al. 2018, "The hitchhiker's guide to testing statistical significance in NLP", section 3.2). The last line is JSON.
"""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import tyro

from jaxlm.run import predict, restore

DRAWS = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the comparison."""

    # run folders of one side
    ours: tuple[str, ...]
    # run folders of the other side
    theirs: tuple[str, ...]
    # labelled files, as for `jaxlm evaluate`
    data: tuple[str, ...]
    # random seed of the resampling
    seed: int = 0


def correct(run_dir: str, source: str) -> np.ndarray:
    """Whether the newest checkpoint of a run classifies each example of a source correctly: [n] bool."""
    run = restore.restore(run_dir, sources=(source,))
    answers = predict.predict(run)
    return np.array([a["label"] == b for a, b in zip(answers, run.data.columns["label"])])


def compare(ours: np.ndarray, theirs: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    """Means, difference and interval in percent, and p, from the fractions of correct runs [n]."""
    difference = 100 * (ours - theirs)
    count = len(difference)
    resampled = [difference[rng.integers(0, count, count)].mean() for _ in range(DRAWS)]
    flips = [(difference * rng.choice((-1, 1), count)).mean() for _ in range(DRAWS)]
    low, high = np.percentile(resampled, [2.5, 97.5])
    extreme = np.sum(np.abs(flips) >= abs(difference.mean()) - 1e-12)
    return {
        "examples": count,
        "ours": 100 * ours.mean(),
        "theirs": 100 * theirs.mean(),
        "difference": difference.mean(),
        "low": low,
        "high": high,
        "p": (extreme + 1) / (DRAWS + 1),
    }


def main(options: Options) -> None:
    """Prints a line for each file, one for all files together, and the JSON line."""
    sides: dict[str, list[np.ndarray]] = {"ours": [], "theirs": []}
    for source in options.data:
        for side, scores in sides.items():
            runs = [correct(run, source) for run in getattr(options, side)]
            print(f"{source}, {side}:", *(f"{100 * x.mean():.2f}" for x in runs), flush=True)
            scores.append(np.mean(runs, axis=0))
    rng = np.random.default_rng(options.seed)
    results = {s: compare(*pair, rng) for s, *pair in zip(options.data, *sides.values())}
    if len(options.data) > 1:
        results["together"] = compare(*(np.concatenate(x) for x in sides.values()), rng)
    for source, r in results.items():
        print(
            f"{source} ({r['examples']:,}): {r['ours']:.2f} against {r['theirs']:.2f}, {r['difference']:+.2f} "
            f"({r['low']:+.2f} to {r['high']:+.2f}), p {r['p']:.4f}"
        )
    rounded = {s: {name: round(x, 4) for name, x in r.items()} for s, r in results.items()}
    print(json.dumps({"benchmark": "paired_accuracy", "results": rounded, "seed": options.seed}))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
