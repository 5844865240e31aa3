"""Every family against tiny models of transformers; tests/golden/make.py creates and describes the folders."""

import json

import golden
import numpy as np
import pytest

ATOL = 1e-4


def distance(ours, theirs, real):
    """The largest difference at real tokens."""
    return np.abs(np.asarray(ours)[real] - theirs[real]).max()


def first_wrong_layer(loaded, inputs, want):
    """The first layer whose output differs, and by how much; except the last, whose output is normalized."""
    for name, ours, theirs, real in golden.layers(loaded, inputs, want):
        error = distance(ours, theirs, real)
        if error > ATOL:
            return f"from {name} on, by {error}"
    return "from the last layer or in the head"


@pytest.mark.parametrize("name", golden.FOLDERS)
def test_logits_equal_those_of_transformers(name):
    loaded = golden.load(name)
    inputs, want = golden.expected(name)
    got = loaded(**inputs)
    if "pair_logits" in want:
        got, pairs = got
        np.testing.assert_allclose(pairs, want["pair_logits"], atol=ATOL)
    assert got.dtype == np.float32
    assert want["logits"].std() > 0.1
    real = want["real"] if got.shape[:2] == want["real"].shape else np.ones(len(got), bool)
    error = distance(got, want["logits"], real)
    assert error < ATOL, f"logits differ by {error}, {first_wrong_layer(loaded, inputs, want)}"


@pytest.mark.parametrize("name", ["modernbert", "gemma2", "gpt2"])
def test_texts_packed_in_one_row_equal_those_of_transformers(name):
    loaded = golden.load(name)
    inputs, want = golden.expected(name)
    real = want["real"]
    rows, positions = np.nonzero(real)
    got = loaded.model.apply(
        {"params": loaded.params},
        inputs["input_ids"][real][None],
        segment_ids=(rows + 1)[None],
        positions=positions[None],
    )
    np.testing.assert_allclose(got[0], want["logits"][real], atol=ATOL)


def test_a_wrong_layer_is_named():
    loaded = golden.load("gpt2")
    inputs, want = golden.expected("gpt2")
    assert "in the head" in first_wrong_layer(loaded, inputs, want)
    up = loaded.params["backbone"]["stack"]["blocks"]["mlp"]["up"]
    loaded.params["backbone"]["stack"]["blocks"]["mlp"]["up"] = up.at[0, 3, 5].add(0.1)
    assert "from layer 1 on" in first_wrong_layer(loaded, inputs, want)


def test_a_wrong_layer_of_either_side_is_named():
    loaded = golden.load("mbart")
    inputs, want = golden.expected("mbart")
    assert "in the head" in first_wrong_layer(loaded, inputs, want)
    for side in ("decoder", "encoder"):
        mlp = loaded.params["backbone"][side]["stack"]["blocks"]["mlp"]
        mlp["up"] = mlp["up"].at[0, 3, 5].add(0.1)
        assert f"from {side} layer 1 on" in first_wrong_layer(loaded, inputs, want)


def test_every_family_has_a_golden_folder():
    from jaxlm.hf.families import FAMILIES

    types = {
        json.loads((folder / "config.json").read_text())["model_type"]
        for folder in golden.FOLDERS.values()
    }
    assert set(FAMILIES) <= types
