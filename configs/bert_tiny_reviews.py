"""A small BERT pretrained on 20,000 unlabelled film reviews, with a WordPiece tokenizer trained on them.

Command:   python train.py configs/bert_tiny_reviews.py --data.train PATH/TO/imdb_small/unlabelled.jsonl.gz
Hardware:  2 CPU cores
Result:    docs/results.md; `configs/sst2.py` fine-tunes from it
"""

from jaxlm import (
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
    """4 layers, 4 heads, width 128, rows of 64 tokens, 32 rows per step, 12,000 steps: five epochs.

    Pre-norm and rotary positions, because BERT's post-norm with learned positions does not improve on the unigram loss
    (6.3) within this budget.
    """
    return TrainConfig(
        model=EncoderConfig(
            dim=128,
            num_layers=4,
            num_heads=4,
            max_len=128,
            positions="rotary",
            norm_place="pre",
            extra_norms=("embedding", "final"),
            dropout=0.0,
            attention_dropout=0.0,
        ),
        task=MaskedLMConfig(mask_fraction=0.2),
        data=DataConfig(
            train=("data/imdb_small/unlabelled.jsonl.gz",),
            validation_fraction=0.02,
            seq_len=64,
            tokenizer=TokenizerConfig(
                kind="wordpiece", vocab_size=8192, cleaning=CleaningConfig(lowercase=True)
            ),
        ),
        optimizer=OptimizerConfig(
            name="muon", learning_rate=3e-3, warmup_steps=100, b2=0.98, weight_decay=0.01
        ),
        evaluation=EvaluationConfig(every=2000, batches=200),
        checkpoint=CheckpointConfig(every=2000),
        steps=12_000,
        batch_size=32,
        log_every=25,
    )
