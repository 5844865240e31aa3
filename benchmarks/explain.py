"""How faithful each method of `jaxlm explain` is on a sample of sentences, and how long integrated gradients take.

Comprehensiveness and sufficiency (AOPC) of the predicted class, Kendall's tau with leave-one-out and with the same
method on random weights; a random order as the yardstick. Means over the sentences of a sample, then over samples.

    python benchmarks/explain.py faithful runs/minilm_sst2 --data DATA/sst2/dev.tsv --sentences 24 --samples 3
    python benchmarks/explain.py speed runs/minilm_sst2
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm import explain
from jaxlm.explain import faithfulness, methods
from jaxlm.explain.explanation import answers, faithful

SENTENCE = (
    "a gorgeous , witty , seductive movie that one sees again and again without a single smile ."
)


def faithful_table(args: argparse.Namespace) -> None:
    """Prints the metrics of each method as JSON lines: of each sample, then the means."""
    subject = explain.load(args.model)
    unlearnt = subject.randomized()
    with open(args.data, encoding="utf-8") as file:
        texts = [row[0] for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    known = [subject.read(text) for text in texts if text.strip()]
    fits = [text for text in known if args.shortest <= sum(text.free) and len(text.ids) <= 32]
    found: dict[str, list[list[float]]] = {}
    for sample in range(args.samples):
        chosen = np.random.default_rng(sample).choice(len(fits), args.sentences, replace=False)
        rows = subject.rows([fits[i] for i in chosen])
        rows = dataclasses.replace(rows, answer=answers(subject, rows))
        free = np.asarray(rows.free["tokens"])
        left_out = methods.attribute("occlusion", subject.reading, subject.params, rows)
        for name in ("random", *methods.METHODS):
            own = attributions(subject, name, rows, seed=sample)
            other = attributions(unlearnt, name, rows, seed=sample + 1000)
            curve = faithful(subject.reading, subject.params, rows, own)
            numbers = [
                float(curve.comprehensiveness.mean()),
                float(curve.sufficiency.mean()),
                mean_tau(own, left_out.attributions["tokens"], free),
                mean_tau(own, other, free),
            ]
            found.setdefault(name, []).append(numbers)
            print(json.dumps({"sample": sample, "method": name, **named(numbers)}), flush=True)
    for name, numbers in found.items():
        mean, spread = np.mean(numbers, 0), np.std(numbers, 0)
        line = {"method": name, "mean": named(mean.tolist()), "spread": named(spread.tolist())}
        print(json.dumps(line))


def attributions(subject: Any, name: str, rows: Any, seed: int) -> jax.Array:
    """Those of a method, or of a random order."""
    if name == "random":
        return jax.random.uniform(jax.random.key(seed), rows.free["tokens"].shape)
    return methods.attribute(name, subject.reading, subject.params, rows).attributions["tokens"]


def mean_tau(a: jax.Array, b: jax.Array, free: np.ndarray) -> float:
    """The mean of Kendall's tau over the rows."""
    return float(np.nanmean(faithfulness.agreement(np.asarray(a), np.asarray(b), free)))


def named(numbers: list[float]) -> dict[str, float]:
    """The metrics by name."""
    names = ("comprehensiveness", "sufficiency", "tau_leave_one_out", "tau_random_weights")
    return {name: round(x, 3) for name, x in zip(names, numbers)}


def speed(args: argparse.Namespace) -> None:
    """Prints seconds of integrated gradients with 32 steps for one sentence, compiled before."""
    subject = explain.load(args.model)
    text = subject.read(SENTENCE)
    rows = subject.rows([text])
    rows = dataclasses.replace(rows, answer=jnp.ones_like(rows.answer))

    def run() -> float:
        start = time.perf_counter()
        jax.block_until_ready(
            methods.attribute("integrated_gradients", subject.reading, subject.params, rows)
        )
        return time.perf_counter() - start

    first = run()
    times = sorted(run() for _ in range(args.repeat))
    print(
        json.dumps(
            {
                "tokens": len(text.ids),
                "first_call": round(first, 2),
                "median": round(times[len(times) // 2], 3),
                "fastest": round(times[0], 3),
                "device": jax.devices()[0].device_kind,
            }
        )
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["faithful", "speed"])
    parser.add_argument("model")
    parser.add_argument("--data", help="a file of a sentence and a label a line")
    parser.add_argument("--sentences", type=int, default=24)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--shortest", type=int, default=5, help="tokens of the shortest sentence")
    parser.add_argument("--repeat", type=int, default=9)
    arguments = parser.parse_args()
    {"faithful": faithful_table, "speed": speed}[arguments.what](arguments)
