"""The trained systems of few_labels.py: their configs and runs, and what is read off them."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from few_labels_data import Data, Labelled

from jaxlm import (
    CheckpointConfig,
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    EvaluationConfig,
    GroupConfig,
    LabelledVAEConfig,
    MaskedLMConfig,
    OptimizerConfig,
    TextVAEConfig,
    TokenizerConfig,
    TrainConfig,
    VAEConfig,
    pretrain,
)
from jaxlm.models.encoder import Encoder
from jaxlm.run import latents, restore
from jaxlm.tasks.downstream.texts import text_arrays

SEQ_LEN = 128
SIZES = dict(
    dim=128,
    num_layers=2,
    num_heads=4,
    max_len=SEQ_LEN,
    norm="rms_norm",
    norm_place="pre",
    extra_norms=("final", "qk"),
    positions="rotary",
    biases=(),
    dropout=0.1,
    attention_dropout=0.0,
)
# the objectives of the text VAEs; the weight of the divergence is constant and 1 where nothing is said
OBJECTIVES = {
    "autoencoder": TextVAEConfig(kl_weight=0.0, kl_schedule="constant", long_texts="cut"),
    "collapsed": TextVAEConfig(kl_schedule="constant", long_texts="cut"),
    "free_bits": TextVAEConfig(kl_steps=200, free_bits=0.2, long_texts="cut"),
    "fresh_decoder": TextVAEConfig(kl_steps=200, free_bits=0.2, long_texts="cut"),
}
# starts from the encoder of this run, with a new decoder (Li et al. 2019, 1909.00868)
INIT_ENCODER = {"fresh_decoder": "autoencoder"}
# steps of each run that sees the labels; they start from this system
LABELLED_STEPS, CLASS_STEPS = 150, 30
START = "fresh_decoder"
# a new classifier learns faster than the VAE that it is put on
NEW_CLASSIFIER = GroupConfig(
    name="classes",
    params=("head/classes/*",),
    optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=5, weight_decay=0.0),
)
# the bounds of two VAEs are compared on this many test texts, with this many samples for each
BOUND_TEXTS, BOUND_SAMPLES = 2000, 10
Features = Callable[[list[str]], np.ndarray]


def config_of(
    system: str, data: Data, tokenizer: TokenizerConfig, steps: int, seed: int
) -> TrainConfig:
    """The run of a system on the unlabelled texts."""
    encoder = EncoderConfig(**SIZES, num_token_types=0)
    model: Any = encoder
    task: Any = MaskedLMConfig()
    if system in OBJECTIVES:
        model = VAEConfig(encoder=encoder, decoder=DecoderConfig(**SIZES), latent_dim=32)
        task = OBJECTIVES[system]
    init = None
    if system in INIT_ENCODER:
        init = str(data.unlabelled.parent / run_name(INIT_ENCODER[system], seed))
        # that of the run
        tokenizer = TokenizerConfig()
    return TrainConfig(
        model=model,
        task=task,
        init_encoder=init,
        data=DataConfig(
            train=(str(data.unlabelled),),
            validation=(str(data.held_out),),
            text_unit="line",
            seq_len=SEQ_LEN,
            tokenizer=tokenizer,
        ),
        optimizer=OptimizerConfig(
            name="muon",
            learning_rate=2e-3,
            schedule="linear",
            warmup_steps=40,
            final_fraction=0.0,
            weight_decay=0.0,
        ),
        evaluation=EvaluationConfig(every=500),
        checkpoint=CheckpointConfig(every=500),
        steps=steps,
        batch_size=16,
        log_every=50,
        name=system,
        seed=seed,
        run_dir=str(data.unlabelled.parent / run_name(system, seed)),
    )


def run_name(system: str, seed: int) -> str:
    """The folder of a system's training with a seed."""
    return f"{system}_{seed}" if seed else system


def train(config: TrainConfig) -> dict[str, float]:
    """Trains the run unless it is complete; returns its last evaluation."""
    folder = pathlib.Path(config.run_dir or "")
    if not (folder / "summary.json").is_file():
        pretrain(config)
    return json.loads((folder / "summary.json").read_text())["evaluation"]


# ---- features


def features_of(system: str, folder: pathlib.Path) -> Features:
    """What a classifier reads of a system: means of the latent, or averages of the last hidden states."""
    return latent_means(folder) if system in OBJECTIVES else mean_hidden(folder)


def latent_means(folder: pathlib.Path) -> Features:
    """Posterior means of a text VAE."""
    model = latents.load(folder)
    return lambda texts: model.encode(texts).means


def mean_hidden(folder: pathlib.Path) -> Features:
    """Last hidden states of an encoder, averaged over the tokens of a text."""
    run = restore.restore_model(folder)
    encoder = Encoder(run.config.model, run.config.compute)

    @jax.jit
    def encode(params, tokens, segment_ids):
        x = encoder.apply({"params": params}, tokens, segment_ids=segment_ids)
        weights = segment_ids / segment_ids.sum(1, keepdims=True)
        return jax.numpy.einsum("BTD,BT->BD", x, weights)

    def features(texts: list[str], size: int = 64) -> np.ndarray:
        ids = run.task.tokenizer.encode_batch(texts)
        arrays = text_arrays(ids, None, run.task.tokenizer, SEQ_LEN)
        out = []
        for first in range(0, len(texts), size):
            rows = np.minimum(np.arange(first, first + size), len(texts) - 1)
            batch = arrays["tokens"][rows], arrays["segment_ids"][rows]
            out.append(np.asarray(encode(run.params["backbone"], *batch)))
        return np.concatenate(out)[: len(texts)]

    return features


# ---- training with labels


def semi_supervised(
    base: TrainConfig,
    data: Data,
    chosen: Labelled,
    folder: pathlib.Path,
    labelled_fraction: float,
) -> Any:
    """True and predicted classes of the test texts, from a VAE with a classifier that is trained with the labels."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "texts.jsonl"
    with source.open("w", encoding="utf-8") as f:
        for text, label in zip(chosen.texts, chosen.labels):
            f.write(json.dumps({"text": text, "label": str(label)}) + "\n")
        for text in data.unlabelled.read_text(encoding="utf-8").splitlines():
            f.write(json.dumps({"text": text}) + "\n")
    task = LabelledVAEConfig(
        labels=("0", "1"),
        kl_schedule="constant",
        free_bits=0.2,
        labelled_fraction=labelled_fraction,
    )
    run = _continue(base, task, source, folder / "run", LABELLED_STEPS, groups=(NEW_CLASSIFIER,))
    model = latents.load(run)
    head = model.run.params["head"]["classes"]
    means = model.encode(data.test.texts).means
    logits = means @ np.asarray(head["kernel"]) + np.asarray(head["bias"])
    shutil.rmtree(folder)
    return data.test.labels, logits.argmax(1)


def class_vaes(base: TrainConfig, data: Data, chosen: Labelled, folder: pathlib.Path) -> Any:
    """True and predicted classes of some test texts: that whose VAE, trained on its texts, has the larger bound."""
    test = data.test.take(np.linspace(0, len(data.test) - 1, BOUND_TEXTS).astype(int))
    folder.mkdir(parents=True, exist_ok=True)
    options: Any = dict(kl_schedule="constant", free_bits=0.2, long_texts="cut")
    task = TextVAEConfig(**options, importance_samples=BOUND_SAMPLES)
    bounds = []
    for label in (0, 1):
        source = folder / f"{label}.txt"
        own = chosen.take(np.flatnonzero(chosen.labels == label))
        source.write_text("".join(f"{text}\n" for text in own.texts), encoding="utf-8")
        run = _continue(base, task, source, folder / f"run{label}", CLASS_STEPS, batch_size=4)
        bounds.append(latents.load(run).log_likelihoods(test.texts))
    shutil.rmtree(folder)
    return test.labels, np.argmax(bounds, axis=0)


def _continue(
    base: TrainConfig,
    task: Any,
    source: pathlib.Path,
    run: pathlib.Path,
    steps: int,
    **changes: Any,
) -> pathlib.Path:
    """Continues a VAE on other texts, at a tenth of its learning rate; returns the folder of the run."""
    rate = base.optimizer.learning_rate / 10
    data = dataclasses.replace(
        base.data,
        train=(str(source),),
        validation=(),
        validation_fraction=0.0,
        tokenizer=TokenizerConfig(),
        # a title of TNEWS is longer than a row
        on_bad_row="skip",
    )
    config = dataclasses.replace(
        base,
        init_encoder=base.run_dir,
        init_decoder=base.run_dir,
        task=task,
        data=data,
        optimizer=dataclasses.replace(base.optimizer, learning_rate=rate, warmup_steps=5),
        evaluation=EvaluationConfig(),
        steps=steps,
        run_dir=str(run),
        **changes,
    )
    pretrain(config)
    return run
