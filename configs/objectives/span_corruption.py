"""Span corruption on the built-in corpus: 15 percent of the tokens in spans of 3 (T5).

Command:   python train.py configs/objectives/span_corruption.py
           then: python finetune.py --init runs/span_corruption --run-dir runs/span_corruption_packages
Hardware:  2 CPU cores, a few minutes
"""

from jaxlm import (
    CheckpointConfig,
    DataConfig,
    EncoderDecoderConfig,
    EvaluationConfig,
    OptimizerConfig,
    SpanCorruptionConfig,
    TokenizerConfig,
    TrainConfig,
    t5_style,
)


def get_config() -> TrainConfig:
    """Width 128, 4 blocks in total, rows of 64 tokens, 32 rows per step; the same budget for every objective."""
    return TrainConfig(
        model=EncoderDecoderConfig(
            **t5_style() | {"tie_embeddings": True},
            dim=128,
            num_layers=2,
            num_decoder_layers=2,
            num_heads=4,
            max_len=256,
            dropout=0.0,
        ),
        task=SpanCorruptionConfig(noise_fraction=0.15, mean_span=3.0),
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
