"""Config files of earlier versions."""

import itertools
import json

import pytest

from jaxlm.config import (
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    TransformerConfig,
    files,
    llama_style,
    t5_style,
)
from jaxlm.config.upgrade import upgrade_model

# as `files.to_dict` wrote them in version 1: these fields, and those that have not changed
OLD = {
    DecoderConfig: dict(
        norm_bias=True,
        attention_bias=True,
        attention_out_bias=True,
        mlp_bias=True,
        embedding_norm=False,
        qk_norm=False,
        final_norm=True,
        gated_mlp=False,
        activation="gelu_tanh",
    )
}
OLD[EncoderConfig] = OLD[DecoderConfig] | dict(
    embedding_norm=True, final_norm=False, activation="gelu"
)
OLD[EncoderDecoderConfig] = OLD[DecoderConfig] | dict(final_norm=False, activation="relu")
BIASES = dict(norm_bias="norm", attention_bias="qkv", attention_out_bias="attn_out", mlp_bias="mlp")
EXTRA_NORMS = dict(embedding_norm="embedding", qk_norm="qk", final_norm="final")


def upgraded(kind: type[TransformerConfig], **old):
    value = json.loads(json.dumps({"class": kind.__name__, **old}))
    before = json.dumps(value)
    new = upgrade_model(value)
    assert json.dumps(value) == before
    return files.from_dict(kind, new)


@pytest.mark.parametrize("kind", OLD)
def test_the_old_defaults_are_the_new_ones(kind):
    assert upgraded(kind, **OLD[kind]) == kind()
    # and where a file leaves them out
    assert upgraded(kind) == kind()


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    list(itertools.product(OLD, [*BIASES, *EXTRA_NORMS, "gated_mlp"], [False, True])),
)
@pytest.mark.parametrize("others", ["given", "absent"])
def test_every_boolean_in_both_values(kind, name, value, others):
    old = (OLD[kind] if others == "given" else {}) | {name: value}
    got, default = upgraded(kind, **old), kind()
    assert {x for x in BIASES if BIASES[x] in got.biases} == {
        x for x in BIASES if (value if x == name else OLD[kind][x])
    }
    assert {x for x in EXTRA_NORMS if EXTRA_NORMS[x] in got.extra_norms} == {
        x for x in EXTRA_NORMS if (value if x == name else OLD[kind][x])
    }
    assert got.is_gated == (name == "gated_mlp" and value)
    assert got.activation_function == default.activation_function


@pytest.mark.parametrize("name", ["first_attn_norm", "parallel_block", "scale_embeddings"])
@pytest.mark.parametrize("value", [False, True])
def test_booleans_that_remain_are_kept(name, value):
    assert getattr(upgraded(DecoderConfig, **OLD[DecoderConfig], **{name: value}), name) is value


@pytest.mark.parametrize(
    ("function", "activation"),
    [("gelu", "geglu"), ("gelu_tanh", "geglu_tanh"), ("relu", "reglu"), ("silu", "swiglu")],
)
def test_a_gate_becomes_part_of_the_activation(function, activation):
    old = OLD[DecoderConfig] | dict(activation=function)
    assert upgraded(DecoderConfig, **old).activation == function
    gated = upgraded(DecoderConfig, **old | dict(gated_mlp=True))
    assert (gated.activation, gated.activation_function) == (activation, function)


def test_a_llama_and_a_t5_of_version_1_equal_those_made_today():
    none = dict.fromkeys(["attention_bias", "attention_out_bias", "mlp_bias"], False)
    llama = dict(norm="rms_norm", positions="rotary", activation="silu", tie_embeddings=False)
    old = OLD[DecoderConfig] | none | llama | dict(gated_mlp=True, dim=64)
    assert upgraded(DecoderConfig, **old) == DecoderConfig(**llama_style(), dim=64)
    t5 = dict(t5_style(), activation="gelu_tanh", gated_mlp=True, final_norm=True)
    del t5["biases"], t5["extra_norms"]
    old = OLD[EncoderDecoderConfig] | none | t5
    assert upgraded(EncoderDecoderConfig, **old) == EncoderDecoderConfig(**t5_style())


def test_wrong_values_are_reported_with_the_field():
    with pytest.raises(ValueError, match=r"model\.mlp_bias: 'yes' is not of type bool"):
        upgrade_model({"class": "DecoderConfig", "mlp_bias": "yes"})
    with pytest.raises(ValueError, match=r"model\.activation: 'tanh' is not one of gelu, "):
        upgrade_model({"class": "DecoderConfig", "gated_mlp": True, "activation": "tanh"})
    # an unknown field is left for the reader to report
    with pytest.raises(ValueError, match="no such field"):
        upgraded(DecoderConfig, gated_mlps=True)
