"""Multi30k (captions of images) from German to English, from nothing, on one GPU.

Command:   python finetune.py configs/translate_multi30k_gpu.py \\
               --data.train parallel:PATH/TO/train.de.gz,PATH/TO/train.en.gz \\
               --data.validation parallel:PATH/TO/val.de.gz,PATH/TO/val.en.gz
           jaxlm evaluate runs/translate_multi30k_gpu \\
               --data parallel:PATH/TO/test_2016_flickr.de.gz,PATH/TO/test_2016_flickr.en.gz
Hardware:  one GPU (not run yet: no GPU was at hand)
Needs:     pip install 'jaxlm[cuda,scores]'
Published: 36.5 BLEU on lower-cased tokens of test 2016 for a Transformer of 9M parameters (3 and 3 blocks of width 256,
           10 epochs: bentrevett/pytorch-seq2seq), which no sacrebleu signature compares with
"""

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


def get_config() -> FinetuneConfig:
    """Small and regularised, as the data is small: width 256, dropout 0.3, 40 epochs of 29,000 pairs."""
    return FinetuneConfig(
        init="none",
        task=TextToTextConfig(score="translation", target_len=128, num_beams=5, eval_samples=None),
        data=DataConfig(
            train=("parallel:data/train.de.gz,data/train.en.gz",),
            validation=("parallel:data/val.de.gz,data/val.en.gz",),
            tokenizer=TokenizerConfig(kind="byte_bpe", vocab_size=8000),
            seq_len=128,
        ),
        model=EncoderDecoderConfig(
            dim=256,
            num_layers=4,
            num_decoder_layers=4,
            num_heads=4,
            mlp_dim=1024,
            max_len=256,
            norm_place="pre",
            extra_norms=("final",),
            positions="sinusoidal_inclusive",
            position_offset=2,
            dropout=0.3,
            init_std=0.06,
        ),
        optimizer=OptimizerConfig(
            learning_rate=2e-3, warmup_steps=1000, b2=0.98, weight_decay=0.01
        ),
        evaluation=EvaluationConfig(every=500, patience=10),
        checkpoint=CheckpointConfig(every=500),
        # 4,096 source tokens a step, and as many of targets
        steps=5000,
        batch_size=32,
        log_every=50,
    )
