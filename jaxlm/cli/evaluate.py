"""`jaxlm evaluate`: the metrics of a run or a Hugging Face model."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

from jaxlm.cli.arguments import (
    ModelDir,
    Step,
    check_file,
    check_not_read,
    check_numbers,
    parse,
    read_columns,
    read_settings,
)
from jaxlm.config import MeshConfig
from jaxlm.config.disk import write_text
from jaxlm.remote import mirror


def run(argv: list[str]) -> None:
    """Evaluates the model that the arguments name."""
    parse(evaluate, argv, "jaxlm evaluate")


def evaluate(
    model: ModelDir,
    /,
    data: tuple[str, ...] = (),
    task: str | None = None,
    columns: tuple[str, ...] = (),
    on_bad_row: Literal["error", "skip"] | None = None,
    bootstrap: int = 1000,
    stride: int | None = None,
    harness: tuple[str, ...] = (),
    harness_folder: pathlib.Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    step: Step = None,
    batch_size: int | None = None,
    seq_len: int | None = None,
    mesh: MeshConfig = MeshConfig(),
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    settings: tuple[str, ...] = (),
    out: pathlib.Path | None = None,
) -> None:
    """Computes the metrics of a model's task over all of some data, with 95% intervals by resampling the examples.

    A Hugging Face model is evaluated with its own head; a causal language model by its perplexity per token, word and
    byte with a sliding window, a run's too with --stride.

    Args:
        model: folder of a run or of a Hugging Face model, or a .gguf file.
        data: sources; default: the run's validation data.
        task: name of the task, for a model that fits several.
        columns: role=name, as in text=sentence label=class: columns of the file; default: as in the run's own data.
        on_bad_row: error: a row that cannot be used stops the command; skip: it is skipped and counted; default: as the
            run's own data.
        bootstrap: samples that the intervals come from; 0: no intervals.
        stride: sliding-window perplexity: tokens between windows; default: half a window, which is --seq-len.
        harness: tasks of lm-evaluation-harness, instead of data; their data must be on this machine.
        harness_folder: folder of more tasks of the harness (YAML files).
        limit: examples of each task of the harness; default: all.
        seed: of the bootstrap.
        step: of a run's checkpoint, or best (by the validation metric); default: the newest.
        batch_size: rows at a time; default: the run's.
        seq_len: tokens of a row or window; default: as in the run; at most 512 of a Hugging Face model.
        mesh: shape of the device mesh.
        text_column: the same as text=... in --columns.
        pair_column: the same as pair=... in --columns.
        label_column: the same as label=... in --columns.
        settings: name=value, as in num_beams=1: settings of the task that can be changed after training.
        out: also write the metrics to this JSON file.
    """
    check_file(out)
    check_not_read(out, model, *data)
    check_numbers(0, bootstrap=bootstrap, seed=seed)
    check_numbers(1, batch_size=batch_size, seq_len=seq_len, stride=stride, limit=limit)
    given = read_columns(columns, text=text_column, pair=pair_column, label=label_column)
    if settings and (harness or stride is not None):
        other = "--harness" if harness else "--stride"
        raise ValueError(f"--settings are of the task of a model, which {other} does not use")
    if harness:
        _harness(model, harness, harness_folder, limit, bootstrap, step, out)
        return
    from jaxlm import sharding
    from jaxlm.run import evaluate, restore

    found = restore.find(
        model,
        task=task,
        step=step,
        batch_size=batch_size,
        seq_len=seq_len,
        mesh=sharding.make_mesh(mesh),
        columns=given,
        on_bad_row=on_bad_row,
        settings=read_settings(settings),
    )
    if stride is not None or (not found.is_run and found.task.name == "causal_lm"):
        _perplexity(found, data, stride, bootstrap, seed, out)
        return
    try:
        run = restore.with_rows(found, data, "validation")
    except ValueError as e:
        if "no column" not in str(e):
            raise
        line = str(e).removesuffix(" (set data.on_bad_row=skip to skip such rows)")
        hint = "--columns role=name names a column, and `jaxlm predict` needs no answers"
        raise ValueError(f"{line}; {hint}") from None
    result = evaluate.evaluate(run, samples=bootstrap, seed=seed)
    if result.rendered:
        print(result.rendered)
    at = f", step {result.step:,}" if found.is_run else ""
    print(f"{mirror.named(model)}{at}, {result.examples:,} examples")
    _print(result.metrics, result.intervals)
    if bootstrap and not result.intervals:
        print("no intervals: the metrics of this task are no sums over examples")
    if result.intervals and result.samples < bootstrap:
        print(
            f"intervals from {result.samples} samples, because each needs the scores of all predictions"
        )
    if getattr(run.data, "counts", None) is not None and run.data.counts.skipped:
        print(run.data.counts)
    for name, signature in result.signatures.items():
        print(f"{name}: {signature}")
    about: dict[str, Any] = {
        "run_dir": mirror.named(model),
        "step": result.step,
        "examples": result.examples,
    }
    if settings:
        about["settings"] = read_settings(settings)
    if result.verdict is not None:
        about["verdict"] = result.verdict
    if result.signatures:
        about["signatures"] = result.signatures
    _write(out, about, result.metrics, result.intervals)


def _perplexity(
    found: Any,
    data: tuple[str, ...],
    stride: int | None,
    bootstrap: int,
    seed: int,
    out: pathlib.Path | None,
) -> None:
    from jaxlm.run import perplexity, restore

    texts = restore.read_texts(found, data)
    window = found.config.data.seq_len
    result = perplexity.perplexity(
        found.load("predict"), texts, stride=stride, samples=bootstrap, seed=seed
    )
    print(
        f"{mirror.named(found.folder)}: {result.documents:,} documents, {result.tokens:,} tokens, "
        f"{result.words:,} words, {result.bytes:,} bytes; windows of {window} tokens, every {stride or window // 2}"
    )
    _print(result.metrics, result.intervals)
    if bootstrap and not result.intervals:
        print("no intervals: there is a single document")
    about = {
        "run_dir": mirror.named(found.folder),
        "documents": result.documents,
        "tokens": result.tokens,
    }
    about |= {"words": result.words, "bytes": result.bytes}
    _write(out, about, result.metrics, result.intervals)


def _harness(
    model: pathlib.Path,
    tasks: tuple[str, ...],
    folder: pathlib.Path | None,
    limit: int | None,
    samples: int,
    step: Step,
    out: pathlib.Path | None,
) -> None:
    from jaxlm.run import harness, load

    results = harness.evaluate(
        load.load(model, step=step), tasks, folder=folder, limit=limit, samples=samples
    )
    for name, metrics in results.items():
        print(f"{name}: {', '.join(f'{key} {value:.4f}' for key, value in metrics.items())}")
    if out is not None:
        _save(out, results)


def _print(metrics: Mapping[str, float], intervals: Mapping[str, tuple[float, float]]) -> None:
    """A line of all metrics, with their intervals in brackets."""
    parts = []
    for name, value in metrics.items():
        interval = intervals.get(name)
        shown = "" if interval is None else f" [{interval[0]:.4f}, {interval[1]:.4f}]"
        parts.append(f"{name} {value:.4f}{shown}")
    print(", ".join(parts))


def _write(
    out: pathlib.Path | None,
    about: dict[str, Any],
    metrics: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
) -> None:
    """Writes what was found to a JSON file."""
    if out is not None:
        found = about | dict(metrics)
        if intervals:
            found["intervals"] = {name: list(interval) for name, interval in intervals.items()}
        _save(out, found)


def _save(out: pathlib.Path, values: dict[str, Any]) -> None:
    """Writes the values; one that is not finite, as a correlation may be, becomes null."""
    from jaxlm.report.run_log import strict

    write_text(out, json.dumps(strict(values), indent=2) + "\n")
