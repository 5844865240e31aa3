"""The loss and its gradient on 1, 2, 4 and 8 devices, for all axes of the mesh, families and objectives."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from styles import ENCODER_DECODERS, F32, STYLES, filled

from jaxlm import sharding
from jaxlm.config import (
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    MeshConfig,
    OptimizerConfig,
    TokenizerConfig,
    TrainConfig,
    VAEConfig,
)
from jaxlm.data import sources, tokenizer
from jaxlm.data.bad_rows import RowCounts
from jaxlm.data.corpora import Corpora
from jaxlm.data.loader import BatchAt
from jaxlm.run.prepare import with_vocab
from jaxlm.tasks import (
    CausalLMConfig,
    DenoisingConfig,
    FillInMiddleConfig,
    HybridLMConfig,
    MaskedLMConfig,
    PrefixLMConfig,
    ReplacedTokenConfig,
    SentencePairConfig,
    SpanCorruptionConfig,
    TextVAEConfig,
    UL2Config,
    task_class,
)
from jaxlm.tasks.task import Context
from jaxlm.training import batches, curriculum

ROWS, LENGTH = 8, 32
SMALL = dict(dim=16, num_layers=1, num_heads=2, max_len=64)
EXPERTS = dict(num_experts=4, experts_per_token=2, router_balance=0.1)
VAE = VAEConfig(
    encoder=EncoderConfig(**SMALL, num_token_types=0, attention_dropout=0.0),
    decoder=DecoderConfig(**SMALL),
    latent_dim=4,
    inject=("memory", "embedding"),
)

# what has axes of its own, and what runs in every pull request; the others are slow
CASES = {
    # dense decoders: packed texts, rotary and learned positions
    "llama": (STYLES["llama"], CausalLMConfig()),
    "gpt2, shuffled middle": (STYLES["gpt2"], FillInMiddleConfig()),
    # local and global layers, soft caps, sinks
    "alternating": (STYLES["alternating"], CausalLMConfig(z_loss=1e-3)),
    "gemma": (STYLES["gemma"], CausalLMConfig()),
    "olmo": (STYLES["olmo"], CausalLMConfig()),
    "alibi": (STYLES["bloom"], CausalLMConfig()),
    "prefix": (STYLES["neox"], PrefixLMConfig()),
    "sequence parallel": (STYLES["llama"], CausalLMConfig()),
    # encoders
    "bert": (STYLES["bert"], MaskedLMConfig()),
    "modernbert": (STYLES["modernbert"], MaskedLMConfig()),
    "mpnet": (STYLES["mpnet"], MaskedLMConfig()),
    "electra": (STYLES["electra"], ReplacedTokenConfig()),
    "pairs": (STYLES["bert"], SentencePairConfig()),
    "hybrid": (STYLES["gpt2"], HybridLMConfig()),
    # encoder-decoders: a bias by distance, shared or of each layer
    "t5": (ENCODER_DECODERS["t5"], SpanCorruptionConfig()),
    "umt5": (ENCODER_DECODERS["umt5"], UL2Config()),
    "bart": (ENCODER_DECODERS["bart"], DenoisingConfig()),
    "vae": (VAE, TextVAEConfig(long_texts="cut")),
    # experts
    "mixture": (dataclasses.replace(STYLES["llama"], **EXPERTS), CausalLMConfig()),
    "encoder mixture": (
        dataclasses.replace(STYLES["bert"], **EXPERTS, shared_expert_dim=16),
        MaskedLMConfig(),
    ),
}
DENSE = [
    dict(context=2),
    dict(fsdp=2, context=2),
    dict(data=2, context=2, tensor=2),
]
MIXTURE = [
    dict(expert=2),
    dict(expert=2, tensor=2),
    dict(fsdp=2, expert=4),
    dict(data=2, expert=2, context=2),
]
MESHES = {
    "mixture": MIXTURE,
    "parallel": [dict(context=2, tensor=2), dict(fsdp=2, context=2, tensor=2)],
}
QUICK = {
    ("alternating", "data2 context2 tensor2"),
    ("t5", "fsdp2 context2"),
    ("mixture", "data2 expert2 context2"),
}


def label(mesh):
    return " ".join(f"{axis}{size}" for axis, size in mesh.items())


def rows():
    for name in CASES:
        for mesh in MESHES.get(name.split()[-1], DENSE):
            marks = [] if (name, label(mesh)) in QUICK else [pytest.mark.slow]
            yield pytest.param(name, mesh, marks=marks, id=f"{name}, {label(mesh)}")


@functools.cache
def corpus():
    rng, names = np.random.default_rng(0), ["ann", "bob", "cat", "dan", "eve"]
    texts = []
    for i in range(60):
        a, b = rng.choice(names, 2)
        texts.append(" ".join(f"{a} met {b} on day {d}." for d in rng.integers(0, 30, 1 + i % 5)))
    documents = sources.Documents(texts, [""] * 60, RowCounts())
    return Corpora(documents, documents), tokenizer.train(
        texts, TokenizerConfig(kind="bpe", vocab_size=120)
    )


@functools.cache
def problem(name):
    """The task of a case, its parameters and a batch; some of its rows only fill it up."""
    model, task = CASES[name]
    corpora, own = corpus()
    if not isinstance(model, VAEConfig):
        # the probabilities of attention are dropped by blocks, which depend on the mesh
        model = dataclasses.replace(model, max_len=64, vocab_size=None, attention_dropout=0.0)
    config = TrainConfig(
        model=model,
        task=task,
        compute=dataclasses.replace(F32, sequence_parallel=name == "sequence parallel"),
        data=DataConfig(seq_len=LENGTH),
        optimizer=OptimizerConfig(warmup_steps=0),
        batch_size=ROWS,
        steps=10,
    )
    kind = task_class(task)
    own = own.with_tokens(kind.added_tokens(config))
    config = dataclasses.replace(config, model=with_vocab(model, own))
    plan = curriculum.build(config, kind, own, corpora)
    batch = BatchAt(plan.train[0], ROWS, 0)(0)
    batch["valid"][-1] = 0
    return plan.task, batch


def run(name, mesh, devices):
    """The mean loss and its gradient on a mesh, and the sharding of the gradient."""
    task, batch = problem(name)

    def loss(params, batch):
        # with dropout
        result = task.loss(params, batch, Context(jax.random.key(1), jnp.int32(5)))
        return result.total / result.weight

    shapes = jax.eval_shape(lambda: task.init(jax.random.key(0)))
    with jax.set_mesh(sharding.make_mesh(MeshConfig(**{"data": 1, **mesh}), devices)) as _:
        mesh = jax.sharding.get_mesh()
        places = sharding.param_shardings(shapes, mesh)
        params = jax.device_put(filled(shapes), places)
        batch = batches.to_devices(batch, mesh, ROWS, np.arange(ROWS))
        gradient = jax.jit(jax.value_and_grad(loss), out_shardings=(None, places))
        # one use: what XLA would gain by optimising costs more
        options = {"xla_backend_optimization_level": "0"}
        compiled = gradient.lower(params, batch).compile(compiler_options=options)
        return jax.device_get(compiled(params, batch))


@functools.cache
def alone(name):
    return run(name, {}, jax.devices()[:1])


@pytest.mark.parametrize(("name", "mesh"), list(rows()))
def test_loss_and_gradient_are_the_same_on_any_mesh(name, mesh):
    devices = jax.devices()[: int(np.prod(list(mesh.values())))]
    loss, gradient = run(name, mesh, devices)
    want_loss, want = alone(name)
    np.testing.assert_allclose(loss, want_loss, rtol=1e-5)
    largest = max(np.abs(x).max() for x in jax.tree.leaves(want))
    assert largest > 1e-2
    for (path, x), y in zip(jax.tree.leaves_with_path(gradient), jax.tree.leaves(want)):
        where = jax.tree_util.keystr(path)
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5 * largest, err_msg=where)
