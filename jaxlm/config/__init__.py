"""Configuration: frozen dataclasses, validated where they are made, and their files."""

from jaxlm.config.data import CleaningConfig, DataConfig, TokenizerConfig
from jaxlm.config.model import (
    ComputeConfig,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    RopeScaling,
    TransformerConfig,
    llama_style,
    t5_style,
)
from jaxlm.config.run import (
    CheckpointConfig,
    DistributedConfig,
    EvaluationConfig,
    FinetuneConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
)
from jaxlm.config.task import CausalLMConfig, ClassificationConfig, MaskedLMConfig, TaskConfig

__all__ = [
    "CausalLMConfig",
    "CheckpointConfig",
    "ClassificationConfig",
    "CleaningConfig",
    "ComputeConfig",
    "DataConfig",
    "DecoderConfig",
    "DistributedConfig",
    "EncoderConfig",
    "EncoderDecoderConfig",
    "EvaluationConfig",
    "FinetuneConfig",
    "MaskedLMConfig",
    "MeshConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RopeScaling",
    "RunConfig",
    "TaskConfig",
    "TokenizerConfig",
    "TrainConfig",
    "TransformerConfig",
    "llama_style",
    "t5_style",
]
