"""Sentence embeddings from pairs of texts that belong together, with the other pairs of the batch as negatives.

Command:   python finetune.py configs/embed.py --init RUN_OR_HF_DIR --data.train pairs.jsonl \\
               --data.validation dev.jsonl
           a row is {"text": ..., "pair": ...}; a class of pairs: --task.group-column NAME; hard negatives:
           --task.negative-column NAME; pairs with a score: --task.objective cosent --task.score-column NAME
           then: jaxlm convert runs/embed out/embed --step best, which sentence-transformers loads
Hardware:  2 CPU cores for 22 million parameters (MiniLM); one GPU with --batch-size 1024 --task.parts 8
Data:      benchmarks/clinc_pairs.py writes such files
Result:    not measured yet
"""

from jaxlm import (
    CheckpointConfig,
    DataConfig,
    EmbeddingConfig,
    EvaluationConfig,
    FinetuneConfig,
    OptimizerConfig,
)


def get_config() -> FinetuneConfig:
    """One epoch of 64 pairs a step."""
    return FinetuneConfig(
        init="sentence-transformers/all-MiniLM-L6-v2",
        task=EmbeddingConfig(),
        data=DataConfig(
            train=("pairs.jsonl",), validation=("dev.jsonl",), pair_column="pair", seq_len=64
        ),
        optimizer=OptimizerConfig(
            learning_rate=3e-5,
            schedule="linear",
            warmup_steps=100,
            b2=0.999,
            weight_decay=0.01,
            final_fraction=0.0,
        ),
        evaluation=EvaluationConfig(every=100),
        checkpoint=CheckpointConfig(every=10_000),
        epochs=1,
        batch_size=64,
        log_every=10,
    )
