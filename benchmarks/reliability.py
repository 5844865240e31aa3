"""Kills and flipped bits: is anything lost, different or silently wrong?

    python benchmarks/reliability.py --out runs/reliability --kills 100 --flips 200

Kills: a small run is started again and again by its command, killed (SIGKILL) at a random moment of its start, steps or
saves, and started again; every fifth kill or so it gets to its end. Its losses and last parameters must be those of a
run that was never stopped, bit for bit, and no process may be left. Flips: one random bit of one file of a finished run
(checkpoint, config, tokenizer), of its token shards and of its export; reading it must be refused or told, or give what
was written. Prints a table, writes OUT/reliability.json; the seed gives the same moments and bits.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import time
import warnings
from collections import Counter
from typing import Any

import jax
import numpy as np
import tyro

from jaxlm import hf
from jaxlm.config import DataConfig
from jaxlm.data import shard_writer, shards
from jaxlm.data import tokenizer as tokenizers
from jaxlm.run import convert, restore

CONFIG = """
from jaxlm import *

def get_config():
    return TrainConfig(
        model=DecoderConfig(dim=16, num_layers=2, num_heads=2, max_len=16, dropout=0.1),
        task=CausalLMConfig(),
        data=DataConfig(train=("{corpus}",), text_unit="line", validation_fraction=0.2, seq_len=16,
                        tokenizer=TokenizerConfig(kind="char", vocab_size=64)),
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=2),
        checkpoint=CheckpointConfig(every=20, keep=2),
        evaluation=EvaluationConfig(every=50),
        steps=400, batch_size=8, log_every=1,
    )
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is tried."""

    # folder of everything
    out: pathlib.Path
    # processes that are killed
    kills: int = 100
    # bits that are flipped
    flips: int = 200
    # of moments and bits
    seed: int = 0


def main(options: Options) -> None:
    """Runs both trials and writes the figures."""
    options.out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(options.seed)
    corpus = options.out / "corpus.txt"
    names = ("ann", "bob", "cat", "dan", "eve")
    lines = (f"{rng.choice(names)} met {rng.choice(names)} on day {i}." for i in range(400))
    corpus.write_text("\n".join(lines) + "\n")
    config = options.out / "config.py"
    config.write_text(CONFIG.format(corpus=corpus.absolute()))
    whole = options.out / "whole"
    began = time.perf_counter()
    if not (whole / "summary.json").is_file():
        assert start(config, whole).wait() == 0
    seconds = time.perf_counter() - began
    figures: dict[str, Any] = {"jax": jax.__version__, "seed": options.seed}
    figures["kills"] = killed(config, whole, options, rng, seconds)
    figures["flips"] = flipped(whole, corpus, options, rng)
    (options.out / "reliability.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


def start(config: pathlib.Path, folder: pathlib.Path) -> subprocess.Popen:
    """The command of a run in a process group of its own."""
    with open(folder.with_suffix(".log"), "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "jaxlm", "train", str(config), "--run-dir", str(folder)],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def content(folder: pathlib.Path) -> tuple[dict[int, Any], list[np.ndarray]]:
    """Exact losses by step, and the last parameters."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = {row["step"]: (row["loss"], row["grad_norm"]) for row in rows if "loss" in row}
    params = restore.restore_model(folder).params
    return losses, [np.asarray(x) for x in jax.tree.leaves(params)]


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    """Whether all bits are equal."""
    return len(a) == len(b) and all(x.tobytes() == y.tobytes() for x, y in zip(a, b))


def members(group: int) -> int:
    """Processes of a group that still run."""
    found = 0
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = path.read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        found += int(pgrp) == group and state != "Z"
    return found


def killed(
    config: pathlib.Path, whole: pathlib.Path, options: Options, rng: random.Random, seconds: float
) -> dict[str, int]:
    """Kills runs at random moments until there were enough; counts what went wrong."""
    counts = Counter(kills=0, runs=0, different=0, failed_starts=0, left_over=0)
    losses, params = content(whole)
    while counts["kills"] < options.kills:
        folder = options.out / f"killed_{counts['runs']}"
        while True:
            process = start(config, folder)
            try:
                # most moments are within a run that is not slowed by others
                code = process.wait(rng.uniform(0, 1.2 * seconds))
            except subprocess.TimeoutExpired:
                os.kill(process.pid, 9)
                process.wait()
                counts["kills"] += 1
                time.sleep(1)
                counts["left_over"] += members(process.pid)
                continue
            counts["failed_starts"] += code != 0
            if code == 0:
                break
            if counts["failed_starts"] > 10:
                raise RuntimeError(f"the run does not start again: see {folder}.log")
        counts["runs"] += 1
        got = content(folder)
        counts["different"] += got[0] != losses or not same(got[1], params)
        print(dict(counts), flush=True)
        shutil.rmtree(folder)
    return dict(counts)


def flipped(
    whole: pathlib.Path, corpus: pathlib.Path, options: Options, rng: random.Random
) -> dict[str, dict[str, int]]:
    """Flips bits in copies; by kind of folder how many were told, harmless, or silent."""
    exported, sharded = options.out / "exported", options.out / "shards"
    if not exported.is_dir():
        convert.convert(whole, exported)
    if not sharded.is_dir():
        data = DataConfig(train=(str(corpus),), text_unit="line", validation_fraction=0.2)
        vocabulary = tokenizers.load(whole / "tokenizer.json")
        shard_writer.write(sharded, data, vocabulary, command="", processes=0)
    readers = {
        "run": (whole, lambda folder: arrays(restore.restore_model(folder).params)),
        "export": (exported, lambda folder: arrays(hf.load(folder).params)),
        "shards": (sharded, read_shards),
    }
    results = {}
    for kind, (folder, read) in readers.items():
        expected = read(folder)
        results[kind] = Counter(flips=0, told=0, harmless=0, silent=0)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and used(path)]
        copy = options.out / f"flipped_{kind}"
        for _ in range(options.flips // len(readers) + 1):
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(folder, copy)
            path = rng.choice([path for path in files if path.stat().st_size])
            flip(copy / path.relative_to(folder), rng)
            results[kind]["flips"] += 1
            outcome = compare(read, copy, expected)
            results[kind][outcome] += 1
            if outcome == "silent":
                print(f"silent: {path}", flush=True)
        print(kind, dict(results[kind]), flush=True)
    return {kind: dict(counts) for kind, counts in results.items()}


def used(path: pathlib.Path) -> bool:
    """Whether reading a model or tokens needs the file; not curves, logs and events."""
    return path.suffix not in (
        ".png",
        ".jsonl",
        ".md",
        ".tmp",
        ".lock",
    ) and not path.name.startswith((".", "events", "summary"))


def flip(path: pathlib.Path, rng: random.Random) -> None:
    """Changes one bit of a file."""
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def arrays(params: Any) -> list[np.ndarray]:
    """The leaves of a tree."""
    return [np.asarray(x) for x in jax.tree.leaves(params)]


def read_shards(folder: pathlib.Path) -> list[np.ndarray]:
    """Tokens and ends of the training documents, with their hashes verified."""
    vocabulary = tokenizers.load(folder / "tokenizer.json")
    loaded = shards.load(str(folder), "train", "always")
    documents = loaded.token_documents(vocabulary)
    tokens = documents.tokens.gather(np.arange(len(documents.tokens)))
    return [tokens, np.asarray(documents.ends)]


def compare(read: Any, folder: pathlib.Path, expected: list[np.ndarray]) -> str:
    """What came of reading a damaged folder: told, harmless, or silent."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            got = read(folder)
        except ValueError:
            return "told"
    if same(got, expected):
        return "harmless"
    return "told" if told else "silent"


if __name__ == "__main__":
    main(tyro.cli(Options))
