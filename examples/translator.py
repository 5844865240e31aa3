"""Translates lines, English to Chinese or any pair of languages, with several candidates by beam search.

    python examples/translator.py runs/translate --text 'The weather is nice today.' --best 3
    python examples/translator.py models/opus-mt-en-zh --file letters.txt --out letters.zh.txt
    python examples/translator.py runs/my_translator --train pairs.tsv

The model is a run of configs/translate.py or a Marian, M2M100, T5 or BART folder. --train makes the run
first: a small encoder-decoder with its own tokenizer, for 2 cores, from a .tsv file with columns source and target. The
1,250 short sentences of examples/data/en_zh.tsv show how; for a translator that is of use give it tens of thousands.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import runpy
import sys
from collections.abc import Iterator
from typing import Any, TextIO

import models

import jaxlm

ROOT = pathlib.Path(__file__).resolve().parents[1]


def train(run: str, data: pathlib.Path, steps: int | None, reverse: bool) -> None:
    """Makes a run of configs/translate.py from nothing; one that was stopped goes on.

    Args:
        run: folder of the run.
        data: .tsv file with the columns source and target.
        steps: number of training steps; default: those of the config.
        reverse: whether the sources are to be written from the targets.
    """
    config = runpy.run_path(str(ROOT / "configs" / "translate.py"))["get_config"]("none")
    with data.open(encoding="utf-8") as file:
        names = file.readline().rstrip("\n").split("\t")
    for name in ("source", "target"):
        if name not in names:
            raise ValueError(f"{data}: the first line must name the column {name}, not {names}")
    columns = ("target", "source") if reverse else ("source", "target")
    task = dataclasses.replace(config.task, source_column=columns[0], target_column=columns[1])
    held_out = dataclasses.replace(
        config.data, train=(str(data),), validation=(), validation_fraction=0.05
    )
    changes: dict[str, Any] = {"name": "translate", "run_dir": run, "task": task, "data": held_out}
    if steps is not None:
        warmup = min(config.optimizer.warmup_steps, steps // 4 + 1)
        changes |= {
            "steps": steps,
            "optimizer": dataclasses.replace(config.optimizer, warmup_steps=warmup),
            "evaluation": dataclasses.replace(config.evaluation, every=steps),
        }
    jaxlm.finetune(dataclasses.replace(config, **changes))


def translate(
    model: Any, lines: list[str], *, beams: int = 4, length: int = 128
) -> list[list[tuple[str, float]]]:
    """The candidates for each line, best first, with their scores (log-probabilities by length)."""
    texts = [line for line in lines if line.strip()]
    found = iter(model.beam_search(texts, beams=beams, max_new_tokens=length) if texts else ())
    return [next(found) if line.strip() else [("", 0.0)] for line in lines]


def batches(file: TextIO, size: int) -> Iterator[list[str]]:
    """The lines of a file, so many at a time."""
    part: list[str] = []
    for line in file:
        part.append(line.strip())
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


def main(args: argparse.Namespace) -> None:
    """Trains if that is asked for; translates --text, --file, or standard input."""
    if args.best > args.beams:
        raise ValueError(f"--best {args.best} is more than --beams {args.beams}")
    if args.train:
        train(args.model, args.train, args.steps, args.reverse)
        if args.text is None and args.file is None:
            return
    model = jaxlm.load(args.model)
    if model.kind != "encoder_decoder":
        raise ValueError(f"{args.model} is no encoder-decoder, and only these translate here")

    def show(lines: list[str], out: TextIO) -> None:
        for candidates in translate(model, lines, beams=args.beams, length=args.length):
            for text, score in candidates[: args.best]:
                print(f"{score:.3f}\t{text}" if args.best > 1 else text, file=out, flush=True)
            if args.best > 1:
                print(file=out)

    if args.out and not args.file:
        raise ValueError("--out goes with --file")
    if args.out and args.out.resolve() == args.file.resolve():
        raise ValueError(f"--out {args.out} is the file that is read: name another one")
    if args.file:
        with args.file.open(encoding="utf-8") as file:
            out = args.out.open("w", encoding="utf-8") if args.out else sys.stdout
            for part in batches(file, 16):
                show(part, out)
            if args.out:
                out.close()
    else:
        models.converse(args.text, lambda line: show([line], sys.stdout))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model", help="a run or a folder in the Hugging Face layout; with --train: where to put it")
    add("--text", help="one line; default: lines are typed, or read from standard input")
    add("--file", type=pathlib.Path, help="file whose lines are translated")
    add("--out", type=pathlib.Path, help="file for the translations of --file, a line each")
    add("--beams", type=int, default=4, choices=range(1, 65), metavar="N", help="beams (4)")
    add("--best", type=int, default=1, help="candidates to show, with their scores (1)")
    add("--length", type=int, default=96, help="most tokens of a translation (96)")
    add("--train", type=pathlib.Path, help=".tsv file to train on first; needs jaxlm[scores]")
    add("--steps", type=int, help="of --train; default: those of configs/translate.py (3,000)")
    add("--reverse", action="store_true", help="with --train: from target to source")
    models.run(main, parser)
