"""Classifiers of tokens and spans on decoders: exported and loaded again, and in transformers, if installed."""

import golden
import jax
import numpy as np
import pytest

from jaxlm import hf
from jaxlm.hf import export
from jaxlm.models import heads

# compiles many programs
pytestmark = pytest.mark.slow

# folder of a golden model, class with the head for tokens, and for spans; None: there is none that is written
NAMES = [
    ("gpt2", "GPT2ForTokenClassification", "GPT2ForQuestionAnswering"),
    ("llama", "LlamaForTokenClassification", "LlamaForQuestionAnswering"),
    ("opt", None, "OPTForQuestionAnswering"),
    ("mistral", "MistralForTokenClassification", "MistralForQuestionAnswering"),
    ("qwen2", "Qwen2ForTokenClassification", "Qwen2ForQuestionAnswering"),
    ("qwen3", "Qwen3ForTokenClassification", "Qwen3ForQuestionAnswering"),
    ("smollm3", "SmolLM3ForTokenClassification", "SmolLM3ForQuestionAnswering"),
    ("qwen3_moe", "Qwen3MoeForTokenClassification", "Qwen3MoeForQuestionAnswering"),
    ("gptj", None, "GPTJForQuestionAnswering"),
    ("gemma3", None, None),
    ("gemma2", "Gemma2ForTokenClassification", None),
    ("gpt_neo", "GPTNeoForTokenClassification", "GPTNeoForQuestionAnswering"),
    ("gpt_neox", "GPTNeoXForTokenClassification", "GPTNeoXForQuestionAnswering"),
]


# the others are not run by default
FIRST = ("gpt2", "llama", "opt")


@pytest.mark.parametrize(
    ("name", "tokens", "span"),
    [x if x[0] in FIRST else pytest.param(*x, marks=pytest.mark.slow) for x in NAMES],
)
@pytest.mark.filterwarnings("ignore")
def test_heads_of_decoders_come_back_and_transformers_computes_the_same(
    name, tokens, span, tmp_path
):
    loaded = golden.load(name, backbone_only=True)
    ids = np.random.default_rng(0).integers(4, loaded.config.vocab_size, (2, 7)).astype(np.int32)
    for kind, wanted in ((heads.TokenClassifier, tokens), (heads.SpanQA, span)):
        model = kind(loaded.config, 3 if kind is heads.TokenClassifier else 2, compute=golden.F32)
        params = heads.init_params(model, jax.random.key(0))
        if wanted is None:
            with pytest.raises(ValueError, match=rf"no class for this {kind.__name__} of a Deco"):
                export.save(tmp_path / "no", model, params)
            continue
        labels = ("a", "b", "c") if kind is heads.TokenClassifier else ()
        choice = export.save(tmp_path / wanted, model, params, labels=labels)
        assert choice.architecture == wanted
        want = np.asarray(model.apply({"params": params}, ids))
        got = hf.load(tmp_path / wanted, compute=golden.F32)(ids)
        np.testing.assert_allclose(got, want, atol=1e-6)
        again = hf.load(tmp_path / wanted, backbone_only=True)
        jax.tree.map(np.testing.assert_array_equal, again.params["backbone"], params["backbone"])
        try:
            import torch
            import transformers
        except ImportError:
            continue
        theirs, info = getattr(transformers, wanted).from_pretrained(
            tmp_path / wanted, output_loading_info=True, attn_implementation="eager"
        )
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        with torch.no_grad():
            out = theirs.float().eval()(input_ids=torch.tensor(ids).long())
        if kind is heads.SpanQA:
            got = torch.stack([out.start_logits, out.end_logits], -1)
        else:
            got = out.logits
        np.testing.assert_allclose(got.numpy(), want, atol=1e-5)
