"""`hf.load` on valid and invalid folders."""

import json
import shutil

import golden
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxlm import hf, sharding
from jaxlm.config import MeshConfig, files
from jaxlm.hf import loading, weights
from jaxlm.run import quickstart


def copy(name, folder):
    """A copy of a golden model to corrupt: its folder, tensors and settings."""
    folder.mkdir(exist_ok=True)
    for path in golden.FOLDERS[name].iterdir():
        if path.name != "expected.safetensors":
            shutil.copy(path, folder)
    files = sorted(folder.glob("*.safetensors"))
    return {name: x for path in files for name, x in load_file(path).items()}


def settings(folder, **changes):
    path = folder / "config.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not ...}))


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        np.testing.assert_array_equal(x, y)


def test_a_run_is_named_for_what_it_is(tmp_path):
    files.save(quickstart.pretraining(), tmp_path / "config.json")
    with pytest.raises(ValueError, match=r"a run of jaxlm: load it with jaxlm\.load, or write a"):
        hf.load(tmp_path)


# --- names ---


def test_the_name_prefix_is_optional_and_old_names_are_known(tmp_path):
    want = golden.load("bert").params
    tensors = copy("bert", tmp_path)
    bare = {name.removeprefix("bert."): x for name, x in tensors.items()}
    save_file(bare, tmp_path / "model.safetensors")
    equal(hf.load(tmp_path).params, want)

    def old(name):
        return name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta")

    save_file({old(name): x for name, x in tensors.items()}, tmp_path / "model.safetensors")
    equal(hf.load(tmp_path).params, want)


def test_a_headless_model_is_loaded_from_any_of_its_files(tmp_path):
    copy("bert_classifier", tmp_path)
    want = golden.load("bert_classifier").params["backbone"]
    got = hf.load(tmp_path, backbone_only=True)
    equal(got.params, {"backbone": want})
    assert got(np.ones((1, 3), int)).shape == (1, 3, 16)
    # an unsupported class: the backbone can still be loaded
    settings(tmp_path, architectures=["BertForMultipleChoice"])
    equal(hf.load(tmp_path, backbone_only=True).params, {"backbone": want})
    with pytest.raises(
        ValueError, match=r"BertForMultipleChoice is not supported.*backbone_only=True"
    ):
        hf.load(tmp_path)


@pytest.mark.parametrize("name", ["language_model.model.", "model.language_model."])
def test_the_text_part_of_a_model_with_images_is_loaded(name, tmp_path):
    want = golden.load("gemma3")
    tensors = copy("gemma3", tmp_path)
    renamed = {key.replace("model.", name, 1): x for key, x in tensors.items()}
    images = ["vision_tower.encoder.layers.0.mlp.fc1.weight", "multi_modal_projector.mm_soft_emb"]
    unread = {key: np.ones((2, 3), np.float32) for key in images}
    save_file(renamed | unread, tmp_path / "model.safetensors")
    path = tmp_path / "config.json"
    text = json.loads(path.read_text())
    del text["architectures"]
    # configs of the hub leave out what is the default
    text["attn_logit_softcapping"] = None
    whole = dict(model_type="gemma3", text_config=text, vision_config={"hidden_size": 8})
    whole |= dict(mm_tokens_per_image=4, image_token_index=9, boi_token_index=7, eos_token_id=[1])
    path.write_text(json.dumps(whole | {"architectures": ["Gemma3ForConditionalGeneration"]}))
    loaded = hf.load(tmp_path)
    equal(loaded.params, want.params)
    assert (loaded.config, type(loaded.model)) == (want.config, type(want.model))
    path.write_text(json.dumps(whole | {"architectures": ["Gemma3Model"]}))
    equal(hf.load(tmp_path).params, {"backbone": want.params["backbone"]})


def test_the_output_table_is_tied_according_to_the_stored_tensors(tmp_path):
    tensors = copy("llama_linear", tmp_path)
    settings(tmp_path, tie_word_embeddings=True)
    # two different tables: not tied, regardless of the settings
    assert hf.describe(tmp_path).config.tie_embeddings is False
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    assert hf.describe(tmp_path).config.tie_embeddings is True
    table = tensors.pop("model.embed_tokens.weight")
    save_file(tensors, tmp_path / "model.safetensors")
    # one of two tied tables suffices, whichever it is
    assert hf.describe(tmp_path).config.tie_embeddings is True
    params = hf.load(tmp_path).params
    assert "head" not in params
    np.testing.assert_array_equal(params["backbone"]["embed"]["token"]["embedding"], table)


def test_a_table_that_is_not_tied_must_be_there(tmp_path):
    tensors = copy("llama_linear", tmp_path)
    settings(tmp_path, tie_word_embeddings=False)
    del tensors["lm_head.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"lm_head.weight is missing.*tie_word_embeddings=false"):
        hf.describe(tmp_path)
    tensors = copy("bart", tmp_path / "bart")
    settings(tmp_path / "bart", tie_word_embeddings=False)
    with pytest.raises(ValueError, match=r"encoder\.embed_tokens\.weight is missing"):
        hf.describe(tmp_path / "bart")


def test_without_architectures_the_head_is_not_guessed(tmp_path):
    copy("llama_linear", tmp_path)
    settings(tmp_path, architectures=None)
    with pytest.raises(ValueError, match=r"has no architectures.*LlamaForCausalLM"):
        hf.load(tmp_path)
    assert "head" not in hf.load(tmp_path, backbone_only=True).params


def test_what_a_table_has_no_row_for_is_an_error():
    loaded, bart = golden.load("bert_classifier"), golden.load("bart")
    m2m = golden.load("m2m100")
    row = [[5, 6, 7, 8]]
    cases = [
        (loaded, dict(input_ids=[[5, 32]]), "input_ids has 32, which is not in 0 ... 31"),
        (loaded, dict(input_ids=[[5, -1]]), "input_ids has -1"),
        (loaded, dict(input_ids=[[5.0]]), "input_ids must be integers"),
        (loaded, dict(input_ids=[[5] * 17]), "input_ids has 17 tokens, but .* for 16"),
        (loaded, dict(input_ids=row, position_ids=[[0, 1, 2, 16]]), "position_ids has 16"),
        (loaded, dict(input_ids=row, token_type_ids=[[0, 1, 2, 1]]), "token_type_ids has 2"),
        (loaded, dict(input_ids=row, attention_mask=[[0, 1, 1, 1]]), "pad on the right"),
        (bart, dict(input_ids=row, decoder_input_ids=[[40]]), "decoder_input_ids has 40"),
        # transformers gives them a position of zeros
        (m2m, dict(input_ids=[[5, 1]], decoder_input_ids=row), "mask counts padding tokens"),
        (m2m, dict(input_ids=row, decoder_input_ids=[[5, 1]]), "mask counts padding tokens"),
    ]
    for model, inputs, words in cases:
        with pytest.raises(ValueError, match=words):
            model(**inputs)


def test_positions_of_roberta_count_real_tokens():
    loaded = golden.load("roberta")
    tokens = golden.expected("roberta")[0]["input_ids"][1:, :7]
    left = np.concatenate([np.ones((1, 3), int), tokens], 1)
    right = np.concatenate([tokens, np.ones((1, 3), int)], 1)
    a = loaded(left, attention_mask=left != 1)[:, 3:]
    b = loaded(right, attention_mask=right != 1)[:, :7]
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_positions_of_opt_follow_the_attention_mask():
    loaded = golden.load("opt")
    tokens = golden.expected("opt")[0]["input_ids"][1:2, :7]
    padding = np.ones((1, 3), int)
    left, right = np.concatenate([padding, tokens], 1), np.concatenate([tokens, padding], 1)
    is_left = np.arange(10) >= 3
    a = loaded(left, attention_mask=is_left[None])[:, 3:]
    b = loaded(right, attention_mask=is_left[None, ::-1])[:, :7]
    np.testing.assert_allclose(a, b, atol=1e-5)
    # a token that looks like padding is one of the text where the mask says so
    assert not np.allclose(loaded(left)[:, 3:], a, atol=1e-2)


def test_a_classifier_reads_the_last_token_on_either_side_of_the_padding():
    loaded = golden.load("gpt2_classifier")
    tokens = golden.expected("gpt2_classifier")[0]["input_ids"][:1, :7]
    left = np.pad(tokens, ((0, 0), (3, 0)))
    positions = np.maximum(np.arange(10) - 3, 0)[None]
    got = loaded(left, attention_mask=np.arange(10)[None] >= 3, position_ids=positions)
    np.testing.assert_allclose(got, loaded(tokens), atol=1e-5)


# --- onto a mesh ---


@pytest.mark.parametrize(
    ("name", "shape"),
    [("llama", dict(fsdp=4, tensor=2)), ("modernbert", dict(fsdp=2)), ("mixtral", dict(tensor=2))],
)
def test_each_device_reads_only_its_shard(name, shape, monkeypatch):
    whole = golden.load(name)
    read = []
    original = weights.Stored.read

    def counting(self, rows=slice(None)):
        part = original(self, rows)
        read.append((self.name, part.shape))
        return part

    monkeypatch.setattr(weights.Stored, "read", counting)
    mesh = sharding.make_mesh(MeshConfig(**shape))
    loaded = golden.load(name, mesh=mesh)
    equal(loaded.params, whole.params)
    up = "expert_up" if name == "mixtral" else "up"
    kernel = loaded.params["backbone"]["stack"]["blocks"]["mlp"][up]
    assert kernel.sharding.spec[-1] == "tensor"
    assert kernel.addressable_shards[0].data.size * shape.get("fsdp", 1) * shape.get(
        "tensor", 1
    ) == (kernel.size)
    if "tensor" in shape:
        # rows of the vocabulary, of which a device has half: nothing more was read
        parts = {s for name, s in read if name == "model.embed_tokens.weight"}
        assert (16, 16) in parts
    inputs, want = golden.expected(name)
    got = np.asarray(loaded(**inputs))[want["real"]]
    np.testing.assert_allclose(got, want["logits"][want["real"]], atol=1e-4)


def test_tensors_have_the_requested_dtype():
    assert {x.dtype.name for x in jax.tree.leaves(golden.load("gpt2").params)} == {"float32"}
    half = golden.load("gpt2", dtype="bfloat16")
    assert {x.dtype.name for x in jax.tree.leaves(half.params)} == {"bfloat16"}
    equal(jax.tree.map(lambda x: x.astype(np.float32), half.params), golden.load("gpt2").params)


# --- what is wrong is said in one line, before anything is read ---


@pytest.fixture
def bad(tmp_path, monkeypatch):
    """A llama in two files to corrupt; no tensor of it may be read."""

    def refuse(self, rows=slice(None)):
        raise AssertionError(f"{self.name} was read")

    tensors = copy("llama", tmp_path)
    monkeypatch.setattr(weights.Stored, "read", refuse)
    return tmp_path, tensors


FIRST, SECOND = (f"model-0000{i}-of-00002.safetensors" for i in (1, 2))


def fails(folder, *words):
    with pytest.raises(ValueError) as e:  # noqa: PT011
        hf.load(folder)
    message = str(e.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_a_truncated_file(bad):
    folder, _ = bad
    path = folder / SECOND
    path.write_bytes(path.read_bytes()[:-7])
    fails(folder, SECOND, "not a complete safetensors file")
    path.write_bytes(b"")
    fails(folder, SECOND, "not a complete safetensors file")


def test_a_missing_shard(bad):
    folder, _ = bad
    (folder / SECOND).unlink()
    fails(folder, SECOND, "is missing", "weight")


def test_a_tensor_of_the_index_is_missing(bad):
    folder, _ = bad
    tensors = load_file(folder / SECOND)
    name = sorted(tensors)[0]
    del tensors[name]
    save_file(tensors, folder / SECOND)
    fails(folder, SECOND, name, "is missing")


def test_a_tensor_in_two_shards(bad):
    folder, _ = bad
    one, two = load_file(folder / FIRST), load_file(folder / SECOND)
    name = sorted(one)[0]
    save_file(two | {name: one[name]}, folder / SECOND)
    fails(folder, SECOND, name, f"is also in {FIRST}")


def single(folder, tensors):
    for path in folder.glob("model*"):
        path.unlink()
    save_file(tensors, folder / "model.safetensors")


def test_a_tensor_twice_in_one_file(bad):
    folder, _ = bad
    one = np.ones(2, np.float32).tobytes()
    entry = '"%s":{"dtype":"F32","shape":[2],"data_offsets":[%d,%d]}'
    header = "{" + entry % ("a.weight", 0, 8) + "," + entry % ("a.weight", 8, 16) + "}"
    single(folder, {})
    data = len(header).to_bytes(8, "little") + header.encode() + one + one
    (folder / "model.safetensors").write_bytes(data)
    fails(folder, "model.safetensors", "a.weight")


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "a..b"])
def test_a_tensor_whose_name_is_a_path(bad, name):
    folder, tensors = bad
    single(folder, tensors | {name: np.ones(2, np.float32)})
    fails(folder, "model.safetensors", name, "not a valid tensor name")


def test_a_shard_whose_name_is_a_path(bad):
    folder, _ = bad
    path = folder / weights.INDEX
    index = json.loads(path.read_text())
    name = next(iter(index["weight_map"]))
    index["weight_map"][name] = "../model.safetensors"
    path.write_text(json.dumps(index))
    fails(folder, weights.INDEX, name, "not a plain file name")


def test_a_shape_that_disagrees_with_the_config(bad):
    folder, _ = bad
    settings(folder, intermediate_size=32)
    fails(folder, "mlp", "[24, 16]", "[32, 16]")


def test_more_layers_than_the_config_says_and_fewer(bad):
    folder, _ = bad
    settings(folder, num_hidden_layers=1)
    fails(folder, "model.layers.1.", "is not a tensor of")
    settings(folder, num_hidden_layers=3)
    fails(folder, "model.layers.2.", "is missing")


def test_a_bias_that_the_config_does_not_have(bad):
    folder, tensors = bad
    name = "model.layers.0.self_attn.q_proj.bias"
    single(folder, tensors | {name: np.ones(16, np.float32)})
    fails(folder, "model.safetensors", name, "is not a tensor of")


def test_quantized_tensors(bad):
    folder, tensors = bad
    single(folder, tensors | {"lm_head.weight": np.ones((32, 16), np.int8)})
    fails(folder, "lm_head.weight", "int8", "quantised")


def test_an_unknown_model_and_no_model(bad):
    folder, _ = bad
    settings(folder, model_type="mamba")
    fails(folder, "config.json", "'mamba'", "supported are", "llama", "modernbert")
    (folder / "config.json").write_text("[1")
    fails(folder, "config.json", "JSON")
    (folder / "config.json").unlink()
    fails(folder, "no config.json")
    fails(folder / "nowhere", "no such folder")


def test_a_pickle_is_rejected_with_a_hint(bad):
    folder, _ = bad
    for path in folder.glob("model*"):
        path.unlink()
    fails(folder, "neither model.safetensors nor")
    (folder / "pytorch_model.bin").write_bytes(b"x")
    fails(folder, "pytorch_model.bin", "only safetensors", "save_pretrained")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(hidden_act="quick_gelu"), ["hidden_act", "quick_gelu"]),
        (dict(hidden_size=...), ["hidden_size is missing"]),
        (dict(hidden_size="16"), ["hidden_size='16'", "not an integer"]),
        (dict(num_attention_heads=3), ["num_kv_heads"]),
        (
            dict(rope_parameters=dict(rope_type="axial", rope_theta=1e4, factor=2.0)),
            ["rope_type", "'axial'"],
        ),
        (
            dict(rope_parameters=dict(rope_type="linear", rope_theta=1e4, mscale=1.0, factor=2.0)),
            ["mscale"],
        ),
    ],
)
def test_an_unsupported_setting_is_rejected(bad, changes, words):
    folder, _ = bad
    settings(folder, **changes)
    fails(folder, "config.json", *words)


def test_an_unknown_setting_is_reported(tmp_path):
    copy("llama", tmp_path)
    settings(tmp_path, alibi_slopes=8, classifier_dropout=None)
    with pytest.warns(UserWarning, match="unknown fields are ignored: alibi_slopes=8$"):
        hf.describe(tmp_path)


# --- the tokenizer, and calls ---


def test_the_tokenizer_is_optional(tmp_path):
    copy("bert", tmp_path)
    assert hf.load(tmp_path).tokenizer is None
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n")
    tokenizer = hf.load(tmp_path).tokenizer
    assert tokenizer.encode("b a") == [6, 5]


def test_inputs_of_another_shape_are_rejected():
    loaded = golden.load("gpt2")
    with pytest.raises(ValueError, match=r"must be \[B, T\], not \(3,\)"):
        loaded([1, 2, 3])


def test_a_hub_name_without_a_network_is_reported(monkeypatch):
    import huggingface_hub

    def offline(*args, **options):
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(
        ValueError, match=r"nobody/nothing: no such folder.*network connection: .*no route"
    ):
        loading.local_folder("nobody/nothing")
    with pytest.raises(ValueError, match="no such folder"):
        loading.local_folder("../nobody")


def test_a_part_of_a_model_is_loaded_after_all_of_it_is_checked():
    found = loading.describe(golden.FOLDERS["t5"], backbone_only=True)
    whole = hf.load(golden.FOLDERS["t5"], backbone_only=True).params["backbone"]
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
        {"backbone": {"encoder": whole["encoder"]}},
    )
    part = loading.load_params(found, target)["backbone"]["encoder"]
    for got, want in zip(jax.tree.leaves(part), jax.tree.leaves(whole["encoder"]), strict=True):
        np.testing.assert_array_equal(got, want)


def test_no_heads_are_refused_in_a_line(tmp_path):
    copy("deberta_v3", tmp_path)
    settings(tmp_path, num_attention_heads=0)
    with pytest.raises(ValueError, match=r"config\.json: a value has a wrong type or size"):
        hf.load(tmp_path)


def test_sizes_that_no_file_can_have_are_refused_at_once(tmp_path):
    copy("llama_linear", tmp_path)
    for name, value, words in (
        ("num_hidden_layers", 9_000, "describes 9,000 layers, but the model has"),
        ("num_hidden_layers", 10**9, "num_layers=1000000000 must be at most 10,000"),
        ("vocab_size", 10**12, "vocab_size=1000000000000 must be below"),
        ("model_type", ["llama"], "is not supported"),
    ):
        settings(tmp_path, **{name: value})
        with pytest.raises(ValueError, match=words):
            hf.load(tmp_path)
        copy("llama_linear", tmp_path)


def test_a_bias_of_the_logits_may_be_missing(tmp_path):
    tensors = copy("bart", tmp_path)
    bias = tensors.pop("final_logits_bias", None)
    save_file(tensors, tmp_path / "model.safetensors")
    params = hf.load(tmp_path).params
    got = params["head"]["unembedding_bias"]
    # transformers writes it, and takes zeros where it is missing
    assert bias is not None
    np.testing.assert_array_equal(got, np.zeros(bias.size))
