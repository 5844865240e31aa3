"""What the report of a run shows: its history, an evaluation with intervals, and the examples to look at."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxlm import sharding
from jaxlm.config import MeshConfig, files
from jaxlm.data.columns import Column, plain_text
from jaxlm.models.heads import CausalLM
from jaxlm.remote import mirror
from jaxlm.report import page, run_log
from jaxlm.report.formats import count, duration, number
from jaxlm.report.metrics_file import read_metrics
from jaxlm.report.page import Classes, Example, Report
from jaxlm.run import folder as run_folder
from jaxlm.run import perplexity, restore
from jaxlm.run.evaluate import Result, evaluate
from jaxlm.run.model import Found, Restored
from jaxlm.tasks import calibration

# examples in each list, texts whose tokens are shown, and the documents among which these are found
_EXAMPLES, _TEXTS, _DOCUMENTS = 20, 8, 200
# tokens of such a text
_TOKENS = 160


def report(
    run_dir: str | os.PathLike,
    *,
    sources: tuple[str, ...] = (),
    task: str | None = None,
    step: run_folder.Step = None,
    batch_size: int | None = None,
    mesh: MeshConfig | None = None,
    columns: Mapping[str, str | None] | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> str:
    """A page about a run, as HTML; arguments as of `restore.find`.

    Args:
        run_dir: folder of a run, or of a Hugging Face model.
        sources: data to evaluate on; default: the run's validation data.
        task: name of another task for the model.
        step: of the checkpoint, or "best"; default: the newest.
        batch_size: rows per batch.
        mesh: shape of the mesh.
        columns: role -> column of the sources.
        samples: of the bootstrap; 0: no intervals.
        seed: of the bootstrap, and of the choice of examples.
    """
    found = restore.find(
        run_dir,
        task=task,
        step=step,
        batch_size=batch_size,
        mesh=sharding.make_mesh(mesh or MeshConfig()),
        columns=columns,
    )
    run = restore.with_rows(found, sources, "validation")
    result = evaluate(run, samples=samples, seed=seed, predict=True)
    folder = mirror.of(run_dir)
    data = ", ".join(sources or run.config.data.validation) or "held out of the training data"
    at = f"step {run.step:,}" if found.is_run else "a Hugging Face model"
    rows, longest = _row_lengths(run)
    return page.page(
        Report(
            title=run.config.name or folder.name,
            subtitle=f"{run.task.name}, {at}, {result.examples:,} validation examples: {data}",
            metrics=result.metrics,
            main=run.task.metric,
            settings=files.to_dict(run.config),
            intervals=result.intervals,
            facts=_facts(folder, run),
            history=read_metrics(path) if (path := folder / "metrics.jsonl").is_file() else (),
            classes=_classes(run, result),
            examples=_examples(run, result, seed),
            texts=_texts(found, run, sources, seed),
            lengths=rows,
            longest=longest,
        )
    )


def _facts(folder: pathlib.Path, run: Restored) -> dict[str, str]:
    """About the run and its machine, from summary.json if it has ended."""
    facts = {"folder": mirror.named(folder)}
    path = folder / "summary.json"
    summary: dict[str, Any] = run_log.read_summary(folder) if path.is_file() else {}
    if getattr(run.config, "init", None):
        facts["started from"] = str(run.config.init)
    if run.step:
        facts["training data"] = ", ".join(run.config.data.train)
    for name, key, shown in (
        ("steps", "steps", lambda x: f"{x:,}"),
        ("best", "best", lambda x: ", ".join(f"{k} {number(v)}" for k, v in x.items())),
        ("parameters", "parameters", lambda x: f"{count(x)} ({x:,})"),
        ("tokens read", "tokens", count),
        ("tokens per second", "tokens_per_second", count),
        ("time", "wall_seconds", duration),
        ("device", "device_kind", str),
        ("devices", "num_devices", str),
        ("seed", "seed", str),
        ("jax", "jax", str),
    ):
        if summary.get(key) not in (None, {}, ""):
            facts[name] = shown(summary[key])
    counts = getattr(run.data, "counts", None)
    if counts is not None:
        facts["validation data"] = str(counts)
    return facts


def _row_lengths(run: Restored) -> tuple[np.ndarray | None, int]:
    """Tokens of each row, and how many it can have; None for rows that are not in memory, or are windows of texts."""
    arrays = getattr(run.rows, "arrays", {})
    segments = arrays.get("segment_ids")
    if segments is None or segments.ndim != 2 or "record" in arrays:
        return None, 0
    return (segments > 0).sum(1), segments.shape[1]


def _target(run: Restored) -> tuple[str, Column] | None:
    """The role and column of the answers: what is read to evaluate and not needed to predict."""
    kind, config = type(run.task), run.config
    known, wanted = (kind.columns(config, purpose) for purpose in ("validation", "predict"))
    for role, column in known.items():
        if column.required and (role not in wanted or not wanted[role].required):
            if column.kind == "words":
                continue
            return role, column
    return None


def _classes(run: Restored, result: Result) -> Classes | None:
    """Of a task with one label for each example: the confusion matrix, and how far its probabilities can be trusted."""
    target = _target(run)
    if target is None or target[1].kind != "label" or not run.task.labels or not result.predictions:
        return None
    if "probability" not in result.predictions[0]:
        return None
    labels = run.task.labels
    index = {name: i for i, name in enumerate(labels)}
    true = [index[run.data.columns[target[0]][i]] for i in result.indices]
    predicted = [index[p["label"]] for p in result.predictions]
    confusion = np.zeros((len(labels), len(labels)))
    np.add.at(confusion, (true, predicted), 1)
    bins = calibration.reliability(
        np.array([p["probability"] for p in result.predictions]),
        np.array(true) == np.array(predicted),
    )
    return Classes(labels, confusion, bins)


def _examples(run: Restored, result: Result, seed: int) -> dict[str, tuple[str, Sequence[Example]]]:
    """The examples to look at, by heading."""
    target = _target(run)
    if target is None or not result.predictions:
        return {}
    role, column = target
    made = [
        _example(run, role, column, run.data.record(i), p)
        for i, p in zip(result.indices, result.predictions)
    ]
    if column.kind == "label":
        wrong = sorted((x for x in made if not x[1].right), key=lambda x: -x[2])
        worst = sorted(made, key=lambda x: x[0])
        confident = [x[1] for x in wrong[:_EXAMPLES]]
        least = [x[1] for x in worst[:_EXAMPLES]]
        found: dict[str, tuple[str, Sequence[Example]]] = {
            "Confident mistakes": (
                f"The wrong predictions that the model was surest of, {len(confident)} of {len(wrong):,}; often the "
                "label is wrong.",
                confident,
            ),
        }
        if {e.where for e in least} != {e.where for e in confident}:
            what = "The examples whose true class got the lowest probability."
            found["Worst examples"] = (what, least)
        return found
    order = sorted(made, key=lambda x: x[0])
    if order[0][0] != order[-1][0]:
        largest = [x[1] for x in order[:_EXAMPLES]]
        return {"Worst examples": ("The examples with the largest errors.", largest)}
    chosen = np.random.default_rng(seed).permutation(len(made))[:_EXAMPLES]
    return {"Examples": ("A random sample.", [made[i][1] for i in sorted(chosen)])}


def _example(
    run: Restored, role: str, column: Column, record: dict[str, Any], prediction: dict[str, Any]
) -> tuple[float, Example, float]:
    """(a number that is the lower the worse the prediction, the example, the probability of the prediction)."""
    kind, answer = column.kind, record[role]
    known = type(run.task).columns(run.config, "validation")
    inputs = tuple(
        (c.name, plain_text(record[r], c.kind) or "")
        for r, c in known.items()
        if r != role and record.get(r) is not None and c.kind in ("text", "words", "messages")
    )
    goodness, note, right, sure = 0.0, "", None, 0.0
    shown, expected = json.dumps(prediction, ensure_ascii=False), str(answer)
    if kind == "label" and "label" in prediction:
        shown, right = prediction["label"], prediction["label"] == answer
        sure = prediction.get("probability", 0.0)
        goodness = prediction.get("probabilities", {}).get(answer, float(right))
        note = f"{sure:.1%}" if right else f"{sure:.1%}, the answer {goodness:.1%}"
    elif kind == "labels" and "labels" in prediction:
        missed = set(answer) ^ set(prediction["labels"])
        goodness, right = -float(len(missed)), not missed
        shown, expected = ", ".join(prediction["labels"]) or "none", ", ".join(answer) or "none"
    elif kind == "number" and "value" in prediction:
        error = prediction["value"] - answer
        goodness, note, shown = -abs(error), f"error {error:+.3g}", number(prediction["value"])
        expected = f"{answer:g}"
    elif kind == "tags" and "tags" in prediction:
        pairs = list(zip(answer, prediction["tags"]))
        goodness, right = -float(sum(a != b for a, b in pairs)), answer == prediction["tags"]
        shown, expected = " ".join(prediction["tags"]), " ".join(answer)
    elif kind == "answers" and "answer" in prediction:
        texts = list(dict.fromkeys(answer["text"]))
        right = prediction["answer"] in texts or (not texts and not prediction["answer"])
        sure = prediction.get("probability", 0.0)
        goodness, note = (1 + sure if right else -sure), f"{sure:.1%}"
        shown, expected = prediction["answer"] or "no answer", " / ".join(texts) or "no answer"
    elif kind == "spans" and "spans" in prediction:
        true, found = (_names_of(spans, record["text"]) for spans in (answer, prediction["spans"]))
        goodness, right = -float(len(true.items() ^ found.items())), true == found
        shown, expected = ", ".join(found.values()) or "none", ", ".join(true.values()) or "none"
    elif "similarity" in prediction:
        shown = f"cosine {prediction['similarity']:.3f}"
        # of scored pairs a small one may be right
        goodness = prediction["similarity"] if record.get("score") is None else 0.0
    elif kind == "text" and "text" in prediction:
        shown, goodness = prediction["text"], _overlap(prediction["text"], answer)
    where = record["id"].rsplit("/", 1)[-1]
    return goodness, Example(where, inputs, expected, shown, note, right), sure


def _names_of(spans: Sequence[Mapping[str, Any]], text: str) -> dict[tuple[int, int], str]:
    """What spans are, by their characters without spaces at the ends."""
    names = {}
    for span in spans:
        inside = text[span["start"] : span["end"]]
        start = span["start"] + len(inside) - len(inside.lstrip())
        names[start, start + len(inside.strip())] = f"{inside.strip()} ({span['label']})"
    return names


def _overlap(text: str, reference: str) -> float:
    """Fraction of characters in common runs, as a rough order of generated texts."""
    import difflib

    return round(difflib.SequenceMatcher(None, text, reference, autojunk=False).ratio(), 3)


def _texts(
    found: Found, run: Restored, sources: tuple[str, ...], seed: int
) -> list[tuple[str, float, list[tuple[str, float]]]]:
    """The documents of a causal language model with the highest loss, token by token."""
    if not isinstance(run.task.model, CausalLM) or type(run.task).columns(run.config, "validation"):
        return []
    try:
        texts = restore.read_texts(found, sources)
    except ValueError:  # shards
        return []
    chosen = np.sort(np.random.default_rng(seed).permutation(len(texts))[:_DOCUMENTS])
    sample = [texts[i] for i in chosen]
    table = perplexity.perplexity(run, sample).table
    mean = table[:, 0] / np.maximum(table[:, 1], 1)
    # a text of a few tokens is not worth looking at, unless there are no others
    enough = np.flatnonzero(table[:, 1] >= min(8, table[:, 1].max()))
    worst = enough[np.argsort(-mean[enough])][:_TEXTS]
    return [
        (
            f"text {chosen[i] + 1:,}",
            float(mean[i]),
            perplexity.token_losses(run, sample[i])[:_TOKENS],
        )
        for i in worst
    ]
