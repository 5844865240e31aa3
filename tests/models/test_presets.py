"""Presets have the published numbers of parameters."""

import jax
import numpy as np
import pytest

from jaxlm.config import DecoderConfig, EncoderConfig
from jaxlm.hf import export
from jaxlm.models import heads
from jaxlm.models.presets import PRESETS

# of the language model with its head, as the released files have it; pythia's are from 2304.01373, table 1
PUBLISHED = {
    "bert-base": 109_514_298,
    "bert-large": 335_174_458,
    "roberta-base": 124_697_433,
    "roberta-large": 355_412_057,
    "xlm-roberta-base": 278_295_186,
    "distilbert-base": 66_985_530,
    "modernbert-base": 149_655_232,
    "modernbert-large": 395_881_664,
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "pythia-70m": 70_426_624,
    "pythia-160m": 162_322_944,
    "pythia-410m": 405_334_016,
    "pythia-1b": 1_011_781_632,
    "pythia-1.4b": 1_414_647_808,
    "pythia-2.8b": 2_775_208_960,
    "pythia-6.9b": 6_857_302_016,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-3-8b": 8_030_261_248,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "mistral-7b": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-7b": 7_615_616_512,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "gemma-2-2b": 2_614_341_888,
    "gemma-2-9b": 9_241_705_984,
    "gemma-3-270m": 268_098_176,
    "gemma-3-1b": 999_885_952,
    "t5-small": 60_506_624,
    "t5-base": 222_903_552,
    "t5-large": 737_668_096,
    "t5-v1.1-small": 76_961_152,
    "t5-v1.1-base": 247_577_856,
    "mt5-small": 300_176_768,
    "bart-base": 139_420_416,
    "bart-large": 406_291_456,
}


def language_model(config):
    kinds = {DecoderConfig: heads.CausalLM, EncoderConfig: heads.MaskedLM}
    return kinds.get(type(config), heads.Seq2SeqLM)(config)


def counts(model):
    """Parameters by path."""
    tree = jax.eval_shape(lambda: heads.init_params(model, jax.random.key(0)))
    return {
        "/".join(k.key for k in path): int(np.prod(x.shape, dtype=np.int64))
        for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_number_of_parameters_is_the_published_one(name):
    config = PRESETS[name]
    found = counts(language_model(config))
    total = sum(found.values())
    # the bias of BART's logits is no parameter but a constant there
    if name.startswith("bart"):
        total -= found["head/unembedding_bias"]
    # the first block of ModernBERT has no norm; ours is in the stack with the others and not used
    if name.startswith("modernbert"):
        total -= config.dim
    assert total == PUBLISHED[name]


def test_an_electra_is_a_detector():
    found = counts(heads.Detector(PRESETS["electra-small"]))
    # as transformers counts ElectraForPreTraining of that config
    assert sum(found.values()) == 13_549_057


def test_every_preset_is_a_class_of_transformers():
    for name, config in PRESETS.items():
        model = heads.Headless(config) if "electra" in name else language_model(config)
        choice = export.choose(model)
        family = name.split("-")[0].rstrip("0123456789.")
        theirs = choice.architecture.lower()
        same = {"pythia": "gptneox", "mt": "t5", "xlm": "roberta", "gpt": "gpt2"}
        assert theirs.startswith(same.get(family, family)), (name, theirs)
