"""Tagging of your own sentences (named entities, parts of speech) from any pretrained encoder or decoder.

Command:   python finetune.py configs/tag.py --init RUN_OR_HF_FOLDER \\
               --data.train train.conll --data.validation dev.conll
           texts with spans of characters: add --task.spans-column spans; Chinese words: add --task.separator ''
Hardware:  2 CPU cores for a model like MiniLM (22M parameters); a GPU for larger ones
Time:      an estimate, not measured: up to 2 hours from MiniLM on 2 cores; --data.seq-len and --steps shorten it
Result:    docs/results.md; what the columns are: docs/tasks.md
"""

from jaxlm import (
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    FinetuneConfig,
    OptimizerConfig,
    TaggingConfig,
)


def get_config() -> FinetuneConfig:
    """1,000 steps of 32 windows of 128 tokens; stops when F1 no longer improves."""
    return FinetuneConfig(
        init="MODEL",
        task=TaggingConfig(),
        data=DataConfig(train=("train.conll",), seq_len=128),
        optimizer=OptimizerConfig(
            learning_rate=5e-5,
            schedule="linear",
            warmup_steps=60,
            b2=0.999,
            weight_decay=0.01,
            final_fraction=0.0,
        ),
        evaluation=EvaluationConfig(every=100, patience=4),
        checkpoint=CheckpointConfig(every=500),
        steps=1000,
        batch_size=32,
        log_every=20,
    )
