"""Models made from other models: pure functions from a config and its parameters to a new config and its parameters.

Parameters are {"backbone": ...} and, where a model has one, "head"; parameters that do not change are shared, not
copied.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxlm.config import (
    ComputeConfig,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    TransformerConfig,
)
from jaxlm.models import heads
from jaxlm.params import DENSE, dense_block

Config = TypeVar("Config", bound=TransformerConfig)

# parameters with a row for each token
BY_TOKEN = ("embedding", "unembedding", "unembedding_bias")
# fields in which an encoder and a decoder that become one model may differ; the decoder's values are used
_MAY_DIFFER = ("num_layers", "dropout", "attention_dropout", "init_std", "tie_embeddings")


def as_encoder(config: DecoderConfig, params: Any) -> tuple[EncoderConfig, Any]:
    """The decoder without its causal mask, as the start of an encoder (BehnamGhader et al. 2024, 2404.05961).

    Its head, which predicts the next token, is dropped.
    """
    return EncoderConfig(**_shared(config), num_token_types=0), {"backbone": params["backbone"]}


def encoder_of(config: EncoderDecoderConfig, params: Any) -> tuple[EncoderConfig, Any]:
    """The encoder of an encoder-decoder."""
    backbone = params["backbone"]
    encoder = backbone["encoder"]
    encoder = encoder | {"embed": backbone["embed"] | encoder.get("embed", {})}
    return config.encoder, {"backbone": encoder}


def as_encoder_decoder(
    encoder: EncoderConfig,
    encoder_params: Any,
    decoder: DecoderConfig | EncoderConfig,
    decoder_params: Any,
    key: Array,
) -> tuple[EncoderDecoderConfig, Any]:
    """One model of two, with fresh cross-attention (Rothe et al. 2020, 1907.12461); both may be the same encoder.

    The token table is the encoder's; models with token types use the first for all tokens. The output table, if it is
    not tied, is the decoder's.

    Args:
        encoder: config of the encoder.
        encoder_params: its parameters.
        decoder: config of the decoder.
        decoder_params: its parameters.
        key: random key for the cross-attention.

    Raises:
        ValueError: the two differ in a field that an `EncoderDecoderConfig` has once.
    """
    ours, theirs = _shared(encoder), _shared(decoder)
    for name, value in ours.items():
        if name not in _MAY_DIFFER and theirs[name] != value:
            raise ValueError(
                f"an encoder with {name}={value} and a decoder with {name}={theirs[name]} do not make one model: "
                "choose two of the same kind"
            )
    if isinstance(decoder, DecoderConfig) and (decoder.logit_scale != 1 or decoder.logit_bias):
        raise ValueError(
            f"a decoder with logit_scale={decoder.logit_scale} and logit_bias={decoder.logit_bias} is not supported as "
            "a half of an encoder-decoder: choose one without"
        )
    config = EncoderDecoderConfig(
        **theirs | dict(num_layers=encoder.num_layers, num_decoder_layers=decoder.num_layers)
    )
    model = heads.Seq2SeqLM(config, ComputeConfig(attention="xla"))

    @jax.jit
    def cross_attention(key):
        blocks = heads.init_params(model, key)["backbone"]["decoder"]["stack"]["blocks"]
        return {name: x for name, x in blocks.items() if name.startswith("cross_attn")}

    reader = _side(encoder, encoder_params["backbone"])
    writer = _side(decoder, decoder_params["backbone"])
    stack = writer["stack"]
    stack = stack | {"blocks": stack["blocks"] | cross_attention(key)}
    token = {"token": encoder_params["backbone"]["embed"]["token"]}
    backbone = {"embed": token, "encoder": reader, "decoder": writer | {"stack": stack}}
    params = {"backbone": backbone}
    if not config.tie_embeddings:
        if "unembedding" not in decoder_params.get("head", {}):
            raise ValueError(
                "the decoder's parameters have no head/unembedding, and it is not tied"
            )
        params["head"] = {"unembedding": decoder_params["head"]["unembedding"]}
    return config, params


def resize_vocabulary(
    config: Config, params: Any, vocab_size: int, key: Array | None = None
) -> tuple[Config, Any]:
    """The model with another vocabulary size; ids that remain keep their rows, and so their logits.

    New rows of the token tables are the mean of the old ones or, with a key, drawn from the normal distribution with
    their mean and standard deviation in each dim; so are new biases of the logits.
    """

    def resize(path, x):
        if path[-1].key not in BY_TOKEN:
            return x
        count = vocab_size - x.shape[0]
        if count <= 0:
            return x[:vocab_size]
        new = jnp.broadcast_to(x.mean(0), (count, *x.shape[1:]))
        if key is not None:
            own = jax.random.fold_in(key, x.ndim + 2 * (path[-1].key == "embedding"))
            new = new + x.std(0) * jax.random.normal(own, new.shape, x.dtype)
        return jnp.concatenate([x, new])

    return dataclasses.replace(config, vocab_size=vocab_size), jax.tree.map_with_path(
        resize, params
    )


def resize_positions(config: Config, params: Any, max_len: int) -> tuple[Config, Any]:
    """The model for texts of `max_len` tokens: learned positions beyond the table repeat its rows (Beltagy et al. 2020,
    2004.05150, section 5); other kinds of positions have no table."""
    offset = config.position_offset

    def resize(path, x):
        if path[-1].key != "position_embedding":
            return x
        rows = jnp.arange(max_len) % config.max_len
        return jnp.concatenate([x[:offset], x[offset:][rows]])

    return dataclasses.replace(config, max_len=max_len), jax.tree.map_with_path(resize, params)


def keep_layers(
    config: Config,
    params: Any,
    layers: Sequence[int],
    decoder_layers: Sequence[int] | None = None,
) -> tuple[Config, Any]:
    """The model with only these layers, in this order; a layer may be repeated.

    Layers of several groups with the same parameters get parameters of their own.

    Args:
        config: config of the model.
        params: its parameters.
        layers: indices from 0 of layers of an encoder, a decoder, or the encoder of an encoder-decoder.
        decoder_layers: indices of layers of the decoder of an encoder-decoder; None: all.

    Raises:
        ValueError: a layer does not exist, or no config describes the resulting model.
    """
    backbone = params["backbone"]
    if isinstance(config, EncoderDecoderConfig):
        count = config.decoder.num_layers
        chosen = range(count) if decoder_layers is None else decoder_layers
        changed = {
            "encoder": _keep_blocks(config.encoder, backbone["encoder"], layers),
            "decoder": _keep_blocks(config.decoder, backbone["decoder"], chosen),
        }
        sizes: dict[str, Any] = dict(num_layers=len(layers), num_decoder_layers=len(chosen))
        for name in ("layer_pattern", "rope_pattern"):
            kinds = {
                _pattern(getattr(config, name), layers),
                _pattern(getattr(config, name), chosen),
            }
            if len(kinds) > 1:
                raise ValueError(f"model.{name} would be {kinds}: one for encoder and decoder each")
            sizes[name] = kinds.pop()
    else:
        changed = _keep_blocks(config, backbone, layers)
        patterns = ("layer_pattern", "rope_pattern")
        sizes = {name: _pattern(getattr(config, name), layers) for name in patterns}
        sizes["num_layers"] = len(layers)
    if config.layer_groups != 1:
        sizes["layer_groups"] = None
    if config.dense_layers and not isinstance(config, EncoderDecoderConfig):
        dense = tuple(i for i, layer in enumerate(layers) if layer in config.dense_layers)
        sizes |= dict(dense_layers=dense, dense_mlp_dim=config.dense_mlp_dim if dense else None)
    params = params | {"backbone": backbone | changed}
    return dataclasses.replace(config, **sizes), params


def _keep_blocks(config: TransformerConfig, side: Any, layers: Sequence[int]) -> Any:
    """A backbone, or the encoder or decoder of one, with only these blocks."""
    count = config.num_layers
    if not layers or not all(0 <= i < count for i in layers):
        raise ValueError(
            f"layers {list(layers)} must be indices from 0 to {count - 1}, at least one"
        )
    if not config.first_attn_norm and (layers[0] != 0 or 0 in layers[1:]):
        raise ValueError(
            f"layers {list(layers)}: layer 0 has no norm (model.first_attn_norm=False) and must stay the first"
        )
    if config.layer_groups == 1:
        return side
    stack, dense = side["stack"], config.dense_layers
    alone = {
        dense_block(i): stack[dense_block(layer)]
        for i, layer in enumerate(layers)
        if layer in dense
    }
    row_of: Mapping[int, int] = dict(enumerate(config.block_of_layer))
    if dense:
        row_of = {i: row for row, i in enumerate(i for i in range(count) if i not in dense)}
    chosen = jnp.asarray([row_of[i] for i in layers if i not in dense])
    blocks = jax.tree.map(lambda x: x[chosen], stack["blocks"])
    rest = {name: x for name, x in stack.items() if not name.startswith(DENSE)}
    return side | {"stack": rest | alone | {"blocks": blocks}}


def _pattern(pattern: tuple[Any, ...], layers: Sequence[int]) -> tuple[Any, ...]:
    """The pattern of a model with these layers, such as its `layer_pattern`."""
    kinds = tuple(pattern[i % len(pattern)] for i in layers)
    return kinds if len(set(kinds)) > 1 else kinds[:1]


def _shared(config: TransformerConfig) -> dict[str, Any]:
    """The fields that all kinds of models have."""
    return {f.name: getattr(config, f.name) for f in dataclasses.fields(TransformerConfig)}


def _side(config: TransformerConfig, backbone: Any) -> Any:
    """A backbone as half of an encoder-decoder: without the token table, and with the first token type added to the
    positions."""
    embed = {name: x for name, x in backbone["embed"].items() if name != "token"}
    types = embed.pop("type_embedding", None)
    if types is not None:
        if config.positions != "learned":
            raise ValueError(
                f"token types can be added to learned positions only, not to model.positions={config.positions}"
            )
        embed["position_embedding"] = embed["position_embedding"] + types[0]
    rest = {name: x for name, x in backbone.items() if name != "embed"}
    return rest | ({"embed": embed} if embed else {})
