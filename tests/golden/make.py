"""Creates the golden folders for tests/hf/test_parity.py: small random transformers models and their outputs.

Requires torch and transformers; run it only after changing this file:

    python tests/golden/make.py [NAME ...]

A folder contains a model as written by `save_pretrained` (config.json, and model.safetensors with weights in bfloat16,
to save space) and `expected.safetensors`, which has

- the inputs by their names in transformers,
- `logits`, and `pair_logits` of models with a head for pairs of texts,
- `hidden` [L + 1, B, T, D]: the hidden states before the first block and after each block, the last one after the final
  norm if there is one; of an encoder-decoder those of the decoder,
- `encoder_hidden`: the same for the encoder of an encoder-decoder,
- the architecture, in the metadata.
"""

import pathlib
import shutil
import sys

import numpy as np
import torch
import transformers as hf
from safetensors.numpy import save_file

VOCAB, DIM, LAYERS, HEADS, KV_HEADS, WIDTH, MLP, LENGTH = 32, 16, 2, 4, 2, 4, 24, 12
LENGTHS = np.array([12, 7])
SIZES = dict(
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
LLAMA = SIZES | dict(num_key_value_heads=KV_HEADS)
BERT = SIZES | dict(pad_token_id=0)
ROPE = dict(rope_theta=10_000.0, rope_type="default")


def gpt2(kind=hf.GPT2LMHeadModel, **more):
    config = hf.GPT2Config(
        vocab_size=VOCAB,
        n_embd=DIM,
        n_layer=LAYERS,
        n_head=HEADS,
        n_inner=MLP,
        n_positions=16,
        attn_implementation="eager",
        bos_token_id=None,
        eos_token_id=None,
        **more,
    )
    return kind(config)


def llama(**rope):
    return hf.LlamaForCausalLM(
        hf.LlamaConfig(**LLAMA, rms_norm_eps=1e-5, rope_parameters=ROPE | rope)
    )


def mistral():
    config = hf.MistralConfig(
        **LLAMA, head_dim=WIDTH, rms_norm_eps=1e-5, sliding_window=4, rope_parameters=ROPE
    )
    return hf.MistralForCausalLM(config)


def qwen2():
    config = hf.Qwen2Config(
        **LLAMA,
        tie_word_embeddings=True,
        use_sliding_window=True,
        sliding_window=4,
        max_window_layers=1,
        rope_parameters=ROPE,
    )
    return hf.Qwen2ForCausalLM(config)


def qwen3():
    rope = dict(
        rope_theta=1000.0, rope_type="yarn", factor=4.0, original_max_position_embeddings=64
    )
    config = hf.Qwen3Config(**LLAMA, head_dim=8, rms_norm_eps=1e-6, rope_parameters=rope)
    return hf.Qwen3ForCausalLM(config)


def gemma():
    return hf.GemmaForCausalLM(hf.GemmaConfig(**LLAMA, head_dim=8, rope_parameters=ROPE))


def gpt_neo():
    config = hf.GPTNeoConfig(
        vocab_size=VOCAB,
        hidden_size=DIM,
        num_layers=4,
        num_heads=HEADS,
        intermediate_size=MLP,
        max_position_embeddings=16,
        attention_types=[[["global", "local"], 2]],
        window_size=4,
        attn_implementation="eager",
        bos_token_id=None,
        eos_token_id=None,
    )
    return hf.GPTNeoForCausalLM(config)


def opt(**more):
    sizes = SIZES | dict(pad_token_id=1, ffn_dim=MLP)
    del sizes["intermediate_size"]
    return hf.OPTForCausalLM(hf.OPTConfig(**sizes | more))


FALCON = {name: x for name, x in SIZES.items() if name != "intermediate_size"}
# names of the golden folders of these decoders have a row that is padded on the left too
DECODERS = {
    "phi3": lambda: hf.Phi3ForCausalLM(
        hf.Phi3Config(
            **LLAMA | dict(num_attention_heads=2, num_key_value_heads=1),
            original_max_position_embeddings=6,
            sliding_window=5,
            rope_parameters=dict(
                rope_type="longrope",
                rope_theta=100.0,
                partial_rotary_factor=0.75,
                short_factor=[1.0, 1.5, 2.0],
                long_factor=[1.25, 3.0, 7.0],
            ),
        )
    ),
    "olmo2": lambda: hf.Olmo2ForCausalLM(hf.Olmo2Config(**LLAMA, rope_parameters=ROPE)),
    "starcoder2": lambda: hf.Starcoder2ForCausalLM(
        hf.Starcoder2Config(**LLAMA, sliding_window=4, rope_parameters=ROPE)
    ),
    "stablelm": lambda: hf.StableLmForCausalLM(
        hf.StableLmConfig(
            **LLAMA | dict(num_attention_heads=2, num_key_value_heads=1),
            use_qkv_bias=True,
            use_parallel_residual=True,
            qk_layernorm=True,
            rope_parameters=ROPE | dict(partial_rotary_factor=0.5),
        )
    ),
    "stablelm_tokens": lambda: hf.StableLmForTokenClassification(
        hf.StableLmConfig(
            **LLAMA, num_labels=3, rope_parameters=ROPE | dict(partial_rotary_factor=0.5)
        )
    ),
    "granite": lambda: hf.GraniteForCausalLM(
        hf.GraniteConfig(
            **LLAMA,
            embedding_multiplier=3.0,
            residual_multiplier=0.22,
            attention_multiplier=0.3,
            logits_scaling=0.7,
            rope_parameters=ROPE,
        )
    ),
    "smollm3": lambda: hf.SmolLM3ForCausalLM(
        hf.SmolLM3Config(
            **LLAMA | dict(num_hidden_layers=5),
            no_rope_layer_interval=2,
            use_sliding_window=True,
            sliding_window=4,
            rope_parameters=ROPE,
        )
    ),
    "qwen2_moe": lambda: hf.Qwen2MoeForCausalLM(
        hf.Qwen2MoeConfig(
            **LLAMA | dict(num_hidden_layers=4),
            moe_intermediate_size=8,
            shared_expert_intermediate_size=12,
            num_experts=4,
            num_experts_per_tok=2,
            use_sliding_window=True,
            sliding_window=4,
            rope_parameters=ROPE,
        )
    ),
    "qwen3_moe": lambda: hf.Qwen3MoeForCausalLM(
        hf.Qwen3MoeConfig(
            **LLAMA,
            head_dim=8,
            moe_intermediate_size=8,
            num_experts=4,
            num_experts_per_tok=3,
            norm_topk_prob=True,
            rope_parameters=ROPE,
        )
    ),
    "gpt_oss": lambda: hf.GptOssForCausalLM(
        hf.GptOssConfig(
            **LLAMA,
            head_dim=8,
            num_local_experts=3,
            num_experts_per_tok=2,
            sliding_window=4,
            swiglu_limit=0.5,
            rope_parameters=dict(
                rope_type="yarn",
                rope_theta=1000.0,
                factor=4.0,
                truncate=False,
                original_max_position_embeddings=64,
            ),
        )
    ),
    # six heads: slopes of two sequences
    "bloom": lambda: hf.BloomForCausalLM(
        hf.BloomConfig(
            vocab_size=VOCAB,
            hidden_size=24,
            n_layer=LAYERS,
            n_head=6,
            attn_implementation="eager",
            bos_token_id=None,
            eos_token_id=None,
        )
    ),
    "falcon": lambda: hf.FalconForCausalLM(
        hf.FalconConfig(
            **FALCON,
            ffn_hidden_size=MLP,
            new_decoder_architecture=True,
            num_kv_heads=2,
            bias=True,
            rope_parameters=ROPE,
        )
    ),
    "falcon_multi_query": lambda: hf.FalconForCausalLM(
        hf.FalconConfig(**FALCON, rope_parameters=ROPE)
    ),
    "gptj": lambda: hf.GPTJForCausalLM(
        hf.GPTJConfig(
            vocab_size=VOCAB,
            n_embd=DIM,
            n_layer=LAYERS,
            n_head=2,
            n_inner=MLP,
            n_positions=16,
            rotary_dim=6,
            attn_implementation="eager",
            bos_token_id=None,
            eos_token_id=None,
        )
    ),
}


def gemma2():
    config = hf.Gemma2Config(
        **LLAMA,
        head_dim=WIDTH,
        sliding_window=4,
        query_pre_attn_scalar=7,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=3.0,
        rope_parameters=ROPE,
    )
    return hf.Gemma2ForCausalLM(config)


def gemma3():
    rope = dict(rope_type="linear", factor=8.0, rope_theta=1000.0)
    config = hf.Gemma3TextConfig(
        **LLAMA,
        head_dim=8,
        sliding_window=4,
        query_pre_attn_scalar=7,
        layer_types=["sliding_attention", "full_attention"],
        rope_parameters={
            "full_attention": rope,
            "sliding_attention": dict(rope_type="default", rope_theta=10.0),
        },
    )
    return hf.Gemma3ForCausalLM(config)


def gpt_neox():
    config = hf.GPTNeoXConfig(
        **SIZES | dict(num_attention_heads=2),
        hidden_act="gelu",
        layer_norm_eps=1e-5,
        rope_parameters=ROPE | dict(partial_rotary_factor=0.5),
    )
    return hf.GPTNeoXForCausalLM(config)


def bert(kind):
    return kind(hf.BertConfig(**BERT, num_labels=3 if kind != hf.BertForQuestionAnswering else 2))


def modernbert(kind):
    # attends to local_attention / 2 = 2 positions on each side
    config = hf.ModernBertConfig(
        **BERT,
        cls_token_id=None,
        sep_token_id=None,
        local_attention=4,
        layer_types=["full_attention", "sliding_attention"],
        rope_parameters={
            "full_attention": dict(rope_type="default", rope_theta=1000.0),
            "sliding_attention": dict(rope_type="default", rope_theta=10.0),
        },
        num_labels=3,
    )
    return kind(config)


def mixtral():
    config = hf.MixtralConfig(
        **LLAMA, head_dim=WIDTH, num_local_experts=4, num_experts_per_tok=2, rope_parameters=ROPE
    )
    return hf.MixtralForCausalLM(config)


def roberta(kind, config=hf.RobertaConfig):
    # the first position is pad_token_id + 1
    sizes = BERT | dict(pad_token_id=1, max_position_embeddings=18)
    return kind(config(**sizes, layer_norm_eps=1e-5, type_vocab_size=1, num_labels=3))


def mpnet(kind):
    # the first position is 2, whatever pad_token_id says
    sizes = BERT | dict(pad_token_id=1, max_position_embeddings=18)
    return kind(hf.MPNetConfig(**sizes, num_labels=3))


def distilbert(kind):
    config = hf.DistilBertConfig(
        vocab_size=VOCAB,
        dim=DIM,
        n_layers=LAYERS,
        n_heads=HEADS,
        hidden_dim=MLP,
        max_position_embeddings=16,
        attn_implementation="eager",
        num_labels=3,
    )
    return kind(config)


def electra(kind):
    return kind(hf.ElectraConfig(**BERT, embedding_size=8, num_labels=3))


def albert(kind, **more):
    return kind(hf.AlbertConfig(**BERT | dict(num_hidden_layers=3) | more, embedding_size=8))


def deberta(kind, **more):
    config = hf.DebertaV2Config(
        **BERT,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        max_relative_positions=10,
        num_labels=3,
        **more,
    )
    return kind(config)


def nomic_bert(kind):
    return kind(hf.NomicBertConfig(**BERT, head_dim=8, num_labels=3, rope_parameters=ROPE))


DEBERTA_V3 = dict(
    position_biased_input=False,
    norm_rel_ebd="layer_norm",
    share_att_key=True,
    position_buckets=4,
)
LLAMA3 = dict(
    rope_type="llama3",
    factor=4.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=8,
)
CASES = {
    "gpt2": gpt2,
    "gpt2_classifier": lambda: gpt2(hf.GPT2ForSequenceClassification, num_labels=3, pad_token_id=0),
    "llama": llama,
    "llama_llama3": lambda: llama(**LLAMA3),
    "llama_linear": lambda: llama(rope_type="linear", factor=2.0),
    "mistral": mistral,
    "mixtral": mixtral,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "gemma": gemma,
    "gemma2": gemma2,
    "gemma3": gemma3,
    "gpt_neox": gpt_neox,
    "gpt_neo": gpt_neo,
    "opt": opt,
    **DECODERS,
    "opt_post_norm": lambda: opt(do_layer_norm_before=False, enable_bias=False),
    "bert": lambda: bert(hf.BertForMaskedLM),
    "bert_pretraining": lambda: bert(hf.BertForPreTraining),
    "albert_pretraining": lambda: albert(hf.AlbertForPreTraining),
    "bert_classifier": lambda: bert(hf.BertForSequenceClassification),
    "bert_tokens": lambda: bert(hf.BertForTokenClassification),
    "bert_span": lambda: bert(hf.BertForQuestionAnswering),
    "roberta": lambda: roberta(hf.RobertaForMaskedLM),
    "roberta_classifier": lambda: roberta(hf.RobertaForSequenceClassification),
    "xlm_roberta_tokens": lambda: roberta(hf.XLMRobertaForTokenClassification, hf.XLMRobertaConfig),
    "camembert": lambda: roberta(hf.CamembertForMaskedLM, hf.CamembertConfig),
    "roberta_prelayernorm": lambda: roberta(
        hf.RobertaPreLayerNormForMaskedLM, hf.RobertaPreLayerNormConfig
    ),
    "mpnet": lambda: mpnet(hf.MPNetForMaskedLM),
    "mpnet_classifier": lambda: mpnet(hf.MPNetForSequenceClassification),
    "distilbert": lambda: distilbert(hf.DistilBertForMaskedLM),
    "distilbert_classifier": lambda: distilbert(hf.DistilBertForSequenceClassification),
    "albert": lambda: albert(hf.AlbertForMaskedLM),
    "albert_groups": lambda: albert(
        hf.AlbertForSequenceClassification, num_hidden_layers=4, num_hidden_groups=2, num_labels=3
    ),
    "deberta_v2": lambda: deberta(hf.DebertaV2ForMaskedLM, type_vocab_size=2),
    "deberta_v3": lambda: deberta(hf.DebertaV2ForMaskedLM, **DEBERTA_V3),
    "deberta_v3_classifier": lambda: deberta(hf.DebertaV2ForSequenceClassification, **DEBERTA_V3),
    "nomic_bert": lambda: nomic_bert(hf.NomicBertForMaskedLM),
    "nomic_bert_classifier": lambda: nomic_bert(hf.NomicBertForSequenceClassification),
    "electra_generator": lambda: electra(hf.ElectraForMaskedLM),
    "electra_discriminator": lambda: electra(hf.ElectraForPreTraining),
    "electra_classifier": lambda: electra(hf.ElectraForSequenceClassification),
    "modernbert": lambda: modernbert(hf.ModernBertForMaskedLM),
    "modernbert_classifier": lambda: modernbert(hf.ModernBertForSequenceClassification),
}


SEQ2SEQ = dict(
    vocab_size=VOCAB,
    d_model=DIM,
    encoder_layers=LAYERS,
    decoder_layers=LAYERS,
    encoder_attention_heads=HEADS,
    decoder_attention_heads=HEADS,
    encoder_ffn_dim=MLP,
    decoder_ffn_dim=MLP,
    max_position_embeddings=16,
    attn_implementation="eager",
    pad_token_id=1,
    bos_token_id=None,
    eos_token_id=2,
    forced_eos_token_id=None,
    decoder_start_token_id=2,
)


def bart(kind, **more):
    return kind(kind.config_class(**SEQ2SEQ | more))


def t5(kind=hf.T5ForConditionalGeneration, tied=True, **more):
    config = kind.config_class(
        vocab_size=VOCAB,
        d_model=DIM,
        num_layers=LAYERS,
        num_heads=HEADS,
        d_kv=8,
        d_ff=MLP,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=10,
        attn_implementation="eager",
        decoder_start_token_id=0,
        **more,
    )
    model = kind(config)
    if not tied:
        config.tie_word_embeddings = False
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    return model


CASES |= {
    "t5": lambda: t5(num_decoder_layers=3),
    "t5_v1_1": lambda: t5(tied=False, tie_word_embeddings=False, feed_forward_proj="gated-gelu"),
    "mt5": lambda: t5(hf.MT5ForConditionalGeneration),
    "t5_headless": lambda: t5(hf.T5Model),
    "bart": lambda: bart(hf.BartForConditionalGeneration, decoder_layers=3),
    "mbart": lambda: bart(hf.MBartForConditionalGeneration, scale_embedding=True),
    "marian": lambda: bart(
        hf.MarianMTModel, scale_embedding=True, activation_function="swish", pad_token_id=31
    ),
    "m2m100": lambda: bart(hf.M2M100ForConditionalGeneration),
}


# golden folders with a row that is padded on the left
PADDED_LEFT = ("gpt_neo", "opt", "opt_post_norm", "mpnet", "albert", "deberta_v3", "nomic_bert")


CASES |= {
    "bart_classifier": lambda: bart(hf.BartForSequenceClassification, num_labels=3),
    "bart_span": lambda: bart(hf.BartForQuestionAnswering),
    "mbart_classifier": lambda: bart(hf.MBartForSequenceClassification, num_labels=3),
    "umt5": lambda: t5(hf.UMT5ForConditionalGeneration, num_decoder_layers=3),
    "t5_classifier": lambda: t5(hf.T5ForSequenceClassification, num_labels=3),
    "t5_encoder": lambda: t5(hf.T5EncoderModel),
    "mt5_tokens": lambda: t5(hf.MT5ForTokenClassification, num_labels=3),
    "umt5_encoder": lambda: t5(hf.UMT5EncoderModel),
    "pegasus": lambda: bart(hf.PegasusForConditionalGeneration, scale_embedding=True),
    "blenderbot": lambda: bart(hf.BlenderbotForConditionalGeneration, decoder_layers=3),
    "blenderbot_small": lambda: bart(
        hf.BlenderbotSmallForConditionalGeneration, scale_embedding=True
    ),
}


def randomise(model):
    """Sets all parameters to random values that bfloat16 represents exactly; none stays at zero or one."""
    generator = torch.Generator().manual_seed(0)
    for name, p in model.named_parameters():
        if not p.requires_grad:  # Marian's sinusoidal table
            continue
        # T5 needs embeddings of the same scale as its hidden states
        std = 1.0 if name == "shared.weight" else 0.25
        x = std * torch.randn(p.shape, generator=generator)
        # not the full name, which always contains "norm" in a pre-norm RoBERTa
        module = name.split(".")[-2].lower()
        if name.endswith("weight") and ("norm" in module or module.startswith("ln_")):
            x += 1.0
        p.data = x.bfloat16().float()
    for name, x in model.named_buffers():
        if name == "final_logits_bias":
            x += torch.randn(x.shape, generator=generator).bfloat16().float()


def logits_of(output):
    if "start_logits" in output:
        return torch.stack([output.start_logits, output.end_logits], -1)
    if "prediction_logits" in output:
        return output.prediction_logits
    return output.last_hidden_state if "last_hidden_state" in output else output.logits


def make(name):
    folder = pathlib.Path(__file__).with_name(name)
    shutil.rmtree(folder, ignore_errors=True)
    rng = np.random.default_rng(0)
    model = CASES[name]().float().eval()
    randomise(model)
    valid = np.arange(LENGTH) < LENGTHS[:, None]
    if name in (*PADDED_LEFT, *DECODERS):  # add a row that is padded on the left
        valid = np.vstack([valid, np.arange(LENGTH) >= 5])
    padding = getattr(model.config, "pad_token_id", None) or 0
    # UMT5's encoder alone says that it has a decoder, and those that classify make its input
    has_decoder = model.config.is_encoder_decoder and not name.endswith(
        ("encoder", "classifier", "span")
    )
    arrays = dict(
        input_ids=np.where(valid, rng.integers(2, VOCAB, valid.shape), padding).astype(np.int32),
        attention_mask=valid.astype(np.int32),
    )
    if name.startswith(("bert", "electra", "albert", "deberta_v2", "nomic")):
        arrays["token_type_ids"] = (
            np.arange(LENGTH) >= np.array([[5], [3], [8]])[: len(valid)]
        ).astype(np.int32)
    if name.startswith(("bart_", "mbart_", "t5_classifier")):
        # each text ends once
        ids = arrays["input_ids"]
        ids[valid & (ids < 3)] = 3
        ids[np.arange(len(ids)), valid.cumsum(1).argmax(1)] = model.config.eos_token_id
    if has_decoder:
        padding = model.config.pad_token_id
        targets = np.arange(LENGTH - 2) < np.array([[10], [4]])
        tokens = rng.integers(3, VOCAB - 1, targets.shape)
        arrays["input_ids"] = (
            np.where(valid, arrays["input_ids"] + 1, padding).astype(np.int32) % 32
        )
        arrays["decoder_input_ids"] = np.where(targets, tokens, padding).astype(np.int32)
        arrays["decoder_attention_mask"] = targets.astype(np.int32)
    inputs = {k: torch.tensor(v).long() for k, v in arrays.items()}
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    arrays["logits"] = logits_of(output).numpy()
    for key in ("seq_relationship_logits", "sop_logits"):
        if key in output:
            arrays["pair_logits"] = output[key].numpy()
    if "decoder_hidden_states" in output:
        arrays["hidden"] = torch.stack(output.decoder_hidden_states).numpy()
        arrays["encoder_hidden"] = torch.stack(output.encoder_hidden_states).numpy()
    else:
        arrays["hidden"] = torch.stack(output.hidden_states).numpy()
    model.bfloat16().save_pretrained(folder, max_shard_size="6KB" if name == "llama" else "5GB")
    for extra in folder.glob("generation_config.json"):
        extra.unlink()
    save_file(
        {k: np.ascontiguousarray(v) for k, v in arrays.items()},
        folder / "expected.safetensors",
        {"architecture": type(model).__name__},
    )
    size = sum(p.stat().st_size for p in folder.iterdir())
    names = sorted(p.name for p in folder.iterdir())
    print(f"{name}: {size} bytes, std of logits {arrays['logits'].std():.2f}, {names}")


if __name__ == "__main__":
    for name in sys.argv[1:] or CASES:
        make(name)
