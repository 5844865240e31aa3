"""The default runs of `train.py` and `finetune.py`: they take minutes on two CPU cores and need no files."""

from __future__ import annotations

from jaxlm.config import (
    CheckpointConfig,
    DataConfig,
    DecoderConfig,
    EvaluationConfig,
    FinetuneConfig,
    OptimizerConfig,
    TokenizerConfig,
    TrainConfig,
    llama_style,
)
from jaxlm.tasks.downstream.classification import ClassificationConfig
from jaxlm.tasks.pretraining.causal_lm import CausalLMConfig


def pretraining() -> TrainConfig:
    """A small Llama-style decoder on the documentation and sources of Python's standard library."""
    return TrainConfig(
        name="python_docs",
        model=DecoderConfig(
            **llama_style() | {"tie_embeddings": True},
            dim=128,
            num_layers=4,
            num_heads=4,
            max_len=256,
        ),
        task=CausalLMConfig(),
        data=DataConfig(
            train=("builtin:python-docs",),
            tokenizer=TokenizerConfig(kind="byte_bpe", vocab_size=4096),
            seq_len=128,
        ),
        optimizer=OptimizerConfig(name="muon", learning_rate=4e-3, warmup_steps=30),
        evaluation=EvaluationConfig(every=120, batches=20),
        checkpoint=CheckpointConfig(every=120),
        steps=240,
        batch_size=16,
    )


def finetuning() -> FinetuneConfig:
    """Fine-tunes that decoder to predict the package that a docstring belongs to."""
    return FinetuneConfig(
        name="python_packages",
        init="runs/python_docs",
        task=ClassificationConfig(),
        data=DataConfig(train=("builtin:python-packages",), validation_fraction=0.2, seq_len=64),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=30, weight_decay=0.05),
        evaluation=EvaluationConfig(every=100),
        checkpoint=CheckpointConfig(every=100),
        steps=200,
        batch_size=32,
    )
