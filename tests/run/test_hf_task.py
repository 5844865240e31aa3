"""The task that a model of the hub is used with follows from its head and its config.json."""

import pytest

from jaxlm.config import DecoderConfig, EncoderConfig, EncoderDecoderConfig
from jaxlm.models import heads
from jaxlm.models.twice_read import Reading
from jaxlm.run import hf_task

SIZES = dict(vocab_size=32, dim=16, num_layers=1, num_heads=2, max_len=16)
ENCODER = EncoderConfig(**SIZES)
NAMES = {"id2label": {"0": "O", "1": "B-X", "2": "I-X"}}


@pytest.mark.parametrize(
    ("model", "about", "name", "settings"),
    [
        (heads.Classifier(ENCODER, 3), NAMES, "classification", dict(labels=("O", "B-X", "I-X"))),
        (heads.Classifier(ENCODER, 2), {}, "classification", dict(labels=("0", "1"))),
        (
            heads.Classifier(ENCODER, 3, "mean"),
            NAMES | {"problem_type": "multi_label_classification"},
            "multi_label",
            dict(labels=("O", "B-X", "I-X"), pooling="mean"),
        ),
        (
            heads.TwiceReadClassifier(EncoderDecoderConfig(**SIZES), 3, Reading(2, 0, 0)),
            NAMES,
            "classification",
            dict(labels=("O", "B-X", "I-X"), pooling="decoder"),
        ),
        (heads.Classifier(ENCODER, 1), {}, "regression", dict(mean=0.0, deviation=1.0)),
        (heads.TokenClassifier(ENCODER, 3), NAMES, "tagging", dict(labels=("O", "B-X", "I-X"))),
        (heads.SpanQA(ENCODER), {}, "answering", dict(null_threshold=0.0)),
        (heads.CausalLM(DecoderConfig(**SIZES)), {}, "causal_lm", {}),
        (heads.MaskedLM(ENCODER), {}, "masked_lm", {}),
        (heads.Seq2SeqLM(EncoderDecoderConfig(**SIZES)), {}, "text_to_text", dict(prefix="")),
    ],
)
def test_a_head_has_its_task(model, about, name, settings):
    kind, chosen = hf_task.choose("folder", model, about)
    assert kind.name == name
    assert {key: getattr(chosen, key) for key in settings} == settings


def test_a_task_of_another_head_is_refused_and_a_misspelt_one_is_named():
    model = heads.TokenClassifier(ENCODER, 3)
    with pytest.raises(ValueError, match="answering does not work with a TokenClassifier; it fits"):
        hf_task.choose("folder", model, NAMES, "answering")
    with pytest.raises(ValueError, match="did you mean tagging"):
        hf_task.choose("folder", model, NAMES, "taging")
