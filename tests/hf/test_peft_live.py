"""Against peft, if installed: it computes with an adapter that is written here what the parameters give here."""

import dataclasses

import golden
import jax
import numpy as np
import pytest

from jaxlm.config import LoraConfig
from jaxlm.hf import description, peft_export
from jaxlm.models import lora

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        # query, key and value have adapters of their own, and are one module there
        ("gpt2", ("all-linear", "embedding")),
        ("gpt2", ("value",)),
        ("gpt_neox", ("query", "key", "value", "up")),
        ("llama", ("all-linear", "embedding", "unembedding")),
        # rows of several sizes in one module, and the two halves of another
        ("phi3", ("all-linear",)),
        ("phi3", ("key", "up")),
        ("gptj", ("all-linear",)),
        ("t5", ("*decoder*/query", "up")),
        ("bert_classifier", ("query", "out", "up", "down")),
        ("marian", ("all-linear",)),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_peft_computes_the_same_with_what_is_written(name, targets, tmp_path):
    loaded = golden.load(name)
    inputs, want = golden.expected(name)
    config = LoraConfig(rank=2, alpha=3, targets=targets)
    params = lora.add(loaded.params, jax.random.key(0), config)
    params = jax.tree.map_with_path(
        lambda path, x: (
            np.random.default_rng(len(str(path))).normal(0, 0.1, x.shape).astype("f4")
            if path[-1].key.endswith(("_lora_a", "_lora_b"))
            else x
        ),
        params,
    )
    found = description.describe(golden.FOLDERS[name])
    whole = lora.trained_whole(params, None)
    peft_export.save(
        tmp_path / "out",
        found.family,
        found.architecture,
        params,
        base=str(golden.FOLDERS[name]),
        trained=[path for path in whole if "classes" in path],
    )
    kind = getattr(transformers, found.architecture)
    base = kind.from_pretrained(
        golden.FOLDERS[name], attn_implementation="eager", dtype=torch.float32
    )
    model = peft.PeftModel.from_pretrained(base, tmp_path / "out").eval()
    with torch.no_grad():
        theirs = model(**{k: torch.tensor(v).long() for k, v in inputs.items()}).logits.numpy()
    ours = np.asarray(dataclasses.replace(loaded, params=lora.merge(params))(**inputs))
    real = want["real"] if theirs.ndim == 3 else np.ones(len(theirs), bool)
    np.testing.assert_allclose(ours[real], theirs[real], atol=1e-5)
    assert np.abs(theirs[real] - want["logits"][real]).max() > 1e-2
