"""Answers from a text (extractive question answering) from any pretrained encoder, on data in the format of SQuAD.

Command:   python finetune.py configs/answer.py --init RUN_OR_HF_FOLDER \\
               --data.train train.json --data.validation dev.json
           long answers, as in Chinese: add --task.max-answer-tokens 60
Hardware:  2 CPU cores for a model like MiniLM (22M parameters); a GPU for larger ones
Time:      an estimate, not measured: 2 hours from MiniLM on 2 cores; for 2 epochs of all of SQuAD, on a GPU:
           --steps 11000 --data.seq-len 384
Result:    docs/results.md; what the columns are: docs/tasks.md
"""

from jaxlm import (
    AnsweringConfig,
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    FinetuneConfig,
    OptimizerConfig,
)


def get_config() -> FinetuneConfig:
    """1,000 steps of 16 windows of 256 tokens."""
    return FinetuneConfig(
        init="MODEL",
        task=AnsweringConfig(),
        data=DataConfig(train=("train.json",), seq_len=256, on_bad_row="skip"),
        optimizer=OptimizerConfig(
            learning_rate=5e-5,
            schedule="linear",
            warmup_steps=60,
            b2=0.999,
            weight_decay=0.01,
            final_fraction=0.0,
        ),
        evaluation=EvaluationConfig(every=250),
        checkpoint=CheckpointConfig(every=500),
        steps=1000,
        batch_size=16,
        log_every=20,
    )
