"""Summaries, from a pretrained encoder-decoder (T5, BART, or one of ours) or from nothing.

Command:   python finetune.py configs/summarise.py --init none \\
               --data.train train.jsonl --data.validation dev.jsonl
           (with init none a small encoder-decoder with its own tokenizer; otherwise --init FOLDER_OR_RUN)
           rows need columns "source" and "target": --task.source-column abstract --task.target-column title
           for a T5 of Google's add --task.prefix "summarize: "
Hardware:  2 CPU cores; from nothing it learns titles of abstracts at best: start from a pretrained model if you can
Needs:     pip install 'jaxlm[scores]'
Result:    docs/results.md, "Text to text"
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
    """From nothing: width 128, 3 and 3 blocks, 2,000 steps. From a pretrained model: 2,000 steps at a lower rate."""
    config = FinetuneConfig(
        init=init,
        # a summary is not to be cut short: longer texts are favoured, as for BART
        task=TextToTextConfig(score="summary", target_len=64, length_penalty=2.0),
        data=DataConfig(
            train=("data/train.jsonl",),
            validation=("data/dev.jsonl",),
            tokenizer=TokenizerConfig(kind="byte_bpe", vocab_size=4000),
            seq_len=256,
        ),
        model=EncoderDecoderConfig(
            dim=128,
            num_layers=3,
            num_decoder_layers=3,
            num_heads=4,
            mlp_dim=512,
            max_len=512,
            # the architecture of M2M100, to which it is exported
            norm_place="pre",
            extra_norms=("final",),
            positions="sinusoidal_inclusive",
            position_offset=2,
            dropout=0.2,
            # about 1 / sqrt(dim), see configs/translate.py
            init_std=0.08,
        ),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=200, b2=0.98, weight_decay=0.01),
        evaluation=EvaluationConfig(every=500),
        checkpoint=CheckpointConfig(every=500),
        steps=2000,
        batch_size=8,
        log_every=50,
    )
    if init == "none":
        return config
    return dataclasses.replace(
        config,
        model=None,
        data=dataclasses.replace(config.data, seq_len=512),
        optimizer=OptimizerConfig(
            learning_rate=1e-4, schedule="linear", warmup_steps=100, b2=0.999, weight_decay=0.01
        ),
    )
