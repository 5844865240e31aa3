"""Titles of Chinese news in ten classes (THUCNews), from an encoder pretrained on Chinese text.

Command:   python finetune.py configs/thucnews.py --init RUN_DIR \\
               --data.train PATH/TO/titles_train.tsv --data.validation PATH/TO/titles_test.tsv
           (title TAB index of the class; the files of the data set are named .txt: copy them to .tsv)
Hardware:  2 CPU cores
Result:    docs/results.md, "One budget, ten objectives"
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
    """10,000 titles, 32 per step, 1 epoch."""
    return FinetuneConfig(
        task=ClassificationConfig(labels=tuple("0123456789"), pooling="mean"),
        data=DataConfig(
            train=("data/thucnews_titles/train.tsv",),
            validation=("data/thucnews_titles/test.tsv",),
            columns=("text", "label"),
            seq_len=32,
        ),
        optimizer=OptimizerConfig(
            learning_rate=5e-4, schedule="linear", warmup_steps=60, b2=0.98, final_fraction=0.0
        ),
        evaluation=EvaluationConfig(every=312),
        checkpoint=CheckpointConfig(every=10_000),
        steps=312,
        batch_size=32,
        log_every=50,
    )
