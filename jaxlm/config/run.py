"""The config of a run: model, task, data, optimizer, mesh and more, for pretraining and fine-tuning."""

from __future__ import annotations

import dataclasses
from typing import Literal

from jaxlm.config.compute import ComputeConfig
from jaxlm.config.data import DataConfig
from jaxlm.config.dense_vae import DenseVAEConfig
from jaxlm.config.lora import LoraConfig
from jaxlm.config.model import DecoderConfig, EncoderConfig, EncoderDecoderConfig
from jaxlm.config.privacy import PrivacyConfig
from jaxlm.config.task import TaskConfig
from jaxlm.config.urls import refuse_other_url, refuse_url
from jaxlm.config.vae import VAEConfig
from jaxlm.config.values import check_at_least, check_values

ModelConfig = DecoderConfig | EncoderConfig | EncoderDecoderConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """The shape of the device mesh, which defines the sharding strategy; one axis may be -1: all remaining devices."""

    # data parallelism: every replica has all parameters and a part of the batch
    data: int = -1
    # parameters, optimizer state and batch are split over this axis
    fsdp: int = 1
    # experts are split over this axis, and the batch, as over fsdp; so are all other parameters
    expert: int = 1
    # the positions of each row are split over this axis, and parameters, as over fsdp
    context: int = 1
    # heads, MLP and vocabulary are split over this axis
    tensor: int = 1

    def __post_init__(self):
        check_values(self, "mesh")
        sizes = dataclasses.asdict(self)
        if list(sizes.values()).count(-1) > 1:
            raise ValueError(f"only one axis of the mesh may be -1, not several: {sizes}")
        for name, size in sizes.items():
            if size < 1 and size != -1:
                raise ValueError(
                    f"mesh.{name}={size} must be at least 1, or -1 for the remaining devices"
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistributedConfig:
    """Several processes; under SLURM and on TPU pods `--distributed.enable` is enough."""

    # join the other processes, by the metadata of SLURM or the TPU pod
    enable: bool = False
    # host:port of process 0
    coordinator: str | None = None
    # total number of processes
    num_processes: int | None = None
    # index of this process, from 0
    process_id: int | None = None
    # seconds that processes wait for each other at the start
    timeout: int = 300
    # the run ends, and says which process hangs, when no step has ended for this many minutes; 0: never
    hang_minutes: float = 10.0
    # and for this many times as long as a step usually takes
    hang_factor: float = 30.0

    def __post_init__(self):
        check_values(self, "distributed")
        check_at_least(self, "distributed.", 0, "hang_minutes", "hang_factor")
        check_at_least(self, "distributed.", 1, "num_processes", "timeout")
        check_at_least(self, "distributed.", 0, "process_id")
        given = [self.coordinator, self.num_processes, self.process_id]
        if any(x is not None for x in given) and any(x is None for x in given):
            raise ValueError(
                "distributed.coordinator, distributed.num_processes and distributed.process_id go together; "
                "set all three, or only --distributed.enable under SLURM or on a TPU pod"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """An optimizer by name, its learning-rate schedule and clipping."""

    # the optimizer
    name: Literal["adamw", "sgd", "adafactor", "lion", "muon", "schedule_free_adamw"] = "adamw"
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
    # decay of the running mean of the gradients (adam's beta 1), the momentum of sgd; of muon that of AdamW, which
    # trains all parameters that are no matrices of blocks, as b2 and eps
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
        check_values(self, "optimizer")
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
        if self.eps <= 0:
            raise ValueError(
                f"optimizer.eps={self.eps} must be positive: a parameter without a gradient would become 0 / 0"
            )
        check_at_least(self, "optimizer.", 0, "weight_decay", "clip_norm")
        if self.name == "schedule_free_adamw" and self.b1 == 0:
            raise ValueError(
                "optimizer.b1=0.0 leaves schedule_free_adamw no average to evaluate: set it in (0, 1)"
            )
        self._refuse_ignored()

    def _refuse_ignored(self) -> None:
        """Raises ValueError for options that have another value than by default, and no effect."""
        default = {f.name: f.default for f in dataclasses.fields(self)}
        ignored = ignored_options(self.name, self.schedule)
        idle = [name for name in ignored if getattr(self, name) != default[name]]
        if idle:
            given = " and ".join(f"optimizer.{name}={getattr(self, name)}" for name in idle)
            values = ", ".join(f"{name}={default[name]}" for name in idle)
            raise ValueError(
                f"{given} {'have' if len(idle) > 1 else 'has'} no effect with optimizer.name={self.name} and "
                f"optimizer.schedule={self.schedule}: leave the default ({values})"
            )


def ignored_options(name: str, schedule: str) -> tuple[str, ...]:
    """The fields of `OptimizerConfig` that an optimizer with this schedule does not read."""
    if name == "schedule_free_adamw":
        # its learning rate is constant, and to say so is no mistake
        rest = ("final_fraction", "decay_fraction")
        return rest if schedule == "constant" else ("schedule", *rest)
    of_name = {"adafactor": ("b1", "b2", "eps"), "lion": ("eps",), "sgd": ("b2", "eps")}
    of_schedule = {"constant": ("final_fraction", "decay_fraction"), "wsd": ()}
    return (*of_name.get(name, ()), *of_schedule.get(schedule, ("decay_fraction",)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupConfig:
    """Parameters that are trained in the same way: frozen, at a learning rate of their own, or by another optimizer.

    A frozen group has no gradient and no optimizer state, and takes no part in clipping or in the gradient norm.
    """

    # name of the group in other options and in messages
    name: str
    # patterns of parameter paths: "head/*", "*/attn/*", "*"; "*blocks[-2:]*" are the last two blocks of a stack
    params: tuple[str, ...]
    # do not train these parameters
    frozen: bool = False
    # multiplier of the learning rate of the group's optimizer
    rate: float = 1.0
    # another optimizer for this group; default: that of the run
    optimizer: OptimizerConfig | None = None

    def __post_init__(self):
        check_values(self, "groups")
        if not self.params:
            raise ValueError(f"groups: {self.name!r} has no params: give patterns such as 'head/*'")
        if self.name == "rest" and tuple(self.params) != ("*",):
            raise ValueError(
                "groups: the name 'rest' belongs to all parameters that no other group matches: choose another name, "
                "or params=('*',) to set how those are trained"
            )
        if self.rate <= 0:
            raise ValueError(
                f"groups: rate={self.rate} of {self.name!r} must be positive; to freeze parameters, set frozen"
            )
        if self.frozen and (self.rate != 1 or self.optimizer is not None):
            raise ValueError(
                f"groups: {self.name!r} is frozen, so rate and optimizer have no effect"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhaseConfig:
    """Consecutive steps in which the same groups are trained. A group that continues keeps its optimizer state."""

    # last step of the phase; unset in the last phase
    end: int | None = None
    # the same as a fraction of all steps; converted to `end` when the run starts, and fixed from then on
    end_fraction: float | None = None
    # as `groups` of the run
    groups: tuple[GroupConfig, ...] = ()
    # names of groups that are updated in turn, one entry per step: (("encoder",), ("encoder",), ("decoder",));
    # default: all groups at every step
    turns: tuple[tuple[str, ...], ...] = ()
    # patterns of parameters that are initialized again when the phase starts
    reset: tuple[str, ...] = ()

    def __post_init__(self):
        check_values(self, "phases")
        check_at_least(self, "phases: ", 1, "end")
        if self.end is not None and self.end_fraction is not None:
            raise ValueError("phases: give end or end_fraction, not both")
        if self.end_fraction is not None and not 0 < self.end_fraction < 1:
            raise ValueError(f"phases: end_fraction={self.end_fraction} is not between 0 and 1")
        for i, turn in enumerate(self.turns):
            if not turn:
                raise ValueError(
                    f"phases: turns[{i}] names no group, so that step would train nothing: name one, or remove it"
                )
        # "rest" is the group of all parameters that no other group matches
        trained = {group.name for group in self.groups if not group.frozen} | {"rest"}
        for name in {name for turn in self.turns for name in turn} - trained:
            raise ValueError(
                f"phases: turns name the group {name!r}; trained groups are {', '.join(sorted(trained))}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When to save checkpoints, and which to keep."""

    # steps between checkpoints; the last step is always saved
    every: int = 500
    # number of newest checkpoints to keep
    keep: int = 2
    # also keep the checkpoint with the best validation metric (needs evaluation)
    keep_best: bool = True
    # also keep the checkpoints of all multiples of this many steps
    keep_every: int | None = None
    # stop with an error after this many consecutive failed saves (a full disk)
    max_failures: int = 3

    def __post_init__(self):
        check_values(self, "checkpoint")
        for name in ("every", "keep", "max_failures"):
            if getattr(self, name) < 1:
                raise ValueError(f"checkpoint.{name}={getattr(self, name)} must be at least 1")
        if self.keep_every is not None and self.keep_every < 1:
            raise ValueError(f"checkpoint.keep_every={self.keep_every} must be at least 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """When to evaluate on the validation data, and when to stop early."""

    # steps between evaluations; the last step is always evaluated
    every: int = 250
    # maximum number of batches; default: all
    batches: int | None = None
    # stop after this many consecutive evaluations without improvement; default: never
    patience: int | None = None

    def __post_init__(self):
        check_values(self, "evaluation")
        if self.every < 1:
            raise ValueError(f"evaluation.every={self.every} must be at least 1")
        for name in ("batches", "patience"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"evaluation.{name}={getattr(self, name)} must be at least 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurriculumConfig:
    """Early stages of a run with shorter rows or smaller batches; data.seq_len and batch_size apply after them.

    `--curriculum.ends 1000 3000 --curriculum.seq-lens 64 128` reads rows of 64 tokens in steps 1 to 1000 and of 128 in
    steps 1001 to 3000 (Shortformer, Press et al. 2021, 2012.15832; Li et al. 2022, 2108.06084). Growing batches: Smith
    et al. (2018, 1711.00489) and GPT-3 (Brown et al. 2020, 2005.14165, appendix B).
    """

    # last step of each early stage, ascending; default: no early stage
    ends: tuple[int, ...] = ()
    # tokens per row in each early stage; default: data.seq_len in all
    seq_lens: tuple[int, ...] = ()
    # rows per step in each early stage; default: batch_size in all
    batch_sizes: tuple[int, ...] = ()

    def __post_init__(self):
        check_values(self, "curriculum")
        if self.ends and not (self.seq_lens or self.batch_sizes):
            raise ValueError(
                f"curriculum.ends={self.ends} has no effect alone: set curriculum.seq_lens or "
                "curriculum.batch_sizes, or leave it unset"
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
    """Options of both pretraining and fine-tuning."""

    # the objective or downstream task, from `jaxlm.tasks`
    task: TaskConfig
    # sources, tokenizer and row length
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    # differentially private training
    privacy: PrivacyConfig = dataclasses.field(default_factory=PrivacyConfig)
    # row length and batch size in the early stages of the run
    curriculum: CurriculumConfig = dataclasses.field(default_factory=CurriculumConfig)
    # dtype, attention implementation and rematerialization
    compute: ComputeConfig = dataclasses.field(default_factory=ComputeConfig)
    # optimizer, learning rate schedule and clipping
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    # groups of parameters that are trained differently; a parameter belongs to the first group that matches it
    groups: tuple[GroupConfig, ...] = ()
    # phases of the run, each with its own groups; default: those of the task, usually a single one
    phases: tuple[PhaseConfig, ...] = ()
    # shape of the device mesh
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    # several processes
    distributed: DistributedConfig = dataclasses.field(default_factory=DistributedConfig)
    # when to save checkpoints
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    # when to evaluate, and on how many batches
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    # name of the run and of its folder under runs/; set from the config file's name
    name: str = ""
    # folder of the run; default: runs/<name>
    run_dir: str | None = None
    # optimizer steps
    steps: int = 1000
    # how often all training rows are read, in place of `steps`, which are computed from it when the run starts
    epochs: float | None = None
    # rows per step, over all devices
    batch_size: int = 32
    # number of parts into which each batch is split, to save memory (gradient accumulation)
    accumulate: int = 1
    # random seed of the initial parameters, dropout and the order of the data
    seed: int = 0
    # steps between logged lines
    log_every: int = 10
    # also send metrics and samples to these, whose own packages have to be installed (pip install wandb)
    log: tuple[Literal["wandb", "mlflow", "trackio"], ...] = ()
    # first and last step of which a trace for TensorBoard's profiler is written to the run folder; default: none
    profile: tuple[int, int] | None = None
    # steps between samples of generated text; 0: only at the end
    sample_every: int = 0
    # stop with an error after this many consecutive steps whose loss or gradient is not finite
    max_bad_steps: int = 10
    # compile the steps, print memory and FLOPs, and stop
    dry_run: bool = False

    def __post_init__(self):
        check_values(self)
        if self.name in (".", "..") or "/" in self.name or "\0" in self.name:
            raise ValueError(f"name={self.name!r}: must be a plain name; --run-dir takes a path")
        for name in ("steps", "batch_size", "accumulate", "log_every", "max_bad_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.profile is not None and not 1 <= self.profile[0] <= self.profile[1]:
            raise ValueError(
                f"profile={self.profile}: must be the first and the last step to trace, as in --profile 10 15"
            )
        if self.sample_every < 0:
            raise ValueError(f"sample_every={self.sample_every} must not be negative")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate={self.accumulate} does not divide batch_size={self.batch_size}"
            )
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must not be negative")
        if self.epochs is not None:
            if self.epochs <= 0:
                raise ValueError(f"epochs={self.epochs} must be positive")
            if self.curriculum.ends:
                raise ValueError(
                    "epochs cannot be combined with a curriculum, whose stages end at steps: set steps instead"
                )
        if self.groups and self.phases:
            raise ValueError("groups and phases exclude each other: set the groups of each phase")
        for group in (*self.groups, *(group for phase in self.phases for group in phase.groups)):
            own = group.optimizer.clip_norm if group.optimizer else self.optimizer.clip_norm
            if own not in (self.optimizer.clip_norm, OptimizerConfig.clip_norm):
                raise ValueError(
                    f"groups: clip_norm={own} of the optimizer of {group.name!r} has no effect: the gradients of all "
                    f"groups are clipped together, by optimizer.clip_norm={self.optimizer.clip_norm}"
                )
        self._check_curriculum()
        if self.privacy.is_on:
            self._check_privacy()

    def _check_privacy(self) -> None:
        """Raises ValueError for options that would break the guarantee."""
        if self.accumulate > 1:
            raise ValueError(
                f"accumulate={self.accumulate} has no effect in private training, which goes through a batch by "
                "privacy.microbatch: leave it unset"
            )
        if self.curriculum.ends:
            raise ValueError(
                "privacy.epsilon cannot be combined with a curriculum: the budget is computed for batches that are "
                "drawn in the same way at every step"
            )
        if "validation" in self.privacy.public:
            return
        say = "say --privacy.public validation if the validation data is public"
        if self.evaluation.patience is not None:
            raise ValueError(
                f"evaluation.patience={self.evaluation.patience} stops the run by validation data, which the budget "
                f"does not cover: leave it unset, or {say}"
            )
        has_validation = bool(self.data.validation) or self.data.validation_fraction > 0
        if has_validation and self.checkpoint.keep_best:
            raise ValueError(
                "checkpoint.keep_best=True selects a model by validation data, which the budget does not cover: give "
                f"--checkpoint.no-keep-best, or {say}"
            )

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
                    "the longest rows: raise one or lower the other"
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
                    "before and after it; remove it"
                )

    @property
    def batch_shapes(self) -> list[tuple[int, int]]:
        """Rows per step and tokens per row, of each stage of the curriculum and of the rest of the run."""
        c = self.curriculum
        rows = c.batch_sizes or (self.batch_size,) * len(c.ends)
        lengths = c.seq_lens or (self.data.seq_len,) * len(c.ends)
        return list(zip((*rows, self.batch_size), (*lengths, self.data.seq_len)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """Pretraining: a model from random weights, or one whose pretraining goes on with new data or a new schedule."""

    # architecture of the model
    model: ModelConfig | VAEConfig | DenseVAEConfig = dataclasses.field(
        default_factory=DecoderConfig
    )
    # run folder, Hugging Face folder or hub:<id> of the model that is trained further, with its architecture and
    # tokenizer and a new optimizer; default: random weights
    init: str | None = None
    # of a text VAE: run folder, Hugging Face folder or hub:<id> of a pretrained model for its encoder and for its
    # decoder, whose architecture and tokenizer are used; default: random weights
    init_encoder: str | None = None
    init_decoder: str | None = None

    def __post_init__(self):
        super().__post_init__()
        for name in ("init", "init_encoder", "init_decoder"):
            refuse_other_url(getattr(self, name), f"{name}=")
        if self.init is not None and isinstance(self.model, (VAEConfig, DenseVAEConfig)):
            raise ValueError(
                f"init={self.init} is for language models: a text VAE takes init_encoder and init_decoder, and its own "
                "run goes on with the same command and more steps"
            )
        for side in ("encoder", "decoder"):
            name = getattr(self, f"init_{side}")
            if name is not None and not isinstance(self.model, VAEConfig):
                raise ValueError(
                    f"init_{side}={name} is for text VAEs, but model is a {type(self.model).__name__}: set model to a "
                    "VAEConfig, or use jaxlm finetune --init"
                )
        if self.data.seq_len > self.model.max_len:
            name = {
                VAEConfig: "the smaller of model.encoder.max_len and model.decoder.max_len, ",
                DenseVAEConfig: "model.inputs=",
            }.get(type(self.model), "model.max_len=")
            raise ValueError(
                f"data.seq_len={self.data.seq_len} is more than {name}{self.model.max_len}: raise one or lower the "
                "other"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneConfig(RunConfig):
    """Fine-tuning: the backbone comes from `init`, the head is new."""

    # run folder, Hugging Face folder or hub:<id> of the pretrained model and tokenizer; none: random weights
    init: str = "runs/python_docs"
    # with init none: the folder whose architecture and tokenizer are used; default: the init of the config file
    init_like: str | None = None
    # low-rank adapters that are trained instead of the pretrained matrices
    lora: LoraConfig = dataclasses.field(default_factory=LoraConfig)
    # folder of an adapter in the layout of peft for the model of `init`: added to its matrices or, with lora.rank,
    # trained further
    adapter: str | None = None
    # which parameters are trained
    train_only: Literal["all", "head", "last_blocks"] = "all"
    # with train_only last_blocks: number of blocks
    last_blocks: int = 1
    # fraction of the steps in which the model is unfrozen gradually (ULMFiT, 1801.06146): the head alone first, then
    # more and more blocks from the last one down, at the end the embeddings; 0: all are trained from the start
    unfreeze_over: float = 0.0
    # with unfreeze_over: number of blocks that are unfrozen at a time
    unfreeze_blocks: int = 1
    # number of runs with consecutive seeds, from `seed` on, in <run_dir>/seed_<n>; the summary has means and deviations
    seeds: int = 1
    # folder to which the model of the best checkpoint is written at the end, in the Hugging Face layout; of several
    # seeds that of the best one
    export: str | None = None
    # architecture of the backbone; filled in from `init`. With init none and no init_like it is that of the new model,
    # whose tokenizer is the one of `data.tokenizer`
    model: ModelConfig | None = None
    # dropout in the backbone during fine-tuning; default: as in pretraining
    dropout: float | None = None
    # learning rate of each block as a fraction of that of the block above it; 1: the same for all
    layer_decay: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        for name in ("init", "init_like"):
            refuse_other_url(getattr(self, name), f"{name}=")
        for name in ("adapter", "export"):
            refuse_url(getattr(self, name), f"{name}=")
        if self.last_blocks < 1:
            raise ValueError(f"last_blocks={self.last_blocks} must be at least 1")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} is not in [0, 1)")
        if self.train_only != "all" and (self.groups or self.phases):
            raise ValueError(
                f"train_only={self.train_only} cannot be combined with groups or phases: set only one of them"
            )
        if not 0 <= self.unfreeze_over < 1:
            raise ValueError(f"unfreeze_over={self.unfreeze_over} is not in [0, 1)")
        if self.unfreeze_over and (self.train_only != "all" or self.groups or self.phases):
            raise ValueError(
                f"unfreeze_over={self.unfreeze_over} cannot be combined with train_only, groups or phases: set only "
                "one of them"
            )
        if self.unfreeze_over and self.lora.rank:
            raise ValueError(
                f"unfreeze_over={self.unfreeze_over} cannot be combined with lora.rank={self.lora.rank}: the model "
                "under adapters stays frozen"
            )
        if self.unfreeze_blocks < 1:
            raise ValueError(f"unfreeze_blocks={self.unfreeze_blocks} must be at least 1")
        if self.unfreeze_blocks != 1 and not self.unfreeze_over:
            raise ValueError("unfreeze_blocks has no effect without unfreeze_over: set that too")
        if self.seeds < 1:
            raise ValueError(f"seeds={self.seeds} must be at least 1")
        if self.seeds > 1 and self.privacy.is_on:
            raise ValueError(
                f"seeds={self.seeds}: each run on the same data spends privacy.epsilon={self.privacy.epsilon} anew, so "
                "that together they have no such budget: set seeds to 1"
            )
        if self.lora.rank and self.train_only != "all":
            raise ValueError(
                f"train_only={self.train_only} cannot be combined with lora.rank={self.lora.rank}: adapters are "
                "trained alone already; choose their matrices with lora.targets"
            )
        if self.adapter is not None and self.init == "none":
            raise ValueError(
                f"adapter={self.adapter} belongs to a pretrained model: name it with --init"
            )
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay={self.layer_decay} is not in (0, 1]")
        if self.layer_decay != 1 and self.train_only == "head":
            raise ValueError(
                "layer_decay has no effect with train_only=head: leave one of them unset"
            )
