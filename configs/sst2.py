"""Sentiment of film-review sentences (SST-2), from the encoder of bert_tiny_reviews.

Command:   python finetune.py configs/sst2.py --init runs/bert_tiny_reviews \\
               --data.train PATH/TO/sst2/train.tsv --data.validation PATH/TO/sst2/dev.tsv
           from random weights: add --init none --run-dir runs/sst2_scratch
Hardware:  2 CPU cores
Result:    docs/results.md
"""

from jaxlm import (
    CheckpointConfig,
    ClassificationConfig,
    DataConfig,
    EvaluationConfig,
    FinetuneConfig,
    OptimizerConfig,
)


def get_config() -> FinetuneConfig:
    """6,920 sentences, 32 per step, 3 epochs."""
    return FinetuneConfig(
        init="runs/bert_tiny_reviews",
        task=ClassificationConfig(labels=("0", "1"), pooling="mean"),
        data=DataConfig(
            train=("data/sst2/train.tsv",),
            validation=("data/sst2/dev.tsv",),
            columns=("text", "label"),
            seq_len=48,
        ),
        optimizer=OptimizerConfig(
            learning_rate=5e-4, schedule="linear", warmup_steps=60, b2=0.98, final_fraction=0.0
        ),
        evaluation=EvaluationConfig(every=216),
        checkpoint=CheckpointConfig(every=10_000),
        steps=648,
        batch_size=32,
        log_every=50,
    )
