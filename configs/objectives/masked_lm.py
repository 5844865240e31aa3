"""Masked language modeling on the built-in corpus: 15 percent of the tokens, 80/10/10 (BERT).

Command:   python train.py configs/objectives/masked_lm.py
           then: python finetune.py --init runs/masked_lm --run-dir runs/masked_lm_packages
Hardware:  2 CPU cores, a few minutes
"""

from jaxlm import (
    CheckpointConfig,
    DataConfig,
    EncoderConfig,
    EvaluationConfig,
    MaskedLMConfig,
    OptimizerConfig,
    TokenizerConfig,
    TrainConfig,
)


def get_config() -> TrainConfig:
    """Width 128, 4 blocks in total, rows of 64 tokens, 32 rows per step; the same budget for every objective."""
    return TrainConfig(
        model=EncoderConfig(
            dim=128,
            num_layers=4,
            num_heads=4,
            max_len=256,
            positions="rotary",
            norm_place="pre",
            extra_norms=("embedding", "final"),
            dropout=0.0,
            attention_dropout=0.0,
        ),
        task=MaskedLMConfig(mask_fraction=0.15),
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
