"""jaxlm: pretrain and fine-tune language models in JAX from one functional core.

The building blocks are here: `CausalLM(config).apply({"params": params}, tokens)`, the configs, and the settings of the
tasks. Pure functions on arrays are in `jaxlm.ops`. Runs are made by `jaxlm.run`, or by the commands `jaxlm train` and
`jaxlm finetune`.
"""

import importlib
from typing import Any

from jaxlm.config import (
    CheckpointConfig,
    CleaningConfig,
    ComputeConfig,
    CurriculumConfig,
    DataConfig,
    DecoderConfig,
    DenseVAEConfig,
    DistributedConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    EvaluationConfig,
    FinetuneConfig,
    GroupConfig,
    LoraConfig,
    MeshConfig,
    OptimizerConfig,
    PhaseConfig,
    RopeScaling,
    TaskConfig,
    TokenizerConfig,
    TrainConfig,
    VAEConfig,
    llama_style,
    t5_style,
)
from jaxlm.models.decoder import Decoder, empty_cache
from jaxlm.models.encoder import Encoder
from jaxlm.models.encoder_decoder import EncoderDecoder
from jaxlm.models.heads import CausalLM, Classifier, MaskedLM, Seq2SeqLM, init_params
from jaxlm.nn.attention import Attention
from jaxlm.nn.layers import MLP, Norm
from jaxlm.nn.transformer import Block, Stack

__version__ = "0.1.0"

# what needs tokenizers, data or orbax is imported when it is first asked for: `import jaxlm` stays light
_LAZY = {
    "finetune": "jaxlm.run.finetune",
    "load": "jaxlm.run.load",
    "pretrain": "jaxlm.run.pretrain",
    **dict.fromkeys(
        (
            "AnsweringConfig",
            "ArrayVAEConfig",
            "CausalLMConfig",
            "ChatConfig",
            "ClassificationConfig",
            "Context",
            "DenoisingConfig",
            "EmbeddingConfig",
            "FillInMiddleConfig",
            "HybridLMConfig",
            "LabelledVAEConfig",
            "Loss",
            "MaskedLMConfig",
            "MultiLabelConfig",
            "PrefixLMConfig",
            "RegressionConfig",
            "ReplacedTokenConfig",
            "SentencePairConfig",
            "SpanCorruptionConfig",
            "TaggingConfig",
            "Task",
            "TextToTextConfig",
            "TextVAEConfig",
            "UL2Config",
        ),
        "jaxlm.tasks",
    ),
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'jaxlm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


__all__ = [
    "MLP",
    "Attention",
    "Block",
    "CausalLM",
    "CheckpointConfig",
    "Classifier",
    "CleaningConfig",
    "ComputeConfig",
    "CurriculumConfig",
    "DataConfig",
    "Decoder",
    "DecoderConfig",
    "DenseVAEConfig",
    "DistributedConfig",
    "Encoder",
    "EncoderConfig",
    "EncoderDecoder",
    "EncoderDecoderConfig",
    "EvaluationConfig",
    "FinetuneConfig",
    "GroupConfig",
    "LoraConfig",
    "MaskedLM",
    "MeshConfig",
    "Norm",
    "OptimizerConfig",
    "PhaseConfig",
    "RopeScaling",
    "Seq2SeqLM",
    "Stack",
    "TaskConfig",
    "TokenizerConfig",
    "TrainConfig",
    "VAEConfig",
    "empty_cache",
    "init_params",
    "llama_style",
    "t5_style",
    *sorted(_LAZY),
]
