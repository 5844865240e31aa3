"""Against sentence-transformers, if installed: exported models embed texts there as here."""

import jax
import numpy as np
import pytest

import jaxlm
from jaxlm.config import DecoderConfig, EncoderConfig, TokenizerConfig, llama_style
from jaxlm.data import tokenizer as tokenizers
from jaxlm.hf import export
from jaxlm.models import heads
from jaxlm.models.embedder import Embedding

sentence_transformers = pytest.importorskip("sentence_transformers")

TEXTS = ["tell me about snow", "is tea?", "a long text " + "about rain and snow " * 9]
PROMPTS = {"query": "what ", "document": "about "}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("config", "kind", "embedding"),
    [
        (EncoderConfig, "wordpiece", Embedding("first", True, 12, PROMPTS)),
        (EncoderConfig, "wordpiece", Embedding("mean", False, 12)),
        (DecoderConfig, "byte_bpe", Embedding("last", False, 12)),
    ],
)
def test_an_export_embeds_there_as_here(tmp_path, config, kind, embedding):
    tokenizer = tokenizers.train(TEXTS * 5, TokenizerConfig(kind=kind, vocab_size=300))
    sizes = dict(dim=16, num_layers=1, num_heads=2, mlp_dim=32, max_len=32, init_std=0.4)
    style = llama_style() if config is DecoderConfig else {}
    model = heads.Headless(config(**sizes, **style, vocab_size=tokenizer.vocab_size))
    params = heads.init_params(model, jax.random.key(1))
    export.save(tmp_path / "out", model, params, tokenizer=tokenizer, embedding=embedding)
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    ours = jaxlm.load(tmp_path / "out")
    assert theirs.max_seq_length == 12
    for name in (None, *embedding.prompts):
        want = theirs.encode(TEXTS, prompt_name=name)
        np.testing.assert_allclose(ours.embed(TEXTS, prompt=name), want, atol=1e-5)
