"""A VAE of images, 784-400-20-400-784: scikit-learn's digits, enlarged to 28 x 28; 0.7M parameters.

Data:      python benchmarks/vae_arrays.py --out runs/vae_arrays   (writes the files, and runs this config too)
Command:   python train.py configs/vae_digits.py --data.train runs/vae_arrays/data/digits.npz
Hardware:  2 CPU cores
Result:    docs/case_study_vae.md

Any .npy or .npz of rows of numbers in [0, 1] takes the same command, with --model.inputs and --data.seq-len for their
length and --task.column for the name of the array.
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
    """20 latents, Bernoulli likelihood, weight 1 of the divergence from the start."""
    return TrainConfig(
        model=DenseVAEConfig(inputs=784, hidden=(400,), latent_dim=20, likelihood="bernoulli"),
        task=ArrayVAEConfig(kl_schedule="constant"),
        data=DataConfig(
            train=("runs/vae_arrays/data/digits.npz",), seq_len=784, validation_fraction=0.1
        ),
        optimizer=OptimizerConfig(
            learning_rate=1e-3, warmup_steps=50, b2=0.999, weight_decay=0.0, clip_norm=0.0
        ),
        evaluation=EvaluationConfig(every=500),
        checkpoint=CheckpointConfig(every=1000),
        steps=3000,
        batch_size=64,
        log_every=100,
    )
