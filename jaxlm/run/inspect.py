"""A look at the data of a run before it runs: decoded examples, and figures of its text as a picture and JSON."""

from __future__ import annotations

import collections
import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from jaxlm.config import RunConfig, TrainConfig
from jaxlm.data.loader import BatchAt
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.report import overview
from jaxlm.run.pretrain import tokenizer_of, with_vocab
from jaxlm.tasks import TASKS, Corpora, Task, task
from jaxlm.training import curriculum


def inspect(
    config: TrainConfig, out: pathlib.Path, *, examples: int = 3, limit: int = 400
) -> dict[str, Any]:
    """Prints rows of the first batch as the model is to see them, and writes `data.json` and `data.png` into `out`.

    Returns what is in `data.json`: lengths of documents, tokens by frequency, and what the rows of 16 batches hold.

    Raises:
        ValueError: anything that would stop the run from starting.
    """
    module = TASKS[type(config.task)]
    corpora = module.load(config)
    print(corpora.describe(), flush=True)
    tokenizer = tokenizer_of(config, corpora).with_tokens(module.added_tokens(config))
    model = with_vocab(config.model, tokenizer)
    config = dataclasses.replace(config, model=model)
    tasks = curriculum.build(config, module, model, tokenizer, corpora)
    print(curriculum.describe(config, tasks))
    built = tasks[-1]
    batch = BatchAt(built.train, max(config.batch_size, examples), config.seed)(0)
    console = Console()
    for i in range(examples):
        pieces = built.preview({name: x[i] for name, x in batch.items()})
        overview.batch_preview(pieces, title=f"example {i + 1}", limit=limit, console=console)
    figures = _figures(config, built, corpora, tokenizer)
    out.mkdir(parents=True, exist_ok=True)
    (out / "data.json").write_text(
        json.dumps(figures, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    _draw(figures, out / "data.png")
    print(f"figures are in {out / 'data.json'} and {out / 'data.png'}")
    return figures


def _figures(
    config: RunConfig, built: Task, corpora: Corpora, tokenizer: Tokenizer
) -> dict[str, Any]:
    documents = task.documents_of(corpora.train, tokenizer)
    lengths = np.concatenate([d.lengths for d in documents])
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    for docs in documents:
        # a sample, if there is more than this
        places = np.unique(np.linspace(0, docs.num_tokens - 1, 1 << 22).astype(np.int64))
        counts += np.bincount(docs.gather(places), minlength=tokenizer.vocab_size)
    seen = counts.sum()
    order = np.argsort(-counts, kind="stable")
    rows = _rows(config, built)
    return {
        "documents": len(lengths),
        "tokens": int(lengths.sum()),
        "empty_documents": int((lengths == 0).sum()),
        "length": {f"p{q}": float(np.percentile(lengths, q)) for q in (0, 5, 25, 50, 75, 95, 100)},
        "length_histogram": _histogram(lengths),
        "vocabulary": tokenizer.vocab_size,
        "vocabulary_used": int((counts > 0).sum()),
        "unknown_share": _share(counts, tokenizer.unk_id),
        "entropy_bits": float(-(p := counts[counts > 0] / seen) @ np.log2(p)),
        "most_frequent": [
            [tokenizer.decode([int(i)], skip_special=False), int(counts[i])] for i in order[:20]
        ],
        "rows": rows,
    }


def _share(counts: np.ndarray, token: int | None) -> float:
    return 0.0 if token is None else float(counts[token] / counts.sum())


def _histogram(lengths: np.ndarray) -> list[list[int]]:
    """[shortest, longest, documents] of ranges that double."""
    kinds = collections.Counter(np.ceil(np.log2(np.maximum(lengths, 1))).astype(int).tolist())
    return [[2 ** (k - 1) + 1 if k else 0, 2**k, kinds[k]] for k in sorted(kinds)]


def _rows(config: RunConfig, built: Task) -> dict[str, float]:
    """What the rows of 16 batches hold on average."""
    batches = [BatchAt(built.train, config.batch_size, config.seed)(step) for step in range(16)]
    mean = lambda name, of: float(np.mean([of(b[name]).mean() for b in batches]))
    found = {"full": mean("segment_ids", lambda x: x > 0)}
    found["texts_in_a_row"] = mean("segment_ids", lambda x: x.max(axis=-1))
    found["loss_places_in_a_row"] = mean("weights", lambda x: (x > 0).sum(axis=-1))
    if "decoder_segment_ids" in batches[0]:
        found["targets_full"] = mean("decoder_segment_ids", lambda x: x > 0)
    return found


def _draw(figures: dict[str, Any], path: pathlib.Path) -> None:
    """Lengths of documents, and the frequencies of the commonest tokens."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    bars = figures["length_histogram"]
    left.bar(range(len(bars)), [n for *_, n in bars])
    left.set_xticks(range(len(bars)), [f"≤ {high:,}" for _, high, _ in bars], rotation=60)
    left.set(title=f"{figures['documents']:,} documents", xlabel="tokens", ylabel="documents")
    names = [repr(text)[1:-1] for text, _ in figures["most_frequent"]]
    right.barh(range(len(names)), [n for _, n in figures["most_frequent"]])
    # ideographs need a font that may not be there: their code points always can be written
    shown = [name if name.isascii() else name.encode("unicode_escape").decode() for name in names]
    shown = [name.replace(" ", "·") for name in shown]
    right.set_yticks(range(len(names)), shown, fontsize=7, parse_math=False)
    right.invert_yaxis()
    right.set(title=f"{figures['vocabulary_used']:,} of {figures['vocabulary']:,} entries occur")
    figure.savefig(path, dpi=110)
