"""Every objective and family in private training: clipped gradients are those of single texts, one by one."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm.config import (
    DataConfig,
    EncoderDecoderConfig,
    PrivacyConfig,
    TokenizerConfig,
    files,
)
from jaxlm.data import sources, tokenizer
from jaxlm.data.bad_rows import RowCounts
from jaxlm.data.corpora import Corpora
from jaxlm.data.units import PoissonBatchAt
from jaxlm.run.prepare import with_vocab
from jaxlm.tasks import task_class
from jaxlm.tasks.task import Context, init_params
from jaxlm.training import curriculum, private_run
from jaxlm.training.privacy import clipped_sum

CONFIGS = sorted((pathlib.Path(__file__).parents[2] / "configs/objectives").glob("*.py"))
TEXTS = [f"ann met bob on day {d}. " * (1 + d % 4) for d in range(30)]
PRIVATE = PrivacyConfig(epsilon=8.0, delta=1e-3, rows_per_unit=2)
# a row is of another text in every epoch, drawn by its denoiser
REFUSED = {"ul2"}


@functools.cache
def tok():
    return tokenizer.train(TEXTS, TokenizerConfig(kind="bpe", vocab_size=80))


def built(config, **model):
    """Task and units of an objective with a tiny model of its kind."""
    sizes = dict(dim=16, num_layers=2, num_heads=2, max_len=64, dropout=0.0, attention_dropout=0.0)
    if isinstance(config.model, EncoderDecoderConfig):
        sizes["num_decoder_layers"] = 1
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, **sizes, **model),
        data=DataConfig(seq_len=24, validation_fraction=0.0),
        privacy=PRIVATE,
        accumulate=1,
        batch_size=4,
    )
    kind = task_class(config.task)
    own = tok().with_tokens(kind.added_tokens(config))
    config = dataclasses.replace(config, model=with_vocab(config.model, own))
    text = sources.Documents(TEXTS, [""] * len(TEXTS), RowCounts())
    plan = curriculum.build(config, kind, own, Corpora(text, None))
    return plan.task, private_run.units_of(config, plan.task, plan.train[0], text)


def check(task, units, one_by_one=False):
    """The clipped sum of a batch of private training, against a loop over its texts without `vmap`."""
    assert len(units) == len(TEXTS)
    assert units.most == 2
    batch = PoissonBatchAt(units, 0.15, 8, 4, 3)(0)
    assert 3 <= batch["valid"].sum() < 8
    params = jax.tree.map(lambda x: x + 0.02, init_params(task, jax.random.key(0)))
    reference = task.reference(params)

    def loss(params, rows, key):
        context = Context(jax.random.key(5), jnp.int32(0), reference)
        found = task.loss(params, rows, context)
        return found.total / jnp.maximum(found.weight, 1e-6), {"loss": found.total}

    options = dict(clip=0.5, microbatch=4, one_by_one=one_by_one)
    total, _ = jax.jit(lambda b: clipped_sum(loss, params, b, jax.random.key(0), **options))(batch)
    gradient = jax.jit(jax.grad(loss, has_aux=True))
    expected = jax.tree.map(jnp.zeros_like, params)
    for i in np.flatnonzero(batch["valid"]):
        rows = {k: v[i] for k, v in batch.items() if k not in ("valid", "exists")}
        each, _ = gradient(params, {**rows, "valid": batch["exists"][i]}, None)
        factor = min(1.0, 0.5 / float(optax.tree.norm(each)))
        expected = jax.tree.map(lambda t, g, f=factor: t + f * g, expected, each)
    for a, b in zip(jax.tree.leaves(total), jax.tree.leaves(expected)):
        np.testing.assert_allclose(a, b, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_objective(path):
    config = files.load_python(path)
    if path.stem in REFUSED:
        with pytest.raises(ValueError, match="makes rows of several texts"):
            built(config)
        return
    check(*built(config))


def test_rows_with_a_sentence_of_another_text_are_refused():
    config = files.load_python(next(p for p in CONFIGS if p.stem == "sentence_pair"))
    task = dataclasses.replace(config.task, kind="next")
    with pytest.raises(ValueError, match="makes rows of several texts"):
        built(dataclasses.replace(config, task=task))


@pytest.mark.slow
def test_experts():
    config = files.load_python(next(p for p in CONFIGS if p.stem == "causal_lm"))
    check(*built(config, num_experts=4), one_by_one=True)
