"""Nomic BERT (Nussbaum et al. 2024, 2402.01613): BERT with rotary positions, gated MLPs and few biases.

Files have the tensors of the authors' own code, and config.json often has its names too, which are those of GPT-2.
"""

from __future__ import annotations

from typing import Any

from jaxlm.config import EncoderConfig
from jaxlm.hf.bert import CLASSES, SHARED
from jaxlm.hf.family import Family, Head
from jaxlm.hf.fields import Field, FieldMap, Values, activation, fixed, unused
from jaxlm.hf.rope import rope
from jaxlm.hf.settings import Settings
from jaxlm.hf.table import Rule, dense, linear, norm, within

# name in config.json -> (name in the authors' code, ours, default)
_SIZES: dict[str, tuple[str, str, Any]] = {
    "hidden_size": ("n_embd", "dim", 768),
    "num_hidden_layers": ("n_layer", "num_layers", 12),
    "num_attention_heads": ("n_head", "num_heads", 12),
    "intermediate_size": ("n_inner", "mlp_dim", 3072),
    "max_position_embeddings": ("n_positions", "max_len", 2048),
    "layer_norm_eps": ("layer_norm_epsilon", "norm_eps", 1e-12),
    "hidden_dropout_prob": ("resid_pdrop", "dropout", 0.0),
    "attention_probs_dropout_prob": ("attn_pdrop", "attention_dropout", 0.0),
}


def _size(older: str, ours: str, default: Any) -> Field:
    """A value under either of its names."""

    def read(settings: Settings, name: str, values: Values) -> Values:
        return {ours: settings.typed(name, settings.typed(older, default))}

    return Field(read, lambda name, values: {name: values[ours]})


def _rope() -> Field:
    """Rotary positions of whole heads."""
    older = ("rotary_emb_base", "rotary_emb_fraction")
    both = rope(theta=1000.0, fraction=1.0, older=older)["rope_parameters"]

    def read(settings: Settings, name: str, values: Values) -> Values:
        found = both.read(settings, name, values)
        if found["rope_fraction"] != 1:
            raise settings.unsupported("rotary_emb_fraction", found["rope_fraction"], "1")
        return found

    def write(name: str, values: Values) -> dict[str, Any]:
        theirs = both.write(name, values)
        for given in (theirs[name], theirs["rope_scaling"] or {}):
            given.pop("partial_rotary_factor", None)
        fraction = {"rotary_emb_fraction": theirs.pop("rotary_emb_fraction")}
        theirs.pop("rotary_emb_base")
        return theirs | (fraction if values["rope_fraction"] != 1 else {})

    return Field(read, write)


FIELDS: FieldMap = {
    "vocab_size": ("vocab_size", 30528),
    **{name: _size(*parts) for name, parts in _SIZES.items()},
    "head_dim": ("head_dim", lambda ours: ours["dim"] // ours["num_heads"]),
    "hidden_act": activation("silu", is_gated=True),
    "type_vocab_size": SHARED["type_vocab_size"],
    "tie_word_embeddings": ("tie_embeddings", True),
    "initializer_range": ("init_std", 0.02),
    "rope_parameters": _rope(),
    # of the authors' code
    "activation_function": fixed("swiglu"),
    "embd_pdrop": fixed(0.0, 0),
    "rotary_emb_interleaved": fixed(False),
    "rotary_emb_scale_base": fixed(None),
    "rotary_scaling_factor": fixed(None),
    **dict.fromkeys(("prenorm", "parallel_block", "causal", "use_rms_norm"), fixed(False)),
    **dict.fromkeys(("qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias"), fixed(False)),
    **unused("classifier_dropout", "max_trained_positions", "pad_vocab_size_multiple"),
    **unused("parallel_block_tied_norm", "dense_seq_output", "use_flash_attn", "use_xentropy"),
    **unused("fused_bias_fc", "fused_dropout_add_ln", "last_layer_subset", "mlp_checkpoint_lvl"),
    **unused("scale_attn_by_inverse_layer_idx", "scale_attn_weights", "reorder_and_upcast_attn"),
    **unused("summary_activation", "summary_first_dropout", "summary_proj_to_labels"),
    **unused("summary_type", "summary_use_proj"),
}
QUERY_KEY_VALUE = ("attn/query", "attn/key", "attn/value")
LAYER = {
    "attn.Wqkv.weight": Rule("(3 N H) D -> D N H", *QUERY_KEY_VALUE),
    **linear("attn.out_proj", "attn/out"),
    **norm("norm1", "attn_norm"),
    "mlp.fc11.weight": "mlp/up",
    "mlp.fc12.weight": "mlp/gate",
    "mlp.fc2.weight": "mlp/down",
    **norm("norm2", "mlp_norm"),
}
MASKED_LM = {
    **dense("cls.predictions.transform.dense", "head/transform"),
    **norm("cls.predictions.transform.layer_norm", "head/norm"),
    "cls.predictions.bias": "head/unembedding_bias",
    "cls.predictions.decoder.weight": "head/unembedding",
}
NOMIC_BERT = Family(
    model_type="nomic_bert",
    config=EncoderConfig,
    base="NomicBertModel",
    prefix="nomic_bert.",
    fields=FIELDS,
    style=dict(positions="rotary", biases=("norm",)),
    table={
        "embeddings.word_embeddings.weight": "backbone/embed/token/embedding",
        "embeddings.token_type_embeddings.weight": "backbone/embed/type_embedding",
        **norm("emb_ln", "backbone/embed/norm"),
        **within("encoder.layers.{i}.", "backbone/stack/blocks/", LAYER),
    },
    heads={
        "NomicBertForMaskedLM": Head("masked_lm", MASKED_LM),
        "NomicBertForSequenceClassification": Head(
            "classifier", {**dense("nomic_bert.pooler.dense", "head/pooler"), **CLASSES}
        ),
        "NomicBertForTokenClassification": Head("tokens", CLASSES),
    },
    twins={"cls.predictions.decoder.bias": "cls.predictions.bias"},
    ignored=(r"pooler\.dense\.(weight|bias)",),
)
