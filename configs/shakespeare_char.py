"""A character-level model of Shakespeare: nanoGPT's CPU example (https://github.com/karpathy/nanoGPT), 0.8M parameters.

Command:   python train.py configs/shakespeare_char.py --data.train PATH/TO/tinyshakespeare/input.txt
Hardware:  2 CPU cores
Result:    docs/results.md; nanoGPT's README gives a validation loss of 1.88 for these settings
"""

from jaxlm import (
    CausalLMConfig,
    CheckpointConfig,
    DataConfig,
    DecoderConfig,
    EvaluationConfig,
    OptimizerConfig,
    TokenizerConfig,
    TrainConfig,
)


def get_config() -> TrainConfig:
    """4 layers, 4 heads, width 128, context 64, batch 12, 2,000 steps, no dropout."""
    return TrainConfig(
        model=DecoderConfig(dim=128, num_layers=4, num_heads=4, max_len=64),
        task=CausalLMConfig(),
        data=DataConfig(
            train=("data/tinyshakespeare/input.txt",),
            validation_fraction=0.1,
            seq_len=64,
            tokenizer=TokenizerConfig(kind="char", vocab_size=128),
        ),
        optimizer=OptimizerConfig(
            learning_rate=4e-3, warmup_steps=100, b2=0.99, final_fraction=0.05
        ),
        evaluation=EvaluationConfig(every=500),
        checkpoint=CheckpointConfig(every=1000),
        steps=2000,
        batch_size=12,
        log_every=50,
    )
