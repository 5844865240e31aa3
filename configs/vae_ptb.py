"""A Transformer VAE of sentences from the Penn Treebank, 8.3M parameters.

Command:   python train.py configs/vae_ptb.py --data.train PTB/ptb.train.txt --data.validation PTB/ptb.valid.txt
Hardware:  2 CPU cores; 19 minutes on one with AVX-512
Result:    103.7 nats per test sentence (importance-weighted), KL 4.8; 102.7 with --steps 2100, then
           101.6 by way of 3150 with --steps 4200 (docs/case_study_vae.md)
"""

from jaxlm import (
    CheckpointConfig,
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    EvaluationConfig,
    OptimizerConfig,
    TextVAEConfig,
    TokenizerConfig,
    TrainConfig,
    VAEConfig,
)

SIZES = dict(
    dim=256,
    num_layers=2,
    num_heads=4,
    max_len=128,
    norm="rms_norm",
    norm_place="pre",
    extra_norms=("final", "qk"),
    positions="rotary",
    biases=(),
    dropout=0.15,
    attention_dropout=0.0,
)


def get_config() -> TrainConfig:
    """Width 256, 2 + 2 layers, a latent of width 32 that every decoder layer reads, free bits of 0.15 nats a dim."""
    return TrainConfig(
        model=VAEConfig(
            encoder=EncoderConfig(**SIZES, num_token_types=0),
            decoder=DecoderConfig(**SIZES),
            latent_dim=32,
        ),
        task=TextVAEConfig(kl_steps=200, free_bits=0.15),
        data=DataConfig(
            train=("data/ptb/ptb.train.txt",),
            validation=("data/ptb/ptb.valid.txt",),
            text_unit="line",
            seq_len=128,
            tokenizer=TokenizerConfig(kind="word", vocab_size=10_006),
        ),
        optimizer=OptimizerConfig(
            name="muon",
            learning_rate=2e-3,
            schedule="linear",
            warmup_steps=40,
            final_fraction=0.0,
            weight_decay=0.0,
        ),
        evaluation=EvaluationConfig(every=250),
        checkpoint=CheckpointConfig(every=500),
        steps=1400,
        batch_size=16,
        log_every=20,
    )
