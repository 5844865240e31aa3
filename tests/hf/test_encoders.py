"""Encoders beyond the golden folders: other layouts of files, settings that are refused, and what they become here."""

import json
import shutil

import golden
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxlm import hf
from jaxlm.hf import export, kinds
from jaxlm.hf.families import FAMILIES
from jaxlm.hf.settings import Settings


def copy(name, folder, **settings):
    """A golden folder with other settings."""
    shutil.copytree(golden.FOLDERS[name], folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


def rename(folder, names):
    """Renames tensors by parts of their names."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for old, new in names.items():
        tensors = {name.replace(old, new): x for name, x in tensors.items()}
    save_file(tensors, path, {"format": "pt"})


def test_the_newer_head_of_deberta_is_read_and_written_in_the_older_layout(tmp_path):
    folder = copy("deberta_v3", tmp_path / "in", legacy=False, tie_word_embeddings=False)
    rename(
        folder,
        {
            "cls.predictions.transform.": "lm_predictions.lm_head.",
            "cls.predictions.bias": "lm_predictions.lm_head.bias",
        },
    )
    loaded = hf.load(folder, compute=golden.F32)
    inputs, want = golden.expected("deberta_v3")
    real = want["real"]
    np.testing.assert_allclose(np.asarray(loaded(**inputs))[real], want["logits"][real], atol=1e-4)
    export.save(tmp_path / "out", loaded.model, loaded.params)
    again = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (again["legacy"], again["tie_word_embeddings"]) == (True, True)


@pytest.mark.parametrize("given", ["c2p|p2c", "P2C | c2p", ["p2c", "c2p"]])
def test_terms_of_disentangled_attention_as_a_string_or_a_list(given):
    settings = json.loads((golden.FOLDERS["deberta_v3"] / "config.json").read_text())
    config = FAMILIES["deberta-v2"].read(Settings(settings | {"pos_att_type": given}, "x"))
    assert config.relative_terms == ("content_to_position", "position_to_content")
    assert config.score_scale == pytest.approx((4 * 3) ** -0.5)


def test_positions_of_mpnet_are_counted_by_a_padding_token_that_no_setting_changes(tmp_path):
    inputs, want = golden.expected("mpnet")
    got = hf.load(copy("mpnet", tmp_path / "a", pad_token_id=5), compute=golden.F32)(**inputs)
    real = want["real"]
    np.testing.assert_allclose(np.asarray(got)[real], want["logits"][real], atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, 2),
        ({"num_labels": 5}, 5),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, 3),
        ({"id2label": None, "num_labels": 1}, 1),
        ({"id2label": {"0": "a"}, "num_labels": 1}, 1),
    ],
)
def test_the_number_of_classes_by_names_or_by_number(settings, count):
    config = FAMILIES["bert"].config(vocab_size=8)
    model = kinds.build("tokens", config, settings, golden.F32)
    assert model.num_classes == count


def test_a_number_of_classes_that_contradicts_their_names_is_refused():
    config = FAMILIES["bert"].config(vocab_size=8)
    with pytest.raises(ValueError, match="num_labels=3 is not the number of names in id2label, 1"):
        kinds.build("tokens", config, {"num_labels": 3, "id2label": {"0": "a"}}, golden.F32)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("mpnet", {"relative_attention_num_buckets": 64}, ["relative_attention_num_buckets=64"]),
        ("mpnet", {"is_decoder": True}, ["is_decoder=True"]),
        ("mpnet", {"hidden_act": "tanh"}, ["hidden_act='tanh'", "gelu"]),
        ("albert", {"inner_group_num": 2}, ["inner_group_num=2", "only 1"]),
        ("albert", {"num_hidden_groups": 2}, ["layer_groups=2", "num_layers=3"]),
        ("albert", {"embedding_size": 16}, ["embedding_size=16", "hidden_size"]),
        ("albert", {"num_memory_blocks": 2}, ["num_memory_blocks=2"]),
        ("deberta_v2", {"conv_kernel_size": 4}, ["conv_kernel_size=4"]),
        ("deberta_v2", {"embedding_size": 8}, ["embedding_size=8", "16"]),
        ("deberta_v2", {"pooler_hidden_size": 8}, ["pooler_hidden_size=8"]),
        ("deberta_v2", {"pooler_hidden_act": "silu"}, ["pooler_hidden_act='silu'"]),
        ("deberta_v2", {"pos_att_type": []}, ["relative_attention=True", "pos_att_type"]),
        ("deberta_v2", {"relative_attention": False}, ["relative_attention=False"]),
        ("deberta_v2", {"pos_att_type": "c2p|p2p"}, ["pos_att_type='c2p|p2p'"]),
        ("deberta_v2", {"position_buckets": 10}, ["position_buckets=10", "max_relative_posit"]),
        ("deberta_v2", {"position_buckets": 1}, ["relative_buckets=2", "at least 4"]),
    ],
)
def test_a_family_rejects_by_name(name, changes, words):
    settings = json.loads((golden.FOLDERS[name] / "config.json").read_text()) | changes
    with pytest.raises(ValueError) as e:  # noqa: PT011
        FAMILIES[settings["model_type"]].read(Settings(settings, "config.json"))
    assert all(word in str(e.value) for word in words), e.value


@pytest.mark.parametrize(
    ("changes", "tokens", "words"),
    [
        ({"eos_token_id": None}, None, "eos_token_id=None must be one token"),
        ({"eos_token_id": [2, 3]}, None, r"eos_token_id=\[2, 3\] must be one token"),
        ({"decoder_start_token_id": None}, None, "decoder_start_token_id=None must be one"),
        ({}, [[5, 2, 6, 2], [5, 6, 7, 2]], "the same number of ends"),
        ({}, [[5, 6, 7, 8]], "at least one"),
    ],
)
def test_a_classifier_that_reads_twice_needs_the_ends_of_texts(tmp_path, changes, tokens, words):
    folder = copy("bart_classifier", tmp_path / "in", **changes)
    with pytest.raises(ValueError, match=words):
        hf.load(folder, compute=golden.F32)(tokens)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("pegasus", "model.decoder.embed_positions.weight"),
        ("marian", "model.encoder.embed_positions.weight"),
        ("m2m100", "model.decoder.embed_positions.weights"),
    ],
)
def test_a_table_of_positions_that_are_not_sines_is_refused(name, key, tmp_path):
    folder = copy(name, tmp_path / "in")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    # the formula of transformers: the lowest frequency of M2M100 is 1 / 10000, and its padding has no position
    steps = 7 if name == "m2m100" else 8
    angles = np.arange(20)[:, None] * 10000 ** (-np.arange(8) / steps)
    table = np.concatenate([np.sin(angles), np.cos(angles)], 1).astype(np.float16)
    if name == "m2m100":
        table[1] = 0
    save_file(tensors | {key: table}, path, {"format": "pt"})
    assert hf.describe(folder).stored.keys() & {key} == set()
    table[3:5] = table[[4, 3]]
    save_file(tensors | {key: table}, path, {"format": "pt"})
    with pytest.raises(ValueError, match=f"{key} is not the table of sines"):
        hf.load(folder)
