"""Export: round trips, the class of each model, and errors."""

import dataclasses
import json
import re
import tracemalloc

import golden
import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from jaxlm import hf
from jaxlm.config import (
    ComputeConfig,
    DecoderConfig,
    EncoderConfig,
    RopeScaling,
    TokenizerConfig,
    llama_style,
)
from jaxlm.data import tokenizer as tokenizers
from jaxlm.hf import export, weights
from jaxlm.hf.families import FAMILIES
from jaxlm.hf.fields import ACTIVATIONS
from jaxlm.hf.settings import Settings
from jaxlm.hf.table import Layout, Source, Tensor
from jaxlm.models import heads

SIZES = dict(vocab_size=40, dim=16, num_layers=2, num_heads=4, mlp_dim=24, max_len=16)


def tensors(folder):
    return {k: x for path in folder.glob("*.safetensors") for k, x in load_file(path).items()}


def stored(name):
    found = tensors(golden.FOLDERS[name])
    for key in golden.expected(name)[0] | golden.expected(name)[1]:
        found.pop(key, None)
    return found


# of each kind of table one; the others are slow only because they are many
QUICK = (
    "bart",
    "bert_span",
    "deberta_v3",
    "electra_generator",
    "falcon",
    "gemma3",
    "gpt2",
    "llama",
)
QUICK += ("mixtral", "modernbert", "phi3", "t5", "t5_v1_1")
assert not set(QUICK) - set(golden.FOLDERS)


@pytest.mark.parametrize(
    "name",
    [pytest.param(x, marks=() if x in QUICK else pytest.mark.slow) for x in golden.FOLDERS],
)
def test_import_and_export_round_trip_bit_for_bit(name, tmp_path):
    loaded = golden.load(name)
    labels = ("a", "b", "c") if "classifier" in name or "tokens" in name else ()
    choice = export.save(tmp_path / "out", loaded.model, loaded.params, labels=labels)
    theirs = loaded.settings
    # XLM-R and CamemBERT are RoBERTa under another name, and mT5 a T5
    want = re.sub("^(XLM|M(?=T5))", "", theirs["architectures"][0])
    assert choice.architecture == want.replace("Camembert", "Roberta")
    # positions that are not learned are in the files of some families, and computed here
    want = {k: x for k, x in stored(name).items() if name != "pegasus" or "embed_pos" not in k}
    got = tensors(tmp_path / "out")
    assert set(got) == set(want)
    for key, x in want.items():
        np.testing.assert_array_equal(got[key], x.astype(np.float32), err_msg=key)
    again = hf.describe(tmp_path / "out")
    assert export.canonical(again.config) == export.canonical(loaded.config)
    # every exported setting has the original value, except those that belong to no model
    ours = json.loads((tmp_path / "out" / "config.json").read_text())
    loose = {"dtype", "architectures", "id2label", "label2id", "model_type", "rope_parameters"}
    loose |= {k for k in ours if k.endswith("_token_id")}
    loose |= {
        k
        for k in ours
        if str(theirs.get(k)) in ACTIVATIONS and ACTIVATIONS[ours[k]] == ACTIVATIONS[theirs[k]]
    }
    assert not {k for k in set(ours) & set(theirs) if ours[k] != theirs[k]} - loose
    with safe_open(next((tmp_path / "out").glob("*.safetensors")), "numpy") as f:
        assert f.metadata()["format"] == "pt"


def test_large_models_are_split_and_loaded_again(tmp_path):
    loaded = golden.load("gpt2")
    export.save(tmp_path / "out", loaded.model, loaded.params, max_shard_size="5KB")
    names = sorted(p.name for p in (tmp_path / "out").glob("model*"))
    assert names[0] == "model-00001-of-00005.safetensors"
    assert names[-1] == "model.safetensors.index.json"
    again = hf.load(tmp_path / "out")
    for a, b in zip(jax.tree.leaves(again.params), jax.tree.leaves(loaded.params)):
        np.testing.assert_array_equal(a, b)


def test_half_precision_on_request(tmp_path):
    loaded = golden.load("llama_linear")
    export.save(tmp_path / "out", loaded.model, loaded.params, dtype="bfloat16")
    assert {x.dtype.name for x in tensors(tmp_path / "out").values()} == {"bfloat16"}
    # the golden numbers are bfloat16 already
    again = hf.load(tmp_path / "out").params
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(loaded.params)):
        np.testing.assert_array_equal(a, b)


# --- which class a model of ours is ---


def architecture(model):
    return export.choose(model).architecture


def test_the_class_follows_from_the_config():
    gpt, llama = DecoderConfig(**SIZES), DecoderConfig(**llama_style(), **SIZES)
    assert architecture(heads.CausalLM(gpt)) == "GPT2LMHeadModel"
    assert architecture(heads.CausalLM(llama)) == "LlamaForCausalLM"
    change = dataclasses.replace
    tied = change(llama, tie_embeddings=True, num_kv_heads=2, head_dim=8)
    assert architecture(heads.CausalLM(tied)) == "LlamaForCausalLM"
    scaled = change(llama, rope_scaling=RopeScaling(kind="yarn", factor=2.0))
    assert architecture(heads.CausalLM(scaled)) == "LlamaForCausalLM"
    assert architecture(heads.CausalLM(change(llama, window=4))) == "MistralForCausalLM"
    assert (
        architecture(heads.CausalLM(change(llama, extra_norms=("qk", "final"))))
        == "Qwen3ForCausalLM"
    )
    bias = change(llama, biases=("qkv",))
    assert architecture(heads.CausalLM(bias)) == "Qwen2ForCausalLM"
    experts = change(llama, num_experts=4)
    assert architecture(heads.CausalLM(experts)) == "MixtralForCausalLM"
    bert = EncoderConfig(**SIZES)
    assert architecture(heads.MaskedLM(bert)) == "BertForMaskedLM"
    assert architecture(heads.Headless(bert)) == "BertModel"
    assert architecture(heads.Classifier(bert, 3)) == "BertForSequenceClassification"
    assert architecture(heads.Classifier(gpt, 3, "last")) == "GPT2ForSequenceClassification"
    assert architecture(heads.SpanQA(bert)) == "BertForQuestionAnswering"
    roberta = change(bert, position_offset=2)
    assert architecture(heads.MaskedLM(roberta)) == "RobertaForMaskedLM"
    narrow = change(bert, embedding_dim=8, head_activation="gelu")
    assert architecture(heads.Detector(narrow)) == "ElectraForPreTraining"


def test_the_quickstart_run_can_be_exported():
    from jaxlm.run import quickstart

    config = dataclasses.replace(quickstart.pretraining().model, vocab_size=4096)
    assert architecture(heads.CausalLM(config)) == "LlamaForCausalLM"


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            heads.CausalLM(DecoderConfig(**SIZES, positions="sinusoidal")),
            ["CausalLM", "GPT2LMHeadModel", "model.positions='sinusoidal'"],
        ),
        (
            heads.Classifier(EncoderConfig(**SIZES), 2, "mean"),
            ["BertForSequenceClassification", "task.pooling=mean"],
        ),
        (heads.MaskedLMHead(EncoderConfig(**SIZES)), ["no class for a MaskedLMHead"]),
    ],
)
def test_models_without_a_class_are_rejected_with_the_reason(model, words):
    with pytest.raises(ValueError, match="transformers has no class") as e:
        export.choose(model)
    assert all(word in str(e.value) for word in words), e.value


def test_no_family_ignores_a_field():
    """A config that differs in any one field belongs to another family or is rejected: no field is ignored."""
    base = DecoderConfig(**llama_style(), **SIZES, num_kv_heads=2)
    others = dict(norm_eps=1e-3, rope_theta=7.0, max_len=32, vocab_size=48, activation="reglu")
    for name, value in others.items():
        changed = dataclasses.replace(base, **{name: value})
        settings = FAMILIES["llama"].write(changed)
        again = FAMILIES["llama"].read(Settings(settings, "x"))
        assert getattr(again, name) == value, name


def test_a_nonempty_folder_is_not_overwritten(tmp_path):
    loaded = golden.load("gpt2")
    (tmp_path / "note").write_text("mine")
    with pytest.raises(ValueError, match="is not empty"):
        export.save(tmp_path, loaded.model, loaded.params)
    assert [p.name for p in tmp_path.iterdir()] == ["note"]
    with pytest.raises(ValueError, match="cannot be written"):
        export.save(tmp_path / "note" / "b", loaded.model, loaded.params)
    with pytest.raises(ValueError, match="not a size such as 5GB"):
        export.save(tmp_path / "a", loaded.model, loaded.params, max_shard_size="many")


def test_a_failed_export_leaves_no_files(tmp_path, monkeypatch):
    loaded = golden.load("gpt2")

    def full(*args, **options):
        raise OSError("No space left on device")

    monkeypatch.setattr(weights, "write", full)
    with pytest.raises(OSError, match="No space"):
        export.save(tmp_path / "out", loaded.model, loaded.params)
    assert not list(tmp_path.iterdir())


def test_the_model_card_has_yaml_and_the_metrics():
    choice = export.choose(heads.CausalLM(DecoderConfig(**SIZES)))
    facts = {"steps": 3, "training data": "a: b"}
    card = export.model_card(choice, 'my "model"', facts, {"loss": 1.25, "note": "x"})
    _, head, body = card.split("---\n", 2)
    values = {k: json.loads(v) for k, v in (line.split(": ", 1) for line in head.splitlines())}
    assert values["pipeline_tag"] == "text-generation"
    [metric] = values["model-index"][0]["results"][0]["metrics"]
    assert metric == {"type": "loss", "value": 1.25, "name": "loss"}
    assert "| loss | 1.2500 |" in body
    assert "GPT2LMHeadModel.from_pretrained" in body


def test_compute_settings_do_not_matter():
    model = heads.CausalLM(DecoderConfig(**SIZES), ComputeConfig(remat="full"))
    assert architecture(model) == "GPT2LMHeadModel"


def test_the_roles_ends_and_chat_template_of_a_tokenizer_survive(tmp_path):
    names = ["<|im_start|>", "<|im_end|>", "<|eot|>"]
    tok = tokenizers.train(["some text"], TokenizerConfig(kind="byte_bpe", vocab_size=300))
    tok = dataclasses.replace(
        tok.with_tokens(names),
        roles={"eos": "<|im_end|>", "bos": "<|im_start|>"},
        chat_template={"default": "one", "tool_use": "two"},
        ends=("<|im_end|>", "<|eot|>"),
    )
    model = heads.CausalLM(DecoderConfig(**SIZES | {"vocab_size": tok.vocab_size}))
    params = heads.init_params(model, jax.random.key(0))
    export.save(tmp_path / "out", model, params, tokenizer=tok)
    again = hf.load(tmp_path / "out").tokenizer
    assert (again.eos_id, again.bos_id) == tuple(tok.ids_of(["<|im_end|>", "<|im_start|>"]))
    assert again.end_ids == tok.end_ids == tuple(tok.ids_of(["<|im_end|>", "<|eot|>"]))
    assert again.chat_template == tok.chat_template
    written = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert written["eos_token_id"] == [*tok.end_ids]


def test_a_flipped_bit_of_an_export_is_found(tmp_path):
    loaded = golden.load("llama")
    export.save(tmp_path / "out", loaded.model, loaded.params)
    path = tmp_path / "out" / "model.safetensors"
    hf.load(tmp_path / "out")
    data = bytearray(path.read_bytes())
    data[len(data) - 1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"model\.safetensors: its values are not those"):
        hf.load(tmp_path / "out")


def test_an_export_holds_one_tensor_at_a_time(tmp_path):
    names = [f"layers.{i}" for i in range(50)]
    params = {name: np.full((64, 256), i, np.float32) for i, name in enumerate(names)}
    layout = Layout.parse("A B -> A B")
    tensors = [
        Tensor(name, (64, 256), ((name, Source(name, layout, 0, 0, (), (64, 256))),), (), params)
        for name in names
    ]
    tracemalloc.start()
    weights.write(tmp_path / "x.safetensors", tensors, np.dtype(np.float32))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 64 * 256 * 4
    read = load_file(tmp_path / "x.safetensors")
    assert read.keys() == params.keys()
    assert all(np.array_equal(read[name], params[name]) for name in names)
