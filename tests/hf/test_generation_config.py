import json
import warnings

import pytest

from jaxlm.hf import generation_config

CASES = [
    # Llama 3 Instruct
    (
        dict(bos_token_id=1, do_sample=True, eos_token_id=[5, 9], temperature=0.6, top_p=0.9),
        dict(stop_ids=(5, 9), temperature=0.6, top_p=0.9),
    ),
    (dict(eos_token_id=2, pad_token_id=0, transformers_version="5"), dict(stop_ids=(2,))),
    (dict(do_sample=False, temperature=0.7), dict(temperature=0.0)),
    (dict(top_k=0, min_p=0, repetition_penalty=2), dict(top_k=None, min_p=0.0, repetition_penalty=2.0)),
    (dict(suppress_tokens=[3, 4], begin_suppress_tokens=[5]), dict(suppress=(3, 4), begin_suppress=(5,))),
    (dict(bad_words_ids=[[7], [8]], suppress_tokens=[3]), dict(suppress=(3, 7, 8))),
    (dict(stop_strings="END", max_new_tokens=9), dict(stop=("END",), max_new_tokens=9)),
    (dict(forced_bos_token_id=4, forced_eos_token_id=[2]), dict(forced_first=4, forced_last=2)),
    (dict(no_repeat_ngram_size=3), dict(no_repeat_ngram=3)),
    (dict(num_beams=1, typical_p=1.0, penalty_alpha=None, renormalize_logits=False), {}),
    (dict(max_length=20, min_length=5), {}),
]  # fmt: skip


@pytest.mark.parametrize(("values", "wanted"), CASES)
def test_settings_are_read(tmp_path, values, wanted):
    (tmp_path / "generation_config.json").write_text(json.dumps(values))
    with warnings.catch_warnings():
        if "max_length" in values:
            warnings.simplefilter("ignore")
        assert generation_config.read(tmp_path) == wanted


def test_lengths_of_an_encoder_decoder_count_the_start(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bart", "is_encoder_decoder": true}')
    (tmp_path / "generation_config.json").write_text('{"max_length": 142, "min_length": 56}')
    assert generation_config.read(tmp_path) == dict(max_new_tokens=141, min_new_tokens=55)


def test_an_old_model_has_them_in_its_config(tmp_path):
    config = dict(model_type="gpt2", eos_token_id=7, n_layer=2, no_repeat_ngram_size=3)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert generation_config.read(tmp_path) == dict(stop_ids=(7,), no_repeat_ngram=3)


def test_a_folder_without_any_sets_nothing(tmp_path):
    assert generation_config.read(tmp_path) == {}
    (tmp_path / "config.json").write_text('{"steps": 3}')  # of a run
    assert generation_config.read(tmp_path) == {}


@pytest.mark.parametrize(
    "values",
    [
        {"num_beams": 4},
        {"penalty_alpha": 0.6},
        {"max_length": 20},
        {"bad_words_ids": [[1, 2]]},
        {"new": 1},
    ],
)
def test_what_is_not_supported_is_named(tmp_path, values):
    (tmp_path / "generation_config.json").write_text(json.dumps(values))
    name = next(iter(values))
    with pytest.warns(
        UserWarning, match=f"generation_config.json: not supported and ignored: {name}="
    ):
        generation_config.read(tmp_path)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"top_k": "many"}, "top_k='many' is not an integer"),
        ({"temperature": True}, "temperature=True is not a number"),
        ({"eos_token_id": [1, "a"]}, "eos_token_id='a' is not an integer"),
        ({"stop_strings": 3}, "stop_strings=3 is not a list of strings"),
        ({"max_new_tokens": -1}, "max_new_tokens=-1 is not an integer of 0 or more"),
    ],
)
def test_wrong_values_are_errors(tmp_path, values, reason):
    (tmp_path / "generation_config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=rf"generation_config.json: {reason}"):
        generation_config.read(tmp_path)
