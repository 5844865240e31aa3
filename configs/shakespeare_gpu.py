"""A character-level model of Shakespeare: nanoGPT's GPU example (github.com/karpathy/nanoGPT), 10.7M parameters.

Command:   python train.py configs/shakespeare_gpu.py --data.train PATH/TO/tinyshakespeare/input.txt
Hardware:  one GPU
Result:    docs/results.md; nanoGPT's README gives a best validation loss of 1.4697 for these settings
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
    """6 layers, 6 heads, width 384, context 256, batch 64, 5,000 steps, dropout 0.2, no biases."""
    return TrainConfig(
        model=DecoderConfig(
            dim=384,
            num_layers=6,
            num_heads=6,
            max_len=256,
            dropout=0.2,
            attention_dropout=0.2,
            biases=(),
        ),
        task=CausalLMConfig(),
        data=DataConfig(
            train=("data/tinyshakespeare/input.txt",),
            validation_fraction=0.1,
            seq_len=256,
            tokenizer=TokenizerConfig(kind="char", vocab_size=128),
        ),
        optimizer=OptimizerConfig(
            learning_rate=1e-3, warmup_steps=100, b2=0.99, final_fraction=0.1
        ),
        evaluation=EvaluationConfig(every=250),
        checkpoint=CheckpointConfig(every=1000),
        steps=5000,
        batch_size=64,
        log_every=50,
    )
