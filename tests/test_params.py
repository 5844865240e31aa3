"""The table of parameters against the parameters of every kind of model."""

import dataclasses

import jax
import pytest
from styles import ENCODER_DECODERS, F32, STYLES, language_model

from jaxlm import params, sharding
from jaxlm.config import VAEConfig
from jaxlm.hf.table import Layout
from jaxlm.models import heads, pretraining, vae

BERT, GPT2 = STYLES["bert"], STYLES["gpt2"]
MODELS = {
    **{name: language_model(c) for name, c in (STYLES | ENCODER_DECODERS).items()},
    "mixture of experts": language_model(
        dataclasses.replace(
            STYLES["llama"],
            num_experts=4,
            shared_expert_dim=12,
            activation="swiglu_clamped",
            biases=("mlp", "router"),
        )
    ),
    "one layer": language_model(dataclasses.replace(ENCODER_DECODERS["t5"], num_layers=1)),
    "classifier": heads.Classifier(BERT, 3, compute=F32),
    "classifier on a decoder": heads.Classifier(GPT2, 3, "last", compute=F32),
    "classifier on an encoder-decoder": heads.Classifier(ENCODER_DECODERS["t5"], 3, compute=F32),
    "token classifier": heads.TokenClassifier(STYLES["modernbert"], 3, compute=F32),
    "span classifier": heads.SpanQA(BERT, compute=F32),
    "detector": heads.Detector(STYLES["electra"], compute=F32),
    "without a head": heads.Headless(STYLES["llama"], compute=F32),
    "convolution": heads.Headless(dataclasses.replace(BERT, convolution=3), compute=F32),
    "replaced tokens": pretraining.ReplacedToken(BERT, 1, compute=F32),
    "sentence pairs": pretraining.SentencePairLM(BERT, compute=F32),
    "text VAE": vae.TextVAE(
        VAEConfig(
            encoder=BERT,
            decoder=dataclasses.replace(GPT2, tie_embeddings=False),
            inject=("memory", "embedding", "prefix"),
            prior="vamp",
        ),
        F32,
    ),
}


def leaves(model):
    init = vae.init_params if isinstance(model, vae.TextVAE) else heads.init_params
    tree = jax.eval_shape(lambda: init(model, jax.random.key(0)))
    return jax.tree_util.tree_leaves_with_path(tree)


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_of_every_model_has_an_entry(name):
    for path, x in leaves(MODELS[name]):
        dims = params.param_dims(path, x.ndim)
        assert len(dims) == x.ndim
        assert (dims[0] == "layers") == ("blocks" in params.path_name(path))
        assert all(dim in sharding.RULES for dim in dims)
        matrix = params.matrix_dims(path, x.ndim)
        if matrix is not None:
            # the rest are dims of a stack: layers and experts
            assert sorted(sum(matrix, ())) == list(range(x.ndim))[-len(sum(matrix, ())) :]
            assert {dims[i] for i in range(x.ndim) if i not in sum(matrix, ())} <= {
                "layers",
                "experts",
            }
            assert params.entry(path).decay


def test_every_entry_is_used_by_a_model():
    every = [leaf for model in MODELS.values() for leaf in leaves(model)]
    assert {path[-1].key for path, _ in every} == set(params.PARAMS)
    used = {dim for path, x in every for dim in params.param_dims(path, x.ndim)}
    assert used | {"batch", "seq", "residual_seq"} == set(sharding.RULES)


@pytest.mark.parametrize("name", params.PARAMS)
def test_the_layout_has_the_rank_of_the_dims(name):
    entry = params.PARAMS[name]
    dims = [dim for dim in entry.dims if dim != "experts"]
    # experts, and the heads of this norm, are tensors of their own in a file
    assert len(Layout.parse(entry.layout).ours) == len(dims) - (name == "head_scale")


def path_of(tree):
    return jax.tree_util.tree_leaves_with_path(tree)[0][0]


def test_input_and_output_dims_by_hand():
    query, out = (path_of({"blocks": {"attn": {name: 0}}}) for name in ("query", "out"))
    assert params.matrix_dims(query, 3) == ((0,), (1, 2))
    assert params.matrix_dims(query, 4) == ((1,), (2, 3))
    assert params.matrix_dims(out, 4) == ((1, 2), (3,))
    assert params.matrix_dims(path_of({"expert_up": 0}), 4) == ((2,), (3,))
    assert params.matrix_dims(path_of({"token": {"embedding": 0}}), 2) is None


def test_an_unknown_name_and_a_wrong_rank_are_named():
    with pytest.raises(ValueError, match=r"head/zzz: no entry for 'zzz' in jaxlm/params\.py"):
        params.entry("head/zzz")
    with pytest.raises(ValueError, match=r"head/zzz: no entry for 'zzz'"):
        params.param_dims(path_of({"head": {"zzz": 0}}), 1)
    with pytest.raises(ValueError, match="mlp/up: has 4 dims"):
        params.param_dims(path_of({"mlp": {"up": 0}}), 4)
