"""A VAE of a table with 30 standardised columns: scikit-learn's breast-cancer data, without its labels.

Data:      python benchmarks/vae_arrays.py --out runs/vae_arrays   (writes the files, and runs this config too)
Command:   python train.py configs/vae_tabular.py --data.train runs/vae_arrays/data/breast_cancer.npz
Hardware:  2 CPU cores
Result:    docs/case_study_vae.md

`jaxlm predict RUN --data FILE.npz` writes the means of the latents of the rows of a file.
"""

from jaxlm import (
    ArrayVAEConfig,
    CheckpointConfig,
    DataConfig,
    DenseVAEConfig,
    EvaluationConfig,
    OptimizerConfig,
    TrainConfig,
)


def get_config() -> TrainConfig:
    """30-64-8-64-30, Gaussian likelihood with a learned variance for each column; more steps overfit the 407 rows."""
    return TrainConfig(
        model=DenseVAEConfig(inputs=30, hidden=(64,), latent_dim=8, likelihood="gaussian"),
        task=ArrayVAEConfig(kl_schedule="linear", kl_steps=100),
        data=DataConfig(
            train=("runs/vae_arrays/data/breast_cancer.npz",), seq_len=30, validation_fraction=0.1
        ),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=50, b2=0.999, weight_decay=0.0),
        evaluation=EvaluationConfig(every=100),
        checkpoint=CheckpointConfig(every=200),
        steps=600,
        batch_size=64,
        log_every=50,
    )
