"""The interface of a task: what is learnt, from which columns, by which model, and how it is scored.

A task is one subclass of `Task` in one file, with its settings (a `TaskConfig`) beside it. What the class says holds
for any run; an instance belongs to one run (or one stage of it) and has its config, its tokenizer and the model.
`loss` and `predict` are pure functions of arrays; `rows`, `read` and `score` run on the host.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from jaxlm.config import PhaseConfig, RunConfig, TaskConfig
from jaxlm.data import corpora
from jaxlm.data.loader import Batch, Dataset
from jaxlm.data.mixture import Mixture
from jaxlm.data.records import Column, Records
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.models import flops, heads

Purpose = Literal["train", "validation", "predict"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Context:
    """What a loss may depend on besides parameters and batch."""

    # random key of this call; in evaluation always the same one
    key: jax.Array
    # number of steps done
    step: jax.Array
    # from `Task.reference`: parameters of a model that is not trained
    reference: Any = None
    # from `Task.init_state` or the last step's `Loss.state`: running statistics and the like
    state: Any = None
    # False in evaluation
    train: bool = dataclasses.field(default=True, metadata={"static": True})
    # index of the phase of the run
    phase: int = dataclasses.field(default=0, metadata={"static": True})
    # into how many parts the batch of a step is split; `loss` sees one of them
    parts: int = dataclasses.field(default=1, metadata={"static": True})

    @property
    def dropout_key(self) -> jax.Array | None:
        """The key in training, None in evaluation, where nothing is dropped."""
        return self.key if self.train else None


class Loss(NamedTuple):
    """The loss of a batch as sums, so that parts of a batch, devices and processes add up."""

    # weighted sum of the losses; divided by `weight` once, over the whole batch
    total: jax.Array
    weight: jax.Array
    # further means by name: (weighted sum, its weight)
    means: dict[str, tuple[jax.Array, jax.Array]] = {}
    # anything else that is added up over batches, of any shape, such as a confusion matrix
    sums: dict[str, jax.Array] = {}
    # replaces `Context.state` in the next step
    state: Any = None


class Piece(NamedTuple):
    """A token of a row as people see it."""

    text: str
    # whether its prediction counts in the loss
    counts: bool = False
    # text of what is to be predicted there; None: the next piece
    target: str | None = None
    # whether another text of the row, or its padding, begins here
    begins: bool = False


class Task:
    """A task of one run. Subclasses say what is theirs; every default that is given here may be kept."""

    # settings of the task; the name of this class is the task's name in a config.json
    Config: ClassVar[type[TaskConfig]]
    # the task's name in messages
    name: ClassVar[str]
    # the metric by which checkpoints are compared
    metric: ClassVar[str] = "loss"
    lower_is_better: ClassVar[bool] = True
    # config classes of the backbones that it can train
    backbones: ClassVar[tuple[type, ...]]
    # control tokens that it cannot do without: "eos", "cls", "sep", "mask", "pad", "bos"
    roles: ClassVar[tuple[str, ...]] = ()
    # whether the loss needs the whole batch at once (contrastive losses): a step's batch is then never split
    coupled: ClassVar[bool] = False

    # ---- of the class: before there is a tokenizer

    @classmethod
    def columns(cls, config: RunConfig, purpose: Purpose) -> Mapping[str, Column]:
        """The columns that it reads, by the names that it has for them; none: it learns from plain text."""
        return {}

    @classmethod
    def resolve(cls, settings: Any, records: Any) -> Any:
        """The settings with what the training data tell, such as the names of the classes."""
        return settings

    @classmethod
    def select(cls, settings: Any, records: Any, config: RunConfig) -> Any:
        """The training or validation data that it can use; raises ValueError for what is wrong with a record."""
        return records

    @classmethod
    def added_tokens(cls, config: RunConfig) -> list[str]:
        """Names of control tokens that the tokenizer must have besides the usual ones."""
        return []

    @classmethod
    def shorten(cls, settings: Any, seq_len: int, full_seq_len: int) -> Any:
        """The settings for rows of `seq_len` instead of `full_seq_len` tokens, in the early stages of a curriculum."""
        return settings

    # ---- of a run

    def __init__(self, config: RunConfig, tokenizer: Tokenizer):
        """Checks that backbone and tokenizer fit, and makes the (stateless) model."""
        self.config, self.tokenizer = config, tokenizer
        self.settings: Any = config.task
        self.backbone: Any = config.model  # type: ignore[attr-defined]
        if not isinstance(self.backbone, self.backbones):
            kinds = " or ".join(_KINDS.get(c.__name__, c.__name__) for c in self.backbones)
            names = " or ".join(c.__name__ for c in self.backbones)
            raise ValueError(f"task {self.name} needs {kinds}: set model to {_article(names)}")
        for role in self.roles:
            if getattr(tokenizer, f"{role}_id") is None:
                raise ValueError(
                    f"task {self.name} needs a tokenizer with a {role} token; this one has none"
                )
        if self.coupled and config.accumulate > 1:
            raise ValueError(
                f"accumulate={config.accumulate}: the loss of task {self.name} compares the examples of a whole batch, "
                "so its batches cannot be split; leave accumulate out"
            )
        self.model: Any = self.make_model()

    def make_model(self) -> nn.Module:
        """The model, whose parameters are {"backbone": ..., "head": ...}."""
        raise NotImplementedError

    def rows(self, data: Any, purpose: Purpose) -> Dataset:
        """Rows of `TokenDocuments` (plain text) or of `Records`.

        Rows of records have an array "record" [n] if several rows may belong to one record; without it, row i is of
        record i.
        """
        raise NotImplementedError

    def init(self, key: jax.Array) -> Any:
        """Random parameters."""
        return heads.init_params(self.model, key)

    def init_state(self) -> Any:
        """What the loss carries from step to step; None: nothing."""
        return None

    def reference(self, params: Any) -> Any:
        """Parameters of a model that is compared with and not trained, from those at the start; None: there is none."""
        return None

    def phases(self) -> tuple[PhaseConfig, ...]:
        """Phases of the run where its config names none; none: a single one that trains everything."""
        return ()

    def loss(self, params: Any, batch: dict[str, jax.Array], context: Context) -> Loss:
        """The loss of a batch, a pure function. `batch["valid"]` [B] is 0 for rows that only fill up the batch."""
        raise NotImplementedError

    def metrics(self, means: dict[str, float], sums: dict[str, np.ndarray]) -> dict[str, float]:
        """What is reported, from the means (the loss among them) and sums of any number of batches."""
        return means

    def render(self, sums: dict[str, np.ndarray]) -> str | None:
        """The sums of an evaluation as a table, where there is more to show than a line of metrics."""
        return None

    def cost(self, seq_len: int) -> float:
        """FLOPs on paper of forward and backward pass for one token, in rows of this length."""
        return flops.flops_per_token(self.backbone, seq_len, output_fraction=0.0)

    # ---- predictions, for tasks that have any

    def predict(self, params: Any, batch: dict[str, jax.Array], key: jax.Array) -> Any:
        """Arrays [B, ...] from which `read` makes predictions, a pure function."""
        raise NotImplementedError

    def read(
        self, outputs: Sequence[Mapping[str, np.ndarray]], record: dict[str, Any]
    ) -> dict[str, Any]:
        """The prediction for a record as people get it (JSON values), from what `predict` gave for its rows."""
        raise NotImplementedError

    def score(self, predictions: Sequence[dict[str, Any]], records: Records) -> dict[str, float]:
        """Metrics of predictions. A task that has them is evaluated by predictions, not by sums alone."""
        return {}

    @classmethod
    def predicts(cls) -> bool:
        """Whether it has predictions."""
        return cls.predict is not Task.predict

    @classmethod
    def scores(cls) -> bool:
        """Whether it has metrics of predictions."""
        return cls.score is not Task.score

    # ---- for people

    def preview(self, row: Batch) -> list[Piece]:
        """One row as people see it: its tokens without padding; nothing for rows that have no such array."""
        tokens = row.get("tokens", np.zeros(0, np.int32))
        if "segment_ids" in row:
            tokens = tokens[row["segment_ids"] > 0]
        return [Piece(self.tokenizer.decode([int(i)], skip_special=False)) for i in tokens]

    def sample(self, params: Any, key: jax.Array) -> str | None:
        """A text for people to look at during training; None: there is none."""
        return None

    def export_model(self) -> nn.Module:
        """The model that is written for other libraries, of the same parameters or fewer."""
        return self.model

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes in the order of the outputs, for tasks that have classes."""
        return ()


_KINDS = {
    "EncoderConfig": "an encoder",
    "DecoderConfig": "a decoder",
    "EncoderDecoderConfig": "an encoder-decoder",
}


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def dataset(task: Task, part: Any, purpose: Purpose) -> Dataset:
    """The rows of a split: of its records, or of its text, mixed where several sources are read side by side."""
    if isinstance(part, Records):
        return task.rows(part, purpose)
    documents = corpora.token_documents(part, task.tokenizer)
    parts = tuple(task.rows(docs, purpose) for docs in documents)
    if len(parts) == 1:
        return parts[0]
    data = task.config.data
    if purpose == "train":
        # by weight, or by how much text there is
        amounts = np.array(data.weights or [docs.num_tokens for docs in documents], float)
        amounts = amounts ** (1 / data.temperature)
    else:
        # every row once
        amounts = np.array([len(part) for part in parts], float)
    fractions = tuple((amounts / amounts.sum()).tolist())
    return Mixture(parts, part.names, fractions, task.config.seed)


def loss_sums(loss: Loss) -> dict[str, Any]:
    """What of a loss is added up over batches: {"means": {name: (sum, weight)}, "sums": {...}}, the loss among them."""
    return {"means": {"loss": (loss.total, loss.weight), **loss.means}, "sums": loss.sums}


def metrics(task: Task, sums: dict[str, Any]) -> dict[str, float]:
    """The metrics of a task from the `loss_sums` of any number of batches; a mean over nothing is left out."""
    means = {
        name: float(total / weight) if weight > 0 else float("nan")
        for name, (total, weight) in sums["means"].items()
        if weight > 0 or name == "loss"
    }
    return task.metrics(means, sums["sums"])


def begins(segment_ids: np.ndarray) -> np.ndarray:
    """Where in a row [T] a segment begins, other than the first, bool [T]."""
    return np.diff(segment_ids, prepend=segment_ids[:1]) != 0


def perplexity(loss: float) -> float:
    """exp(loss), infinite where that overflows."""
    return float(np.exp(loss)) if loss < 700 else float("inf")
