"""Translation, from a pretrained encoder-decoder (T5, BART, Marian, or one of ours) or from nothing.

Command:   python finetune.py configs/translate.py --init none \\
               --data.train parallel:train.de,train.en --data.validation parallel:dev.de,dev.en
           (with init none a small encoder-decoder with its own tokenizer; otherwise --init FOLDER_OR_RUN)
           files with a row a pair (.tsv, .csv, .jsonl, .parquet) need columns "source" and "target"
           (--task.source-column, --data.columns source target for a .tsv without header line; docs/translating.md)
Hardware:  2 CPU cores, 6 to 10 minutes; one GPU: see configs/translate_multi30k_gpu.py
Needs:     pip install 'jaxlm[scores]'
Result:    38.4 BLEU on Multi30k, German to English, from nothing (docs/results.md, "Text to text")
"""

import dataclasses

from jaxlm import (
    CheckpointConfig,
    DataConfig,
    EncoderDecoderConfig,
    EvaluationConfig,
    FinetuneConfig,
    OptimizerConfig,
    TextToTextConfig,
    TokenizerConfig,
)


def get_config(init: str = "none") -> FinetuneConfig:
    """From nothing: width 128, 3 and 3 blocks, 3,000 steps. From a pretrained model: 2,000 steps at a lower rate."""
    config = FinetuneConfig(
        init=init,
        task=TextToTextConfig(score="translation", target_len=96),
        data=DataConfig(
            train=("data/train.tsv",),
            validation=("data/dev.tsv",),
            tokenizer=TokenizerConfig(kind="byte_bpe", vocab_size=4000),
            seq_len=96,
        ),
        model=EncoderDecoderConfig(
            dim=128,
            num_layers=3,
            num_decoder_layers=3,
            num_heads=4,
            mlp_dim=512,
            max_len=256,
            # the architecture of M2M100, to which it is exported
            norm_place="pre",
            extra_norms=("final",),
            positions="sinusoidal_inclusive",
            position_offset=2,
            dropout=0.1,
            # about 1 / sqrt(dim): with 0.02 a small model learns to attend to its source many times later
            init_std=0.08,
        ),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=300, b2=0.98, weight_decay=0.01),
        evaluation=EvaluationConfig(every=500),
        checkpoint=CheckpointConfig(every=500),
        steps=3000,
        batch_size=16,
        log_every=50,
    )
    if init == "none":
        return config
    return dataclasses.replace(
        config,
        model=None,
        optimizer=OptimizerConfig(
            learning_rate=1e-4, schedule="linear", warmup_steps=100, b2=0.999, weight_decay=0.01
        ),
        steps=2000,
    )
