"""The config of a run: model, task, data, optimizer, mesh and more, for pretraining and fine-tuning."""

from __future__ import annotations

import dataclasses
from typing import Literal

from jaxlm.config.compute import ComputeConfig
from jaxlm.config.data import DataConfig
from jaxlm.config.dense_vae import DenseVAEConfig
from jaxlm.config.devices import DistributedConfig, MeshConfig
from jaxlm.config.lora import LoraConfig
from jaxlm.config.model import DecoderConfig, EncoderConfig, EncoderDecoderConfig
from jaxlm.config.optimizer import OptimizerConfig
from jaxlm.config.phases import CurriculumConfig, GroupConfig, PhaseConfig
from jaxlm.config.privacy import PrivacyConfig
from jaxlm.config.task import TaskConfig
from jaxlm.config.urls import refuse_other_url, refuse_url
from jaxlm.config.vae import VAEConfig
from jaxlm.config.values import check_values

ModelConfig = DecoderConfig | EncoderConfig | EncoderDecoderConfig


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
