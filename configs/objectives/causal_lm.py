"""Causal language modeling on the built-in corpus.

Command:   python train.py configs/objectives/causal_lm.py
           then: python finetune.py --init runs/causal_lm --run-dir runs/causal_lm_packages
Hardware:  2 CPU cores, a few minutes
"""

from jaxlm import (
    CausalLMConfig,
    CheckpointConfig,
    DataConfig,
    DecoderConfig,
    EvaluationConfig,
    OptimizerConfig,
    TokenizerConfig,
    TrainConfig,
    llama_style,
)


def get_config() -> TrainConfig:
    """Width 128, 4 blocks in total, rows of 64 tokens, 32 rows per step; the same budget for every objective."""
    return TrainConfig(
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
            seq_len=64,
        ),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=50),
        evaluation=EvaluationConfig(every=300, batches=20),
        checkpoint=CheckpointConfig(every=300),
        steps=600,
        batch_size=32,
    )
