"""Decoders with unusual settings against transformers: the same logits with any padding, and the way back.

Every model is tiny and random. A row of the table is the class, and the settings in which it differs from the family's
defaults; the last entry is what the refusal names, or None where the logits have to be the same.
"""

import golden
import numpy as np
import pytest

from jaxlm import hf
from jaxlm.generation.engine import Engine
from jaxlm.generation.requests import Request
from jaxlm.generation.settings import Settings
from jaxlm.hf import export

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

SIZES = dict(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=24,
    max_position_embeddings=16,
    attn_implementation="eager",
    bos_token_id=None,
    eos_token_id=None,
    pad_token_id=0,
)
# names of sizes in GPT-2's and GPT-J's configs
OLD_SIZES = dict(
    vocab_size=40,
    n_embd=16,
    n_layer=2,
    n_head=4,
    n_inner=24,
    n_positions=16,
    attn_implementation="eager",
    bos_token_id=None,
    eos_token_id=None,
    pad_token_id=0,
)
THETA = dict(rope_theta=100.0)
LONG = dict(rope_type="longrope", short_factor=[1.0, 1.5], long_factor=[2.0, 7.0])
WIDE = dict(num_attention_heads=2, num_key_value_heads=1)
MOE = dict(moe_intermediate_size=8, num_experts=4, num_experts_per_tok=2)
SHARED_EXPERT = dict(shared_expert_intermediate_size=12)
OSS = dict(head_dim=8, num_local_experts=3, num_experts_per_tok=2, sliding_window=3)
# transformers counts ALiBi twice in its eager implementation of Falcon, once in the others
ALIBI = dict(alibi=True, attn_implementation="sdpa")

TABLE = [
    # phi3: fused projections
    ("Phi3ForCausalLM", {}, None),
    ("Phi3ForCausalLM", dict(num_key_value_heads=4, tie_word_embeddings=True), None),
    ("Phi3ForCausalLM", dict(num_key_value_heads=1, hidden_act="gelu"), None),
    ("Phi3ForCausalLM", dict(head_dim=8, rope_parameters=THETA), None),
    ("Phi3ForCausalLM", dict(sliding_window=3, resid_pdrop=0.1, embd_pdrop=0.2), None),
    ("Phi3ForCausalLM", dict(rope_parameters=THETA | dict(partial_rotary_factor=0.5)), None),
    ("Phi3ForCausalLM", dict(rope_parameters=THETA | LONG), None),
    (
        "Phi3ForCausalLM",
        dict(original_max_position_embeddings=4, rope_parameters=THETA | LONG),
        None,
    ),
    (
        "Phi3ForCausalLM",
        dict(
            original_max_position_embeddings=4,
            rope_parameters=THETA | LONG | dict(factor=3.0, attention_factor=1.3),
        ),
        None,
    ),
    (
        "Phi3ForCausalLM",
        dict(original_max_position_embeddings=4, rope_parameters=THETA | LONG | dict(type="su")),
        None,
    ),
    ("Phi3ForSequenceClassification", dict(num_labels=3), None),
    ("Phi3ForTokenClassification", dict(num_labels=3), None),
    ("Phi3Model", {}, None),
    # olmo2: norms of outputs
    ("Olmo2ForCausalLM", {}, None),
    ("Olmo2ForCausalLM", dict(attention_bias=True, num_key_value_heads=1), None),
    ("Olmo2ForCausalLM", dict(tie_word_embeddings=True, rms_norm_eps=0.1), None),
    ("Olmo2ForCausalLM", dict(rope_parameters=dict(rope_type="linear", factor=0.5) | THETA), None),
    ("Olmo2ForSequenceClassification", dict(num_labels=3), None),
    ("Olmo2Model", dict(head_dim=8), None),
    # starcoder2: layer norms and no gate
    ("Starcoder2ForCausalLM", dict(use_bias=False), None),
    ("Starcoder2ForCausalLM", dict(sliding_window=3, tie_word_embeddings=False), None),
    ("Starcoder2ForCausalLM", dict(head_dim=8, norm_epsilon=0.1, hidden_act="relu"), None),
    ("Starcoder2ForCausalLM", dict(residual_dropout=0.1, embedding_dropout=0.2), None),
    ("Starcoder2ForTokenClassification", dict(num_labels=3), None),
    ("Starcoder2ForSequenceClassification", dict(num_labels=3), None),
    # stablelm: a part of each head, norms by head
    ("StableLmForCausalLM", WIDE, None),
    ("StableLmForCausalLM", WIDE | dict(qk_layernorm=True), None),
    ("StableLmForCausalLM", WIDE | dict(use_parallel_residual=True, hidden_dropout=0.2), None),
    ("StableLmForCausalLM", dict(qk_layernorm=True, partial_rotary_factor=0.5), None),
    ("StableLmForCausalLM", WIDE | dict(use_qkv_bias=True, tie_word_embeddings=True), None),
    ("StableLmForCausalLM", dict(rope_parameters=dict(partial_rotary_factor=1.0) | THETA), None),
    ("StableLmForCausalLM", WIDE | dict(hidden_act="gelu", layer_norm_eps=0.1), None),
    ("StableLmForSequenceClassification", WIDE | dict(num_labels=3), None),
    ("StableLmForTokenClassification", WIDE | dict(num_labels=3), None),
    # granite: factors
    ("GraniteForCausalLM", {}, None),
    ("GraniteForCausalLM", dict(embedding_multiplier=12, attention_multiplier=0.0625), None),
    ("GraniteForCausalLM", dict(residual_multiplier=0.22, logits_scaling=3), None),
    ("GraniteForCausalLM", dict(logits_scaling=16.0, tie_word_embeddings=True), None),
    ("GraniteForCausalLM", dict(attention_bias=True, mlp_bias=True, head_dim=8), None),
    ("GraniteModel", dict(embedding_multiplier=0.3, residual_multiplier=2.0), None),
    # smollm3: layers without positions
    ("SmolLM3ForCausalLM", dict(num_hidden_layers=5), None),
    ("SmolLM3ForCausalLM", dict(no_rope_layers=[0, 1], rope_parameters=THETA), None),
    ("SmolLM3ForCausalLM", dict(no_rope_layers=[0, 0, 1, 1]), None),
    ("SmolLM3ForCausalLM", dict(no_rope_layer_interval=1), None),
    ("SmolLM3ForCausalLM", dict(no_rope_layer_interval=2, use_sliding_window=True), None),
    (
        "SmolLM3ForCausalLM",
        dict(no_rope_layer_interval=2, use_sliding_window=True, sliding_window=3),
        None,
    ),
    (
        "SmolLM3ForCausalLM",
        dict(layer_types=["sliding_attention", "full_attention"], sliding_window=3),
        None,
    ),
    ("SmolLM3ForCausalLM", dict(attention_bias=True, mlp_bias=True, head_dim=8), None),
    ("SmolLM3ForCausalLM", dict(tie_word_embeddings=False, num_key_value_heads=1), None),
    ("SmolLM3ForSequenceClassification", dict(num_labels=3), None),
    ("SmolLM3ForTokenClassification", dict(num_labels=3), None),
    # gptj: neighbouring dims
    ("GPTJForCausalLM", dict(rotary_dim=4), None),
    ("GPTJForCausalLM", dict(rotary_dim=2, n_inner=None), None),
    ("GPTJForCausalLM", dict(rotary_dim=6, n_head=2, tie_word_embeddings=True), None),
    ("GPTJForCausalLM", dict(rotary_dim=2, activation_function="relu", embd_pdrop=0.3), None),
    ("GPTJForCausalLM", dict(rotary_dim=4, layer_norm_epsilon=0.1), None),
    ("GPTJForSequenceClassification", dict(rotary_dim=4, num_labels=3), None),
    ("GPTJForQuestionAnswering", dict(rotary_dim=4), None),
    ("GPTJModel", dict(rotary_dim=4), None),
    # qwen2_moe and qwen3_moe: experts
    ("Qwen2MoeForCausalLM", MOE | SHARED_EXPERT, None),
    ("Qwen2MoeForCausalLM", MOE | SHARED_EXPERT | dict(norm_topk_prob=True), None),
    ("Qwen2MoeForCausalLM", MOE | SHARED_EXPERT | dict(qkv_bias=False, head_dim=8), None),
    (
        "Qwen2MoeForCausalLM",
        MOE | SHARED_EXPERT | dict(use_sliding_window=True, sliding_window=3, num_hidden_layers=4),
        None,
    ),
    (
        "Qwen2MoeForCausalLM",
        MOE | SHARED_EXPERT | dict(use_sliding_window=True, sliding_window=3, max_window_layers=0),
        None,
    ),
    # layers with and without experts
    (
        "Qwen2MoeForCausalLM",
        MOE | SHARED_EXPERT | dict(decoder_sparse_step=2, num_hidden_layers=5),
        None,
    ),
    (
        "Qwen2MoeForCausalLM",
        MOE
        | SHARED_EXPERT
        | dict(mlp_only_layers=[1, 4], num_hidden_layers=6, intermediate_size=20)
        | dict(use_sliding_window=True, sliding_window=3),
        None,
    ),
    (
        "Qwen2MoeForCausalLM",
        MOE | SHARED_EXPERT | dict(mlp_only_layers=[0, 1]),
        "this model has none",
    ),
    (
        "Qwen2MoeForSequenceClassification",
        MOE | SHARED_EXPERT | dict(mlp_only_layers=[0], num_labels=3),
        None,
    ),
    ("Qwen2MoeForSequenceClassification", MOE | SHARED_EXPERT | dict(num_labels=3), None),
    ("Qwen2MoeForTokenClassification", MOE | SHARED_EXPERT | dict(num_labels=3), None),
    ("Qwen3MoeForCausalLM", MOE, None),
    ("Qwen3MoeForCausalLM", MOE | dict(norm_topk_prob=True, num_experts_per_tok=1), None),
    ("Qwen3MoeForCausalLM", MOE | dict(num_experts_per_tok=4, tie_word_embeddings=True), None),
    ("Qwen3MoeForCausalLM", MOE | dict(use_sliding_window=True, sliding_window=3), None),
    ("Qwen3MoeForCausalLM", MOE | dict(attention_bias=True, head_dim=8, hidden_act="relu"), None),
    (
        "Qwen3MoeForCausalLM",
        MOE | dict(decoder_sparse_step=3, mlp_only_layers=[5], num_hidden_layers=7),
        None,
    ),
    ("Qwen3MoeForCausalLM", MOE | dict(mlp_only_layers=[0], num_hidden_layers=4), None),
    ("Qwen3MoeForCausalLM", MOE | dict(num_experts=0), "num_local_experts=0"),
    ("Qwen3MoeForTokenClassification", MOE | dict(num_labels=3), None),
    ("MixtralForCausalLM", dict(num_local_experts=3, router_jitter_noise=0.1), None),
    # gpt_oss: experts in one tensor, sinks
    ("GptOssForCausalLM", OSS, None),
    ("GptOssForCausalLM", OSS | dict(num_hidden_layers=3, swiglu_alpha=0.7), None),
    ("GptOssForCausalLM", OSS | dict(attention_bias=False, swiglu_limit=0.1), None),
    ("GptOssForCausalLM", OSS | dict(layer_types=["full_attention"] * 2), None),
    ("GptOssForCausalLM", OSS | dict(num_experts_per_tok=1, tie_word_embeddings=True), None),
    ("GptOssForCausalLM", OSS | dict(num_key_value_heads=4, head_dim=4), None),
    ("GptOssForSequenceClassification", OSS | dict(num_labels=3), None),
    ("GptOssForTokenClassification", OSS | dict(num_labels=3), None),
    # falcon: grouped projections, several kinds of blocks; ALiBi
    ("FalconForCausalLM", {}, None),
    ("FalconForCausalLM", dict(multi_query=False, parallel_attn=False, bias=True), None),
    ("FalconForCausalLM", dict(multi_query=False, ffn_hidden_size=24), None),
    ("FalconForCausalLM", dict(parallel_attn=False, tie_word_embeddings=False), None),
    ("FalconForCausalLM", dict(new_decoder_architecture=True, num_kv_heads=2), None),
    ("FalconForCausalLM", dict(new_decoder_architecture=True, bias=True), None),
    ("FalconForCausalLM", dict(new_decoder_architecture=True, num_kv_heads=1), None),
    (
        "FalconForCausalLM",
        dict(new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1),
        None,
    ),
    ("FalconForCausalLM", dict(rope_parameters=dict(rope_type="linear", factor=2.0) | THETA), None),
    ("FalconForCausalLM", ALIBI, None),
    ("FalconForCausalLM", ALIBI | dict(num_attention_heads=16, hidden_size=32), None),
    ("FalconForCausalLM", ALIBI | dict(parallel_attn=False, multi_query=False, bias=True), None),
    ("FalconForSequenceClassification", dict(num_labels=3), None),
    ("FalconForTokenClassification", dict(num_labels=3), None),
    ("FalconForQuestionAnswering", dict(new_decoder_architecture=True, num_kv_heads=2), None),
    ("FalconModel", ALIBI, None),
    # bloom: ALiBi
    *(
        (f"BloomFor{kind}", dict(n_head=heads, num_labels=3), None)
        for kind, heads in [("SequenceClassification", 1), ("TokenClassification", 2)]
    ),
    ("BloomForQuestionAnswering", dict(n_head=4), None),
    ("BloomForCausalLM", dict(n_head=8, tie_word_embeddings=False), None),
    ("BloomForCausalLM", dict(n_head=3, hidden_size=24, layer_norm_epsilon=0.1), None),
    ("BloomForCausalLM", dict(n_head=12, hidden_size=24, pretraining_tp=2), None),
    ("BloomForCausalLM", dict(apply_residual_connection_post_layernorm=True), "post_layernorm"),
    ("BloomModel", dict(n_head=4), None),
    # gemma3: classes of texts
    ("Gemma3TextForSequenceClassification", dict(head_dim=8, num_labels=3), None),
    ("Gemma3ForCausalLM", dict(head_dim=8, sliding_window=3, num_hidden_layers=7), None),
    # spans, also where the backbone has another name
    *((f"{name}ForQuestionAnswering", {}, None) for name in ("Llama", "Qwen2", "Qwen3", "SmolLM3")),
    ("Qwen2MoeForQuestionAnswering", MOE | SHARED_EXPERT, None),
    ("Qwen3MoeForQuestionAnswering", MOE, None),
    ("MixtralForQuestionAnswering", dict(num_local_experts=3), None),
    ("OPTForQuestionAnswering", dict(ffn_dim=24), None),
    # an odd width of the rotated part
    ("GPTNeoXForCausalLM", dict(rotary_pct=0.75), None),
    ("GPTNeoXForCausalLM", dict(num_attention_heads=2, rotary_pct=0.65), None),
    ("Phi3ForCausalLM", WIDE | dict(partial_rotary_factor=0.65), None),
    (
        "GPTNeoXForCausalLM",
        dict(rope_parameters=dict(rope_type="linear", factor=2.0, partial_rotary_factor=0.75)),
        "is odd, which is supported with",
    ),
    # dropout of embeddings is of training alone
    ("GPT2LMHeadModel", dict(embd_pdrop=0.3, resid_pdrop=0.1), None),
    # scalings
    (
        "LlamaForCausalLM",
        dict(rope_parameters=dict(rope_type="linear", factor=0.5) | THETA),
        None,
    ),
    ("LlamaForCausalLM", dict(rope_parameters=dict(rope_type="dynamic", factor=2.0)), None),
    ("LlamaForCausalLM", dict(rope_parameters=THETA | LONG | dict(factor=4.0)), None),
    (
        "LlamaForCausalLM",
        dict(rope_parameters=THETA | LONG | dict(original_max_position_embeddings=4)),
        None,
    ),
    (
        "LlamaForCausalLM",
        dict(
            rope_parameters=THETA
            | dict(rope_type="yarn", factor=8.0, original_max_position_embeddings=64)
            | dict(mscale=0.7, mscale_all_dim=0.3, truncate=False, beta_fast=8)
        ),
        None,
    ),
    (
        "LlamaForCausalLM",
        dict(
            rope_parameters=THETA
            | dict(rope_type="yarn", factor=0.5, original_max_position_embeddings=64)
        ),
        None,
    ),
    (
        "LlamaForCausalLM",
        dict(
            rope_parameters=THETA
            | dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)
            | dict(attention_factor=1.4)
        ),
        None,
    ),
]


_NOT_FALCONS = ("num_key_value_heads", "intermediate_size")


def settings_of(name, changes):
    """The settings of a row: the changes to the sizes of its class."""
    sizes = OLD_SIZES if name.startswith(("GPTJ", "GPT2")) else SIZES
    if name.startswith("Bloom"):
        common = ("vocab_size", "attn_implementation", "pad_token_id", "hidden_size")
        sizes = {key: SIZES[key] for key in common}
    if name.startswith("Falcon"):
        sizes = {key: x for key, x in SIZES.items() if key not in _NOT_FALCONS}
    return sizes | changes


def made(name, changes):
    """A random model of a class, none of whose parameters are zero or one."""
    kind = getattr(transformers, name)
    torch.manual_seed(0)
    model = kind(kind.config_class(**settings_of(name, changes))).eval().float()
    for path, p in model.named_parameters():
        x = 0.3 * torch.randn(p.shape)
        p.data = x + 1.0 if path.endswith("weight") and p.ndim == 1 else x
    return model


def outputs(output):
    if "start_logits" in output:
        return torch.stack([output.start_logits, output.end_logits], -1)
    return output.last_hidden_state if "last_hidden_state" in output else output.logits


# rows of 10: no padding, padding on the right, on the left
SHORTER = 6
MASKS = np.array([np.ones(10), np.arange(10) < SHORTER, np.arange(10) >= 10 - SHORTER], np.int32)
IDS = np.where(MASKS, np.random.default_rng(0).integers(1, 40, MASKS.shape), 0).astype(np.int32)


def theirs(model):
    with torch.no_grad():
        return outputs(
            model(input_ids=torch.tensor(IDS).long(), attention_mask=torch.tensor(MASKS).long())
        ).numpy()


def test_a_model_with_images_is_read_without_them(tmp_path):
    text = {k: v for k, v in SIZES.items() if k != "attn_implementation"} | dict(head_dim=8)
    vision = dict(model_type="siglip_vision_model", hidden_size=16, intermediate_size=24)
    vision |= dict(num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    config = transformers.Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=39
    )
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model = transformers.Gemma3ForConditionalGeneration(config).eval()
    for p in model.parameters():
        p.data = 0.3 * torch.randn(p.shape)
    model.save_pretrained(tmp_path)
    loaded = hf.load(tmp_path, compute=golden.F32)
    assert export.choose(loaded.model).architecture == "Gemma3ForCausalLM"
    got = np.asarray(loaded(IDS, attention_mask=MASKS))
    np.testing.assert_allclose(got[MASKS > 0], theirs(model)[MASKS > 0], atol=5e-5)


def ident(row):
    return f"{row[0]}-{'-'.join(map(str, row[1])) or 'defaults'}"


@pytest.mark.parametrize(("name", "changes", "refused"), TABLE, ids=map(ident, TABLE))
@pytest.mark.filterwarnings("ignore")
def test_unusual_settings_give_the_same_logits_or_are_refused(name, changes, refused, tmp_path):
    model = made(name, changes)
    model.save_pretrained(tmp_path / "in")
    if refused:
        with pytest.raises(ValueError, match=refused):
            hf.load(tmp_path / "in")
        return
    loaded = hf.load(tmp_path / "in", compute=golden.F32)
    want, got = theirs(model), np.asarray(loaded(IDS, attention_mask=MASKS))
    real = MASKS > 0 if got.shape[:2] == MASKS.shape else np.ones(len(got), bool)
    np.testing.assert_allclose(got[real], want[real], atol=5e-5)
    labels = tuple(f"LABEL_{i}" for i in range(getattr(loaded.model, "num_classes", 0)))
    ids = {k: v for k, v in loaded.settings.items() if k.endswith("_token_id")}
    choice = export.save(
        tmp_path / "out", loaded.model, loaded.params, labels=labels, token_ids=ids
    )
    kind = getattr(transformers, choice.architecture)
    again, info = kind.from_pretrained(
        tmp_path / "out",
        output_loading_info=True,
        attn_implementation=changes.get("attn_implementation", "eager"),
    )
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[problem], (problem, info[problem])
    np.testing.assert_allclose(theirs(again.eval().float())[real], want[real], atol=5e-5)


@pytest.mark.parametrize("prompt", [4, 8, 9, 14])
def test_text_beyond_the_switch_of_longrope_is_that_of_phi3(prompt, tmp_path):
    """transformers' Phi-3 drops its cache at the switch, after 8 tokens, and computes all keys with other factors."""
    scaling = dict(rope_type="longrope", short_factor=[1.0, 1.5], long_factor=[2.0, 7.0])
    scaling |= dict(rope_theta=100.0, factor=4.0, original_max_position_embeddings=8)
    more = dict(original_max_position_embeddings=8, rope_parameters=scaling)
    more |= dict(max_position_embeddings=64)
    model = made("Phi3ForCausalLM", more)
    model.save_pretrained(tmp_path)
    ids = IDS[:1, :prompt] if prompt <= 10 else np.concatenate([IDS, IDS[:, ::-1]], 1)[:1, :prompt]
    with torch.no_grad():
        theirs = model.generate(
            torch.tensor(ids).long(), do_sample=False, max_new_tokens=10, eos_token_id=None
        )
    loaded = hf.load(tmp_path, compute=golden.F32)
    engine = Engine(loaded.model, loaded.params, slots=1, block=16)
    settings = Settings(max_new_tokens=10, temperature=0.0)
    (tokens,) = engine.run([Request(ids[0].tolist(), settings)])
    assert [token.id for token in tokens] == theirs[0, prompt:].tolist()
