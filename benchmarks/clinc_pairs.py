"""Pairs of questions with the same intent, from CLINC150, for sentence embeddings.

    python benchmarks/clinc_pairs.py DATA/clinc150/data_full.json OUT_DIR

train.jsonl pairs the questions of the training part of each intent at random (7,500 pairs). test.jsonl has each
question of the test part (4,500) with one of the validation part: the candidates are the 3,000 questions of that part,
20 of them right, so accuracy_at_1 is the accuracy of the nearest neighbour as a classifier of intents. dev.jsonl is
made from the validation part alone (10 questions of an intent find the other 10). Out-of-scope questions are left out.
"""

import json
import pathlib
import random
import sys


def main(source: str, out: str) -> None:
    data = json.loads(pathlib.Path(source).read_text())
    by_intent: dict[str, dict[str, list[str]]] = {}
    for part in ("train", "val", "test"):
        for text, intent in data[part]:
            by_intent.setdefault(intent, {}).setdefault(part, []).append(text)
    rng = random.Random(0)
    files: dict[str, list[dict]] = {"train": [], "dev": [], "test": []}
    for intent, parts in sorted(by_intent.items()):
        row = lambda a, b, intent=intent: {"text": a, "pair": b, "intent": intent}
        train = rng.sample(parts["train"], len(parts["train"]))
        files["train"] += [row(a, b) for a, b in zip(train[::2], train[1::2])]
        held_out = parts["val"]
        half = len(held_out) // 2
        files["dev"] += [row(a, b) for a, b in zip(held_out[:half], held_out[half:])]
        for i, text in enumerate(parts["test"]):
            files["test"].append(row(text, held_out[i % len(held_out)]))
    folder = pathlib.Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        rng.shuffle(rows)
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        print(f"{folder / name}.jsonl: {len(rows):,} pairs")


if __name__ == "__main__":
    main(*sys.argv[1:])
