"""An audit of a model: what it remembers of its training data, and how it treats groups."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxlm import sharding
from jaxlm.audit import attacks, canaries, continuation
from jaxlm.audit import pairs as minimal_pairs
from jaxlm.audit.losses import Losses, losses
from jaxlm.config import MeshConfig
from jaxlm.data.records import Records
from jaxlm.models.heads import CausalLM
from jaxlm.run import folder as run_folder
from jaxlm.run import load, perplexity, restore
from jaxlm.run.model import Found, Model
from jaxlm.run.predict import predict_values
from jaxlm.tasks.downstream.classification import Classification

# texts of each side of an attack, at least: an area of fewer says nothing
LEAST = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is audited, and how thoroughly."""

    # source that the model was trained on, and one like it that it was not trained on
    train: str | None = None
    heldout: str | None = None
    # a run or model that was not trained on `train`, for likelihood ratios
    reference: str | None = None
    # files of canaries and of minimal pairs
    canaries: pathlib.Path | None = None
    pairs: pathlib.Path | None = None
    # texts of each source, at most
    limit: int = 1000
    # tokens of prompts, and of their continuation
    prompt_lengths: tuple[int, ...] = (8, 16, 32)
    suffix: int = 16
    # texts that the rank of a canary is found among, at most
    candidates: int = 10_000
    samples: int = 1000
    seed: int = 0
    step: run_folder.Step = None

    def __post_init__(self):
        for name in ("limit", "suffix", "candidates", "samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if not self.prompt_lengths or min(self.prompt_lengths) < 1:
            raise ValueError(f"prompt_lengths={self.prompt_lengths}: must be positive numbers")
        if self.heldout is not None and self.train is None:
            raise ValueError("heldout has no effect alone: name what the model was trained on, too")
        if self.reference is not None and self.heldout is None:
            raise ValueError("reference has no effect without train and heldout: name them too")
        if not (self.train or self.canaries or self.pairs):
            raise ValueError("nothing to audit: name train and heldout, canaries or pairs")


def audit(folder: pathlib.Path, options: Options) -> dict[str, Any]:
    """Everything that the options ask for, as JSON values.

    Raises:
        ValueError: there is no such model, or it cannot be audited so; the message is one line.
    """
    if options.reference is not None:
        other = pathlib.Path(options.reference)
        if other.resolve() == folder.resolve():
            raise ValueError(
                f"reference={other}: that is the model itself: name one that was not trained on train"
            )
    found = _find(folder, options.step)
    is_causal = isinstance(found.task.model, CausalLM)
    if options.train is not None and options.heldout is None and not is_causal:
        raise ValueError("train alone is for causal models, which continue texts: name heldout too")
    if options.canaries is not None and not is_causal:
        raise ValueError(
            f"{folder}: task {found.task.name} gives texts no probability: canaries are for causal models"
        )
    # files first: a mistake in one is told before anything is computed
    planted = None if options.canaries is None else canaries.load(options.canaries)
    pairs = None if options.pairs is None else minimal_pairs.load(options.pairs)
    if pairs is not None and not is_causal and not isinstance(found.task, Classification):
        raise ValueError(
            f"{folder}: task {found.task.name}: pairs are for causal models and for classifiers"
        )
    model = found.load("validation")
    result: dict[str, Any] = {
        "model": str(folder),
        "step": model.step,
        "task": found.task.name,
        "privacy": _privacy(model),
    }
    if options.heldout is not None:
        assert options.train is not None
        sides = {
            s: losses(found, model, s, options.limit) for s in (options.train, options.heldout)
        }
        result["membership"] = _membership(options, found.task, sides)
    if options.train is not None and is_causal:
        result["continuation"] = _continuation(folder, found, options)
    if planted is not None:
        result["canaries"] = _canaries(model, planted, options)
    if pairs is not None:
        result["pairs"] = _pairs(model, pairs, options)
    return result


def _find(folder: pathlib.Path, step: run_folder.Step = None) -> Found:
    mesh = sharding.make_mesh(MeshConfig(data=1), _one_device())
    return restore.find(folder, step=step, mesh=mesh)


def _one_device() -> list:
    import jax

    return jax.local_devices()[:1]


def _privacy(model: Model) -> dict[str, Any] | None:
    """The budget that the model was trained with; None: it was not trained privately."""
    settings = getattr(model.config, "privacy", None)
    if settings is None or not settings.is_on:
        return None
    return {"epsilon": settings.epsilon, "delta": settings.delta, "unit": settings.unit or "text"}


def _membership(options: Options, task: Any, sides: dict[str, Losses]) -> dict[str, Any]:
    """Attacks by the loss and, with a reference model, by the likelihood ratio."""
    assert options.train is not None and options.heldout is not None
    shared, count = _shared(*(sides[s].data for s in (options.train, options.heldout)))
    if count and shared == count:
        raise ValueError(
            f"{options.heldout}: all of it is in {options.train}: name what the model did not see"
        )
    for source, side in sides.items():
        if len(side.values) < LEAST:
            raise ValueError(
                f"{source}: {len(side.values)} texts, and membership needs {LEAST} at least; a .txt file is one text "
                "unless the run's data.text_unit says otherwise: a .jsonl has one a row"
            )
    members, others = (sides[s].values for s in (options.train, options.heldout))
    run = lambda a, b: dataclasses.asdict(
        attacks.attack(a, b, samples=options.samples, seed=options.seed)
    )
    result = {
        "train_loss": float(members.mean()),
        "heldout_loss": float(others.mean()),
        "in_both": shared,
        "loss": run(-members, -others),
    }
    if options.reference is not None:
        found, own_task = _find(pathlib.Path(options.reference)), type(task)
        if type(found.task) is not own_task:
            raise ValueError(
                f"{options.reference}: task {found.task.name}, and the model's is {own_task.name}: their losses cannot "
                "be compared"
            )
        model = found.load("validation")
        scores = []
        for source, own in sides.items():
            theirs = losses(found, model, source, options.limit)
            if len(theirs.values) != len(own.values):
                raise ValueError(
                    f"{options.reference}: can use {len(theirs.values):,} texts of {source}, and the model "
                    f"{len(own.values):,}: the reference must read the same"
                )
            # of whole texts, by the model's tokens: the reference may have others
            scores.append(theirs.values * theirs.weights / own.weights - own.values)
        result["likelihood_ratio"] = run(*scores)
    return result


def _shared(train: Any, heldout: Any) -> tuple[int, int]:
    """How many held-out texts or records are in the training data too, and how many there are; of shards 0 and 0."""
    seen, others = (_contents(x) for x in (train, heldout))
    known = set(seen)
    return sum(x in known for x in others), len(others)


def _contents(data: Any) -> list[str]:
    if isinstance(data, Records):
        return [repr(x) for x in zip(*data.columns.values())]
    return list(getattr(data, "texts", ()))


def _continuation(folder: pathlib.Path, found: Found, options: Options) -> dict[str, Any]:
    """How often the model continues training texts verbatim, and held-out ones."""
    writer = load.load(folder, step=options.step)
    if writer.kind != "decoder":
        raise ValueError(f"{folder}: is no decoder: it continues no text")
    lengths = sorted(set(options.prompt_lengths))
    longest, most = lengths[-1] + options.suffix, writer.engine().max_len
    if (needed := len(writer.before) + longest) > most:
        raise ValueError(
            f"{folder}: prompts of {lengths[-1]} tokens and continuations of {options.suffix} need {needed:,} places, "
            f"and the model has {most:,}: lower --prompt-lengths or --suffix"
        )
    rows: list[dict[str, Any]] = []
    for name, source in (("train", options.train), ("heldout", options.heldout)):
        if source is None:
            continue
        ids = writer.tokenizer.encode_batch(_texts(found, source)[: 50 * options.limit])
        texts = continuation.long_enough(ids, longest)[: options.limit]
        if not texts:
            raise ValueError(
                f"{source}: no text has {lengths[-1]} + {options.suffix} tokens: lower --prompt-lengths or --suffix"
            )
        for length in lengths:
            count = continuation.matches(writer, texts, length, options.suffix)
            whole = (count == options.suffix).astype(float)
            rows.append(
                {
                    "texts": name,
                    "prompt": length,
                    "number": len(texts),
                    "verbatim": float(whole.mean()),
                    "interval": attacks.mean_interval(
                        whole, samples=options.samples, seed=options.seed
                    ),
                    "tokens": float(count.mean()),
                }
            )
    return {"suffix": options.suffix, "rows": rows}


def _texts(found: Found, source: str) -> list[str]:
    kind = type(found.task)
    if columns := kind.columns(found.config, "validation"):
        data = restore.read(found.config.data, (source,), columns)
        assert isinstance(data, Records)
        if "text" not in data.columns:
            raise ValueError(f"{source}: task {kind.name} reads no plain text to continue")
        return data.columns["text"]
    return restore.read_texts(found, (source,))


def _nats(model: Model, texts: Sequence[str]) -> np.ndarray:
    """The negative log-probability of each text."""
    return perplexity.perplexity(model, texts).table[:, 0]


def _canaries(model: Model, planted: canaries.Canaries, options: Options) -> dict[str, Any]:
    others = _nats(model, planted.others(options.candidates, options.seed))
    own = _nats(model, planted.texts)
    return {
        "template": planted.template,
        "space": planted.space,
        "compared_with": len(others),
        # a canary that nothing is more probable than
        "most": math.log2(planted.space if len(others) == planted.space else len(others) + 1),
        "rows": [
            {
                "text": text,
                "repeats": repeats,
                "loss": float(loss),
                "exposure": canaries.exposure(loss, others, planted.space),
            }
            for text, repeats, loss in zip(planted.texts, planted.repeats, own)
        ],
    }


def _pairs(model: Model, pairs: Sequence[minimal_pairs.Pair], options: Options) -> dict[str, Any]:
    """Of each comparison: the mean difference between first and second texts, and how often the first has more."""
    both = [*(p.first for p in pairs), *(p.second for p in pairs)]
    if isinstance(model.task, Classification):
        from jaxlm.run.predict import Predictor

        found = predict_values(Predictor(model), both)
        measures = {
            f"probability of {name}": np.array([x["probabilities"][name] for x in found])
            for name in model.task.labels
        }
    else:
        measures = {"log-probability": -_nats(model, both)}
    abouts = list(dict.fromkeys(p.about for p in pairs))
    rows = []
    for about in abouts:
        chosen = np.array([p.about == about for p in pairs])
        for name, values in measures.items():
            difference = (values[: len(pairs)] - values[len(pairs) :])[chosen]
            # equal texts count half
            favours = (difference > 0) + 0.5 * (difference == 0)
            settings: Any = dict(samples=options.samples, seed=options.seed)
            rows.append(
                {
                    "about": about,
                    "measure": name,
                    "pairs": int(chosen.sum()),
                    "difference": float(difference.mean()),
                    "difference_interval": attacks.mean_interval(difference, **settings),
                    "favours_first": float(favours.mean()),
                    "favours_first_interval": attacks.mean_interval(favours, **settings),
                }
            )
    return {"rows": rows}
