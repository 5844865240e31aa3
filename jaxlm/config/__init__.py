"""Configuration: frozen dataclasses, validated where they are made, and their files."""

from jaxlm.config.compute import ComputeConfig
from jaxlm.config.data import CleaningConfig, DataConfig, TokenizerConfig
from jaxlm.config.dense_vae import DenseVAEConfig
from jaxlm.config.devices import DistributedConfig, MeshConfig
from jaxlm.config.lora import LoraConfig
from jaxlm.config.model import (
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    RopeScaling,
    TransformerConfig,
    llama_style,
    t5_style,
)
from jaxlm.config.optimizer import OptimizerConfig
from jaxlm.config.phases import CurriculumConfig, GroupConfig, PhaseConfig
from jaxlm.config.privacy import PrivacyConfig
from jaxlm.config.run import (
    CheckpointConfig,
    EvaluationConfig,
    FinetuneConfig,
    ModelConfig,
    RunConfig,
    TrainConfig,
)
from jaxlm.config.task import TaskConfig
from jaxlm.config.vae import VAEConfig

__all__ = [
    "CheckpointConfig",
    "CleaningConfig",
    "ComputeConfig",
    "CurriculumConfig",
    "DataConfig",
    "DecoderConfig",
    "DenseVAEConfig",
    "DistributedConfig",
    "EncoderConfig",
    "EncoderDecoderConfig",
    "EvaluationConfig",
    "FinetuneConfig",
    "GroupConfig",
    "LoraConfig",
    "MeshConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PhaseConfig",
    "PrivacyConfig",
    "RopeScaling",
    "RunConfig",
    "TaskConfig",
    "TokenizerConfig",
    "TrainConfig",
    "TransformerConfig",
    "VAEConfig",
    "llama_style",
    "t5_style",
]
