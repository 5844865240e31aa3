"""Predictions a second for a file of texts, ours against transformers' pipeline, in turn in one process.

    python benchmarks/predict.py --folder DIR --data FILE.jsonl [--rows 1000 --batch 32 --rounds 3]

A folder of a classifier in the Hugging Face layout, and a JSON Lines file with a column "text". Ours is `jaxlm
predict` without starting a program: reading, predicting and writing the file. Theirs is the pipeline
text-classification with all probabilities, fed with the same texts in batches, in the order of the file and sorted by
length; the faster counts. The last line is JSON: the median over rounds of ours and theirs, of their ratio, and the
largest difference of a probability. Needs `pip install -e .[bench]`.
"""

from __future__ import annotations

import json
import os
import pathlib
import platform
import statistics
import tempfile
import time
from importlib.metadata import version

import tyro

from jaxlm import sharding
from jaxlm.cli import lines
from jaxlm.config import MeshConfig
from jaxlm.run import predict, restore


def main(
    folder: pathlib.Path, data: pathlib.Path, rows: int = 1000, batch: int = 32, rounds: int = 3
) -> None:
    """Measures and prints.

    Args:
        folder: a classifier in the Hugging Face layout.
        data: texts.
        rows: texts to predict: the first ones.
        batch: texts in a batch.
        rounds: measurements of each side, in turn, after one that does not count.
    """
    import transformers

    transformers.logging.set_verbosity_error()
    texts = [json.loads(line)["text"] for line in data.read_text().splitlines()[:rows]]
    pipeline = transformers.pipeline("text-classification", model=str(folder), top_k=None)
    mesh = sharding.make_mesh(MeshConfig())
    model = restore.find(folder, batch_size=batch, mesh=mesh).load("predict")
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    with tempfile.TemporaryDirectory() as temporary:
        source, out = pathlib.Path(temporary) / "in.jsonl", pathlib.Path(temporary) / "out.jsonl"
        source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        # programs are compiled once, as in a long file
        predictor = predict.Predictor(model)

        def ours() -> list[dict[str, float]]:
            out.unlink(missing_ok=True)
            lines.write(out, predict.stream(predictor, [str(source)]))
            return [json.loads(x)["probabilities"] for x in out.read_text().splitlines()]

        def theirs(indices: list[int]) -> list[dict[str, float]]:
            found = pipeline([texts[i] for i in indices], batch_size=batch, truncation=True)
            by_index = dict(zip(indices, found))
            return [{x["label"]: x["score"] for x in by_index[i]} for i in range(len(texts))]

        sides = {
            "ours": ours,
            "theirs, in order": lambda: theirs(list(range(len(texts)))),
            "theirs, by length": lambda: theirs(order),
        }
        speeds: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(rounds + 1):
            results = {}
            for name in list(sides)[:: -1 if turn % 2 else 1]:
                time.sleep(0.3)
                start = time.perf_counter()
                results[name] = sides[name]()
                if turn:
                    speeds[name].append(len(texts) / (time.perf_counter() - start))
    difference = max(
        abs(p - b[name])
        for a, b in zip(results["ours"], results["theirs, in order"])
        for name, p in a.items()
    )
    best = max(
        ("theirs, in order", "theirs, by length"), key=lambda x: statistics.median(speeds[x])
    )
    result = {
        "benchmark": "predict",
        **{name: round(statistics.median(x), 1) for name, x in speeds.items()},
        "ratio": round(statistics.median(a / b for a, b in zip(speeds["ours"], speeds[best])), 3),
        "difference": difference,
        "rows": len(texts),
        "batch": batch,
        "versions": {p: version(p) for p in ("jax", "torch", "transformers")},
        "machine": {"cpus": os.cpu_count(), "system": platform.platform()},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    tyro.cli(main)
