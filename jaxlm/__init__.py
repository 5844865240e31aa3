"""jaxlm: pretrain and fine-tune language models in JAX from one functional core.

The building blocks are here: `CausalLM(config).apply({"params": params}, tokens)`, the configs, and the settings of the
tasks. Pure functions on arrays are in `jaxlm.ops`. Runs are made by `jaxlm.run`, or by the commands `jaxlm train` and
`jaxlm finetune`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxlm.config import CheckpointConfig as CheckpointConfig
    from jaxlm.config import CleaningConfig as CleaningConfig
    from jaxlm.config import ComputeConfig as ComputeConfig
    from jaxlm.config import CurriculumConfig as CurriculumConfig
    from jaxlm.config import DataConfig as DataConfig
    from jaxlm.config import DecoderConfig as DecoderConfig
    from jaxlm.config import DenseVAEConfig as DenseVAEConfig
    from jaxlm.config import DistributedConfig as DistributedConfig
    from jaxlm.config import EncoderConfig as EncoderConfig
    from jaxlm.config import EncoderDecoderConfig as EncoderDecoderConfig
    from jaxlm.config import EvaluationConfig as EvaluationConfig
    from jaxlm.config import FinetuneConfig as FinetuneConfig
    from jaxlm.config import GroupConfig as GroupConfig
    from jaxlm.config import LoraConfig as LoraConfig
    from jaxlm.config import MeshConfig as MeshConfig
    from jaxlm.config import OptimizerConfig as OptimizerConfig
    from jaxlm.config import PhaseConfig as PhaseConfig
    from jaxlm.config import RopeScaling as RopeScaling
    from jaxlm.config import TaskConfig as TaskConfig
    from jaxlm.config import TokenizerConfig as TokenizerConfig
    from jaxlm.config import TrainConfig as TrainConfig
    from jaxlm.config import VAEConfig as VAEConfig
    from jaxlm.config import llama_style as llama_style
    from jaxlm.config import t5_style as t5_style
    from jaxlm.models.decoder import Decoder as Decoder
    from jaxlm.models.decoder import empty_cache as empty_cache
    from jaxlm.models.encoder import Encoder as Encoder
    from jaxlm.models.encoder_decoder import EncoderDecoder as EncoderDecoder
    from jaxlm.models.heads import (
        CausalLM as CausalLM,
    )
    from jaxlm.models.heads import (
        Classifier as Classifier,
    )
    from jaxlm.models.heads import (
        MaskedLM as MaskedLM,
    )
    from jaxlm.models.heads import (
        Seq2SeqLM as Seq2SeqLM,
    )
    from jaxlm.models.heads import (
        init_params as init_params,
    )
    from jaxlm.nn.attention import Attention as Attention
    from jaxlm.nn.layers import MLP as MLP
    from jaxlm.nn.layers import Norm as Norm
    from jaxlm.nn.transformer import Block as Block
    from jaxlm.nn.transformer import Stack as Stack

__version__ = "0.1.0"

# Imported when it is first asked for: `import jaxlm` stays light, and a command can say what Ctrl-C does before the
# configs, and in seconds JAX, are imported.
_LAZY = {
    **dict.fromkeys(
        (
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
            "OptimizerConfig",
            "PhaseConfig",
            "RopeScaling",
            "TaskConfig",
            "TokenizerConfig",
            "TrainConfig",
            "VAEConfig",
            "llama_style",
            "t5_style",
        ),
        "jaxlm.config",
    ),
    **dict.fromkeys(("Decoder", "empty_cache"), "jaxlm.models.decoder"),
    "Encoder": "jaxlm.models.encoder",
    "EncoderDecoder": "jaxlm.models.encoder_decoder",
    **dict.fromkeys(
        ("CausalLM", "Classifier", "MaskedLM", "Seq2SeqLM", "init_params"), "jaxlm.models.heads"
    ),
    "Attention": "jaxlm.nn.attention",
    **dict.fromkeys(("MLP", "Norm"), "jaxlm.nn.layers"),
    **dict.fromkeys(("Block", "Stack"), "jaxlm.nn.transformer"),
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
    if name == "config":
        return importlib.import_module("jaxlm.config")
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'jaxlm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


__all__ = sorted(_LAZY)
