"""The classifier of intents for customer_service.py, and thresholds from held-out examples."""

from __future__ import annotations

import csv
import hashlib
import json
import pathlib
import sys

import numpy as np
import passages

import jaxlm


def read_faq(path: pathlib.Path) -> list[dict[str, str]]:
    """The entries of the list of questions and answers."""
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as e:
            raise ValueError(f"{path}:{number}: {e}") from None
        names = ("intent", "question", "answer", "page")
        if not isinstance(entry, dict) or not all(isinstance(entry.get(n), str) for n in names):
            raise ValueError(f"{path}:{number}: needs the texts {', '.join(names)}")
        entries.append(entry)
    if not entries:
        raise ValueError(f"{path}: there are no questions and answers in it")
    return entries


def read_tsv(path: pathlib.Path) -> list[dict[str, str]]:
    """The rows of a file with columns text and label."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    if not rows or not {"text", "label"} <= set(rows[0]):
        raise ValueError(f"{path}: needs the columns text and label in its first line, and rows")
    return rows


def train(data: pathlib.Path, init: str) -> str:
    """The run of a classifier of intents; it is trained if there is none yet for this data and init."""
    train = data / "intents.tsv"
    key = hashlib.sha256(train.read_bytes() + init.encode()).hexdigest()[:8]
    run = f"runs/customer_service_{key}"
    if pathlib.Path(run, "summary.json").is_file():
        return run
    print(f"training the classifier of intents from {init}, in {run}", file=sys.stderr)
    rate, steps = 2e-4, 100
    if init == "none":
        # a small encoder with a tokenizer of its own: it learns words of the shop first
        init, rate, steps = f"{run}_base", 2e-3, 200
        corpus = pathlib.Path(f"{run}_texts.txt")
        texts = [row["text"] for row in read_tsv(train)]
        for page in sorted((data / "pages").iterdir()):
            texts += [text for _, text in passages.read_lines(page) if text.strip()]
        corpus.parent.mkdir(exist_ok=True)
        corpus.write_text("\n".join(texts) + "\n", encoding="utf-8")
        words = jaxlm.TokenizerConfig(kind="wordpiece", vocab_size=1000)
        jaxlm.pretrain(
            jaxlm.TrainConfig(
                name="base",
                run_dir=init,
                model=jaxlm.EncoderConfig(dim=64, num_layers=2, num_heads=4, max_len=256),
                task=jaxlm.MaskedLMConfig(),
                data=jaxlm.DataConfig(
                    train=(str(corpus),), text_unit="line", tokenizer=words, seq_len=64
                ),
                optimizer=jaxlm.OptimizerConfig(learning_rate=3e-3, warmup_steps=20),
                steps=200,
                batch_size=16,
            )
        )
    jaxlm.finetune(
        jaxlm.FinetuneConfig(
            name="intents",
            run_dir=run,
            init=init,
            task=jaxlm.ClassificationConfig(pooling="mean"),
            data=jaxlm.DataConfig(
                train=(str(train),),
                validation=(str(data / "intents_held_out.tsv"),),
                # of the held-out texts those that are out of scope
                on_bad_row="skip",
                seq_len=24,
            ),
            optimizer=jaxlm.OptimizerConfig(learning_rate=rate, warmup_steps=10),
            evaluation=jaxlm.EvaluationConfig(every=steps),
            steps=steps,
            batch_size=16,
        )
    )
    return run


def threshold(scores: np.ndarray, is_good: np.ndarray) -> float:
    """From which score on to accept: the best mean of good ones accepted and bad ones refused."""
    ordered = np.unique(scores)
    middles = np.append((ordered[1:] + ordered[:-1]) / 2, ordered[0])
    value = [(scores >= t)[is_good].mean() + (scores < t)[~is_good].mean() for t in middles]
    return float(middles[np.argmax(value)])
