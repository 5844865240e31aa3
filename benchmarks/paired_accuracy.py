"""By how much one way to train a classifier is better than another, on the same examples, with the doubt that is left.

    python benchmarks/paired_accuracy.py --ours runs/sst2_0 runs/sst2_1 --theirs runs/scratch_0 runs/scratch_1 \
        --data DATA/sst2/dev.tsv DATA/sst2/test.tsv

Ours and theirs are run folders, such as those of several seeds. An example counts as the share of a side's runs that
are right on it. The interval holds 95 percent of the mean differences over 10,000 draws of as many examples with
replacement (Efron and Tibshirani 1993, chapter 13); p is the share of 10,000 random changes of the differences' signs
whose mean is as far from 0 (Dror et al. 2018, "The hitchhiker's guide to testing statistical significance in NLP",
section 3.2). The last line is JSON.
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
    # and of the other
    theirs: tuple[str, ...]
    # labelled files, as for `jaxlm evaluate`
    data: tuple[str, ...]
    # of the draws
    seed: int = 0


def right(run_dir: str, source: str) -> np.ndarray:
    """Whether the newest checkpoint of a run is right on each example of a source: [n] bool."""
    run = restore.restore(run_dir, sources=(source,))
    answers = predict.predict(run)
    return np.array([a["label"] == b for a, b in zip(answers, run.data.columns["label"])])


def compare(ours: np.ndarray, theirs: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    """Means, difference, interval and p, in percent but for p, from [n] shares of right runs."""
    difference = 100 * (ours - theirs)
    count = len(difference)
    draws = [difference[rng.integers(0, count, count)].mean() for _ in range(DRAWS)]
    flips = [(difference * rng.choice((-1, 1), count)).mean() for _ in range(DRAWS)]
    low, high = np.percentile(draws, [2.5, 97.5])
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
    """Prints a line for each file and one for all of them together, and the JSON line."""
    sides: dict[str, list[np.ndarray]] = {"ours": [], "theirs": []}
    for source in options.data:
        for side, found in sides.items():
            runs = [right(run, source) for run in getattr(options, side)]
            print(f"{source}, {side}:", *(f"{100 * x.mean():.2f}" for x in runs), flush=True)
            found.append(np.mean(runs, axis=0))
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
