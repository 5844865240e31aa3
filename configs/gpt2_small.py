"""GPT-2 small (124M parameters), from scratch on your own text.

Command:   python train.py configs/gpt2_small.py --data.train 'texts/*.jsonl' --mesh.fsdp 8
Hardware:  8 GPUs or a TPU slice; not run to the end, so no expected loss is given. `--dry-run` prints memory.
"""

from jaxlm import (
    CausalLMConfig,
    CheckpointConfig,
    ComputeConfig,
    DataConfig,
    DecoderConfig,
    EvaluationConfig,
    OptimizerConfig,
    TokenizerConfig,
    TrainConfig,
)


def get_config() -> TrainConfig:
    """12 layers, 12 heads, width 768, context 1,024, half a million tokens per step."""
    return TrainConfig(
        model=DecoderConfig(dim=768, num_layers=12, num_heads=12, max_len=1024),
        compute=ComputeConfig(remat="dots"),
        task=CausalLMConfig(),
        data=DataConfig(
            seq_len=1024,
            tokenizer=TokenizerConfig(kind="byte_bpe", vocab_size=50_304),
            validation_fraction=0.005,
        ),
        optimizer=OptimizerConfig(learning_rate=6e-4, warmup_steps=700),
        evaluation=EvaluationConfig(every=1000, batches=50),
        checkpoint=CheckpointConfig(every=1000),
        steps=20_000,
        batch_size=512,
        accumulate=4,
    )
