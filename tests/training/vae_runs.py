"""A tiny run of a text VAE, for the tests of what is done with one."""

from __future__ import annotations

import pathlib

import numpy as np
import runs

from jaxlm.config import DataConfig, DecoderConfig, EncoderConfig, TokenizerConfig, VAEConfig
from jaxlm.run.pretrain import pretrain
from jaxlm.tasks import TextVAEConfig
from jaxlm.tasks.vae import TextVAE

WORDS = ["ann", "bob", "cat", "dan", "eve", "met", "saw", "left", "the", "house", "today", "<b>"]


def write_sentences(folder: pathlib.Path) -> list[str]:
    """Sixty sentences of three to six words, none twice; also in the file sentences.txt."""
    rng = np.random.default_rng(0)
    sentences = list(
        dict.fromkeys(" ".join(rng.choice(WORDS, rng.integers(3, 7))) for _ in range(70))
    )
    sentences = sentences[:60]
    (folder / "sentences.txt").write_text("\n".join(sentences) + "\n")
    return sentences


def train_vae(folder: pathlib.Path) -> pathlib.Path:
    """The folder of a run of six steps with `mean_scale`, so that posteriors need the task state."""
    write_sentences(folder)
    # with large initial weights, what is written depends on the latent without much training
    sizes = dict(dim=16, num_layers=1, num_heads=2, max_len=16, dropout=0.0, init_std=0.5)
    config = runs.tiny(
        folder,
        "tiny_vae",
        model=VAEConfig(
            encoder=EncoderConfig(**sizes),
            decoder=DecoderConfig(**sizes),
            latent_dim=4,
            mean_scale=0.7,
        ),
        task=TextVAEConfig(kl_steps=4, importance_samples=2, importance_texts=4),
        data=DataConfig(
            train=(str(folder / "sentences.txt"),),
            text_unit="line",
            validation_fraction=0.3,
            seq_len=16,
            tokenizer=TokenizerConfig(kind="word", vocab_size=32),
        ),
        steps=6,
        batch_size=4,
    )
    with runs.small_runs() as patch:
        patch.setattr(TextVAE, "sample", lambda *_: None)
        pretrain(config)
    return folder / "tiny_vae"
