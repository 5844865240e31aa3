"""Llama (Touvron et al. 2023, 2302.13971) and those that share its layout: Mistral, Qwen 2 and 3, Gemma 2 and 3."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxlm.config import DecoderConfig, llama_style
from jaxlm.hf import fields
from jaxlm.hf.family import Family, Head
from jaxlm.hf.fields import Fields
from jaxlm.hf.table import Table, linear, norm, within

LAYER = {
    **norm("input_layernorm", "attn_norm"),
    **linear("self_attn.q_proj", "attn/query"),
    **linear("self_attn.k_proj", "attn/key"),
    **linear("self_attn.v_proj", "attn/value"),
    **linear("self_attn.o_proj", "attn/out"),
    "self_attn.q_norm.weight": "attn/q_norm/scale",
    "self_attn.k_norm.weight": "attn/k_norm/scale",
    **norm("post_attention_layernorm", "mlp_norm"),
    **linear("mlp.gate_proj", "mlp/gate"),
    **linear("mlp.up_proj", "mlp/up"),
    **linear("mlp.down_proj", "mlp/down"),
}
# what Gemma 2 and 3 call the norms on the outputs of attention and MLP, and on the input of the MLP
GEMMA_LAYER = LAYER | {
    "post_attention_layernorm.weight": "attn_out_norm/scale",
    "pre_feedforward_layernorm.weight": "mlp_norm/scale",
    "post_feedforward_layernorm.weight": "mlp_out_norm/scale",
}
del GEMMA_LAYER["post_attention_layernorm.bias"]
MIXTRAL_LAYER = LAYER | {
    "block_sparse_moe.gate.weight": "mlp/router",
    "block_sparse_moe.experts.{e}.w1.weight": "mlp/expert_gate",
    "block_sparse_moe.experts.{e}.w2.weight": "mlp/expert_down",
    "block_sparse_moe.experts.{e}.w3.weight": "mlp/expert_up",
}


def _read(f: Fields, **traits: Any) -> DecoderConfig:
    """The fields that all have in common; `traits` come last."""
    f.skip("attention_dropout")
    dim, heads = f.integer("hidden_size"), f.integer("num_attention_heads")
    ours: dict[str, Any] = llama_style() | dict(
        vocab_size=f.integer("vocab_size"),
        dim=dim,
        num_layers=f.integer("num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=f.integer("num_key_value_heads", heads),
        head_dim=f.integer("head_dim", dim // heads),
        mlp_dim=f.integer("intermediate_size"),
        max_len=f.integer("max_position_embeddings", 2048),
        norm_eps=f("rms_norm_eps", 1e-6),
        tie_embeddings=f("tie_word_embeddings", False),
        attention_dropout=f("attention_dropout", 0.0),
        init_std=f("initializer_range", 0.02),
    )
    ours |= traits
    if "activation" not in traits:
        ours["activation"] = fields.gated(f.activation("hidden_act", "silu"))
    if "rope_theta" not in traits:
        theta, fraction, scaling = fields.read_rope(f, theta=10_000.0)
        ours |= dict(rope_theta=theta, rope_fraction=fraction, rope_scaling=scaling)
    return DecoderConfig(**ours)


def _write(c: DecoderConfig) -> dict[str, Any]:
    return dict(
        vocab_size=c.vocab_size,
        hidden_size=c.dim,
        num_hidden_layers=c.num_layers,
        num_attention_heads=c.num_heads,
        num_key_value_heads=c.kv_heads,
        head_dim=c.head_width,
        intermediate_size=c.mlp_width,
        max_position_embeddings=c.max_len,
        rms_norm_eps=c.norm_eps,
        hidden_act=fields.activation_name(c.activation_function),
        tie_word_embeddings=c.tie_embeddings,
        attention_dropout=c.attention_dropout,
        initializer_range=c.init_std,
        **fields.write_rope(c.rope_theta, c.rope_scaling, c.rope_fraction),
    )


def _read_llama(f: Fields) -> DecoderConfig:
    f.skip("pretraining_tp")  # splits a product into parts, for the bits of one training run
    bias = f("attention_bias", False)
    biases = fields.biases(qkv=bias, attn_out=bias, mlp=f("mlp_bias", False))
    return _read(f, biases=biases)


def _write_llama(c: DecoderConfig) -> dict[str, Any]:
    return _write(c) | dict(attention_bias="qkv" in c.biases, mlp_bias="mlp" in c.biases)


def _read_mistral(f: Fields) -> DecoderConfig:
    return _read(f, window=f.nullable("sliding_window", 4096))


def _write_mistral(c: DecoderConfig) -> dict[str, Any]:
    return _write(c) | dict(sliding_window=c.window)


def _read_qwen(f: Fields, **traits: Any) -> DecoderConfig:
    f.skip("sliding_window", "max_window_layers", "layer_types")
    if f("use_sliding_window", False):
        pattern = f.layer_pattern()
        if pattern is None:
            layers, whole = f.integer("num_hidden_layers"), f.integer("max_window_layers", 28)
            kinds = tuple("global" if i < whole else "local" for i in range(layers))
            pattern = fields.shortest_pattern(kinds)
        if "local" in pattern:
            traits |= dict(window=f.integer("sliding_window", 4096), layer_pattern=pattern)
    return _read(f, **traits)


def _write_qwen(c: DecoderConfig) -> dict[str, Any]:
    return (
        _write(c)
        | _layer_types(c)
        | dict(use_sliding_window=c.window is not None, sliding_window=c.window)
    )


def _layer_types(c: DecoderConfig) -> dict[str, Any]:
    kinds = {True: "sliding_attention", False: "full_attention"}
    return dict(layer_types=[kinds[local] for local in c.local_layers])


def _read_qwen2(f: Fields) -> DecoderConfig:
    return _read_qwen(f, biases=("qkv",))


def _read_qwen3(f: Fields) -> DecoderConfig:
    bias = f("attention_bias", False)
    return _read_qwen(f, extra_norms=("qk", "final"), biases=fields.biases(qkv=bias, attn_out=bias))


def _write_qwen3(c: DecoderConfig) -> dict[str, Any]:
    return _write_qwen(c) | dict(attention_bias="qkv" in c.biases)


def _read_gemma(f: Fields, every: int, **traits: Any) -> DecoderConfig:
    """Gemma 2 and 3, of which one layer in `every` is global unless the file says otherwise."""
    f.only("use_bidirectional_attention", False)
    f.skip("hidden_act")
    f.skip("cache_implementation")
    bias = f("attention_bias", False)
    every = f("sliding_window_pattern", f("_sliding_window_pattern", every))
    pattern = f.layer_pattern() or ("local",) * (every - 1) + ("global",)
    return _read(
        f,
        norm="rms_norm_plus_one",
        norm_place="both",
        activation=fields.gated(f.activation("hidden_activation", "gelu_pytorch_tanh")),
        biases=fields.biases(qkv=bias, attn_out=bias),
        window=f.integer("sliding_window", 4096),
        layer_pattern=pattern,
        attention_scale=f("query_pre_attn_scalar", 256) ** -0.5,
        head_dim=f.integer("head_dim", 256),
        scale_embeddings=True,
        tie_embeddings=f("tie_word_embeddings", True),
        **traits,
    )


def _read_gemma2(f: Fields) -> DecoderConfig:
    return _read_gemma(
        f,
        every=2,
        attention_softcap=f.nullable("attn_logit_softcapping", 50.0),
        logit_softcap=f.nullable("final_logit_softcapping", 30.0),
    )


def _read_gemma3(f: Fields) -> DecoderConfig:
    theta, local_theta, scaling = fields.read_rope_by_layer(
        f,
        theta=1e6,
        local_theta=10_000.0,
        old_theta="rope_theta",
        old_local_theta="rope_local_base_freq",
    )
    return _read_gemma(
        f,
        every=6,
        attention_softcap=f("attn_logit_softcapping", None),
        logit_softcap=f("final_logit_softcapping", None),
        extra_norms=("qk", "final"),
        rope_theta=theta,
        rope_local_theta=local_theta,
        rope_scaling=scaling,
    )


def _write_gemma(c: DecoderConfig) -> dict[str, Any]:
    scale = c.head_width**-0.5 if c.attention_scale is None else c.attention_scale
    scalar = scale**-2
    theirs = _write(c) | _layer_types(c)
    theirs["hidden_activation"] = theirs.pop("hidden_act")
    return theirs | dict(
        attention_bias="qkv" in c.biases,
        sliding_window=c.window,
        attn_logit_softcapping=c.attention_softcap,
        final_logit_softcapping=c.logit_softcap,
        query_pre_attn_scalar=round(scalar) if abs(scalar - round(scalar)) < 1e-6 else scalar,
    )


def _write_gemma3(c: DecoderConfig) -> dict[str, Any]:
    local = c.rope_theta if c.rope_local_theta is None else c.rope_local_theta
    bases = fields.write_rope_by_layer(c.rope_theta, local, c.rope_scaling)
    return _write_gemma(c) | bases | dict(rope_local_base_freq=local)


def _read_mixtral(f: Fields) -> DecoderConfig:
    f.skip("output_router_logits")
    f.only("router_jitter_noise", 0.0)
    return _read(
        f,
        window=f.nullable("sliding_window", None),
        num_experts=f.integer("num_local_experts", 8),
        experts_per_token=f.integer("num_experts_per_tok", 2),
        router_balance=f("router_aux_loss_coef", 0.001),
    )


def _write_mixtral(c: DecoderConfig) -> dict[str, Any]:
    return _write_mistral(c) | dict(
        num_local_experts=c.num_experts,
        num_experts_per_tok=c.experts_per_token,
        router_aux_loss_coef=c.router_balance,
    )


def _family(
    model_type: str,
    name: str,
    read: Callable[[Fields], DecoderConfig],
    write: Callable[[DecoderConfig], dict[str, Any]],
    layer: Table = LAYER,
) -> Family:
    return Family(
        model_type=model_type,
        config=DecoderConfig,
        base=f"{name}Model",
        prefix="model.",
        table={
            "embed_tokens.weight": "backbone/embed/token/embedding",
            **within("layers.{i}.", "backbone/stack/blocks/", layer),
            "norm.weight": "backbone/final_norm/scale",
        },
        heads={
            f"{name}ForCausalLM": Head("causal_lm", {"lm_head.weight": "head/unembedding"}),
            f"{name}ForSequenceClassification": Head(
                "classifier", {"score.weight": "head/classes/kernel"}
            ),
        },
        read=read,
        write=write,
        ignored=(r"(model\.)?layers\.\d+\.self_attn\.rotary_emb\.inv_freq",),
    )


LLAMA = _family("llama", "Llama", _read_llama, _write_llama)
MISTRAL = _family("mistral", "Mistral", _read_mistral, _write_mistral)
QWEN2 = _family("qwen2", "Qwen2", _read_qwen2, _write_qwen)
QWEN3 = _family("qwen3", "Qwen3", _read_qwen3, _write_qwen3)
GEMMA2 = _family("gemma2", "Gemma2", _read_gemma2, _write_gemma, GEMMA_LAYER)
GEMMA3 = _family("gemma3_text", "Gemma3", _read_gemma3, _write_gemma3, GEMMA_LAYER)
GEMMA3 = dataclasses.replace(GEMMA3, base="Gemma3TextModel")
MIXTRAL = _family("mixtral", "Mixtral", _read_mixtral, _write_mixtral, MIXTRAL_LAYER)
