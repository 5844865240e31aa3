"""Sentence embeddings by a small encoder from random weights, with a tokenizer of its own: what pretraining is worth.

Command:   python train.py configs/embed_scratch.py --data.train pairs.jsonl --data.validation dev.jsonl
Hardware:  2 CPU cores
Result:    not measured yet
"""

from jaxlm import (
    CheckpointConfig,
    DataConfig,
    EmbeddingConfig,
    EncoderConfig,
    EvaluationConfig,
    OptimizerConfig,
    TokenizerConfig,
    TrainConfig,
)


def get_config() -> TrainConfig:
    """Ten epochs of 64 pairs a step; two layers of width 128."""
    return TrainConfig(
        model=EncoderConfig(dim=128, num_layers=2, num_heads=4, max_len=64, dropout=0.1),
        task=EmbeddingConfig(),
        data=DataConfig(
            train=("pairs.jsonl",),
            validation=("dev.jsonl",),
            pair_column="pair",
            seq_len=32,
            tokenizer=TokenizerConfig(kind="wordpiece", vocab_size=4096),
        ),
        optimizer=OptimizerConfig(learning_rate=1e-3, schedule="linear", final_fraction=0.0),
        evaluation=EvaluationConfig(every=200),
        checkpoint=CheckpointConfig(every=10_000),
        epochs=10,
        batch_size=64,
        log_every=50,
    )
