"""Shows the data of a run before training: decoded examples, and statistics as a figure and JSON."""

from __future__ import annotations

import collections
import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from jaxlm.config import RunConfig, TrainConfig
from jaxlm.config.disk import naming
from jaxlm.data import corpora
from jaxlm.data.corpora import Corpora
from jaxlm.data.loader import BatchAt, Dataset
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.report import overview
from jaxlm.run import init_train, prepare
from jaxlm.tasks import Task, task_class


def inspect(
    config: TrainConfig,
    out: pathlib.Path,
    *,
    examples: int = 3,
    limit: int = 400,
    tasks: Sequence[type[Task]] = (),
) -> dict[str, Any]:
    """Prints rows of the first batch as the model reads them, and writes `data.json` and `data.png` to `out`.

    Returns the contents of `data.json`: document lengths, token frequencies, and statistics of the rows of 16 batches.

    Raises:
        ValueError: any problem that would prevent the run from starting.
    """
    task = task_class(config.task, tasks)
    if not task.reads_text:
        raise ValueError(f"task {task.name} does not read text: there are no tokens to inspect")
    config, data = prepare.read_data(config, task)
    print(data.describe(), flush=True)
    start = init_train.find(config, tasks)
    if start is not None:
        config = dataclasses.replace(config, model=start.model)
    tokenizer = prepare.tokenizer_of(config, data) if start is None else start.tokenizer
    tokenizer = task.prepare_tokenizer(config, tokenizer)
    model = prepare.with_vocab(
        config.model, tokenizer, can_grow=config.init is not None, parts=config.mesh.tensor
    )
    config = dataclasses.replace(config, model=model)
    config, plan = prepare.make_plan(config, task, tokenizer, data)
    print(plan.describe())
    rows = plan.train[-1]
    batch = BatchAt(rows, max(config.batch_size, examples), config.seed)(0)
    console = Console()
    for i in range(examples):
        pieces = plan.task.preview({name: x[i] for name, x in batch.items()})
        overview.batch_preview(
            pieces,
            title=f"example {i + 1}",
            legend=plan.task.preview_legend,
            limit=limit,
            console=console,
        )
    figures = _figures(config, rows, data, tokenizer)
    out.mkdir(parents=True, exist_ok=True)
    with naming(out):
        (out / "data.json").write_text(
            json.dumps(figures, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        _draw(figures, out / "data.png")
    print(f"statistics are in {out / 'data.json'} and {out / 'data.png'}")
    return figures


def _figures(
    config: RunConfig, rows: Dataset, data: Corpora, tokenizer: Tokenizer
) -> dict[str, Any]:
    documents = corpora.token_documents(data.train, tokenizer)
    lengths = np.concatenate([d.lengths for d in documents])
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    for docs in documents:
        # evenly spaced tokens, if there are more than this
        positions = np.unique(np.linspace(0, docs.num_tokens - 1, 1 << 22).astype(np.int64))
        counts += np.bincount(docs.gather(positions), minlength=tokenizer.vocab_size)
    seen = counts.sum()
    order = np.argsort(-counts, kind="stable")
    in_rows = _rows(config, rows)
    return {
        "documents": len(lengths),
        "tokens": int(lengths.sum()),
        "empty_documents": int((lengths == 0).sum()),
        "length": {f"p{q}": float(np.percentile(lengths, q)) for q in (0, 5, 25, 50, 75, 95, 100)},
        "length_histogram": _histogram(lengths),
        "vocabulary": tokenizer.vocab_size,
        "vocabulary_used": int((counts > 0).sum()),
        "unknown_fraction": _fraction(counts, tokenizer.unk_id),
        "entropy_bits": float(-(p := counts[counts > 0] / seen) @ np.log2(p)),
        "most_frequent": [
            [tokenizer.decode([int(i)], skip_special=False), int(counts[i])] for i in order[:20]
        ],
        "rows": in_rows,
    }


def _fraction(counts: np.ndarray, token: int | None) -> float:
    return 0.0 if token is None else float(counts[token] / counts.sum())


def _histogram(lengths: np.ndarray) -> list[list[int]]:
    """[shortest, longest, documents] for ranges of lengths between powers of 2."""
    bins = collections.Counter(np.ceil(np.log2(np.maximum(lengths, 1))).astype(int).tolist())
    return [[2 ** (k - 1) + 1 if k else 0, 2**k, bins[k]] for k in sorted(bins)]


def _rows(config: RunConfig, rows: Dataset) -> dict[str, float]:
    """Averages over the rows of 16 batches."""
    batches = [BatchAt(rows, config.batch_size, config.seed)(step) for step in range(16)]
    mean = lambda name, of: float(np.mean([of(b[name]).mean() for b in batches]))
    figures = {"full": mean("segment_ids", lambda x: x > 0)}
    figures["texts_in_a_row"] = mean("segment_ids", lambda x: x.max(axis=-1))
    figures["loss_positions_in_a_row"] = mean("weights", lambda x: (x > 0).sum(axis=-1))
    if "decoder_segment_ids" in batches[0]:
        figures["targets_full"] = mean("decoder_segment_ids", lambda x: x > 0)
    return figures


def _draw(figures: dict[str, Any], path: pathlib.Path) -> None:
    """Draws document lengths and the most frequent tokens."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    bars = figures["length_histogram"]
    left.bar(range(len(bars)), [n for *_, n in bars])
    left.set_xticks(range(len(bars)), [f"≤ {high:,}" for _, high, _ in bars], rotation=60)
    left.set(title=f"{figures['documents']:,} documents", xlabel="tokens", ylabel="documents")
    names = [repr(text)[1:-1] for text, _ in figures["most_frequent"]]
    right.barh(range(len(names)), [n for _, n in figures["most_frequent"]])
    # ideographs need a font that may be missing, so their code points are shown
    shown = [name if name.isascii() else name.encode("unicode_escape").decode() for name in names]
    shown = [name.replace(" ", "·") for name in shown]
    right.set_yticks(range(len(names)), shown, fontsize=7, parse_math=False)
    right.invert_yaxis()
    right.set(title=f"{figures['vocabulary_used']:,} of {figures['vocabulary']:,} entries occur")
    figure.savefig(path, dpi=110)
