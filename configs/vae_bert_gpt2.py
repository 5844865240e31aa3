"""A text VAE from a pretrained encoder and a pretrained decoder, as Optimus from BERT and GPT-2 (2004.04092).

Command:   python train.py configs/vae_bert_gpt2.py --init-encoder bert-base-cased --init-decoder gpt2 \\
               --data.train TRAIN.txt --data.validation VALID.txt
           (folders in the Hugging Face layout or runs; architectures and tokenizers are theirs)
Hardware:  an accelerator, for models of that size
Result:    not measured: only models of tests were trained so far
"""

from jaxlm import (
    DataConfig,
    EvaluationConfig,
    OptimizerConfig,
    TextVAEConfig,
    TrainConfig,
    VAEConfig,
)


def get_config() -> TrainConfig:
    """The posterior is read from [CLS]; the latent is in the memory of every layer and added to the embeddings."""
    return TrainConfig(
        model=VAEConfig(latent_dim=32, inject=("memory", "embedding"), pooling="first"),
        task=TextVAEConfig(kl_schedule="linear", kl_steps=5000, free_bits=0.5),
        init_encoder="bert-base-cased",
        init_decoder="gpt2",
        data=DataConfig(
            train=("data/train.txt",), validation=("data/valid.txt",), text_unit="line", seq_len=128
        ),
        optimizer=OptimizerConfig(learning_rate=5e-5, schedule="linear", warmup_steps=500),
        evaluation=EvaluationConfig(every=1000),
        steps=10_000,
        batch_size=32,
        log_every=50,
    )
