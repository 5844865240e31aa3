"""Pretrains with every objective on the same budget, and fine-tunes on two classification sets: docs/results.md.

    python benchmarks/objectives.py --data DATA --out runs/objectives

For English (film reviews and Penn Treebank, then SST-2) and for Chinese (Tang poems and news titles in equal parts,
then THUCNews titles): trains a byte-level BPE tokenizer on the text, pretrains with every config of configs/objectives,
and fine-tunes by one recipe with each seed, also from random weights of each family. Scores are on the test sets after
the last step; nothing was tuned on them. Complete runs are skipped, so the same command resumes an interrupted
comparison.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import gzip
import itertools
import json
import os
import pathlib
import queue
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Literal

import tyro

ROOT = pathlib.Path(__file__).resolve().parent.parent
FAMILIES = {
    "encoder": ("masked_lm", "sentence_pair", "replaced_token"),
    "decoder": ("causal_lm", "prefix_lm", "fill_in_middle", "hybrid"),
    "encoder-decoder": ("span_corruption", "ul2", "denoising"),
}
VOCAB_SIZE = 4096
# of fine-tuning; chosen on the development set of SST-2, for the encoder of masked_lm and for one with random weights
LEARNING_RATE = 2e-3


@dataclasses.dataclass(frozen=True)
class Language:
    """Pretraining texts and a classification set."""

    # name of a folder of shards -> function from the data folder to documents; folders are mixed in equal parts
    texts: dict[str, Callable[[pathlib.Path], Iterator[str]]]
    # config of the fine-tuning, and its number of steps
    config: str
    steps: int
    train: str
    test: str


def film_reviews_and_news(data: pathlib.Path) -> Iterator[str]:
    """20,000 unlabelled reviews, and Penn Treebank, which has no document boundaries, in pieces of ten lines."""
    with gzip.open(data / "imdb_small/unlabelled.jsonl.gz", "rt", encoding="utf-8") as file:
        yield from (json.loads(line)["text"] for line in file)
    lines = (data / "ptb/ptb.train.txt").read_text(encoding="utf-8").splitlines()
    yield from ("\n".join(lines[i : i + 10]) for i in range(0, len(lines), 10))


def tang_poems(data: pathlib.Path) -> Iterator[str]:
    """57,603 poems: the title, then the text."""
    for line in (data / "chinese_poetry/tang.txt").read_text(encoding="utf-8").splitlines():
        title, _, text = line.split("\t", 2)
        yield f"{title}\n{text}"


def news_titles(data: pathlib.Path) -> Iterator[str]:
    """20,000 unlabelled titles of Chinese news."""
    with open(data / "fewclue_tnews/unlabeled.json", encoding="utf-8") as file:
        yield from (json.loads(line)["sentence"] for line in file)


LANGUAGES = {
    "english": Language(
        {"english": film_reviews_and_news}, "sst2", 216, "sst2/train.tsv", "sst2/test.tsv"
    ),
    "chinese": Language(
        {"poems": tang_poems, "news": news_titles},
        "thucnews",
        312,
        "thucnews_titles/dev.txt",
        "thucnews_titles/test.txt",
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the comparison."""

    # folder with imdb_small, ptb, sst2, chinese_poetry, fewclue_tnews and thucnews_titles
    data: pathlib.Path
    # output folder of texts, shards and runs
    out: pathlib.Path = pathlib.Path("runs/objectives")
    # languages to compare in
    languages: tuple[Literal["english", "chinese"], ...] = ("english", "chinese")
    # steps of pretraining; default: those of the configs
    steps: int | None = None
    # random seeds of fine-tuning
    seeds: tuple[int, ...] = (0, 1, 2)
    # number of concurrent runs, which divide the cores among them
    jobs: int = 2


def prepare(language: str, options: Options) -> list[str]:
    """Writes texts, tokenizer, shards and labelled files of a language; returns the folders of the shards."""
    texts, folder = LANGUAGES[language].texts, options.out / "text"
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.jsonl" for name in texts]
    for file, documents in zip(files, texts.values()):
        if not file.exists():
            lines = (json.dumps({"text": text}) + "\n" for text in documents(options.data))
            file.write_text("".join(lines), encoding="utf-8")
    tokenizer = folder / f"{language}.tokenizer.json"
    if not tokenizer.exists():
        sizes = ["--data.tokenizer.vocab-size", str(VOCAB_SIZE)]
        run("tokenizer", "train", str(tokenizer), "--data.train", *map(str, files), *sizes)
    shards = [str(folder / name) for name in texts]
    for file, out in zip(files, shards):
        if not (pathlib.Path(out) / "manifest.json").exists():
            run("tokenize", str(file), out, "--data.tokenizer.path", str(tokenizer))
    for split in ("train", "test"):
        source = options.data / getattr(LANGUAGES[language], split)
        (folder / f"{language}.{split}.tsv").write_bytes(source.read_bytes())
    return shards


def compare(
    objective: str, family: str, language: str, shards: list[str], options: Options, cores: set[int]
) -> None:
    """Pretrains with one objective and fine-tunes with every seed; for a family's first also from random weights."""
    pretrained = options.out / language / objective
    weights = ["--data.weights", *["1"] * len(shards)] if len(shards) > 1 else []
    steps = [] if options.steps is None else ["--steps", str(options.steps)]
    config = f"configs/objectives/{objective}.py"
    train = ["train", config, "--data.train", *shards, *weights, "--run-dir", str(pretrained)]
    run(*train, *steps, cores=cores)
    starts = {objective: ["--init", str(pretrained)]}
    if objective == FAMILIES[family][0]:
        starts[f"scratch_{family}"] = ["--init", "none", "--init-like", str(pretrained)]
    target, text = LANGUAGES[language], options.out / "text"
    for (name, start), seed in itertools.product(starts.items(), options.seeds):
        run(
            *["finetune", f"configs/{target.config}.py", *start, "--seed", str(seed)],
            *["--run-dir", str(options.out / language / f"{name}_finetuned_{seed}")],
            *["--data.train", str(text / f"{language}.train.tsv")],
            *["--data.validation", str(text / f"{language}.test.tsv")],
            *["--steps", str(target.steps), "--evaluation.every", str(target.steps)],
            *["--optimizer.learning-rate", str(LEARNING_RATE)],
            cores=cores,
        )


def run(*arguments: str, cores: set[int] | None = None) -> None:
    """Runs a jaxlm command in a new process; the commands share a compilation cache.

    Raises:
        SystemExit: the command failed.
    """
    if "--run-dir" in arguments and summary(
        pathlib.Path(arguments[arguments.index("--run-dir") + 1])
    ):
        return
    print("jaxlm", *arguments, flush=True)
    pin = None if cores is None else lambda: os.sched_setaffinity(0, cores)
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(pathlib.Path(tempfile.gettempdir()) / "jaxlm_compiled")
    }
    done = subprocess.run(
        [sys.executable, "-m", "jaxlm", *arguments],
        cwd=ROOT,
        env=cache | os.environ,
        preexec_fn=pin,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"jaxlm {' '.join(arguments)}: exit {done.returncode}\n{done.stderr}")


def summary(folder: pathlib.Path) -> dict | None:
    """The summary of a run; None if it is not complete."""
    file = folder / "summary.json"
    return json.loads(file.read_text()) if file.exists() else None


def row(name: str, language: str, options: Options) -> dict | None:
    """The results of one objective in one language; None if they are not complete."""
    folder = options.out / language
    scores = [summary(folder / f"{name}_finetuned_{seed}") for seed in options.seeds]
    accuracies = [round(100 * s["evaluation"]["accuracy"], 2) for s in scores if s]
    if len(accuracies) < len(options.seeds):
        return None
    result = {"accuracy": accuracies, "mean": round(statistics.mean(accuracies), 2)}
    if pretraining := summary(folder / name):
        result |= {
            "parameters": pretraining["parameters"],
            "tokens": pretraining["tokens"],
            "seconds": round(pretraining["wall_seconds"]),
            "loss": round(pretraining["evaluation"]["loss"], 3),
        }
    return result


def main(options: Options) -> None:
    """Runs everything that is missing, then prints a table for each language and the JSON line."""
    options = dataclasses.replace(options, data=options.data.resolve(), out=options.out.resolve())
    available = sorted(os.sched_getaffinity(0))
    free: queue.Queue[set[int]] = queue.Queue()
    for job in range(options.jobs):
        free.put(set(available[job :: options.jobs]))

    def one(objective: str, family: str, language: str, shards: list[str]) -> None:
        cores = free.get()
        try:
            compare(objective, family, language, shards, options, cores)
        finally:
            free.put(cores)

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        futures = []
        for language in options.languages:
            shards = prepare(language, options)
            for family, objectives in FAMILIES.items():
                futures += [pool.submit(one, x, family, language, shards) for x in objectives]
        for job in concurrent.futures.as_completed(futures):
            if job.exception():
                pool.shutdown(cancel_futures=True)
            job.result()
    results: dict[str, dict] = {}
    for language in options.languages:
        print(f"\n{language}: accuracy on the test set of {LANGUAGES[language].config}")
        names = [n for f, objectives in FAMILIES.items() for n in (f"scratch_{f}", *objectives)]
        results[language] = {name: row(name, language, options) for name in names}
        for name, result in results[language].items():
            print(f"  {name:24s} {result}")
    print(json.dumps({"benchmark": "objectives", "ratio": {}, "results": results}))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
