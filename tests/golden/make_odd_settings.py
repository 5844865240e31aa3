"""Creates tests/golden/odd_settings.json.gz: what transformers computes for models with unusual settings.

Requires torch and transformers; run it after changing the table in this file:

    python tests/golden/make_odd_settings.py [PART OF A NAME ...]

Each row of the table is a class, its settings and, where tensors are not tied as config.json says, a function that
changes the model. A file has for each row config.json, the shapes of the stored tensors (their values follow from
names and shapes, `values`), and 24 logits each for a text without padding, with padding on the right and on the left.
With names, these rows are computed and printed, and nothing is written. With --new, only the rows that the file does
not have are computed.
"""

import gzip
import json
import pathlib
import sys
import tempfile
import zlib

import numpy as np

FILE = pathlib.Path(__file__).with_name("odd_settings.json.gz")
VOCAB, LENGTH, PADDED = 40, 10, 3
ROWS = []


def values(name, shape):
    """The values of a tensor: random, but the same everywhere."""
    random = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    x = 0.3 * random.standard_normal(shape)
    is_scale = name.endswith("weight") and len(shape) == 1
    return (x + is_scale).astype(np.float32)


def inputs(config, padding):
    """Two texts, the second one with padding on one side ("left", "right") or without ("none")."""
    random = np.random.Generator(np.random.PCG64(1))
    tokens = random.integers(4, VOCAB, (2, LENGTH))
    mask = np.ones_like(tokens)
    if padding != "none":
        places = slice(LENGTH - PADDED, None) if padding == "right" else slice(PADDED)
        mask[1, places] = 0
        tokens[1, places] = config["pad_token_id"]
    result = {"input_ids": tokens, "attention_mask": mask}
    reads_twice = config["architectures"][0].endswith(("Classification", "Answering"))
    if config.get("is_encoder_decoder") and reads_twice:
        # each text ends once
        ends = mask * np.arange(LENGTH)
        tokens[np.arange(2), ends.argmax(1)] = config["eos_token_id"]
    elif config.get("is_encoder_decoder"):
        result["decoder_input_ids"] = random.integers(4, VOCAB, (2, 6))
    return result


def chosen(logits, mask):
    """24 of the logits at real tokens, as indices into the flat array: of [B, C] all are real."""
    real = np.ones(logits.shape, bool)
    if logits.ndim > 1 and logits.shape[:2] == mask.shape:
        real &= (mask > 0).reshape(*mask.shape, *[1] * (logits.ndim - 2))
    places = np.flatnonzero(real)
    return places[np.linspace(0, len(places) - 1, 24).astype(int)]


# ---- the table

COMMON = dict(attn_implementation="eager", pad_token_id=0, bos_token_id=1, eos_token_id=2)
BERT = COMMON | dict(
    vocab_size=VOCAB,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=24,
    max_position_embeddings=32,
)
LLAMA = BERT | dict(num_key_value_heads=2)
BART = COMMON | dict(
    vocab_size=VOCAB,
    d_model=16,
    encoder_layers=2,
    decoder_layers=2,
    encoder_attention_heads=4,
    decoder_attention_heads=4,
    encoder_ffn_dim=24,
    decoder_ffn_dim=24,
    max_position_embeddings=32,
    decoder_start_token_id=2,
    forced_eos_token_id=None,
)
MARIAN = BART | dict(decoder_vocab_size=VOCAB)
T5 = COMMON | dict(
    vocab_size=VOCAB,
    d_model=16,
    d_kv=4,
    d_ff=24,
    num_layers=2,
    num_decoder_layers=2,
    num_heads=4,
    decoder_start_token_id=0,
)
GPT2 = COMMON | dict(vocab_size=VOCAB, n_embd=16, n_layer=2, n_head=4, n_positions=32)
DISTILBERT = dict(
    attn_implementation="eager",
    pad_token_id=0,
    vocab_size=VOCAB,
    dim=16,
    n_layers=2,
    n_heads=4,
    hidden_dim=24,
    max_position_embeddings=32,
)
MODERNBERT = BERT | dict(
    local_attention=4, global_attn_every_n_layers=2, cls_token_id=1, sep_token_id=2
)
OPT = COMMON | dict(
    vocab_size=VOCAB,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    ffn_dim=24,
    max_position_embeddings=32,
    word_embed_proj_dim=16,
)
GEMMA3 = LLAMA | dict(head_dim=4, sliding_window=4, query_pre_attn_scalar=4)
NEOX = BERT | dict(rotary_pct=0.5)


def row(name, base, change=None, **settings):
    """Adds a row."""
    ROWS.append((name, base | settings, change, settings))


def rows(names, base, *many):
    """Adds a row for each class and each of the settings."""
    for name in names:
        for settings in many:
            row(name, base, **settings)


def own_encoder(model):
    """An encoder with a token table of its own."""
    import torch

    model.encoder.embed_tokens = torch.nn.Embedding(VOCAB, 16)


def own_decoder(model):
    """A decoder with a token table of its own."""
    import torch

    model.decoder.embed_tokens = torch.nn.Embedding(VOCAB, 16)


def own_output(model):
    """An output table of its own."""
    import torch

    model.lm_head = torch.nn.Linear(16, VOCAB, bias=False)


def two_biases(model):
    """Two biases of the output with different values."""
    import torch

    model.cls.predictions.decoder.bias = torch.nn.Parameter(torch.ones(VOCAB))


UNTIED, TIED = dict(tie_word_embeddings=False), dict(tie_word_embeddings=True)
SEQ2SEQ = ("BartForConditionalGeneration", "MBartForConditionalGeneration")
SEQ2SEQ += ("M2M100ForConditionalGeneration",)
WIDTHS = (
    dict(decoder_ffn_dim=40),
    dict(decoder_attention_heads=2),
    dict(encoder_layers=1),
    dict(scale_embedding=True),
    dict(activation_function="relu"),
    dict(activation_function="swish"),
    dict(max_position_embeddings=12),
    dict(decoder_ffn_dim=40, decoder_attention_heads=2, **UNTIED),
)
rows(SEQ2SEQ, BART, {}, UNTIED, *WIDTHS)
rows(("BartModel", "MBartModel", "M2M100Model"), BART, UNTIED)
rows(("MarianMTModel",), MARIAN, {}, UNTIED, *WIDTHS)
rows(
    ("MarianMTModel",),
    MARIAN,
    dict(share_encoder_decoder_embeddings=False),
    dict(share_encoder_decoder_embeddings=False, **UNTIED),
)
for kind in ("T5", "MT5"):
    whole = f"{kind}ForConditionalGeneration"
    for change in (None, own_encoder, own_decoder, own_output):
        row(whole, T5, change)
    row(whole, T5, own_output, **UNTIED)
    row(f"{kind}Model", T5, own_encoder)
    rows(
        (whole,),
        T5,
        UNTIED,
        *(dict(relative_attention_num_buckets=count) for count in (6, 7, 10)),
        dict(feed_forward_proj="gated-silu"),
        dict(feed_forward_proj="gelu"),
        dict(num_decoder_layers=1),
        dict(d_kv=6),
    )
for kind in ("Bert", "Roberta", "XLMRoberta", "RobertaPreLayerNorm", "Electra", "Camembert"):
    rows(
        (f"{kind}ForMaskedLM",),
        BERT,
        *(dict(hidden_act=act) for act in ("relu", "gelu_new", "silu")),
        UNTIED,
        dict(pad_token_id=3),
    )
    rows((f"{kind}ForSequenceClassification",), BERT, dict(hidden_act="relu"), dict(num_labels=5))
    row(f"{kind}ForTokenClassification", BERT, num_labels=3, hidden_act="relu")
    row(f"{kind}ForQuestionAnswering", BERT, hidden_act="gelu_new")
    row(f"{kind}Model", BERT, type_vocab_size=1)
row("BertForMaskedLM", BERT, two_biases)
row("BertForMaskedLM", BERT, two_biases, **UNTIED)
rows(("ElectraForPreTraining",), BERT, {}, dict(hidden_act="relu"), dict(embedding_size=8))
row("ElectraForMaskedLM", BERT, embedding_size=8)
rows(
    ("DistilBertForMaskedLM",), DISTILBERT, dict(activation="relu"), dict(activation="gelu"), UNTIED
)
rows(("DistilBertModel",), DISTILBERT, dict(sinusoidal_pos_embds=True))
for head in ("SequenceClassification", "TokenClassification", "QuestionAnswering"):
    row(f"DistilBertFor{head}", DISTILBERT)
    row(f"ModernBertFor{head}", MODERNBERT)
rows(
    ("ModernBertForMaskedLM",),
    MODERNBERT,
    {},
    UNTIED,
    dict(attention_bias=True),
    dict(mlp_bias=True),
    dict(norm_bias=True),
    dict(classifier_bias=True),
    dict(local_attention=2),
)
row("ModernBertForSequenceClassification", MODERNBERT, classifier_pooling="mean")
rows(
    ("GPT2LMHeadModel",),
    GPT2,
    UNTIED,
    dict(activation_function="relu"),
    dict(n_inner=20),
    dict(reorder_and_upcast_attn=True),
    dict(embd_pdrop=0.3),
)
rows(
    ("GPT2ForSequenceClassification", "GPT2ForTokenClassification", "GPT2ForQuestionAnswering"),
    GPT2,
    {},
)
row("GPT2Model", GPT2)
YARN = dict(rope_type="yarn", factor=4.0, rope_theta=1e4, original_max_position_embeddings=16)
for kind in ("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma", "Gemma2"):
    rows(
        (f"{kind}ForCausalLM",),
        LLAMA,
        {},
        UNTIED if kind.startswith("Gemma") else TIED,
        dict(head_dim=8),
        dict(num_key_value_heads=1),
        dict(hidden_act="relu"),
        dict(attention_bias=True),
        dict(rope_parameters=YARN),
        dict(rope_parameters=dict(rope_type="linear", factor=4.0, rope_theta=1e4)),
        dict(rope_parameters=dict(rope_type="linear", factor=0.5, rope_theta=1e4)),
        dict(sliding_window=3),
    )
    row(f"{kind}ForSequenceClassification", LLAMA, num_labels=3)
    row(f"{kind}ForTokenClassification", LLAMA, num_labels=3)
    row(f"{kind}Model", LLAMA)
row("LlamaForCausalLM", LLAMA, mlp_bias=True)
row("MistralForQuestionAnswering", LLAMA)
row("Qwen2ForCausalLM", LLAMA, use_sliding_window=True, sliding_window=3, max_window_layers=1)
row("Gemma3ForCausalLM", GEMMA3)
row("Gemma3TextForSequenceClassification", GEMMA3, num_labels=3)
rows(
    ("GPTNeoXForCausalLM",),
    NEOX,
    {},
    dict(use_parallel_residual=False),
    dict(attention_bias=False),
    TIED,
    dict(rotary_pct=1.0),
    dict(rotary_pct=0.75, hidden_size=48),
)
rows(("GPTNeoXForSequenceClassification", "GPTNeoXForTokenClassification"), NEOX, {})
rows(
    ("OPTForCausalLM",),
    OPT,
    {},
    dict(do_layer_norm_before=False),
    dict(enable_bias=False),
    UNTIED,
)
row("OPTForSequenceClassification", OPT)


# ---- transformers


def make(name, settings, change):
    """Config, shapes, and logits of a row."""
    import torch
    import transformers
    from safetensors.numpy import load_file, save_file

    kind = getattr(transformers, name)
    model = kind(kind.config_class(**settings))
    if change is not None:
        change(model)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        path = pathlib.Path(folder, "model.safetensors")
        shapes = {key: list(x.shape) for key, x in load_file(path).items()}
        save_file({key: values(key, shape) for key, shape in shapes.items()}, path)
        config = json.loads(pathlib.Path(folder, "config.json").read_text())
        attention = settings.get("attn_implementation", "eager")
        model = kind.from_pretrained(folder, attn_implementation=attention).eval()
    logits = {}
    for padding in ("none", "right", "left"):
        given = inputs(config, padding)
        with torch.no_grad():
            output = model(**{key: torch.tensor(x) for key, x in given.items()})
        if "start_logits" in output:
            got = torch.stack([output.start_logits, output.end_logits], -1)
        else:
            got = output.logits if "logits" in output else output.last_hidden_state
        got = got.numpy()
        mask = given.get("decoder_input_ids", given["attention_mask"])
        mask = np.ones_like(mask) if "decoder_input_ids" in given else mask
        if padding == "left" and reads_first_token(name):
            continue
        logits[padding] = [float(f"{x:.7g}") for x in got.reshape(-1)[chosen(got, mask)]]
    return {"config": config, "tensors": shapes, "logits": logits}


def reads_first_token(name):
    """Whether a class reads the state of the first token, which on the left may be padding: we refuse that."""
    decoders = ("GPT", "Gpt", "Llama", "Mistral", "Mixtral", "Qwen", "Gemma", "OPT", "Phi")
    decoders += ("Olmo", "Stable", "Starcoder", "SmolLM", "Falcon", "Bloom")
    return "ForSequenceClassification" in name and not name.startswith(decoders)


def main(parts):
    """Writes the file, or prints the rows whose names have one of the parts."""
    import transformers

    transformers.logging.set_verbosity_error()
    stored = {}
    if parts == ["--new"]:
        parts = []
        stored = json.loads(gzip.decompress(FILE.read_bytes())) if FILE.exists() else {}
    result = {}
    for name, settings, change, shown in ROWS:
        words = [f"{key}={value}" for key, value in shown.items()]
        title = " ".join([name, *([change.__name__] if change else []), *words])
        if not parts or any(part in title for part in parts):
            assert title not in result, title
            result[title] = stored.get(title) or make(name, settings, change)
            print(title, result[title]["logits"]["none"][:3] if parts else "")
    if not parts:
        text = json.dumps(result, separators=(",", ":")).encode()
        FILE.write_bytes(gzip.compress(text, mtime=0))


if __name__ == "__main__":
    main(sys.argv[1:])
