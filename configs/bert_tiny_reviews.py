"""A small BERT on 20,000 unlabelled film reviews by masked language modelling, with a WordPiece tokenizer of its own.

Command:   python train.py configs/bert_tiny_reviews.py --data.train PATH/TO/imdb_small/unlabelled.jsonl.gz
Hardware:  2 CPU cores
Result:    docs/results.md; `configs/sst2.py` fine-tunes from it
"""

from jaxlm.config import (
    CheckpointConfig,
    CleaningConfig,
    DataConfig,
    EncoderConfig,
    EvaluationConfig,
    MaskedLMConfig,
    OptimizerConfig,
    TokenizerConfig,
    TrainConfig,
)


def get_config() -> TrainConfig:
    """4 layers, 4 heads, width 128, rows of 128 tokens, 64 rows a step."""
    return TrainConfig(
        model=EncoderConfig(
            dim=128, num_layers=4, num_heads=4, max_len=128, dropout=0.0, attention_dropout=0.0
        ),
        task=MaskedLMConfig(rate=0.2),
        data=DataConfig(
            train=("data/imdb_small/unlabelled.jsonl.gz",),
            validation_fraction=0.02,
            seq_len=128,
            tokenizer=TokenizerConfig(
                kind="wordpiece", vocab_size=8192, cleaning=CleaningConfig(lowercase=True)
            ),
        ),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=100, b2=0.98, weight_decay=0.01),
        evaluation=EvaluationConfig(every=250),
        checkpoint=CheckpointConfig(every=500),
        steps=1000,
        batch_size=64,
        log_every=25,
    )
