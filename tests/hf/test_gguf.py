import json
import pathlib

import jax
import numpy as np
import odd_texts
import pytest
from safetensors.numpy import load_file

from jaxlm import hf
from jaxlm.data import chat_template, tokenizer

gguf = pytest.importorskip("gguf")
import gguf_files  # noqa: E402

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
Q = gguf.GGMLQuantizationType
CHATML = (GOLDEN / "chat" / "chatml.jinja").read_text()


def byte_level():
    """The tokenizer of the chat tests as the metadata of a file."""
    parts = json.loads((GOLDEN / "chat" / "bytes.json").read_text())
    names = sorted(parts["model"]["vocab"], key=parts["model"]["vocab"].get)
    added = {token["content"]: token for token in parts["added_tokens"]}
    names += [name for name in added if name not in parts["model"]["vocab"]]
    types = [
        3 if name in added and added[name]["special"] else 4 if name in added else 1
        for name in names
    ]
    return {
        "ggml.model": "gpt2",
        "ggml.pre": "gpt-2",
        "ggml.tokens": names,
        "ggml.token_type": types,
        "ggml.merges": [" ".join(pair) for pair in parts["model"]["merges"]],
        "ggml.bos_token_id": names.index("<s>"),
        "ggml.eos_token_id": names.index("<|im_end|>"),
        "ggml.eot_token_id": names.index("<|eot_id|>"),
        "ggml.padding_token_id": names.index("<pad>"),
        "chat_template": CHATML,
    }


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma"])
def test_a_model_is_that_of_the_folder(tmp_path, family):
    architecture, metadata, tensors = gguf_files.of_folder(GOLDEN / family)
    gguf_files.write(tmp_path / "model.gguf", architecture, metadata, tensors)
    loaded, wanted = hf.load(tmp_path / "model.gguf"), hf.load(GOLDEN / family)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, wanted.params)
    assert loaded.tokenizer is None
    if family != "qwen2":  # its golden model has a window, which llama.cpp does not have
        assert loaded.config == wanted.config
        ids = load_file(GOLDEN / family / "expected.safetensors")["input_ids"]
        np.testing.assert_array_equal(loaded(ids), wanted(ids))
    assert hf.is_model(tmp_path / "model.gguf")


def tiny(untied=False, **more):
    """A llama of one layer whose rows can be quantised."""
    metadata = {
        "context_length": 16,
        "embedding_length": 64,
        "block_count": 1,
        "feed_forward_length": 96,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": 16,
    }
    shapes = {"token_embd": (40, 64), "output_norm": (64,)} | (
        {"output": (40, 64)} if untied else {}
    )
    layer = dict(
        attn_norm=(64,), attn_q=(64, 64), attn_k=(32, 64), attn_v=(32, 64), attn_output=(64, 64)
    )
    layer |= dict(ffn_norm=(64,), ffn_gate=(96, 64), ffn_up=(96, 64), ffn_down=(64, 96))
    shapes |= {f"blk.0.{name}": shape for name, shape in layer.items()}
    random = np.random.default_rng(0)
    tensors = {f"{n}.weight": random.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    return metadata | more, tensors


@pytest.mark.parametrize(
    "kind", [Q.F16, Q.BF16, Q.Q8_0, Q.Q4_0, Q.Q4_1, Q.Q5_1], ids=lambda q: q.name
)
def test_quantised_weights_are_those_of_the_library(tmp_path, kind):
    metadata, tensors = tiny(untied=True)
    types = {name: kind for name, array in tensors.items() if array.ndim == 2}
    gguf_files.write(tmp_path / "model.gguf", "llama", metadata, tensors, types=types)
    params = hf.load(tmp_path / "model.gguf").params
    known = {
        n: gguf.quants.dequantize(gguf.quants.quantize(x, kind), kind) if n in types else x
        for n, x in tensors.items()
    }
    np.testing.assert_array_equal(
        params["backbone"]["embed"]["token"]["embedding"], known["token_embd.weight"]
    )
    np.testing.assert_array_equal(params["head"]["unembedding"], known["output.weight"])
    block = params["backbone"]["stack"]["blocks"]
    np.testing.assert_array_equal(block["mlp"]["down"][0], known["blk.0.ffn_down.weight"].T)
    # the rows of a head: 0, 2, 4, ... and then 1, 3, 5, ...
    rows = known["blk.0.attn_q.weight"].reshape(4, 8, 2, 64).swapaxes(1, 2).reshape(4, 16, 64)
    np.testing.assert_array_equal(block["attn"]["query"][0], rows.transpose(2, 0, 1))


def test_the_output_table_is_tied_if_there_is_none(tmp_path):
    for untied in (False, True):
        gguf_files.write(tmp_path / f"{untied}.gguf", "llama", *tiny(untied))
        assert hf.load(tmp_path / f"{untied}.gguf").config.tie_embeddings is not untied


def test_the_tokenizer_and_the_template_are_in_the_file(tmp_path):
    gguf_files.write(tmp_path / "model.gguf", "llama", *tiny(), tokenizer=byte_level())
    ours = hf.load(tmp_path / "model.gguf").tokenizer
    wanted = tokenizer.load(GOLDEN / "chat" / "bytes.json")
    for text in odd_texts.texts():
        assert ours.encode(text) == wanted.encode(text)
    assert ours.vocab == wanted.vocab
    assert ours.special_ids == wanted.special_ids
    assert ours.role_names == dict(bos="<s>", eos="<|im_end|>", pad="<pad>")
    assert ours.end_ids == (ours.vocab["<|im_end|>"], ours.vocab["<|eot_id|>"])
    chat = [{"role": "user", "content": "the weather <|im_end|>"}]
    assert ours.chat_template == CHATML
    assert chat_template.render(ours.chat_template, ours, chat) == chat_template.render(
        CHATML, wanted, chat
    )


SPLITS = {
    "gpt-2": ["I", "'ve", " 123", " ½", " ", " x"],
    "smollm": ["I", "'ve", " ", "1", "2", "3", " ", "½", " ", " x"],
    "llama-bpe": ["I", "'ve", " ", "123", " ", "½", " ", " x"],
    "qwen2": ["I", "'ve", " ", "1", "2", "3", " ", "½", " ", " x"],
}


@pytest.mark.parametrize("pre", SPLITS)
def test_text_is_split_as_the_file_says(tmp_path, pre):
    metadata = byte_level() | {"ggml.pre": pre}
    gguf_files.write(tmp_path / "model.gguf", "llama", *tiny(), tokenizer=metadata)
    split = hf.load(tmp_path / "model.gguf").tokenizer.backend.pre_tokenizer
    text = "I've 123 ½  x"
    assert [text[a:b] for _, (a, b) in split.pre_tokenize_str(text)] == SPLITS[pre]


@pytest.mark.parametrize("prefix", [True, False])
def test_a_vocabulary_of_sentencepiece(tmp_path, prefix):
    sentencepiece = pytest.importorskip("sentencepiece")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the quick brown fox", "the dog sleeps in the sun"] * 20),
        model_prefix=str(tmp_path / "m"),
        model_type="bpe",
        vocab_size=330,
        hard_vocab_limit=False,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=prefix,
        minloglevel=2,
    )
    theirs = sentencepiece.SentencePieceProcessor(str(tmp_path / "m.model"))
    ids = range(len(theirs))
    kind = lambda i: (
        2 if theirs.is_unknown(i) else 3 if theirs.is_control(i) else 6 if theirs.is_byte(i) else 1
    )
    metadata = {
        "ggml.model": "llama",
        "ggml.tokens": [*map(theirs.id_to_piece, ids), "<tool>"],
        "ggml.scores": [*map(theirs.get_score, ids), -1000.0],
        "ggml.token_type": [*map(kind, ids), 4],
        "ggml.add_space_prefix": prefix,
        "ggml.bos_token_id": 1,
        "ggml.eos_token_id": 2,
    }
    gguf_files.write(tmp_path / "model.gguf", "llama", *tiny(), tokenizer=metadata)
    ours = hf.load(tmp_path / "model.gguf").tokenizer
    for text in odd_texts.texts():
        assert ours.encode(text) == theirs.encode(text)
    assert (ours.bos_id, ours.eos_id, ours.unk_id) == (1, 2, 0)
    assert ours.encode("the<tool>the") == [*ours.encode("the"), len(theirs), *ours.encode("the")]


def test_llama_3_scaling_of_rotary_positions(tmp_path):
    golden = json.loads((GOLDEN / "llama_llama3" / "config.json").read_text())["rope_parameters"]
    metadata, tensors = tiny(**{"rope.freq_base": 500_000.0})
    wave = 2 * np.pi * 500_000.0 ** (np.arange(0, 16, 2) / 16)
    smooth = np.clip((8192 / wave - 1) / 3, 0, 1)
    tensors["rope_freqs.weight"] = (1 / ((1 - smooth) / 32 + smooth)).astype(np.float32)
    gguf_files.write(tmp_path / "model.gguf", "llama", metadata, tensors)
    scaling = hf.load(tmp_path / "model.gguf").config.rope_scaling
    assert (scaling.kind, scaling.factor, scaling.original_max_len) == ("llama3", 32, 8192)
    assert golden["rope_type"] == "llama3"
    tensors["rope_freqs.weight"] *= np.linspace(1, 2, 8, dtype=np.float32)
    gguf_files.write(tmp_path / "other.gguf", "llama", metadata, tensors)
    with pytest.raises(ValueError, match=r"rope_freqs.weight is not the scaling of Llama 3.1"):
        hf.load(tmp_path / "other.gguf")


WRONG = [
    ({"expert_count": 8}, "llama.expert_count=8 is not supported"),
    ({"rope.dimension_count": 8}, "llama.rope.dimension_count=8 is not supported, only 16"),
    ({"rope.scaling.type": "yarn"}, "rope.scaling.type='yarn' is not supported"),
    ({"attention.head_count": 3}, "attn_q.weight of .* has not 3 heads|dimension_count"),
    ({"attention.head_count": [4, 2]}, r"llama.attention.head_count=\[4, 2\] is not a number"),
    ({"block_count": 2}, "layers.1.* is missing"),
    ({"embedding_length": 32, "attention.key_length": 16}, "but config.json implies"),
]


@pytest.mark.parametrize(("more", "reason"), WRONG)
def test_models_that_are_not_supported_are_named(tmp_path, more, reason):
    gguf_files.write(tmp_path / "model.gguf", "llama", *tiny(**more))
    with pytest.raises(ValueError, match=rf"model.gguf.*({reason})") as error:
        hf.load(tmp_path / "model.gguf")
    assert "\n" not in str(error.value)


TOKENIZERS = [
    ({"ggml.model": "bert"}, "tokenizer.ggml.model 'bert' is not supported"),
    ({"ggml.pre": "tekken"}, "tokenizer.ggml.pre 'tekken' is not supported"),
    ({"ggml.token_type": [1]}, "token_type does not fit"),
    ({"ggml.model": "llama"}, "scores does not fit"),
    ({"chat_template": 3}, "chat_template is neither"),
]


@pytest.mark.parametrize(("more", "reason"), TOKENIZERS)
def test_tokenizers_that_are_not_supported_are_named(tmp_path, more, reason):
    gguf_files.write(tmp_path / "model.gguf", "llama", *tiny(), tokenizer=byte_level() | more)
    with pytest.raises(ValueError, match=rf"model.gguf: .*{reason}"):
        hf.load(tmp_path / "model.gguf")


def test_other_architectures_fields_and_quantisations_are_named(tmp_path):
    path = tmp_path / "model.gguf"
    gguf_files.write(path, "mamba", *tiny())
    with pytest.raises(
        ValueError, match=r"general.architecture 'mamba' is not supported, only llama, "
    ):
        hf.load(path)
    gguf_files.write(path, "llama", *tiny(**{"attention.scale": 0.5}))
    with pytest.warns(UserWarning, match="unknown fields are ignored: llama.attention.scale=0.5"):
        hf.load(path)
    metadata, tensors = tiny()
    tensors["blk.0.ffn_up.weight"] = np.zeros((96, 64), np.int8)
    gguf_files.write(path, "llama", metadata, tensors)
    with pytest.raises(
        ValueError, match=r"ffn_up.weight is quantised as I8, which the gguf library cannot"
    ):
        hf.load(path)
    metadata, tensors = tiny()
    gguf_files.write(
        path, "llama", metadata, tensors | {"blk.0.ssm_a.weight": np.zeros((4, 4), np.float32)}
    )
    with pytest.raises(ValueError, match=r"blk.0.ssm_a.weight is not a tensor of llama"):
        hf.load(path)


def test_damaged_files_are_errors_of_one_line(tmp_path):
    path = tmp_path / "model.gguf"
    gguf_files.write(path, "llama", *tiny(), tokenizer=byte_level())
    data = path.read_bytes()
    huge = (2**62).to_bytes(8, "little")
    damaged = [b"", b"GG", b"GGUF", data[:100], data[: len(data) // 2], data[:-40], b"\0" * 100]
    damaged += [
        data[:4] + b"\x01\0\0\0" + data[8:],
        data[:8] + huge + data[16:],
        data[:16] + huge + data[24:],
    ]
    damaged += [data[:24] + huge + data[32:], b"lmgg" + data[4:]]
    for n, content in enumerate(damaged):
        path = tmp_path / f"{n}.gguf"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{n}.gguf: not a (complete )?GGUF file") as error:
            hf.load(path)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 400
