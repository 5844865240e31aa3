"""lm-evaluation-harness without a server: our numbers, and those of its own `hf` model on the same weights."""

import types

import jax
import numpy as np
import pytest

import jaxlm
from jaxlm.config import TokenizerConfig
from jaxlm.data import tokenizer as tokenizers
from jaxlm.hf import export
from jaxlm.run import harness

pytest.importorskip("lm_eval")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

TEXTS = ["the cat sat on the mat, and the dog did not.", "what a day! 天气 "] * 4
PAIRS = [
    ("the cat", " sat on"),
    ("the cat ", "sat"),
    ("", "the dog"),
    # longer than the 24 tokens of the model
    ("the cat sat on the mat, and the dog did not. " * 3, "what a day"),
]
ROLLING = ["the cat", TEXTS[0] * 4]
STOP = {"until": ["d"], "max_gen_toks": 8}
PROMPTS = ["the cat", "what a day! " * 10]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An untrained decoder, sharp enough to have preferences."""
    path = tmp_path_factory.mktemp("harness") / "hf"
    tokenizer = tokenizers.train(TEXTS, TokenizerConfig(kind="byte_bpe", vocab_size=300))
    config = jaxlm.DecoderConfig(
        **jaxlm.llama_style(),
        vocab_size=tokenizer.vocab_size,
        dim=16,
        num_layers=1,
        num_heads=2,
        max_len=24,
    )
    model = jaxlm.CausalLM(config)
    params = jax.tree.map(lambda x: 4 * x, jaxlm.init_params(model, jax.random.key(1)))
    export.save(path, model, params, tokenizer=tokenizer)
    return path


def ask(model, kind, arguments):
    """The answers of a model of the harness."""
    from lm_eval.api.instance import Instance

    requests = [
        Instance(request_type=kind, doc={}, arguments=a, idx=i) for i, a in enumerate(arguments)
    ]
    return getattr(model, kind)(requests, disable_tqdm=True)


@pytest.fixture(scope="module")
def ours(folder):
    adapter = harness.model_for_harness(jaxlm.load(folder), slots=2)
    return dict(
        loglikelihood=ask(adapter, "loglikelihood", PAIRS),
        rolling=ask(adapter, "loglikelihood_rolling", [(text,) for text in ROLLING]),
        generated=ask(adapter, "generate_until", [(prompt, STOP) for prompt in PROMPTS]),
    )


def test_the_adapter_gives_the_models_own_numbers(folder, ours):
    model = jaxlm.load(folder)
    tokenizer = model.tokenizer

    def log_probs(ids):
        logits = model.model.apply({"params": model.params}, np.array([ids]))[0]
        return jax.nn.log_softmax(logits.astype(np.float32))

    encode = lambda text: [*model.before, *tokenizer.encode(text)]
    for (context, target), (got, greedy) in zip(PAIRS, ours["loglikelihood"]):
        ids = encode(context + target) if context else [tokenizer.bos_id, *tokenizer.encode(target)]
        count = len(ids) - (len(encode(context.rstrip())) if context else 1)
        ids = ids[-25:]
        rows = log_probs(ids[:-1])[-count:]
        want = sum(float(row[i]) for row, i in zip(rows, ids[-count:]))
        assert got == pytest.approx(want, abs=1e-4)
        assert greedy == all(int(row.argmax()) == i for row, i in zip(rows, ids[-count:]))
    # a text that fits: all of its tokens after the first one, which is bos
    ids = [tokenizer.bos_id, *encode(ROLLING[0])]
    rows = log_probs(ids[:-1])
    want = sum(float(row[i]) for row, i in zip(rows, ids[1:]))
    assert ours["rolling"][0] == pytest.approx(want, abs=1e-4)
    written = model.generate(PROMPTS[0], max_new_tokens=8, temperature=0.0)
    assert ours["generated"][0] == written.split("d")[0]


def test_the_numbers_are_those_of_the_harness_own_model(folder, ours):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from lm_eval.models.huggingface import HFLM

    kind = transformers.AutoModelForCausalLM
    model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    theirs = HFLM(
        pretrained=model,
        tokenizer=transformers.AutoTokenizer.from_pretrained(folder),
        batch_size=1,
        max_length=24,
        device="cpu",
    )
    for (log_prob, greedy), (expected, is_greedy) in zip(
        ours["loglikelihood"], ask(theirs, "loglikelihood", PAIRS)
    ):
        assert log_prob == pytest.approx(expected, abs=1e-4)
        assert greedy == is_greedy
    rolling = ask(theirs, "loglikelihood_rolling", [(text,) for text in ROLLING])
    assert ours["rolling"] == pytest.approx(rolling, abs=1e-3)
    generated = ask(theirs, "generate_until", [(prompt, STOP) for prompt in PROMPTS])
    assert ours["generated"] == generated


def test_what_the_harness_cannot_use_is_said(folder):
    with pytest.raises(ValueError, match="m writes no text, which the harness needs"):
        harness.model_for_harness(types.SimpleNamespace(kind="encoder", name="m"))
    with pytest.raises(ValueError, match="no_such_task: no task of lm-evaluation-harness"):
        harness.evaluate(jaxlm.load(folder), ["no_such_task"])
