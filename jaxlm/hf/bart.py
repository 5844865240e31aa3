"""BART (Lewis et al. 2020, 1910.13461), mBART (2001.08210), Marian (1804.00344), M2M100 (2010.11125) and NLLB.

They are one model with the norms in two places and positions of three kinds.
"""

from __future__ import annotations

import functools
from typing import Any

from jaxlm.config import EncoderDecoderConfig
from jaxlm.hf.family import Family, Head
from jaxlm.hf.fields import Fields, activation_name
from jaxlm.hf.table import Rule, linear, norm, within


def _attention(theirs: str, ours: str) -> dict[str, str | Rule]:
    return {
        **linear(f"{theirs}.q_proj", f"{ours}/query"),
        **linear(f"{theirs}.k_proj", f"{ours}/key"),
        **linear(f"{theirs}.v_proj", f"{ours}/value"),
        **linear(f"{theirs}.out_proj", f"{ours}/out"),
        **norm(f"{theirs}_layer_norm", f"{ours}_norm"),
    }


ENCODER = {
    **_attention("self_attn", "attn"),
    **linear("fc1", "mlp/up"),
    **linear("fc2", "mlp/down"),
    **norm("final_layer_norm", "mlp_norm"),
}
DECODER = ENCODER | _attention("encoder_attn", "cross_attn")


def _side(name: str, layer: dict[str, str | Rule]) -> dict[str, str | Rule]:
    ours = f"backbone/{name}/"
    return {
        f"{name}.embed_positions.weight": f"{ours}embed/position_embedding",
        **norm(f"{name}.layernorm_embedding", f"{ours}embed/norm"),
        **within(f"{name}.layers.{{i}}.", f"{ours}stack/blocks/", layer),
        **norm(f"{name}.layer_norm", f"{ours}final_norm"),
    }


HEAD: dict[str, str | Rule] = {
    "lm_head.weight": "head/unembedding",
    "final_logits_bias": Rule("1 V -> V", "head/unembedding_bias"),
}

# what tells the families apart, in our words
POST_NORM: dict[str, Any] = dict(norm_place="post", extra_norms=())
PRE_NORM: dict[str, Any] = dict(norm_place="pre", extra_norms=("final",))
LEARNED: dict[str, Any] = dict(positions="learned", position_offset=2)
SINES: dict[str, Any] = dict(positions="sinusoidal")
SINES_AFTER_PADDING: dict[str, Any] = dict(positions="sinusoidal_inclusive")


def _read(
    f: Fields, *, traits: dict[str, Any], activation: str, scaled: bool
) -> EncoderDecoderConfig:
    """The arguments after the first are the family's: its traits, and what is meant where the config does not say."""
    # of the way they were trained, of heads that we have not, and of text generation
    f.skip("encoder_layerdrop", "decoder_layerdrop", "activation_dropout", "num_hidden_layers")
    f.skip("classifier_dropout", "classif_dropout", "num_beams", "min_length", "early_stopping")
    f.skip("length_penalty", "no_repeat_ngram_size", "bad_words_ids", "num_return_sequences")
    f.skip(
        "max_new_tokens",
        "prefix",
        "temperature",
        "top_k",
        "top_p",
        "force_bos_token_to_be_generated",
    )
    # of fairseq, whose meaning the classes have by themselves
    f.skip("normalize_before", "normalize_embedding", "add_final_layer_norm", "add_bias_logits")
    f.skip("static_position_embeddings", "extra_pos_embeddings")
    f.only("share_encoder_decoder_embeddings", True)
    vocab_size = f.integer("vocab_size")
    f.only("decoder_vocab_size", vocab_size)
    for name in ("ffn_dim", "attention_heads"):
        f.only(f"decoder_{name}", f.integer(f"encoder_{name}"))
    layers, decoder_layers = f.integer("encoder_layers"), f.integer("decoder_layers")
    if traits["positions"] == "sinusoidal_inclusive":
        # positions begin after the padding token's
        traits = traits | dict(position_offset=f.integer("pad_token_id", 1) + 1)
    return EncoderDecoderConfig(
        vocab_size=vocab_size,
        dim=f.integer("d_model"),
        num_layers=layers,
        num_decoder_layers=None if decoder_layers == layers else decoder_layers,
        num_heads=f.integer("encoder_attention_heads"),
        mlp_dim=f.integer("encoder_ffn_dim"),
        max_len=f.integer("max_position_embeddings", 1024),
        activation=f.activation("activation_function", activation),
        scale_embeddings=f("scale_embedding", scaled),
        tie_embeddings=f("tie_word_embeddings", True),
        dropout=f("dropout", 0.1),
        attention_dropout=f("attention_dropout", 0.0),
        init_std=f("init_std", 0.02),
        **traits,
    )


def _write(c: EncoderDecoderConfig) -> dict[str, Any]:
    values: dict[str, Any] = dict(
        vocab_size=c.vocab_size,
        d_model=c.dim,
        encoder_layers=c.num_layers,
        decoder_layers=c.decoder.num_layers,
        num_hidden_layers=c.num_layers,
        encoder_attention_heads=c.num_heads,
        decoder_attention_heads=c.num_heads,
        encoder_ffn_dim=c.mlp_width,
        decoder_ffn_dim=c.mlp_width,
        max_position_embeddings=c.max_len,
        activation_function=activation_name(c.activation_function),
        scale_embedding=c.scale_embeddings,
        tie_word_embeddings=c.tie_embeddings,
        dropout=c.dropout,
        attention_dropout=c.attention_dropout,
        init_std=c.init_std,
        is_encoder_decoder=True,
    )
    if c.positions == "sinusoidal_inclusive":
        values["pad_token_id"] = c.position_offset - 1
    return values


def _family(
    model_type: str,
    name: str,
    head: str,
    traits: dict[str, Any],
    *,
    activation: str = "gelu",
    scaled: bool = False,
) -> Family:
    ignored = [r"(model\.)?(encoder|decoder)\.(embed_tokens\.weight|version)"]
    if traits["positions"] != "learned":  # sines, once stored
        ignored.append(r"(model\.)?(encoder|decoder)\.embed_positions\.weights?")
    return Family(
        model_type=model_type,
        config=EncoderDecoderConfig,
        base=f"{name}Model",
        prefix="model.",
        table={
            "shared.weight": "backbone/embed/token/embedding",
            **_side("encoder", ENCODER),
            **_side("decoder", DECODER),
        },
        heads={head: Head("seq2seq", HEAD)},
        read=functools.partial(_read, traits=traits, activation=activation, scaled=scaled),
        write=_write,
        ignored=tuple(ignored),
    )


BIASED = dict(logit_bias=True)
BART = _family(
    "bart",
    "Bart",
    "BartForConditionalGeneration",
    POST_NORM | LEARNED | BIASED | dict(extra_norms=("embedding",)),
)
MBART = _family(
    "mbart",
    "MBart",
    "MBartForConditionalGeneration",
    PRE_NORM | LEARNED | BIASED | dict(extra_norms=("embedding", "final")),
)
MARIAN = _family("marian", "Marian", "MarianMTModel", POST_NORM | SINES | BIASED)
M2M100 = _family(
    "m2m_100",
    "M2M100",
    "M2M100ForConditionalGeneration",
    PRE_NORM | SINES_AFTER_PADDING,
    activation="relu",
    scaled=True,
)
