"""A Transformer VAE of sentences from the Penn Treebank for a GPU, 24M parameters.

Command:   python train.py configs/vae_ptb_full.py --data.train PTB/ptb.train.txt --data.validation PTB/ptb.valid.txt
           jaxlm evaluate runs/vae_ptb_full --data PTB/ptb.test.txt --step STEP (the best in summary.json)
Hardware:  one GPU, at most an hour
Result:    not run yet; the aim is an importance-weighted NLL of 99 nats per sentence on the test set
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
    dim=384,
    num_layers=4,
    num_heads=6,
    max_len=128,
    norm="rms_norm",
    norm_place="pre",
    extra_norms=("final", "qk"),
    positions="rotary",
    biases=(),
    # 930,000 words are read a hundred times
    dropout=0.4,
    attention_dropout=0.1,
)


def get_config() -> TrainConfig:
    """As configs/vae_ptb.py, wider and deeper, with more dropout, for 100 epochs; the best -ELBO is kept."""
    return TrainConfig(
        model=VAEConfig(
            encoder=EncoderConfig(**SIZES, num_token_types=0),
            decoder=DecoderConfig(**SIZES),
            latent_dim=32,
        ),
        task=TextVAEConfig(kl_steps=1200, free_bits=0.15),
        data=DataConfig(
            train=("data/ptb/ptb.train.txt",),
            validation=("data/ptb/ptb.valid.txt",),
            text_unit="line",
            seq_len=128,
            tokenizer=TokenizerConfig(kind="word", vocab_size=10_006),
        ),
        optimizer=OptimizerConfig(
            name="muon",
            learning_rate=1e-3,
            schedule="linear",
            warmup_steps=200,
            final_fraction=0.0,
            weight_decay=0.1,
        ),
        evaluation=EvaluationConfig(every=400),
        checkpoint=CheckpointConfig(every=400),
        steps=12_000,
        batch_size=64,
        log_every=100,
    )
