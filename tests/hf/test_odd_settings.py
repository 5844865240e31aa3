"""Models with unusual settings, against what transformers computes for them: tests/golden/make_odd_*.py."""

import gzip
import importlib.util
import json

import golden
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxlm import hf
from jaxlm.hf import export, weights

path = golden.ROOT / "make_odd_settings.py"
spec = importlib.util.spec_from_file_location("make_odd_settings", path)
odd = importlib.util.module_from_spec(spec)
spec.loader.exec_module(odd)
NAMES = ("odd_settings", "odd_encoders", "odd_decoders")
FILES = [golden.ROOT / f"{name}.json.gz" for name in NAMES]
ROWS = {
    name: row
    for file in FILES
    for name, row in json.loads(gzip.decompress(file.read_bytes())).items()
}
# one of each kind; the others are slow only because they are many
QUICK = (
    "BartForConditionalGeneration tie_word_embeddings=False",
    "BartForConditionalGeneration decoder_ffn_dim=40",
    "MarianMTModel share_encoder_decoder_embeddings=False",
    "M2M100ForConditionalGeneration",
    "T5ForConditionalGeneration own_encoder",
    "T5ForConditionalGeneration relative_attention_num_buckets=7",
    "RobertaForMaskedLM hidden_act=relu",
    "BertForMaskedLM two_biases",
    "ElectraForPreTraining hidden_act=relu",
    "LlamaForSequenceClassification num_labels=3",
    "MPNetForMaskedLM pad_token_id=5",
    "AlbertForMaskedLM num_hidden_groups=2",
    "DebertaV2ForMaskedLM position_buckets=4 max_relative_positions=9 share_att_key=False",
    "UMT5EncoderModel relative_attention_num_buckets=7",
    "BlenderbotSmallForConditionalGeneration scale_embedding=True",
    "T5ForSequenceClassification tie_word_embeddings=False",
    "OPTForQuestionAnswering ffn_dim=24",
    "GPTJForCausalLM rotary_dim=2 n_inner=None",
    "Phi3ForCausalLM num_key_value_heads=1 hidden_act=gelu",
)
assert not set(QUICK) - set(ROWS)
NAMES = [pytest.param(x, marks=() if x in QUICK else pytest.mark.slow) for x in ROWS]


def write(folder, config, shapes):
    """A model folder."""
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {name: odd.values(name, shape) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors")


def compare(loaded, row):
    for padding, want in row["logits"].items():
        inputs = odd.inputs(row["config"], padding)
        got = np.asarray(loaded(**inputs))
        mask = inputs["attention_mask"]
        if "decoder_input_ids" in inputs:
            mask = np.ones_like(inputs["decoder_input_ids"])
        got = got.reshape(-1)[odd.chosen(got, mask)]
        scale = max(1.0, np.abs(want).max())
        np.testing.assert_allclose(got / scale, np.array(want) / scale, atol=2e-5, err_msg=padding)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")
def test_the_logits_are_those_of_transformers(name, tmp_path):
    row = ROWS[name]
    write(tmp_path, row["config"], row["tensors"])
    loaded = hf.load(tmp_path, compute=golden.F32)
    compare(loaded, row)


@pytest.mark.parametrize(
    ("name", "names", "missing"),
    [
        # transformers reads each table of such a model under a name of its own
        *(
            (
                f"{kind}ForConditionalGeneration tie_word_embeddings=False",
                {"model.shared.weight", "model.encoder.embed_tokens.weight", "lm_head.weight"},
                set(),
            )
            for kind in ("Bart", "M2M100")
        ),
        (
            "T5ForConditionalGeneration own_decoder",
            {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"},
            set(),
        ),
        ("BertForMaskedLM tie_word_embeddings=False", {"cls.predictions.decoder.bias"}, set()),
        ("MarianMTModel share_encoder_decoder_embeddings=False", set(), {"model.shared.weight"}),
        (
            "T5ForConditionalGeneration own_output",
            {"lm_head.weight"},
            {"encoder.embed_tokens.weight"},
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_tables_that_are_not_tied_are_written_under_their_own_names(name, names, missing, tmp_path):
    row = ROWS[name]
    write(tmp_path, row["config"], row["tensors"])
    loaded = hf.load(tmp_path, compute=golden.F32)
    export.save(tmp_path / "out", loaded.model, loaded.params)
    written = set(weights.find(tmp_path / "out"))
    assert names <= written
    assert not missing & written
    again = hf.load(tmp_path / "out", compute=golden.F32)
    assert again.config == loaded.config
    compare(again, row | {"logits": {"none": row["logits"]["none"]}})
