"""The interface of a task: its input columns, rows, model, loss, predictions and metrics.

A task is one subclass of `Task` in one file, with its settings (a `TaskConfig`) beside it. Class attributes and class
methods apply to any run; an instance belongs to one run (or one stage of it) and has its config, its tokenizer and the
model. `loss` and `predict` are pure functions of arrays; `rows`, `read` and `score` run on the host.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from jaxlm.config import PhaseConfig, RunConfig, TaskConfig, TokenizerConfig
from jaxlm.data import corpora
from jaxlm.data.frames import Edges, Frame
from jaxlm.data.loader import Batch, Dataset
from jaxlm.data.mixture import Mixture
from jaxlm.data.records import Column, Records
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.models import flops, heads, lora
from jaxlm.models.embedder import Embedding

Purpose = Literal["train", "validation", "predict"]
# what `Task.predict` found for the rows of a record, and what `Task.read` made of that for each record, as JSON values
Outputs = Sequence[Mapping[str, np.ndarray]]
Predictions = Sequence[dict[str, Any]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Context:
    """The arguments of a loss other than parameters and batch."""

    # random key of this call; fixed in evaluation
    key: jax.Array
    # number of completed steps
    step: jax.Array
    # from `Task.reference`: parameters of a model that is not trained
    reference: Any = None
    # from `Task.init_state` or `Loss.state` of the previous step: running statistics and the like
    state: Any = None
    # False in evaluation
    train: bool = dataclasses.field(default=True, metadata={"static": True})
    # index of the phase of the run
    phase: int = dataclasses.field(default=0, metadata={"static": True})
    # number of parts into which the batch of a step is split; `loss` gets one of them
    parts: int = dataclasses.field(default=1, metadata={"static": True})

    @property
    def dropout_key(self) -> jax.Array | None:
        """The key in training; None in evaluation, which has no dropout."""
        return self.key if self.train else None


class Loss(NamedTuple):
    """The loss of a batch as sums, so that parts of a batch, devices and processes add up."""

    # weighted sum of the losses; divided by `weight` once, over the whole batch
    total: jax.Array
    weight: jax.Array
    # further means by name: (weighted sum, its weight)
    means: dict[str, tuple[jax.Array, jax.Array]] = {}
    # other sums over batches, of any shape, such as a confusion matrix
    sums: dict[str, jax.Array] = {}
    # replaces `Context.state` in the next step
    state: Any = None


class Piece(NamedTuple):
    """A token of a row in a preview."""

    text: str
    # whether its prediction counts in the loss
    counts: bool = False
    # text of its target; None: the next piece
    target: str | None = None
    # whether another text of the row, or its padding, begins here
    begins: bool = False


class Task:
    """A task of one run. Subclasses override what differs from the defaults given here."""

    # class of the task's settings; its name identifies the task in a config.json
    Config: ClassVar[type[TaskConfig]]
    # the task's name in messages
    name: ClassVar[str]
    # the metric that selects the best checkpoint
    metric: ClassVar[str] = "loss"
    lower_is_better: ClassVar[bool] = True
    # config classes of the supported backbones
    backbones: ClassVar[tuple[type, ...]]
    # required control tokens: "eos", "cls", "sep", "mask", "pad", "bos"
    roles: ClassVar[tuple[str, ...]] = ()
    # whether tokens of a prompt attend to all of its tokens when the model continues it
    reads_prompts_both_ways: ClassVar[bool] = False
    # False: its rows are not text, so its runs have no tokenizer, and `tokenizer` is None
    reads_text: ClassVar[bool] = True
    # whether the loss needs the whole batch at once (contrastive losses), so that a batch is never split
    coupled: ClassVar[bool] = False
    # whether predictions can be made from the rows of an evaluation; not where those are packed, with the answers
    predicts_validation: ClassVar[bool] = True
    # settings that a trained model can be used with other values of -> what they change: "predict" (`jaxlm predict`),
    # "validation" (`jaxlm evaluate`) or both
    adjustable: ClassVar[Mapping[str, tuple[Purpose, ...]]] = {}
    # arrays [B, T, ...] of rows that mean nothing where segment_ids is 0: predictions are made without most of that
    # padding, so that the results of `predict` may have fewer positions than a row; empty: rows have their full length
    padded: ClassVar[tuple[str, ...]] = ()

    # text before every prompt or source that the trained model reads
    prefix: str = ""
    # what is to be predicted, under a preview of a row; None: the marked tokens
    preview_legend: ClassVar[str | None] = None

    # ---- class methods: used before there is a tokenizer

    @classmethod
    def columns(cls, config: RunConfig, purpose: Purpose) -> Mapping[str, Column]:
        """The columns that the task reads, by its own names for them; empty: it reads plain text."""
        return {}

    @classmethod
    def resolve(cls, settings: Any, records: Any) -> Any:
        """The settings, completed from the training data, for example with class names."""
        return settings

    @classmethod
    def inherit(cls, config: Any, source: Any) -> Any:
        """The settings of a fine-tuning run, completed from the model that it starts from.

        Args:
            config: a `FinetuneConfig`.
            source: the model, a `run.init_from.Source`.
        """
        return config.task

    @classmethod
    def select(cls, settings: Any, records: Any, config: RunConfig) -> Any:
        """The training or validation data that the task can use; raises ValueError if a record is invalid."""
        return records

    @classmethod
    def adjust(cls, settings: Any, given: Mapping[str, Any], purpose: Purpose) -> Any:
        """The settings of a trained model with the given ones; raises ValueError for one that has no effect."""
        return dataclasses.replace(settings, **given)

    @classmethod
    def added_tokens(cls, config: RunConfig) -> list[str]:
        """Names of additional control tokens that the tokenizer must have."""
        return []

    @classmethod
    def prepare_tokenizer(cls, config: RunConfig, tokenizer: Tokenizer) -> Tokenizer:
        """The tokenizer with what the task needs besides: its `added_tokens`, or a chat template."""
        return tokenizer.with_tokens(cls.added_tokens(config))

    @classmethod
    def shorten(cls, settings: Any, seq_len: int, full_seq_len: int) -> Any:
        """The settings for rows of `seq_len` instead of `full_seq_len` tokens, in the early stages of a curriculum."""
        return settings

    @classmethod
    def of_model(cls, model: nn.Module, about: Mapping[str, Any]) -> TaskConfig | None:
        """Settings with which the task uses a model that has its head already; None: it is for other models.

        Args:
            model: from `models.heads`, as a folder in the Hugging Face layout describes it.
            about: contents of its config.json, such as id2label and problem_type.
        """
        return None

    # ---- methods of a run
    def __init__(self, config: RunConfig, tokenizer: Tokenizer | None):
        """Checks that backbone and tokenizer are suitable, and creates the (stateless) model."""
        self.config = config
        # None only if not `reads_text`
        self.tokenizer: Tokenizer = tokenizer  # type: ignore[assignment]
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
                "so its batches cannot be split; leave accumulate unset"
            )
        self.model: Any = self.make_model()

    @property
    def known_ids(self) -> int:
        """Number of ids that the tokenizer has, without rows that round up the model's table."""
        return min(self.tokenizer.vocab_size, self.backbone.vocab_size)

    def make_model(self) -> nn.Module:
        """The model, whose parameters are {"backbone": ..., "head": ...}."""
        raise NotImplementedError

    def rows(self, data: Any, purpose: Purpose) -> Dataset:
        """Rows of `TokenDocuments` (plain text) or of `Records`.

        Rows of records have an array "record" [n], the index of the record, if several rows may belong to one record;
        without it, row i belongs to record i.
        """
        raise NotImplementedError

    def token_documents(self, text: Any) -> list[Any]:
        """The texts of a split as token ids, for `rows`: one entry for each source that is read by itself."""
        return corpora.token_documents(text, self.tokenizer)

    def init(self, key: jax.Array) -> Any:
        """Random parameters."""
        return heads.init_params(self.model, key)

    def init_state(self) -> Any:
        """Initial state of the loss, updated by every step; None: there is none."""
        return None

    def reference(self, params: Any) -> Any:
        """Parameters of a reference model that is not trained, from the initial parameters; None: there is none."""
        return None

    def phases(self) -> tuple[PhaseConfig, ...]:
        """Phases of the run, used if its config has none; empty: a single phase that trains everything."""
        return ()

    def loss(self, params: Any, batch: dict[str, jax.Array], context: Context) -> Loss:
        """The loss of a batch, a pure function. `batch["valid"]` [B] is 0 for rows that only fill up the batch."""
        raise NotImplementedError

    def metrics(self, means: dict[str, float], sums: dict[str, np.ndarray]) -> dict[str, float]:
        """The metrics to report, from the means (including the loss) and sums over any number of batches."""
        return means

    def render(self, sums: dict[str, np.ndarray]) -> str | None:
        """The sums of an evaluation as a table, if there is more to show than a line of metrics."""
        return None

    def render_predictions(self, predictions: Predictions, records: Records) -> str | None:
        """Predictions and their targets as a table, as `render`, for tasks that score predictions."""
        return None

    def cost(self, seq_len: int) -> float:
        """Theoretical FLOPs of forward and backward pass per token, in rows of this length."""
        c = self.backbone
        if isinstance(self.model, heads.TwiceReadClassifier):
            # the decoder reads as many tokens as the encoder, and has no logits of the vocabulary
            whole = flops.flops_per_token(c, seq_len, output_fraction=1.0)
            return whole - 6 * c.dim * c.vocab_size
        return flops.flops_per_token(c, seq_len, output_fraction=0.0)

    # ---- predictions, for tasks that have any

    def predict(self, params: Any, batch: dict[str, jax.Array], key: jax.Array) -> Any:
        """Arrays [B, ...] from which `read` makes predictions, a pure function."""
        raise NotImplementedError

    def read(self, outputs: Outputs, record: dict[str, Any]) -> dict[str, Any]:
        """The prediction for a record as JSON values, from the outputs of `predict` for its rows."""
        raise NotImplementedError

    def score(self, predictions: Predictions, records: Records) -> dict[str, float]:
        """Metrics of predictions. Tasks that override this are evaluated on predictions as well as on sums."""
        return {}

    def resample(
        self, predictions: Predictions, records: Records, draws: Iterable[np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Metrics of resampled examples, for intervals: [R] each. Override it where `score` is slow or missing.

        Args:
            predictions: N of them.
            records: with their targets.
            draws: indices of N examples, with repetitions [N], of each of R samples.
        """
        if not self.scores():
            return {}
        found = [self.score([predictions[i] for i in d], records.take(d.tolist())) for d in draws]
        return {name: np.array([each[name] for each in found]) for name in found[0]}

    @classmethod
    def resamples(cls) -> bool:
        """Whether predictions are enough to give intervals of metrics."""
        return cls.scores() or cls.resample is not Task.resample

    def signatures(self) -> dict[str, str]:
        """How the scores are computed, by name, where numbers are only comparable if it is the same way."""
        return {}

    def scored_sample(self) -> int | None:
        """Number of validation records to predict at each evaluation; None: all.

        Their scores have names that begin with "sample_". All records are scored at the end of the run.
        """
        return None

    @classmethod
    def predicts(cls) -> bool:
        """Whether the task makes predictions."""
        return cls.predict is not Task.predict

    @classmethod
    def scores(cls) -> bool:
        """Whether the task has metrics of predictions."""
        return cls.score is not Task.score

    # ---- what is said of data and settings

    def examples(self, rows: Dataset) -> int:
        """How many examples these rows hold."""
        return len(rows)

    def note(self) -> str | None:
        """A line to print before training about settings that may not do what was meant, if something is to be said."""
        return None

    # ---- diagnostics at the end of a run, for tasks that have any

    def analyse(self, params: Any, batch: dict[str, jax.Array], context: Context) -> Any:
        """Arrays [B, ...] from which `diagnose` computes metrics, a pure function."""
        raise NotImplementedError

    def analysed_rows(self, rows: Dataset) -> int:
        """Number of validation rows to analyse, a fixed random sample."""
        return len(rows)

    def diagnose(self, outputs: Outputs, metrics: Mapping[str, float]) -> dict[str, float]:
        """Metrics that are too expensive for every evaluation or need many rows at once.

        Args:
            outputs: those of `analyse` for some rows.
            metrics: of the evaluation on all rows.
        """
        return {}

    @classmethod
    def diagnoses(cls) -> bool:
        """Whether the task has diagnostics."""
        return cls.analyse is not Task.analyse

    def verdict(self, metrics: Mapping[str, float]) -> str | None:
        """What the metrics of the last evaluation mean in words, if something is to be said."""
        return None

    # ---- previews, samples, export

    def preview(self, row: Batch) -> list[Piece]:
        """A row as text: its tokens without padding; empty for rows without tokens."""
        tokens = row.get("tokens", np.zeros(0, np.int32))
        if "segment_ids" in row:
            tokens = tokens[row["segment_ids"] > 0]
        return [Piece(self.tokenizer.piece(int(i))) for i in tokens]

    def sample(self, params: Any, key: jax.Array) -> str | None:
        """A sample of generated text, logged during training; None: there is none."""
        return None

    def prompt_edges(self) -> Edges | None:
        """Control tokens before and after a prompt or source as in the task's rows; None: as usual for the model."""
        return None

    def frame(self) -> Frame | None:
        """Control tokens around texts in the task's rows, for an exported tokenizer; None: as usual for the model."""
        return None

    def writing(self) -> dict[str, Any]:
        """Fields of `generation.settings.Settings` that the trained model writes with unless told otherwise."""
        return {}

    def export_model(self) -> nn.Module:
        """The model to export to other libraries, with the same parameters or a subset."""
        return self.model

    def export_params(self, params: Any) -> Any:
        """The parameters to export, from those of `export_model`; differ where the task transforms the outputs."""
        return params

    def export_settings(self) -> dict[str, Any]:
        """Further fields of the exported config.json, such as problem_type."""
        return {}

    @property
    def embedding(self) -> Embedding | None:
        """How the model makes vectors of texts, for export; None: that is not its task."""
        return None

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes in the order of the outputs, for tasks that have classes."""
        return ()


_KINDS = {
    "EncoderConfig": "an encoder",
    "DecoderConfig": "a decoder",
    "EncoderDecoderConfig": "an encoder-decoder",
    "VAEConfig": "a text VAE",
    "DenseVAEConfig": "a VAE of dense layers",
}


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def init_params(task: Task, key: jax.Array) -> Any:
    """Random parameters of a task, with the adapters that its config sets."""
    params, config = task.init(key), getattr(task.config, "lora", None)
    if config is None or not config.rank:
        return params
    return lora.add(params, jax.random.fold_in(key, 1), config)


def _check_used(task: Task) -> None:
    """Raises ValueError for an option of the data that has no effect on a task that reads records."""
    data, rows = task.config.data, "reads the rows of all sources as one"
    idle = {
        "weights": (data.weights != (), rows),
        "temperature": (data.temperature != 1, rows),
        "tokenizer": (not task.reads_text and data.tokenizer != TokenizerConfig(), "reads no text"),
    }
    for name, (is_set, reason) in idle.items():
        if is_set:
            raise ValueError(
                f"data.{name} has no effect on task {task.name}, which {reason}: leave it unset"
            )


def dataset(task: Task, part: Any, purpose: Purpose) -> Dataset:
    """The rows of a split, from its records or its text; the rows of several text sources are mixed."""
    if isinstance(part, Records):
        if purpose == "train":
            _check_used(task)
        return task.rows(part, purpose)
    documents = task.token_documents(part)
    if purpose == "train" and task.config.privacy.is_on:
        documents = [dataclasses.replace(docs, apart=True) for docs in documents]
    parts = tuple(task.rows(docs, purpose) for docs in documents)
    if len(parts) == 1:
        return parts[0]
    data = task.config.data
    if purpose == "train":
        # by weight, or by number of tokens
        amounts = np.array(data.weights or [docs.num_tokens for docs in documents], float)
        amounts = amounts ** (1 / data.temperature)
    else:
        # every row once
        amounts = np.array([len(part) for part in parts], float)
    fractions = tuple((amounts / amounts.sum()).tolist())
    return Mixture(parts, part.names, fractions, task.config.seed)


def loss_sums(loss: Loss) -> dict[str, Any]:
    """The sums of a loss to add over batches: {"means": {name: (sum, weight)}, "sums": {...}}, including the loss."""
    return {"means": {"loss": (loss.total, loss.weight), **loss.means}, "sums": loss.sums}


def metrics(task: Task, sums: dict[str, Any]) -> dict[str, float]:
    """The metrics of a task from the `loss_sums` of any number of batches; means of weight 0 are skipped."""
    means = {
        name: float(total / weight) if weight > 0 else float("nan")
        for name, (total, weight) in sums["means"].items()
        if weight > 0 or name == "loss"
    }
    return task.metrics(means, sums["sums"])


def begins(segment_ids: np.ndarray) -> np.ndarray:
    """Whether a segment other than the first begins at each position of a row [T], bool [T]."""
    return np.diff(segment_ids, prepend=segment_ids[:1]) != 0


def perplexity(loss: float) -> float:
    """exp(loss), infinite where that overflows."""
    return float(np.exp(loss)) if loss < 700 else float("inf")
