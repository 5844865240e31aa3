"""Makes the golden files of tests/models/test_reference.py: small random models of transformers and their logits.

Run where torch and transformers are installed, after a change to this file only:

    python tests/golden/make.py

A file holds our parameters under our names, `tokens`, `lengths` (of the real tokens in each row), `token_types` where
there are any, and the `logits` that transformers computed in float32; its metadata hold our config as JSON.
"""

import json
import pathlib
import tempfile

import numpy as np
import torch
import transformers as hf
from safetensors.numpy import load_file, save_file

from jaxlm.config import DecoderConfig, EncoderConfig, RopeScaling, files, llama_style

VOCAB, DIM, LAYERS, HEADS, KV_HEADS, WIDTH, MLP, LENGTH = 32, 16, 2, 4, 2, 4, 24, 12
LENGTHS = np.array([12, 7], np.int32)
OURS = dict(vocab_size=VOCAB, dim=DIM, num_layers=LAYERS, num_heads=HEADS, mlp_dim=MLP, max_len=16)
THEIRS = dict(
    vocab_size=VOCAB,
    hidden_size=DIM,
    num_hidden_layers=LAYERS,
    num_attention_heads=HEADS,
    intermediate_size=MLP,
    max_position_embeddings=16,
    attn_implementation="eager",
    bos_token_id=None,
    eos_token_id=None,
    pad_token_id=None,
)
BLOCKS = "backbone/stack/blocks"


# --- one tensor of theirs to one of ours ---


def linear(w):
    """[out, in] -> [in, out]"""
    return w.T


def to_heads(w, width=WIDTH):
    """[heads x width, in] -> [in, heads, width]; a bias [heads x width] -> [heads, width]"""
    return w.T.reshape(*w.T.shape[:-1], -1, width)


def from_heads(w, width=WIDTH):
    """[out, heads x width] -> [heads, width, out]"""
    return w.T.reshape(-1, width, w.shape[0])


def stacked(layer):
    """Parameters of all blocks in one array each, `layer(i)` giving those of block i."""
    each = [layer(i) for i in range(LAYERS)]
    return {f"{BLOCKS}/{name}": np.stack([x[name] for x in each]) for name in each[0]}


# --- one family each: their config, our config, their tensors under our names ---


def gpt2():
    theirs = hf.GPT2Config(
        vocab_size=VOCAB,
        n_embd=DIM,
        n_layer=LAYERS,
        n_head=HEADS,
        n_inner=MLP,
        n_positions=16,
        attn_implementation="eager",
        bos_token_id=None,
        eos_token_id=None,
    )

    def layer(t, i):
        p = f"transformer.h.{i}."
        # Conv1D is [in, out] already
        q, k, v = np.split(t[p + "attn.c_attn.weight"], 3, axis=1)
        q_bias, k_bias, v_bias = np.split(t[p + "attn.c_attn.bias"], 3)
        return {
            "attn_norm/scale": t[p + "ln_1.weight"],
            "attn_norm/bias": t[p + "ln_1.bias"],
            "attn/query": to_heads(q.T),
            "attn/key": to_heads(k.T),
            "attn/value": to_heads(v.T),
            "attn/query_bias": to_heads(q_bias),
            "attn/key_bias": to_heads(k_bias),
            "attn/value_bias": to_heads(v_bias),
            "attn/out": from_heads(t[p + "attn.c_proj.weight"].T),
            "attn/out_bias": t[p + "attn.c_proj.bias"],
            "mlp_norm/scale": t[p + "ln_2.weight"],
            "mlp_norm/bias": t[p + "ln_2.bias"],
            "mlp/up": t[p + "mlp.c_fc.weight"],
            "mlp/up_bias": t[p + "mlp.c_fc.bias"],
            "mlp/down": t[p + "mlp.c_proj.weight"],
            "mlp/down_bias": t[p + "mlp.c_proj.bias"],
        }

    def names(t):
        return {
            "backbone/embed/token/embedding": t["transformer.wte.weight"],
            "backbone/embed/position_embedding": t["transformer.wpe.weight"],
            **stacked(lambda i: layer(t, i)),
            "backbone/final_norm/scale": t["transformer.ln_f.weight"],
            "backbone/final_norm/bias": t["transformer.ln_f.bias"],
        }

    return hf.GPT2LMHeadModel(theirs), DecoderConfig(**OURS), names


def llama_layer(t, i):
    p = f"model.layers.{i}."
    return {
        "attn_norm/scale": t[p + "input_layernorm.weight"],
        "attn/query": to_heads(t[p + "self_attn.q_proj.weight"]),
        "attn/key": to_heads(t[p + "self_attn.k_proj.weight"]),
        "attn/value": to_heads(t[p + "self_attn.v_proj.weight"]),
        "attn/out": from_heads(t[p + "self_attn.o_proj.weight"]),
        "mlp_norm/scale": t[p + "post_attention_layernorm.weight"],
        "mlp/gate": linear(t[p + "mlp.gate_proj.weight"]),
        "mlp/up": linear(t[p + "mlp.up_proj.weight"]),
        "mlp/down": linear(t[p + "mlp.down_proj.weight"]),
    }


def llama_names(t, layer=llama_layer):
    tied = "lm_head.weight" not in t
    return {
        "backbone/embed/token/embedding": t["model.embed_tokens.weight"],
        **stacked(lambda i: layer(t, i)),
        "backbone/final_norm/scale": t["model.norm.weight"],
        **({} if tied else {"head/unembedding": t["lm_head.weight"]}),
    }


def llama():
    theirs = hf.LlamaConfig(
        **THEIRS,
        num_key_value_heads=KV_HEADS,
        rms_norm_eps=1e-5,
        rope_parameters=dict(
            rope_theta=10_000.0,
            rope_type="llama3",
            factor=4.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=8,
        ),
    )
    ours = DecoderConfig(
        **llama_style(),
        **OURS,
        num_kv_heads=KV_HEADS,
        rope_scaling=RopeScaling(kind="llama3", factor=4.0, original_max_len=8),
    )
    return hf.LlamaForCausalLM(theirs), ours, llama_names


def mistral():
    theirs = hf.MistralConfig(
        **THEIRS,
        num_key_value_heads=KV_HEADS,
        head_dim=WIDTH,
        rms_norm_eps=1e-5,
        sliding_window=4,
        rope_parameters=dict(rope_theta=10_000.0, rope_type="default"),
    )
    ours = DecoderConfig(**llama_style(), **OURS, num_kv_heads=KV_HEADS, window=4)
    return hf.MistralForCausalLM(theirs), ours, llama_names


def qwen3():
    theirs = hf.Qwen3Config(
        **THEIRS,
        num_key_value_heads=KV_HEADS,
        head_dim=8,
        rms_norm_eps=1e-6,
        rope_parameters=dict(
            rope_theta=1000.0,
            rope_type="yarn",
            factor=4.0,
            original_max_position_embeddings=64,
        ),
    )
    ours = DecoderConfig(
        **llama_style(),
        **OURS,
        num_kv_heads=KV_HEADS,
        head_dim=8,
        qk_norm=True,
        norm_eps=1e-6,
        rope_theta=1000.0,
        rope_scaling=RopeScaling(kind="yarn", factor=4.0, original_max_len=64),
    )

    def layer(t, i):
        p = f"model.layers.{i}.self_attn."
        return {
            **llama_layer(t, i),
            "attn/query": to_heads(t[p + "q_proj.weight"], 8),
            "attn/key": to_heads(t[p + "k_proj.weight"], 8),
            "attn/value": to_heads(t[p + "v_proj.weight"], 8),
            "attn/out": from_heads(t[p + "o_proj.weight"], 8),
            "attn/q_norm/scale": t[p + "q_norm.weight"],
            "attn/k_norm/scale": t[p + "k_norm.weight"],
        }

    return hf.Qwen3ForCausalLM(theirs), ours, lambda t: llama_names(t, layer)


def gemma2():
    theirs = hf.Gemma2Config(
        **THEIRS,
        num_key_value_heads=KV_HEADS,
        head_dim=WIDTH,
        rms_norm_eps=1e-6,
        sliding_window=4,
        query_pre_attn_scalar=7,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=3.0,
        rope_parameters=dict(rope_theta=10_000.0, rope_type="default"),
    )
    ours = DecoderConfig(
        **llama_style()
        | dict(norm="rms_norm_plus_one", activation="gelu_tanh", tie_embeddings=True),
        **OURS,
        num_kv_heads=KV_HEADS,
        norm_place="both",
        norm_eps=1e-6,
        window=4,
        layer_pattern=("local", "global"),
        attention_softcap=2.0,
        logit_softcap=3.0,
        attention_scale=7**-0.5,
        scale_embeddings=True,
    )

    def layer(t, i):
        p = f"model.layers.{i}."
        return {
            **llama_layer(t, i),
            "attn_out_norm/scale": t[p + "post_attention_layernorm.weight"],
            "mlp_norm/scale": t[p + "pre_feedforward_layernorm.weight"],
            "mlp_out_norm/scale": t[p + "post_feedforward_layernorm.weight"],
        }

    return hf.Gemma2ForCausalLM(theirs), ours, lambda t: llama_names(t, layer)


def gpt_neox():
    width = 8
    theirs = hf.GPTNeoXConfig(
        **THEIRS | dict(num_attention_heads=2),
        hidden_act="gelu",
        layer_norm_eps=1e-5,
        use_parallel_residual=True,
        rope_parameters=dict(rope_theta=10_000.0, rope_type="default", partial_rotary_factor=0.5),
    )
    ours = DecoderConfig(
        **OURS | dict(num_heads=2),
        positions="rotary",
        rope_fraction=0.5,
        activation="gelu",
        parallel_block=True,
        tie_embeddings=False,
    )

    def layer(t, i):
        p = f"gpt_neox.layers.{i}."
        # query, key and value of each head stand together
        q, k, v = t[p + "attention.query_key_value.weight"].reshape(2, 3, width, DIM).swapaxes(0, 1)
        biases = t[p + "attention.query_key_value.bias"].reshape(2, 3, width).swapaxes(0, 1)
        return {
            "attn_norm/scale": t[p + "input_layernorm.weight"],
            "attn_norm/bias": t[p + "input_layernorm.bias"],
            "attn/query": q.transpose(2, 0, 1),
            "attn/key": k.transpose(2, 0, 1),
            "attn/value": v.transpose(2, 0, 1),
            "attn/query_bias": biases[0],
            "attn/key_bias": biases[1],
            "attn/value_bias": biases[2],
            "attn/out": from_heads(t[p + "attention.dense.weight"], width),
            "attn/out_bias": t[p + "attention.dense.bias"],
            "mlp_norm/scale": t[p + "post_attention_layernorm.weight"],
            "mlp_norm/bias": t[p + "post_attention_layernorm.bias"],
            "mlp/up": linear(t[p + "mlp.dense_h_to_4h.weight"]),
            "mlp/up_bias": t[p + "mlp.dense_h_to_4h.bias"],
            "mlp/down": linear(t[p + "mlp.dense_4h_to_h.weight"]),
            "mlp/down_bias": t[p + "mlp.dense_4h_to_h.bias"],
        }

    def names(t):
        head = "lm_head.weight" if "lm_head.weight" in t else "embed_out.weight"
        return {
            "backbone/embed/token/embedding": t["gpt_neox.embed_in.weight"],
            **stacked(lambda i: layer(t, i)),
            "backbone/final_norm/scale": t["gpt_neox.final_layer_norm.weight"],
            "backbone/final_norm/bias": t["gpt_neox.final_layer_norm.bias"],
            "head/unembedding": t[head],
        }

    return hf.GPTNeoXForCausalLM(theirs), ours, names


def bert_layer(t, p, attn_norm, mlp_norm):
    return {
        "attn/query": to_heads(t[p + "attention.self.query.weight"]),
        "attn/key": to_heads(t[p + "attention.self.key.weight"]),
        "attn/value": to_heads(t[p + "attention.self.value.weight"]),
        "attn/query_bias": to_heads(t[p + "attention.self.query.bias"]),
        "attn/key_bias": to_heads(t[p + "attention.self.key.bias"]),
        "attn/value_bias": to_heads(t[p + "attention.self.value.bias"]),
        "attn/out": from_heads(t[p + "attention.output.dense.weight"]),
        "attn/out_bias": t[p + "attention.output.dense.bias"],
        "attn_norm/scale": t[p + attn_norm + ".weight"],
        "attn_norm/bias": t[p + attn_norm + ".bias"],
        "mlp/up": linear(t[p + "intermediate.dense.weight"]),
        "mlp/up_bias": t[p + "intermediate.dense.bias"],
        "mlp/down": linear(t[p + "output.dense.weight"]),
        "mlp/down_bias": t[p + "output.dense.bias"],
        "mlp_norm/scale": t[p + mlp_norm + ".weight"],
        "mlp_norm/bias": t[p + mlp_norm + ".bias"],
    }


def bert():
    theirs = hf.BertConfig(**THEIRS | dict(pad_token_id=0), layer_norm_eps=1e-12)
    ours = EncoderConfig(**OURS)

    def layer(t, i):
        p = f"bert.encoder.layer.{i}."
        return bert_layer(t, p, "attention.output.LayerNorm", "output.LayerNorm")

    def names(t):
        e, h = "bert.embeddings.", "cls.predictions."
        return {
            "backbone/embed/token/embedding": t[e + "word_embeddings.weight"],
            "backbone/embed/position_embedding": t[e + "position_embeddings.weight"],
            "backbone/embed/type_embedding": t[e + "token_type_embeddings.weight"],
            "backbone/embed/norm/scale": t[e + "LayerNorm.weight"],
            "backbone/embed/norm/bias": t[e + "LayerNorm.bias"],
            **stacked(lambda i: layer(t, i)),
            "head/transform/kernel": linear(t[h + "transform.dense.weight"]),
            "head/transform/bias": t[h + "transform.dense.bias"],
            "head/norm/scale": t[h + "transform.LayerNorm.weight"],
            "head/norm/bias": t[h + "transform.LayerNorm.bias"],
            "head/unembedding_bias": t[h + "bias"],
        }

    return hf.BertForMaskedLM(theirs), ours, names


def roberta_prelayernorm():
    # positions begin after the padding token's: with it at 0, row 1 of their table is our row 0
    theirs = hf.RobertaPreLayerNormConfig(
        **THEIRS | dict(pad_token_id=0, max_position_embeddings=17),
        layer_norm_eps=1e-5,
        type_vocab_size=1,
    )
    ours = EncoderConfig(
        **OURS, norm_place="pre", norm_eps=1e-5, final_norm=True, num_token_types=1
    )

    def layer(t, i):
        p = f"roberta_prelayernorm.encoder.layer.{i}."
        return bert_layer(t, p, "attention.LayerNorm", "intermediate.LayerNorm")

    def names(t):
        m = "roberta_prelayernorm."
        e = m + "embeddings."
        return {
            "backbone/embed/token/embedding": t[e + "word_embeddings.weight"],
            "backbone/embed/position_embedding": t[e + "position_embeddings.weight"][1:],
            "backbone/embed/type_embedding": t[e + "token_type_embeddings.weight"],
            "backbone/embed/norm/scale": t[e + "LayerNorm.weight"],
            "backbone/embed/norm/bias": t[e + "LayerNorm.bias"],
            **stacked(lambda i: layer(t, i)),
            "backbone/final_norm/scale": t[m + "LayerNorm.weight"],
            "backbone/final_norm/bias": t[m + "LayerNorm.bias"],
            "head/transform/kernel": linear(t["lm_head.dense.weight"]),
            "head/transform/bias": t["lm_head.dense.bias"],
            "head/norm/scale": t["lm_head.layer_norm.weight"],
            "head/norm/bias": t["lm_head.layer_norm.bias"],
            "head/unembedding_bias": t["lm_head.bias"],
        }

    return hf.RobertaPreLayerNormForMaskedLM(theirs), ours, names


def modernbert():
    # sees local_attention / 2 = 2 places to each side
    rope = {
        "full_attention": dict(rope_type="default", rope_theta=1000.0),
        "sliding_attention": dict(rope_type="default", rope_theta=10.0),
    }
    theirs = hf.ModernBertConfig(
        **THEIRS | dict(pad_token_id=0),
        cls_token_id=None,
        sep_token_id=None,
        norm_eps=1e-12,
        local_attention=4,
        layer_types=["full_attention", "sliding_attention"],
        rope_parameters=rope,
    )
    ours = EncoderConfig(
        **OURS,
        norm_place="pre",
        norm_bias=False,
        final_norm=True,
        positions="rotary",
        rope_theta=1000.0,
        rope_local_theta=10.0,
        gated_mlp=True,
        attention_bias=False,
        attention_out_bias=False,
        mlp_bias=False,
        window=3,
        layer_pattern=("global", "local"),
        num_token_types=0,
    )

    def layer(t, i):
        p = f"model.layers.{i}."
        q, k, v = np.split(t[p + "attn.Wqkv.weight"], 3)
        gate, up = np.split(t[p + "mlp.Wi.weight"], 2)
        return {
            # theirs has no norm before the first attention; on embeddings normed with scale 1 ours changes nothing
            "attn_norm/scale": t[p + "attn_norm.weight"] if i else np.ones(DIM, np.float32),
            "attn/query": to_heads(q),
            "attn/key": to_heads(k),
            "attn/value": to_heads(v),
            "attn/out": from_heads(t[p + "attn.Wo.weight"]),
            "mlp_norm/scale": t[p + "mlp_norm.weight"],
            "mlp/gate": linear(gate),
            "mlp/up": linear(up),
            "mlp/down": linear(t[p + "mlp.Wo.weight"]),
        }

    def names(t):
        # their head has no bias in its dense layer
        return {
            "backbone/embed/token/embedding": t["model.embeddings.tok_embeddings.weight"],
            "backbone/embed/norm/scale": t["model.embeddings.norm.weight"],
            **stacked(lambda i: layer(t, i)),
            "backbone/final_norm/scale": t["model.final_norm.weight"],
            "head/transform/kernel": linear(t["head.dense.weight"]),
            "head/transform/bias": np.zeros(DIM, np.float32),
            "head/norm/scale": t["head.norm.weight"],
            "head/unembedding_bias": t["decoder.bias"],
        }

    model = hf.ModernBertForMaskedLM(theirs)
    model.model.embeddings.norm.weight.requires_grad = False
    return model, ours, names


FAMILIES = [
    gpt2,
    llama,
    mistral,
    qwen3,
    gemma2,
    gpt_neox,
    bert,
    roberta_prelayernorm,
    modernbert,
]


def tensors_of(model) -> dict[str, np.ndarray]:
    """What save_pretrained writes: tied tensors once."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return load_file(pathlib.Path(folder) / "model.safetensors")


def randomise(model):
    """Nothing that is trained stays at zero or one, so that every tensor matters."""
    generator = torch.Generator().manual_seed(0)
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        p.data = 0.25 * torch.randn(p.shape, generator=generator)
        if "norm" in name.lower() or ".ln_" in name:
            p.data += 1.0 if name.endswith("weight") else 0.0


def main():
    rng = np.random.default_rng(0)
    for family in FAMILIES:
        model, config, names = family()
        model = model.float().eval()
        randomise(model)
        tokens = rng.integers(1, VOCAB, (2, LENGTH)).astype(np.int32)
        valid = np.arange(LENGTH) < LENGTHS[:, None]
        tokens = np.where(valid, tokens, 0).astype(np.int32)
        inputs = dict(
            input_ids=torch.tensor(tokens).long(), attention_mask=torch.tensor(valid).long()
        )
        arrays = dict(tokens=tokens, lengths=LENGTHS)
        if family is bert:
            arrays["token_types"] = (np.arange(LENGTH) >= np.array([[5], [3]])).astype(np.int32)
            inputs["token_type_ids"] = torch.tensor(arrays["token_types"]).long()
        with torch.no_grad():
            arrays["logits"] = model(**inputs).logits.numpy()
        arrays |= names(tensors_of(model))
        arrays = {k: np.ascontiguousarray(v) for k, v in arrays.items()}
        path = pathlib.Path(__file__).with_name(f"{family.__name__}.safetensors")
        save_file(arrays, path, {"config": json.dumps(files.to_dict(config))})
        print(path.name, path.stat().st_size, "bytes, logits' spread", arrays["logits"].std())


if __name__ == "__main__":
    main()
