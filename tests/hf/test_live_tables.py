"""Encoder-decoders whose sides have tables of their own, against transformers: the way there and back."""

import dataclasses
import json

import golden
import jax
import numpy as np
import pytest
import test_odd_settings as odd

from jaxlm import hf
from jaxlm.hf import export

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

NAMES = (
    "BartForConditionalGeneration tie_word_embeddings=False",
    "BartModel tie_word_embeddings=False",
    "MBartForConditionalGeneration tie_word_embeddings=False",
    "M2M100ForConditionalGeneration tie_word_embeddings=False",
    "MarianMTModel share_encoder_decoder_embeddings=False",
    "BlenderbotForConditionalGeneration tie_word_embeddings=False",
    "T5ForConditionalGeneration own_decoder",
    "T5ForConditionalGeneration own_encoder",
    "T5Model own_encoder",
    "UMT5ForConditionalGeneration tie_word_embeddings=False",
)


def theirs(folder, inputs):
    """The class, and what it computes; the tables of sines may be missing, and nothing else."""
    settings = json.loads((folder / "config.json").read_text())
    kind = getattr(transformers, settings["architectures"][0])
    model, info = kind.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager"
    )
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not [x for x in info[problem] if "embed_positions" not in x], (problem, info)
    with torch.no_grad():
        output = model.eval()(**{name: torch.tensor(x) for name, x in inputs.items()})
    return (output.logits if "logits" in output else output.last_hidden_state).numpy()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")
def test_tables_of_both_sides_go_there_and_back(name, tmp_path):
    row = odd.ROWS[name]
    (tmp_path / "in").mkdir()
    odd.write(tmp_path / "in", row["config"], row["tensors"])
    loaded = hf.load(tmp_path / "in", compute=golden.F32)
    export.save(tmp_path / "out", loaded.model, loaded.params, token_ids=ids_of(loaded))
    inputs = odd.odd.inputs(row["config"], "right")
    got = theirs(tmp_path / "out", inputs)
    np.testing.assert_allclose(got, theirs(tmp_path / "in", inputs), atol=1e-5)


def ids_of(loaded):
    return {name: x for name, x in loaded.settings.items() if name.endswith("_token_id")}


@pytest.mark.parametrize("name", ["BartForConditionalGeneration", "T5ForConditionalGeneration"])
@pytest.mark.filterwarnings("ignore")
def test_a_target_table_that_is_also_the_outputs_is_written_as_both(name, tmp_path):
    row = odd.ROWS[name if name in odd.ROWS else f"{name} d_kv=6"]
    (tmp_path / "in").mkdir()
    odd.write(tmp_path / "in", row["config"], row["tensors"])
    loaded = hf.load(tmp_path / "in", compute=golden.F32)
    config = dataclasses.replace(loaded.config, share_embeddings=False)
    table = loaded.params["backbone"]["embed"]["token"]["embedding"]
    backbone = loaded.params["backbone"] | {
        "decoder_embed": {"token": {"embedding": 0.7 * table[::-1]}}
    }
    model, params = loaded.model.clone(config=config), loaded.params | {"backbone": backbone}
    ours = dataclasses.replace(loaded, model=model, params=params, config=config)
    inputs = odd.odd.inputs(row["config"], "none")
    export.save(tmp_path / "out", model, jax.device_get(params), token_ids=ids_of(loaded))
    got, want = theirs(tmp_path / "out", inputs), np.asarray(ours(**inputs))
    np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max())
    again = hf.load(tmp_path / "out", compute=golden.F32)
    np.testing.assert_allclose(np.asarray(again(**inputs)), want, atol=1e-5)
