"""Four custom tasks, written with the public interface only.

As a script it is one of two processes that run all of them: python own_tasks.py FOLDER COORDINATOR PROCESS
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm import (
    CausalLM,
    CheckpointConfig,
    ClassificationConfig,
    Classifier,
    DataConfig,
    DecoderConfig,
    DistributedConfig,
    EncoderConfig,
    EvaluationConfig,
    FinetuneConfig,
    GroupConfig,
    Loss,
    MeshConfig,
    OptimizerConfig,
    PhaseConfig,
    Task,
    TaskConfig,
    finetune,
)
from jaxlm.data.records import Column
from jaxlm.data.rows import ArrayRows
from jaxlm.models import heads
from jaxlm.ops import losses
from jaxlm.tasks.downstream.classification import Classification
from jaxlm.tasks.downstream.texts import text_arrays

# --- the mean of the token ids of a text, as a regression ---


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanIdConfig(TaskConfig):
    scale: float = 0.1


class MeanId(Task):
    Config, name, backbones = MeanIdConfig, "mean_id", (DecoderConfig, EncoderConfig)

    @classmethod
    def columns(cls, config, purpose):
        return {"text": Column(config.data.text_column, "text")}

    def make_model(self):
        return Classifier(self.backbone, 1, "last", 0.0, self.config.compute)

    def rows(self, data, purpose):
        ids = data.token_ids("text", self.tokenizer)
        means = np.array([self.settings.scale * x.mean() for x in ids], np.float32)
        return ArrayRows(text_arrays(ids, None, self.tokenizer, 16) | {"mean": means})

    def predict(self, params, batch, key):
        inputs = {name: batch[name] for name in ("tokens", "segment_ids")}
        return self.model.apply({"params": params}, **inputs)[:, 0]

    def loss(self, params, batch, context):
        error = jnp.square(self.predict(params, batch, context.key) - batch["mean"])
        return Loss((error * batch["valid"]).sum(), batch["valid"].sum())

    def read(self, outputs, record):
        return {"mean": float(outputs[0])}

    def score(self, predictions, records):
        truth = self.rows(records, "validation").arrays["mean"]
        errors = np.abs(np.array([p["mean"] for p in predictions]) - truth)
        return {"mean_absolute_error": float(errors.mean())}


# --- direct preference optimization (Rafailov et al. 2023, 2305.18290, equation 7) with a frozen reference ---


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreferenceConfig(TaskConfig):
    beta: float = 0.5


class Preference(Task):
    Config, name, backbones = PreferenceConfig, "preference", (DecoderConfig,)

    @classmethod
    def columns(cls, config, purpose):
        return {"chosen": Column("text", "text"), "rejected": Column("worse", "text")}

    def make_model(self):
        return CausalLM(self.backbone, self.config.compute)

    def rows(self, data, purpose):
        both = {}
        for role in ("chosen", "rejected"):
            arrays = text_arrays(data.token_ids(role, self.tokenizer), None, self.tokenizer, 16)
            both |= {role: arrays["tokens"], f"{role}_real": arrays["segment_ids"]}
        return ArrayRows(both)

    def reference(self, params):
        return params

    def _log_prob(self, params, batch, role, key=None):
        """Log probabilities of whole texts [B]."""
        tokens, real = batch[role], batch[f"{role}_real"]
        hidden = self.model.apply(
            {"params": params}, tokens[:, :-1], segment_ids=real[:, :-1], key=key, method="hidden"
        )
        table = heads.unembedding(params)
        return (losses.per_token_log_probs(hidden, table, tokens[:, 1:]) * real[:, 1:]).sum(1)

    def loss(self, params, batch, context):
        gain = lambda role: (
            self._log_prob(params, batch, role) - self._log_prob(context.reference, batch, role)
        )
        margin = self.settings.beta * (gain("chosen") - gain("rejected"))
        valid = batch["valid"]
        weight = valid.sum()
        means = {"accuracy": ((margin > 0) @ valid, weight), "margin": (margin @ valid, weight)}
        return Loss(-jax.nn.log_sigmoid(margin) @ valid, weight, means)


# --- embeddings of two texts that are alike, against all others of the batch; a running scale is carried along ---


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContrastiveConfig(TaskConfig):
    temperature: float = 0.1


class Contrastive(Task):
    Config, name, backbones, coupled = ContrastiveConfig, "contrastive", (DecoderConfig,), True
    metric, lower_is_better = "hits", False

    @classmethod
    def columns(cls, config, purpose):
        return {"text": Column("text", "text"), "pair": Column("worse", "text")}

    def make_model(self):
        return Classifier(self.backbone, 8, "mean", 0.0, self.config.compute)

    def rows(self, data, purpose):
        sides = {}
        for role in ("text", "pair"):
            arrays = text_arrays(data.token_ids(role, self.tokenizer), None, self.tokenizer, 16)
            sides |= {f"{role}_{name}": arrays[name] for name in ("tokens", "segment_ids")}
        return ArrayRows(sides)

    def init_state(self):
        return {"steps": jnp.zeros(()), "similarity": jnp.zeros(())}

    def predict(self, params, batch, key, side="text"):
        inputs = {name: batch[f"{side}_{name}"] for name in ("tokens", "segment_ids")}
        x = self.model.apply({"params": params}, **inputs)
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

    def read(self, outputs, record):
        return {"embedding": outputs[0].tolist()}

    def loss(self, params, batch, context):
        a, b = (self.predict(params, batch, context.key, side) for side in ("text", "pair"))
        valid = batch["valid"]
        scores = jnp.where(valid > 0, a @ b.T / self.settings.temperature, -1e30)
        hits = (scores.argmax(1) == jnp.arange(len(valid))) @ valid
        total = -(jnp.diagonal(jax.nn.log_softmax(scores)) @ valid)
        similarity = (a * b).sum() / len(valid)
        state = jax.tree.map(jnp.add, context.state, {"steps": 1.0, "similarity": similarity})
        return Loss(total, valid.sum(), {"hits": (hits, valid.sum())}, state=state)


# --- classification in two phases: the head on a frozen backbone, then both in turn with a new head ---


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoPhaseConfig(ClassificationConfig):
    """The settings of a classification."""


class TwoPhase(Classification):
    Config, name = TwoPhaseConfig, "two_phase"

    def phases(self):
        head = GroupConfig(name="head", params=("head/*",), rate=3.0)
        return (
            PhaseConfig(
                end_fraction=0.5,
                groups=(head, GroupConfig(name="frozen", params=("backbone/*",), frozen=True)),
            ),
            PhaseConfig(groups=(head,), turns=(("head",), ("rest",), ("rest",))),
        )


TASKS = (MeanId, Preference, Contrastive, TwoPhase)


def write_records(folder: pathlib.Path) -> None:
    """Sixty rows with a text, a worse one and a label."""
    rng = np.random.default_rng(1)
    rows = []
    for i in range(60):
        word, label = [("good", "pos"), ("bad", "neg")][i % 2]
        text = f"a {word} film about {rng.choice(['love', 'war', 'tea'])} {rng.integers(100)}"
        rows.append({"text": text, "worse": text.replace("film", "fi"), "label": label})
    path = folder / "records.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def config_of(kind: str, folder: pathlib.Path, name: str, steps: int = 12, **changes):
    """A run of a task on the model in folder/base; every step is logged."""
    task = next(t for t in TASKS if t.name == kind)
    config = FinetuneConfig(
        name=name,
        run_dir=str(folder / name),
        init=str(folder / "base"),
        task=task.Config(),
        data=DataConfig(
            train=(str(folder / "records.jsonl"),), validation_fraction=0.2, seq_len=16
        ),
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=2, weight_decay=0.0),
        evaluation=EvaluationConfig(every=6),
        checkpoint=CheckpointConfig(every=4, keep=4),
        mesh=MeshConfig(data=2),
        steps=steps,
        batch_size=8,
        log_every=1,
    )
    return dataclasses.replace(config, **changes)


if __name__ == "__main__":
    folder, coordinator, process_id = sys.argv[1:]
    distributed = DistributedConfig(
        coordinator=coordinator, num_processes=2, process_id=int(process_id)
    )
    for task in TASKS:
        run = config_of(task.name, pathlib.Path(folder), f"{task.name}_two")
        finetune(dataclasses.replace(run, distributed=distributed), tasks=TASKS)
