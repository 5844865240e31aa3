"""A whole run: model, task, data, optimizer, mesh and the rest, for pretraining and for fine-tuning."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

from jaxlm.config.data import DataConfig
from jaxlm.config.model import (
    ComputeConfig,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
)
from jaxlm.config.task import TaskConfig

ModelConfig = DecoderConfig | EncoderConfig | EncoderDecoderConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """The shape of the device mesh, which is the sharding strategy; one axis may be -1: the devices that are left."""

    # replicas: each has all parameters and its share of the batch
    data: int = -1
    # parameters, optimizer state and batch are split over this axis
    fsdp: int = 1
    # heads, MLP and vocabulary are split over this axis
    tensor: int = 1

    def __post_init__(self):
        sizes = {"data": self.data, "fsdp": self.fsdp, "tensor": self.tensor}
        if list(sizes.values()).count(-1) > 1:
            raise ValueError(f"only one axis of the mesh may be -1, not several: {sizes}")
        for name, size in sizes.items():
            if size < 1 and size != -1:
                raise ValueError(
                    f"mesh.{name}={size} must be at least 1, or -1 for the devices left"
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistributedConfig:
    """Several processes; under SLURM and on TPU pods `--distributed.enable` finds the rest by itself."""

    # join the other processes as SLURM or the TPU pod describes them
    enable: bool = False
    # host:port of process 0
    coordinator: str | None = None
    # how many processes there are in all
    num_processes: int | None = None
    # which of them this one is, from 0
    process_id: int | None = None
    # seconds that processes wait for each other at the start
    timeout: int = 300

    def __post_init__(self):
        given = [self.coordinator, self.num_processes, self.process_id]
        if any(x is not None for x in given) and any(x is None for x in given):
            raise ValueError(
                "distributed.coordinator, distributed.num_processes and distributed.process_id go together; "
                "give all three, or only --distributed.enable under SLURM or on a TPU pod"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """An optimizer by name, its learning-rate schedule and clipping."""

    # the optimizer
    name: Literal["adamw", "adafactor", "lion", "muon", "schedule_free_adamw"] = "adamw"
    # peak learning rate
    learning_rate: float = 1e-3
    # wsd: warm-up, stable, decay (Hu et al. 2024, 2404.06395)
    schedule: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    # steps of linear warm-up
    warmup_steps: int = 100
    # wsd: fraction of all steps spent in the final decay
    decay_fraction: float = 0.2
    # final learning rate, as a fraction of the peak
    final_fraction: float = 0.1
    # decay of the running mean of the gradients (adam's beta 1)
    b1: float = 0.9
    # decay of the running mean of the squared gradients (adam's beta 2)
    b2: float = 0.95
    # added to the denominator of adam's update
    eps: float = 1e-8
    # weight decay, on matrices only: never on biases, norms and position embeddings
    weight_decay: float = 0.1
    # clip gradients to this global norm; 0: no clipping
    clip_norm: float = 1.0

    def __post_init__(self):
        if self.learning_rate <= 0:
            raise ValueError(f"optimizer.learning_rate={self.learning_rate} must be positive")
        if self.warmup_steps < 0:
            raise ValueError(f"optimizer.warmup_steps={self.warmup_steps} must not be negative")
        for name in ("b1", "b2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optimizer.{name}={getattr(self, name)} is not in [0, 1)")
        for name in ("decay_fraction", "final_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"optimizer.{name}={getattr(self, name)} is not in [0, 1]")
        for name in ("eps", "weight_decay", "clip_norm"):
            if getattr(self, name) < 0:
                raise ValueError(f"optimizer.{name}={getattr(self, name)} must not be negative")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupConfig:
    """Parameters that are trained in the same way: frozen, at a learning rate of their own, or by another optimizer.

    A frozen group has no gradient and no optimizer state, and takes no part in clipping or in the gradient norm.
    """

    # what the group is called in other options and in messages
    name: str
    # patterns of parameter paths: "head/*", "*/attn/*", "*"; "*blocks[-2:]*" are the last two blocks of a stack
    params: tuple[str, ...]
    # keep these parameters as they are
    frozen: bool = False
    # the group's learning rate as a multiple of its optimizer's
    rate: float = 1.0
    # another optimizer for this group; nothing: the run's
    optimizer: OptimizerConfig | None = None

    def __post_init__(self):
        if not self.params:
            raise ValueError(
                f"groups: {self.name!r} names no parameters: give patterns such as 'head/*'"
            )
        if self.rate <= 0:
            raise ValueError(
                f"groups: rate={self.rate} of {self.name!r} must be positive; to keep parameters, set frozen"
            )
        if self.frozen and (self.rate != 1 or self.optimizer is not None):
            raise ValueError(
                f"groups: {self.name!r} is frozen, so rate and optimizer have no effect"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhaseConfig:
    """Consecutive steps in which the same groups are trained. A group that goes on keeps its optimizer state."""

    # last step of the phase; not needed in the last phase
    end: int | None = None
    # the same as a fraction of all steps; when the run starts it is turned into `end`, which then stays
    end_fraction: float | None = None
    # as `groups` of the run
    groups: tuple[GroupConfig, ...] = ()
    # names of groups that are updated in turn, one entry a step: (("encoder",), ("encoder",), ("decoder",));
    # nothing: all at every step
    turns: tuple[tuple[str, ...], ...] = ()
    # patterns of parameters that are initialised again when the phase starts
    reset: tuple[str, ...] = ()

    def __post_init__(self):
        if self.end is not None and self.end_fraction is not None:
            raise ValueError("phases: give end or end_fraction, not both")
        if self.end_fraction is not None and not 0 < self.end_fraction < 1:
            raise ValueError(f"phases: end_fraction={self.end_fraction} is not between 0 and 1")
        # "rest" are the parameters that no group names
        trained = {group.name for group in self.groups if not group.frozen} | {"rest"}
        for name in {name for turn in self.turns for name in turn} - trained:
            raise ValueError(
                f"phases: turns name the group {name!r}; trained groups are {', '.join(sorted(trained))}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When to save, and what to keep."""

    # steps between checkpoints; the last step is always saved
    every: int = 500
    # keep so many of the newest
    keep: int = 2
    # keep the one with the best validation metric as well (needs evaluation)
    keep_best: bool = True
    # also keep every so many steps for good
    keep_every: int | None = None
    # go on after so many failed saves in a row (a full disk), then stop with an error
    max_failures: int = 3

    def __post_init__(self):
        for name in ("every", "keep", "max_failures"):
            if getattr(self, name) < 1:
                raise ValueError(f"checkpoint.{name}={getattr(self, name)} must be at least 1")
        if self.keep_every is not None and self.keep_every < 1:
            raise ValueError(f"checkpoint.keep_every={self.keep_every} must be at least 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """When to look at the validation data, and when to stop early."""

    # steps between evaluations; the last step is always evaluated
    every: int = 250
    # at most so many batches; nothing: all
    batches: int | None = None
    # stop after so many evaluations in a row without a better metric; nothing: never
    patience: int | None = None

    def __post_init__(self):
        if self.every < 1:
            raise ValueError(f"evaluation.every={self.every} must be at least 1")
        for name in ("batches", "patience"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"evaluation.{name}={getattr(self, name)} must be at least 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurriculumConfig:
    """Shorter rows, or another number of them, in the early stages of a run; after these, data.seq_len and batch_size.

    `--curriculum.ends 1000 3000 --curriculum.seq-lens 64 128` reads rows of 64 tokens in steps 1 to 1000 and of 128 in
    steps 1001 to 3000 (Shortformer, Press et al. 2021, 2012.15832; Li et al. 2022, 2108.06084). Batches
    that grow are those of Smith et al. (2018, 1711.00489) and GPT-3 (Brown et al. 2020, 2005.14165, appendix B).
    """

    # last step of each early stage, ascending; nothing: the run has one stage
    ends: tuple[int, ...] = ()
    # tokens in a row, in each early stage; nothing: data.seq_len in all
    seq_lens: tuple[int, ...] = ()
    # rows in a step, in each early stage; nothing: batch_size in all
    batch_sizes: tuple[int, ...] = ()

    def __post_init__(self):
        if self.ends and not (self.seq_lens or self.batch_sizes):
            raise ValueError(
                f"curriculum.ends={self.ends} has no effect by itself: give curriculum.seq_lens or "
                "curriculum.batch_sizes, or leave it out"
            )
        if any(low >= high for low, high in zip((0, *self.ends), self.ends)):
            raise ValueError(f"curriculum.ends={self.ends} must be steps in ascending order")
        for name, least in (("seq_lens", 2), ("batch_sizes", 1)):
            values = getattr(self, name)
            if values and len(values) != len(self.ends):
                raise ValueError(
                    f"curriculum.{name} has {len(values)} numbers for the {len(self.ends)} stages that end at "
                    f"curriculum.ends={self.ends}: give one for each"
                )
            for i, value in enumerate(values):
                if value < least:
                    raise ValueError(f"curriculum.{name}[{i}]={value} must be at least {least}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What pretraining and fine-tuning have in common."""

    # the objective or downstream task, from `jaxlm.tasks`
    task: TaskConfig
    # where text comes from and how it becomes tokens
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    # length and number of rows in the early stages of the run
    curriculum: CurriculumConfig = dataclasses.field(default_factory=CurriculumConfig)
    # how the model runs
    compute: ComputeConfig = dataclasses.field(default_factory=ComputeConfig)
    # how parameters are updated
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    # groups of parameters that are trained in ways of their own; the first group that names a parameter has it
    groups: tuple[GroupConfig, ...] = ()
    # phases of the run, each with groups of its own; nothing: the task's, usually a single one
    phases: tuple[PhaseConfig, ...] = ()
    # shape of the device mesh
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    # several processes
    distributed: DistributedConfig = dataclasses.field(default_factory=DistributedConfig)
    # when and what is saved
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    # when and on how much is validated
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    # name of the run and of its folder under runs/; set from the config file's name
    name: str = ""
    # folder of the run; nothing: runs/<name>
    run_dir: str | None = None
    # optimizer steps
    steps: int = 1000
    # rows in one step, over all devices
    batch_size: int = 32
    # split each step's batch into so many parts, one after another, to save memory
    accumulate: int = 1
    # of the initial weights, dropout and the order of the data
    seed: int = 0
    # steps between logged lines
    log_every: int = 10
    # steps between samples of generated text; 0: only at the end
    sample_every: int = 0
    # end the run after so many steps in a row whose loss or gradient is not finite
    max_bad_steps: int = 10
    # compile the step, print memory and FLOPs, and stop
    dry_run: bool = False

    def __post_init__(self):
        _refuse_infinite(self)
        for name in ("steps", "batch_size", "accumulate", "log_every", "max_bad_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.sample_every < 0:
            raise ValueError(f"sample_every={self.sample_every} must not be negative")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate={self.accumulate} does not divide batch_size={self.batch_size}"
            )
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must not be negative")
        if self.optimizer.warmup_steps > self.steps:
            raise ValueError(
                f"optimizer.warmup_steps={self.optimizer.warmup_steps} is more than steps={self.steps}: "
                "the learning rate would never reach its height; lower --optimizer.warmup-steps"
            )
        if self.groups and self.phases:
            raise ValueError("groups and phases exclude each other: give each phase its groups")
        self._check_curriculum()

    def _check_curriculum(self) -> None:
        c = self.curriculum
        for i, end in enumerate(c.ends):
            if end >= self.steps:
                raise ValueError(
                    f"curriculum.ends[{i}]={end} leaves no step of steps={self.steps} for the stage after it"
                )
        for i, length in enumerate(c.seq_lens):
            if length > self.data.seq_len:
                raise ValueError(
                    f"curriculum.seq_lens[{i}]={length} is more than data.seq_len={self.data.seq_len}, the length of "
                    "the longest rows: raise the one or lower the other"
                )
        for i, rows in enumerate(c.batch_sizes):
            if rows % self.accumulate:
                raise ValueError(
                    f"accumulate={self.accumulate} does not divide curriculum.batch_sizes[{i}]={rows}"
                )
        shapes = self.batch_shapes
        for end, before, after in zip(c.ends, shapes, shapes[1:]):
            if before == after:
                raise ValueError(
                    f"the end at step {end} in curriculum.ends has no effect: {before[0]} rows of {before[1]} tokens "
                    "before and after it; leave it out"
                )

    @property
    def batch_shapes(self) -> list[tuple[int, int]]:
        """Rows in a step and tokens in a row, of each stage of the curriculum and of the rest of the run."""
        c = self.curriculum
        rows = c.batch_sizes or (self.batch_size,) * len(c.ends)
        lengths = c.seq_lens or (self.data.seq_len,) * len(c.ends)
        return list(zip((*rows, self.batch_size), (*lengths, self.data.seq_len)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """Pretraining: a model from random weights."""

    # what is trained
    model: ModelConfig = dataclasses.field(default_factory=DecoderConfig)

    def __post_init__(self):
        super().__post_init__()
        if self.data.seq_len > self.model.max_len:
            raise ValueError(
                f"data.seq_len={self.data.seq_len} is more than model.max_len={self.model.max_len}: "
                "raise the one or lower the other"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneConfig(RunConfig):
    """Fine-tuning: the backbone comes from `init`, the head is new."""

    # run folder, Hugging Face folder or hub:<id> whose model and tokenizer are used; none: random weights instead
    init: str = "runs/python_docs"
    # with init none: the folder whose architecture and tokenizer are used; the config's own init by default
    init_like: str | None = None
    # what is trained
    train_only: Literal["all", "head", "last_blocks"] = "all"
    # with train_only last_blocks: how many
    last_blocks: int = 1
    # the backbone; filled in from `init`
    model: ModelConfig | None = None
    # dropout in the backbone while fine-tuning; nothing: as it was pretrained
    dropout: float | None = None
    # learning rate of each block is this times that of the block above it; 1: the same for all
    layer_decay: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if self.last_blocks < 1:
            raise ValueError(f"last_blocks={self.last_blocks} must be at least 1")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} is not in [0, 1)")
        if self.train_only != "all" and (self.groups or self.phases):
            raise ValueError(
                f"train_only={self.train_only} is a short form of groups: leave it out where groups or phases are given"
            )
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay={self.layer_decay} is not in (0, 1]")
        if self.layer_decay != 1 and self.train_only == "head":
            raise ValueError(
                "layer_decay has no effect with train_only=head: leave one of them out"
            )


def _refuse_infinite(value: Any, name: str = "") -> None:
    """Infinity and "not a number" pass every comparison that the parts of a config make with their bounds."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            part = f"{name}.{field.name}" if name else field.name
            _refuse_infinite(getattr(value, field.name), part)
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            _refuse_infinite(item, f"{name}[{i}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name}={value} is not a finite number")
