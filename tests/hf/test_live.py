"""Against transformers, if installed: exported models load completely and compute the same."""

import warnings

import golden
import numpy as np
import pytest

from jaxlm.hf import export

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")


@pytest.mark.parametrize("name", golden.FOLDERS)
@pytest.mark.filterwarnings("ignore")
def test_transformers_loads_an_export_completely_and_computes_the_same(name, tmp_path):
    loaded = golden.load(name)
    inputs, want = golden.expected(name)
    labels = tuple((loaded.settings.get("id2label") or {}).values())
    ids = {k: v for k, v in loaded.settings.items() if k.endswith("_token_id")}
    choice = export.save(
        tmp_path / "out", loaded.model, loaded.params, labels=labels, token_ids=ids
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kind = getattr(transformers, choice.architecture)
        model, info = kind.from_pretrained(
            tmp_path / "out", output_loading_info=True, attn_implementation="eager"
        )
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        # positions that are not learned are computed there too
        names = [x for x in info[problem] if name != "pegasus" or "embed_positions" not in x]
        assert not names, (problem, names)
    if "classifier" in name and name.startswith("gpt2"):
        model.config.pad_token_id = 0
    with torch.no_grad():
        output = model.float().eval()(**{k: torch.tensor(v).long() for k, v in inputs.items()})
    if "start_logits" in output:
        got = torch.stack([output.start_logits, output.end_logits], -1)
    elif "prediction_logits" in output:
        got = output.prediction_logits
    else:
        got = output.last_hidden_state if "last_hidden_state" in output else output.logits
    np.testing.assert_allclose(got.numpy(), want["logits"], atol=1e-5)
