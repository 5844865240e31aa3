"""Maps of config fields: strict when reading, exact in both directions."""

import dataclasses
import json
import warnings

import golden
import pytest

from jaxlm.config import DecoderConfig, EncoderDecoderConfig
from jaxlm.config.model import TransformerConfig
from jaxlm.hf import export, families, fields
from jaxlm.hf.families import FAMILIES
from jaxlm.hf.fields import agrees, choice, field, fixed, nullable, unused, written
from jaxlm.hf.settings import Settings

SIZES = {"vocab_size": "vocab_size", "d": "dim", "layers": "num_layers", "heads": "num_heads"}
VALUES = {"vocab_size": 40, "d": 16, "layers": 2, "heads": 4}


def read(extra, values=(), **style):
    """A DecoderConfig by a map of four sizes and some more fields."""
    settings = Settings(VALUES | dict(values), "config.json")
    return fields.read(SIZES | extra, settings, DecoderConfig, style)


@pytest.mark.parametrize(
    ("extra", "values", "message"),
    [
        ({"d": "dim"}, {"d": None}, "d is missing"),
        ({}, {"d": True}, "d=True is not an integer"),
        ({"eps": ("norm_eps", 1e-5)}, {"eps": "1e-5"}, "eps='1e-5' is not a number"),
        ({"tie": ("tie_embeddings", True)}, {"tie": 1}, "tie=1 is not true or false"),
        ({"a": fixed("x", "y")}, {"a": "z"}, "a='z' is not supported, only 'x' or 'y'"),
        ({"a": choice("norm_place", {True: "pre"})}, {"a": False}, "a=False is not supported"),
        ({"n": field("num_kv_heads", 4, least=2)}, {"n": 1}, "n=1 is not supported, only 2 or"),
        ({"d2": agrees("dim")}, {"d2": 8}, "d2=8 is not supported, only the value that d impl"),
        (
            {"a": ("dropout", 0.0), "b": ("dropout", 0.1)},
            {},
            "b=0.1 is not supported, only the value that a implies, 0.0",
        ),
    ],
)
def test_an_unsupported_value_is_rejected_by_name(extra, values, message):
    with pytest.raises(ValueError) as e:  # noqa: PT011
        read(extra, values)
    assert str(e.value).startswith("config.json: ")
    assert message in str(e.value)


def test_defaults_null_and_lists_of_names():
    extra = {
        "window": nullable("window", 8),
        "kv": ("num_kv_heads", lambda ours: ours["num_heads"] // 2),
        "bias": (("biases.qkv", "biases.attn_out"), False),
        "final": ("extra_norms.final", True),
    }
    config = read(extra, biases=("mlp",))
    assert (config.window, config.num_kv_heads, config.biases) == (8, 2, ("mlp",))
    config = read(extra, {"window": None, "kv": None, "bias": True, "final": False})
    assert (config.window, config.num_kv_heads) == (None, 2)
    assert config.biases == ("norm", "qkv", "attn_out", "mlp")
    assert config.extra_norms == ()


def test_what_is_written_and_what_is_not():
    extra = {
        "length": ("max_len", 512),
        "old_length": written("max_len"),
        "a": fixed(1),
        "b": fixed(2, write=True),
        "before": choice("norm_place", {True: "pre", False: "post"}),
        "same": agrees("dim"),
        **unused("c"),
    }
    config = read(extra, {"length": 7, "old_length": 9})
    assert config.max_len == 7
    want = VALUES | {"length": 7, "old_length": 7, "b": 2, "before": True}
    assert fields.write(SIZES | extra, config) == want


@pytest.mark.parametrize("name", golden.FOLDERS)
def test_reading_what_was_written_gives_the_same_config(name):
    settings = json.loads((golden.FOLDERS[name] / "config.json").read_text())
    family = families.of(settings)
    config = family.read(Settings(settings, name))
    again = Settings(family.write(config), name)
    assert export.canonical(family.read(again)) == export.canonical(config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # nothing is written that is not read
        again.finish()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_map_and_its_style_name_fields_of_the_config(name):
    family = FAMILIES[name]
    known = {f.name for f in dataclasses.fields(family.config)}
    assert set(family.style) <= known
    config: TransformerConfig = family.config(**family.style)
    assert set(fields.write(family.fields, config)) >= {"vocab_size"}


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("opt", {"word_embed_proj_dim": 8}, ["word_embed_proj_dim=8", "hidden_size", "16"]),
        ("opt", {"layer_norm_elementwise_affine": False}, ["layer_norm_elementwise_affine"]),
        ("gpt_neo", {"num_layers": 3}, ["attention_types", "num_layers=3"]),
        ("gpt_neo", {"attention_types": [[["far"], 4]]}, ["layer_pattern=('far',)"]),
        ("gemma", {"hidden_activation": "relu"}, ["hidden_activation='relu'"]),
        ("camembert", {"type_vocab_size": 0}, ["type_vocab_size=0", "1 or more"]),
        ("camembert", {"position_embedding_type": "relative_key"}, ["position_embedding_type"]),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, ["scale_attn_by_inverse_layer_idx"]),
        ("phi3", {"rope_scaling": {"type": "linear", "factor": 2}}, ["rope_type='linear'"]),
        ("llama", {"partial_rotary_factor": 0.5}, ["partial_rotary_factor=0.5"]),
        ("smollm3", {"no_rope_layers": [1]}, ["no_rope_layers=[1]", "5 numbers"]),
        (
            "smollm3",
            {"layer_types": ["sliding_attention"] * 5, "sliding_window": None},
            ["sliding_window=None"],
        ),
        ("gptj", {"rotary_dim": 5}, ["rope_fraction", "odd"]),
        ("gptj", {"rotary_dim": 16}, ["rope_fraction=2.0"]),
        ("gptj", {"rotary": False}, ["rotary=False"]),
        ("bart", {"decoder_vocab_size": 8}, ["decoder_vocab_size=8"]),
        ("modernbert", {"classifier_activation": "relu"}, ["classifier_activation='relu'"]),
        ("modernbert", {"embedding_dropout": 0.3}, ["embedding_dropout=0.3", "mlp_dropout"]),
        ("modernbert", {"rope_scaling": {"type": "linear", "factor": 2.0}}, ["rope_scaling"]),
        ("t5", {"feed_forward_proj": "glu-gelu"}, ["feed_forward_proj='glu-gelu'"]),
        ("mixtral", {"router_jitter_noise": 1.5}, ["router_jitter=1.5"]),
        ("qwen2_moe", {"decoder_sparse_step": 0}, ["decoder_sparse_step=0"]),
        (
            "modernbert",
            {"rope_parameters": {"full_attention": None}},
            ["rope_parameters=None", "object"],
        ),
        ("modernbert", {"rope_parameters": {"full_attention": 7}}, ["rope_parameters=7", "object"]),
        ("modernbert", {"rope_parameters": 7}, ["rope_parameters=7", "object"]),
        ("falcon", {"rope_parameters": [7]}, ["rope_parameters=[7]", "object"]),
        ("falcon", {"rope_parameters": {"rope_type": {"a": 1}}}, ["rope_type={'a': 1}", "default"]),
        (
            "modernbert",
            {"rope_parameters": {"full_attention": {"rope_type": [1]}}},
            ["rope_type=[1]"],
        ),
        ("gemma3", {"layer_types": [{}]}, ["layer_types={}", "sliding"]),
        ("qwen2_moe", {"layer_types": 7}, ["layer_types=7", "a list"]),
        ("bart", {"vocab_size": "9" * 5000}, ["vocab_size='999", "9 is not an integer"]),
        ("qwen2_moe", {"decoder_sparse_step": 5}, ["mlp_only_layers", "has none"]),
        ("qwen3_moe", {"mlp_only_layers": [0, "1"]}, ["mlp_only_layers", "a list of layers"]),
        ("qwen3_moe", {"mlp_only_layers": [0, 1]}, ["mlp_only_layers=[0, 1]", "has none"]),
        ("qwen3_moe", {"num_local_experts": 0}, ["num_local_experts=0"]),
        ("gemma2", {"layer_types": ["chunked_attention"] * 2}, ["layer_types", "chunked"]),
    ],
)
def test_a_family_rejects_by_name(name, changes, words):
    settings = json.loads((golden.FOLDERS[name] / "config.json").read_text()) | changes
    with pytest.raises(ValueError) as e:  # noqa: PT011
        FAMILIES[settings["model_type"]].read(Settings(settings, "config.json"))
    assert all(word in str(e.value) for word in words), e.value


def test_gelu_means_the_approximation_in_gemma_alone():
    settings = json.loads((golden.FOLDERS["gemma"] / "config.json").read_text())
    config = FAMILIES["gemma"].read(Settings(settings | {"hidden_act": "gelu"}, "x"))
    assert config.activation == "geglu_tanh"
    config = FAMILIES["llama"].read(Settings(settings | {"hidden_act": "gelu"}, "x"))
    assert config.activation == "geglu"


@pytest.mark.parametrize("kinds", [("global",), ("local", "global"), ("global", "local", "local")])
def test_attention_types_of_gpt_neo_list_every_layer(kinds):
    family = FAMILIES["gpt_neo"]
    config = DecoderConfig(
        **family.style, num_layers=5, window=4, layer_pattern=kinds, vocab_size=8
    )
    theirs = family.write(config)["attention_types"]
    layers = [kind for period, times in theirs for kind in period * times]
    assert layers == [kinds[i % len(kinds)] for i in range(5)]
    again = family.read(Settings(family.write(config), "x"))
    assert export.canonical(again) == export.canonical(config)


def test_derived_sizes_are_written_out():
    config = EncoderDecoderConfig(vocab_size=8, dim=16, num_layers=2, num_heads=4)
    values = fields.explicit(config)
    assert (values["num_decoder_layers"], values["mlp_dim"], values["head_dim"]) == (2, 64, 4)
    assert values["attention_scale"] == 0.5
