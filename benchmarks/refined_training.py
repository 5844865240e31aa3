"""Does refining help? One small language model on as many tokens of raw, filtered and deduplicated text.

    python benchmarks/planted.py make runs/planted --texts ... --faults 1.9
    jaxlm refine refinedweb runs/planted/pages runs/planted/refined --keep-dropped
    python benchmarks/refined_training.py runs/planted/refined runs/planted/held_out.jsonl \\
        --out runs/planted/training --training.steps 200

Three arms of one refined folder: `raw` is all of its documents, also the dropped ones; `filtered` all that no filter
has dropped, duplicates included; `deduplicated` what the pipeline kept. All have one tokenizer (trained on raw), one
model, one number of steps, and are scored by bits per byte on the same clean texts. Runs that are there already are
not trained again: a command that was interrupted goes on where it stopped. Prints a Markdown table, writes
OUT/results.json.

A document is what it was when it was dropped, and the kept ones are as edited by the stages; where the pages were
HTML, raw is what extraction gave. Other inputs replace that: --raw and --filtered name files of texts.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import refined_files
import tyro
from mean_deviation import mean_deviation

from jaxlm import (
    CausalLMConfig,
    CheckpointConfig,
    DataConfig,
    DecoderConfig,
    EvaluationConfig,
    OptimizerConfig,
    TokenizerConfig,
    TrainConfig,
    pretrain,
)
from jaxlm.config.model import llama_style
from jaxlm.data import tokenizer
from jaxlm.run import perplexity, restore

ARMS = ("raw", "filtered", "deduplicated")
# stages that drop documents because others are like them
_DUPLICATES = ("near_duplicates", "substrings", "duplicate_urls")
# stages after which a document of a pipeline that extracts is still a page
_PAGES = ("read", "urls", "extraction")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """The model and its training, the same in all arms."""

    # of the run: tokens are steps x batch_size x seq_len
    steps: int = 300
    batch_size: int = 16
    seq_len: int = 128
    # of the model
    dim: int = 160
    num_layers: int = 5
    num_heads: int = 5
    vocab_size: int = 4096
    learning_rate: float = 4e-3

    @property
    def tokens(self) -> int:
        """Tokens that a run reads."""
        return self.steps * self.batch_size * self.seq_len


def main(
    refined: pathlib.Path,
    held_out: pathlib.Path,
    /,
    *,
    out: pathlib.Path,
    raw: pathlib.Path | None = None,
    filtered: pathlib.Path | None = None,
    seeds: int = 3,
    arms: tuple[str, ...] = ARMS,
    training: Training = Training(),
) -> None:
    """Trains the models and prints how well they read clean text.

    Args:
        refined: a folder that `jaxlm refine --keep-dropped` wrote.
        held_out: clean texts (JSONL) that are not in it.
        out: folder of the runs.
        raw: texts (JSONL or parquet) instead of all documents of the folder.
        filtered: texts instead of those that the filters kept.
        seeds: of each arm.
        arms: which to train.
        training: the model and its training.
    """
    for arm in arms:
        if arm not in ARMS:
            raise ValueError(f"--arms {arm}: is not one of {', '.join(ARMS)}")
    out.mkdir(parents=True, exist_ok=True)
    _same_settings(out / "settings.json", dataclasses.asdict(training), held_out)
    given = {"raw": raw, "filtered": filtered}
    sources = {}
    for arm in ARMS:
        sources[arm] = out / arm / "texts.jsonl"
        path = given.get(arm)
        if not sources[arm].is_file():
            records = refined_files.records(path) if path else documents(refined, arm)
            _write(sources[arm], (record["text"] for record in records))
    vocabulary = out / "tokenizer.json"
    if not vocabulary.is_file():
        _train_tokenizer(sources["raw"], vocabulary, training.vocab_size)
    texts = [record["text"] for record in refined_files.records(held_out)]
    # by seed, so that an early stop leaves all arms with equally many
    for seed in range(seeds):
        for arm in arms:
            run(out / arm / f"seed{seed}", sources[arm], vocabulary, seed, texts, training)
    results = read(out)
    (out / "results.json").write_text(json.dumps(results, indent=2), encoding="utf-8")
    print(table(results, training, len(texts)))


# ---- texts


def documents(folder: pathlib.Path, arm: str) -> Iterator[dict[str, Any]]:
    """The documents of an arm."""
    stages = [stage["name"] for stage in refined_files.funnel(folder)["stages"]]
    yield from refined_files.kept(folder)
    if arm == "deduplicated":
        return
    left_out = _PAGES if "extraction" in stages else ()
    for record in refined_files.dropped(folder):
        stage = record["stage"]
        if stage not in left_out and (arm == "raw" or stage in _DUPLICATES):
            yield record


def _write(path: pathlib.Path, texts: Iterable[str]) -> None:
    """A JSONL file, renamed when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    with new.open("w", encoding="utf-8", errors="replace") as f:
        count = 0
        for text in texts:
            # without letters there is nothing to read
            if text.strip():
                f.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
                count += 1
    if not count:
        raise ValueError(f"{path.parent.name}: there is no document for this arm")
    new.rename(path)


def _train_tokenizer(source: pathlib.Path, out: pathlib.Path, size: int) -> None:
    """On every k-th text, 20 million characters at most."""
    total = source.stat().st_size
    every = max(1, total // 20_000_000)
    texts = [r["text"] for i, r in enumerate(refined_files.records(source)) if i % every == 0]
    new = out.with_name("new_tokenizer.json")
    tokenizer.train(texts, TokenizerConfig(kind="byte_bpe", vocab_size=size)).save(new)
    new.rename(out)


# ---- runs


def run(
    folder: pathlib.Path,
    source: pathlib.Path,
    vocabulary: pathlib.Path,
    seed: int,
    texts: list[str],
    training: Training,
) -> None:
    """Trains and scores a model, unless its score is there."""
    result = folder / "result.json"
    if result.is_file():
        return
    if not (folder / "summary.json").is_file():
        pretrain(config(folder, source, vocabulary, seed, training))
    model = restore.restore_model(folder)
    scored = perplexity.perplexity(model, texts)
    size, tokens = _size(source, model.task.tokenizer)
    result.write_text(
        json.dumps(
            {
                "bits_per_byte": scored.metrics["bits_per_byte"],
                "loss": scored.metrics["loss"],
                "documents": size,
                "tokens": tokens,
                "epochs": training.tokens / tokens,
            }
        ),
        encoding="utf-8",
    )


def _size(source: pathlib.Path, of: tokenizer.Tokenizer) -> tuple[int, int]:
    """Documents and tokens of a file of texts, counted once."""
    path = source.with_name("size.json")
    if not path.is_file():
        texts = [record["text"] for record in refined_files.records(source)]
        tokens = sum(map(len, of.encode_batch(texts)))
        path.write_text(json.dumps([len(texts), tokens]), encoding="utf-8")
    documents, tokens = json.loads(path.read_text(encoding="utf-8"))
    return documents, tokens


def config(
    folder: pathlib.Path,
    source: pathlib.Path,
    vocabulary: pathlib.Path,
    seed: int,
    training: Training,
) -> TrainConfig:
    """The run of an arm and seed."""
    return TrainConfig(
        name=f"{source.parent.name} {folder.name}",
        model=DecoderConfig(
            **llama_style() | {"tie_embeddings": True},
            dim=training.dim,
            num_layers=training.num_layers,
            num_heads=training.num_heads,
            max_len=training.seq_len,
        ),
        task=CausalLMConfig(),
        data=DataConfig(
            train=(str(source),),
            validation_fraction=0.0,
            tokenizer=TokenizerConfig(path=str(vocabulary)),
            seq_len=training.seq_len,
        ),
        optimizer=OptimizerConfig(
            name="muon",
            learning_rate=training.learning_rate,
            schedule="linear",
            warmup_steps=max(training.steps // 10, 1),
            final_fraction=0.0,
        ),
        evaluation=EvaluationConfig(every=max(training.steps, 1)),
        checkpoint=CheckpointConfig(every=max(training.steps // 3, 1), keep=1),
        steps=training.steps,
        batch_size=training.batch_size,
        seed=seed,
        log_every=50,
        run_dir=str(folder),
    )


def _same_settings(path: pathlib.Path, settings: dict[str, Any], held_out: pathlib.Path) -> None:
    """Runs of other settings or other held-out texts cannot be compared with those that are there."""
    settings = settings | {"held_out": str(held_out.resolve())}
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != settings:
        raise ValueError(f"{path.parent}: has runs of other settings; name another --out")
    path.write_text(json.dumps(settings), encoding="utf-8")


# ---- results


def read(out: pathlib.Path) -> dict[str, list[dict[str, Any]]]:
    """The results of each arm, in the order of the seeds."""
    return {
        arm: [
            json.loads(path.read_text(encoding="utf-8"))
            for path in sorted(
                out.glob(f"{arm}/seed*/result.json"), key=lambda path: int(path.parent.name[4:])
            )
        ]
        for arm in ARMS
    }


def table(results: dict[str, list[dict[str, Any]]], training: Training, texts: int) -> str:
    """Markdown: mean and standard deviation over seeds, and the difference from raw seed by seed."""
    lines = [
        f"Bits per byte of {texts:,} clean texts after {training.tokens:,} tokens; mean ± deviation of seeds.\n",
        "| text | documents | tokens | epochs | seeds | bits per byte | difference from raw |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    raw = [of["bits_per_byte"] for of in results["raw"]]
    for arm, runs in results.items():
        if runs:
            values = [of["bits_per_byte"] for of in runs]
            against = [value - other for value, other in zip(values, raw)]
            difference = "" if arm == "raw" or not against else mean_deviation(against, "+.4f")
            lines.append(
                f"| {arm} | {runs[0]['documents']:,} | {runs[0]['tokens']:,} | {runs[0]['epochs']:.2f} | {len(runs)} "
                f"| {mean_deviation(values, '.4f')} | {difference} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    tyro.cli(main)
