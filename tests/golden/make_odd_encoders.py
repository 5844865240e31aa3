"""Creates tests/golden/odd_encoders.json.gz: more rows in the form of make_odd_settings.py, which see.

python tests/golden/make_odd_encoders.py [PART OF A NAME ...]
"""

import pathlib
import sys

import make_odd_settings as odd
from make_odd_settings import BART, BERT, T5, UNTIED, row, rows

odd.ROWS.clear()
odd.FILE = pathlib.Path(__file__).with_name("odd_encoders.json.gz")

MPNET = BERT | dict(pad_token_id=1, bos_token_id=0)
ALBERT = BERT | dict(embedding_size=8, num_hidden_layers=4)
DEBERTA = BERT | dict(
    relative_attention=True, pos_att_type=["p2c", "c2p"], max_relative_positions=9
)
DEBERTA_V3 = DEBERTA | dict(
    position_biased_input=False,
    norm_rel_ebd="layer_norm",
    share_att_key=True,
    position_buckets=4,
)
ACTIVATIONS = tuple(dict(hidden_act=name) for name in ("relu", "gelu_new", "silu"))
HEADS = ("Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification")

for kind, base in (("MPNet", MPNET), ("Albert", ALBERT), ("NomicBert", BERT)):
    masked = f"{kind}ForMaskedLM"
    rows(tuple(f"{kind}{head}" for head in HEADS), base, {})
    rows((masked,), base, *ACTIVATIONS, UNTIED, dict(layer_norm_eps=1e-3))
    row(f"{kind}ForSequenceClassification", base, num_labels=1)
rows(("MPNetForQuestionAnswering",), MPNET, {}, dict(hidden_act="relu"))
rows(("MPNetForMaskedLM",), MPNET, dict(pad_token_id=0), dict(pad_token_id=5))
rows(
    ("AlbertForMaskedLM",),
    ALBERT,
    dict(num_hidden_groups=2),
    dict(num_hidden_groups=4),
    dict(num_hidden_layers=1),
    dict(num_hidden_layers=13),
    dict(embedding_size=24),
    dict(type_vocab_size=1),
)
row("AlbertForQuestionAnswering", ALBERT)
rows(
    ("NomicBertForMaskedLM",),
    BERT,
    dict(head_dim=8),
    dict(type_vocab_size=1),
    dict(rope_parameters=dict(rope_type="default", rope_theta=10.0)),
    dict(rope_parameters=dict(rope_type="linear", rope_theta=10.0, factor=2.0)),
)
for base, name in ((DEBERTA, "2"), (DEBERTA_V3, "3")):
    # settings that are in the base name the version in the rows' titles
    mark = dict(position_buckets=base.get("position_buckets", -1), max_relative_positions=9)
    rows(tuple(f"DebertaV2{head}" for head in HEADS), base, mark)
    row("DebertaV2ForQuestionAnswering", base, **mark)
    rows(
        ("DebertaV2ForMaskedLM",),
        base,
        *(mark | x for x in (*ACTIVATIONS, UNTIED, dict(layer_norm_eps=1e-3))),
        mark | dict(share_att_key=name == "2"),
        mark | dict(norm_rel_ebd="layer_norm" if name == "2" else "none"),
        mark | dict(type_vocab_size=2),
        mark | dict(pos_att_type=["c2p"]),
        mark | dict(pos_att_type=["p2c"]),
        mark | dict(position_biased_input=name == "3"),
    )
for base, act in ((DEBERTA, "gelu"), (DEBERTA_V3, "tanh")):
    rows(
        ("DebertaV2Model", "DebertaV2ForSequenceClassification"),
        base,
        dict(conv_kernel_size=3, conv_act=act),
    )
rows(
    ("DebertaV2ForMaskedLM",),
    DEBERTA_V3,
    dict(conv_kernel_size=5, conv_act="relu"),
    dict(conv_kernel_size=1, num_hidden_layers=4),
    dict(position_buckets=2),
    dict(position_buckets=5),
    dict(position_buckets=6),
    dict(position_buckets=256, max_relative_positions=512),
    dict(position_buckets=-1, max_relative_positions=3),
    dict(max_relative_positions=-1),
)
rows(
    ("DebertaV2ForSequenceClassification",),
    DEBERTA_V3,
    dict(pooler_hidden_act="tanh"),
    dict(pooler_hidden_act="relu", num_labels=3),
)

for kind in ("T5", "MT5", "UMT5"):
    rows(
        (f"{kind}EncoderModel",),
        T5 | dict(is_encoder_decoder=False),
        {},
        dict(feed_forward_proj="gated-silu"),
        dict(feed_forward_proj="relu"),
        dict(relative_attention_num_buckets=7),
        dict(layer_norm_epsilon=1e-3),
        dict(d_kv=6),
    )
    row(f"{kind}ForTokenClassification", T5 | dict(is_encoder_decoder=False), num_labels=3)
    row(f"{kind}ForSequenceClassification", T5, num_labels=3)
    row(f"{kind}ForQuestionAnswering", T5)
rows(
    ("T5ForSequenceClassification",), T5, dict(feed_forward_proj="gated-gelu", num_labels=1), UNTIED
)
rows(
    ("UMT5ForConditionalGeneration",),
    T5,
    {},
    UNTIED,
    dict(num_decoder_layers=3),
    dict(relative_attention_num_buckets=7),
    dict(feed_forward_proj="relu"),
    dict(d_kv=3),
)
# not Pegasus: its files have the table of sines, which may not be random
for kind in ("Blenderbot", "BlenderbotSmall"):
    row(f"{kind}Model", BART)
    rows(
        (f"{kind}ForConditionalGeneration",),
        BART,
        {},
        UNTIED,
        dict(scale_embedding=True),
        dict(decoder_ffn_dim=40),
        dict(decoder_attention_heads=2),
        dict(decoder_layers=3),
        dict(activation_function="relu"),
        dict(activation_function="swish"),
    )

if __name__ == "__main__":
    odd.main(sys.argv[1:])
