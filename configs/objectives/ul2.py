"""UL2 on the built-in corpus: regular, sequential and extreme denoising, each marked by a mode token.

Command:   python train.py configs/objectives/ul2.py
           then: python finetune.py --init runs/ul2 --run-dir runs/ul2_packages
Hardware:  2 CPU cores, a few minutes
"""

from jaxlm import (
    CheckpointConfig,
    DataConfig,
    EncoderDecoderConfig,
    EvaluationConfig,
    OptimizerConfig,
    TokenizerConfig,
    TrainConfig,
    UL2Config,
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
        task=UL2Config(),
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
