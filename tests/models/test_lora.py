"""Adapters on every kind of model: they add nothing at first, and what they add is that of the merged matrices."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from styles import ENCODER_DECODERS, F32, STYLES, filled, language_model

from jaxlm import params as table
from jaxlm import sharding
from jaxlm.config import EncoderDecoderConfig, LoraConfig
from jaxlm.models import heads, lora

ALL = STYLES | ENCODER_DECODERS
NAMES = ("gpt2", "llama", "gemma", "bert", "modernbert", "electra", "transformer", "t5")
MODELS = {name: language_model(ALL[name]) for name in NAMES}
MODELS["experts"] = language_model(dataclasses.replace(STYLES["llama"], num_experts=4))
MODELS["classifier"] = heads.Classifier(STYLES["gpt2"], 3, "last", compute=F32)


def params_of(model):
    """Random parameters."""
    return filled(jax.eval_shape(lambda: heads.init_params(model, jax.random.key(0))))


def config_of(model, rank=3, **changes):
    """Adapters of all matrices and of the tables of tokens."""
    params = jax.eval_shape(lambda: heads.init_params(model, jax.random.key(0)))
    tables = [p for p in lora.flat(params) if p.rsplit("/", 1)[-1] in ("embedding", "unembedding")]
    return LoraConfig(rank=rank, targets=("all-linear", *tables), **changes)


@functools.cache
def outputs(name):
    """Parameters with trained adapters and with fresh ones, and the function from parameters to outputs."""
    model = MODELS[name]
    base = params_of(model)
    fresh = lora.add(base, jax.random.key(1), config_of(model))
    noise = lambda path, x: x + 0.05 * jax.random.normal(jax.random.key(len(str(path))), x.shape)
    trained = jax.tree.map_with_path(
        lambda path, x: noise(path, x) if path[-1].key.endswith(("_lora_a", "_lora_b")) else x,
        fresh,
    )
    tokens = jax.random.randint(jax.random.key(2), (2, 9), 0, 40)
    inputs = {"segment_ids": jnp.ones_like(tokens)}
    if isinstance(model.config, EncoderDecoderConfig):
        inputs["decoder_tokens"] = tokens[:, ::-1]
    run = jax.jit(lambda p: model.apply({"params": p}, tokens, **inputs))
    return base, fresh, trained, run


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_fresh_adapters_add_nothing_bit_for_bit(name):
    base, fresh, _, run = outputs(name)
    np.testing.assert_array_equal(run(fresh), run(base))
    assert jax.tree.all(jax.tree.map(lambda x, y: (x == y).all(), lora.without(fresh), base))
    assert jax.tree.structure(lora.merge(fresh)) == jax.tree.structure(base)


@pytest.mark.parametrize("name", MODELS)
def test_the_merged_matrices_give_the_outputs_of_the_adapters(name):
    base, _, trained, run = outputs(name)
    merged = run(lora.merge(trained))
    np.testing.assert_allclose(run(trained), merged, rtol=1e-4, atol=1e-5)
    assert np.abs(run(base) - merged).max() > 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_every_adapter_has_dims_on_the_mesh(name):
    _, fresh, *_ = outputs(name)
    for path, x in jax.tree.leaves_with_path(fresh):
        dims = table.param_dims(path, x.ndim)
        assert all(dim in sharding.RULES for dim in dims)
        assert table.ADAPTER not in path[-1].key or table.matrix_dims(path, x.ndim) is None
    everything = {p.rsplit("/", 1)[-1] for p in lora.flat(fresh) if table.ADAPTER in p}
    assert {"query_lora_a", "out_lora_b", "value_lora_scale"} <= everything


def test_a_merged_matrix_is_that_of_the_formula():
    model = MODELS["llama"]
    base = params_of(model)
    for config, scale in (
        (LoraConfig(rank=4, alpha=6, targets=("query", "out")), 1.5),
        (LoraConfig(rank=4, alpha=6, targets=("query", "out"), rslora=True), 3.0),
        (LoraConfig(rank=4, targets=("query", "out")), 2.0),
    ):
        params = lora.add(base, jax.random.key(1), config)
        attn = params["backbone"]["stack"]["blocks"]["attn"]
        for matrix, letters in (("query", "LDR,LRNH->LDNH"), ("out", "LNHR,LRD->LNHD")):
            attn[f"{matrix}_lora_b"] = jnp.ones_like(attn[f"{matrix}_lora_b"])
            added = np.einsum(letters, attn[f"{matrix}_lora_a"], attn[f"{matrix}_lora_b"])
            merged = lora.merge(params)["backbone"]["stack"]["blocks"]["attn"][matrix]
            np.testing.assert_allclose(merged, attn[matrix] + scale * added, rtol=1e-5, atol=1e-6)


def test_a_matrix_has_the_same_adapter_whatever_others_there_are():
    base = params_of(MODELS["gpt2"])
    make = lambda *names: lora.add(base, jax.random.key(1), LoraConfig(rank=2, targets=names))
    one, all_ = (make(*x)["backbone"]["stack"]["blocks"]["attn"] for x in (["key"], ["all-linear"]))
    np.testing.assert_array_equal(one["key_lora_a"], all_["key_lora_a"])
    assert not np.array_equal(all_["key_lora_a"], all_["query_lora_a"])
    assert not np.array_equal(one["key_lora_a"][0], one["key_lora_a"][1])


def test_targets_are_names_patterns_of_paths_or_all_matrices():
    params = params_of(MODELS["transformer"])
    names = lambda *x: lora.targets(params, x)
    assert names("query") == [p for p in lora.flat(params) if p.endswith("/query")]
    assert all("decoder" in p for p in names("*/decoder/*/query"))
    assert {p.rsplit("/", 1)[-1] for p in names("all-linear")} == {
        *("query", "key", "value", "out", "up", "down")
    }
    with pytest.raises(
        ValueError, match="'querry' names no matrix of the model; did you mean 'que"
    ):
        names("querry")
    with pytest.raises(ValueError, match="'q_proj' names no matrix of the model; there are down"):
        names("q_proj")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(rank=-1), "lora.rank=-1 must not be negative"),
        (dict(alpha=3.0), "lora.alpha=3.0 has no effect without adapters: set lora.rank"),
        (dict(targets=("query",)), "lora.targets=.* has no effect without adapters"),
        (dict(rank=2, alpha=0.0), "lora.alpha=0.0 must be positive"),
        (dict(rank=2, targets="query"), r"lora.targets is the text 'query', not a tuple"),
        (dict(rank=2, targets=()), "lora.targets names no matrix"),
        (dict(rank=2, train=("*blocks[-1:]*",)), "names single blocks; blocks have adapters"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        LoraConfig(**changes)


def test_a_head_is_trained_unless_it_predicts_tokens():
    whole = lambda model, *patterns: lora.trained_whole(params_of(model), patterns or None)
    assert all(p.startswith("head/") for p in whole(MODELS["classifier"]))
    assert whole(MODELS["classifier"])
    assert whole(MODELS["llama"]) == []
    assert whole(MODELS["llama"], "head/*") == ["head/unembedding"]
    with pytest.raises(ValueError, match=r"lora.train: 'head/x' matches no parameter"):
        whole(MODELS["llama"], "head/x")
