"""The training step of a config, built without its data: shapes depend on row length, vocabulary and task alone."""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxlm import sharding
from jaxlm.config import FinetuneConfig, RunConfig, TrainConfig, files
from jaxlm.data import shards
from jaxlm.data import tokenizer as tokenizers
from jaxlm.data.bad_rows import RowCounts
from jaxlm.data.corpora import Corpora
from jaxlm.data.sources import Documents
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.run import init_from, init_train, prepare
from jaxlm.tasks import Task, task_class
from jaxlm.tasks.task import init_params
from jaxlm.training import batches, curriculum, phases, programs, reference, state
from jaxlm.training.curriculum import Plan
from jaxlm.training.phases import Phase
from jaxlm.training.state import TrainState

# examples that are read of data whose shapes cannot be known without it
_EXAMPLES = 256


@dataclasses.dataclass(frozen=True)
class Subject:
    """A run that is planned: its last stage, in the phase that trains the most parameters."""

    # a TrainConfig or FinetuneConfig, resolved
    config: Any
    task: type[Task]
    tokenizer: Tokenizer | None
    data: Corpora
    # what the figures stand on, in a line each
    notes: tuple[str, ...] = ()

    def change(self, **changes: Any) -> Subject:
        """The same run with other options."""
        return dataclasses.replace(self, config=dataclasses.replace(self.config, **changes))

    @functools.cached_property
    def plan(self) -> Plan:
        """The stages of the run."""
        return curriculum.build(self.config, self.task, self.tokenizer, self.data)

    @functools.cached_property
    def params(self) -> Any:
        """Shapes of the parameters."""
        return jax.eval_shape(
            functools.partial(init_params, self.plan.task), jax.random.key(self.config.seed)
        )

    @functools.cached_property
    def phase(self) -> Phase:
        """The phase with the most trained parameters."""
        made = phases.make_phases(self.config, self.plan.task.phases(), self.params)
        return max(made, key=lambda phase: size(self.trained(phase)))

    def trained(self, phase: Phase) -> Any:
        """The parameters that a phase trains."""
        return jax.eval_shape(lambda p: phase.trainable(p, tuple(phase.trained)), self.params)

    @property
    def tokens_per_step(self) -> int:
        """Tokens of a step, over all devices."""
        return self.plan.stages[-1].tokens_per_step

    @property
    def flops_per_step(self) -> float:
        """FLOPs of a step on paper, over all devices; what is computed again does not count."""
        return self.plan.task.cost(self.plan.stages[-1].seq_len) * self.tokens_per_step

    def check(self, mesh: Mesh) -> None:
        """Raises ValueError if batch or parameters cannot be split over a mesh."""
        batches.check_sizes(self.config, mesh)
        sharding.param_shardings(self.params, mesh)

    def state(self, mesh: Mesh) -> TrainState:
        """Shapes and shardings of the state."""
        return state.abstract_state(self.plan.task, self.phase, mesh)

    def batch(self, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and shardings of a batch."""
        row = programs.first_row(self.plan.train[-1], self.config.seed)
        return batches.abstract_batch(row, mesh, self.plan.rows_per_step(-1))

    def lower(self, mesh: Mesh) -> jax.stages.Lowered:
        """The step for the devices of a mesh, which need not be here."""
        return programs.lower_step(
            self.config,
            self.plan,
            mesh,
            phase=self.phase,
            abstract=self.state(mesh),
            reference=reference.abstract(self.plan.task, self.params, mesh),
        )


def size(tree: Any) -> int:
    """Bytes of a tree of arrays over all devices."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def size_per_device(tree: Any) -> int:
    """Bytes on each device of a tree of arrays with shardings."""
    shards = ((x.sharding.shard_shape(x.shape), x.dtype) for x in jax.tree.leaves(tree))
    return sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in shards)


def of(config: RunConfig, tasks: Sequence[type[Task]] = ()) -> Subject:
    """The run of a config; a pretraining run needs no text and no tokenizer.

    Raises:
        ValueError: a problem that would prevent the run from starting.
    """
    files.check(config)
    if config.privacy.is_on:
        raise ValueError(
            "privacy.epsilon: the batches of a private run depend on its data: use `jaxlm train CONFIG --dry-run`"
        )
    config = dataclasses.replace(config, epochs=None)
    task = task_class(config.task, tasks)
    if isinstance(config, FinetuneConfig):
        return _finetuning(config, task, tasks)
    assert isinstance(config, TrainConfig)
    return _pretraining(config, task, tasks)


def _pretraining(config: TrainConfig, task: type[Task], tasks: Sequence[type[Task]]) -> Subject:
    start = init_train.find(config, tasks)
    if task.columns(config, "train") or not task.reads_text:
        config, data, notes = _read(config, task)
    else:
        data = _stand_in(config.data.seq_len)
        notes = ["no text was read: a stand-in has the same shapes"]
    tokenizer = None
    if start is not None:
        tokenizer = task.prepare_tokenizer(config, start.tokenizer)
        model = prepare.with_vocab(start.model, tokenizer, can_grow=config.init is not None)
        config = dataclasses.replace(config, model=model)
    elif task.reads_text:
        path = config.data.tokenizer.path or shards.tokenizer_path(config.data)
        if path is None:
            own = tokenizers.train(list(data.texts()), config.data.tokenizer)
            tokenizer = task.prepare_tokenizer(config, own)
            entries = config.data.tokenizer.vocab_size + tokenizer.vocab_size - own.vocab_size
        else:
            tokenizer = task.prepare_tokenizer(config, tokenizers.load(path))
            entries = tokenizer.vocab_size
        known: Any = types.SimpleNamespace(vocab_size=entries)
        own_model: Any = config.model
        if getattr(own_model, "vocab_size", None) is None:
            config = dataclasses.replace(config, model=prepare.with_vocab(own_model, known))
            if path is None:
                notes.append(f"a vocabulary of {entries:,} entries, the most of data.tokenizer")
    return _subject(config, task, tokenizer, data, notes)


def _finetuning(config: FinetuneConfig, task: type[Task], tasks: Sequence[type[Task]]) -> Subject:
    source = None if init_from.is_new(config) else init_from.find(config, tasks)
    config = dataclasses.replace(config, task=task.inherit(config, source))
    config, data, notes = _read(config, task)
    own = source.tokenizer if source else prepare.tokenizer_of(config, data)
    tokenizer = task.prepare_tokenizer(config, own)
    start: Any = config.model if source is None else source.model
    model = prepare.with_vocab(start, tokenizer, can_grow=source is not None)
    return _subject(dataclasses.replace(config, model=model), task, tokenizer, data, notes)


def _subject(
    config: Any, task: type[Task], tokenizer: Tokenizer | None, data: Corpora, notes: list[str]
) -> Subject:
    subject = Subject(config, task, tokenizer, dataclasses.replace(data, validation=None))
    resolved = phases.resolve(config, subject.plan.task.phases())
    if len(subject.plan.stages) > 1:
        notes.append("the last stage of the curriculum, which has the longest rows")
    if len(resolved) > 1:
        notes.append("the phase that trains the most parameters")
    made = dataclasses.replace(subject.change(phases=resolved), notes=tuple(notes))
    # what the phases refuse is refused here: no mesh would change it
    _ = made.phase
    return made


def _read(config: Any, task: type[Task]) -> tuple[Any, Corpora, list[str]]:
    """The first examples of the data, whose columns and classes shapes may depend on."""
    limit = min(config.data.max_documents or _EXAMPLES, _EXAMPLES)
    limited = dataclasses.replace(config.data, max_documents=limit)
    config, data = prepare.read_data(dataclasses.replace(config, data=limited), task)
    return config, data, [f"classes and columns are those of the first {limit} examples"]


def _stand_in(seq_len: int) -> Corpora:
    """Texts of random words, each shorter than a row, enough for some rows."""
    rng = np.random.default_rng(0)
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    words = ["".join(rng.choice(syllables, n)) for n in rng.integers(1, 5, 2000)]
    # a word of four syllables and its space may be nine tokens
    each = max(seq_len // 10, 2)
    count = 16 + 8 * seq_len // each
    texts = [" ".join(rng.choice(words, each)) + ".\n" for _ in range(count)]
    ids = [f"stand-in:{i}" for i in range(count)]
    return Corpora(Documents(texts, ids, RowCounts()), None)
