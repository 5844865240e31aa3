"""All families by model_type; export uses the first one that is equivalent to the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jaxlm.hf import (
    albert,
    bart,
    bert,
    bloom,
    deberta,
    distilbert,
    electra,
    falcon,
    gemma,
    gpt2,
    gpt_neo,
    gpt_neox,
    gpt_oss,
    gptj,
    granite,
    llama,
    modernbert,
    mpnet,
    nomic_bert,
    olmo2,
    opt,
    pegasus,
    phi3,
    qwen_moe,
    smollm3,
    stablelm,
    starcoder2,
    t5,
    t5_parts,
)
from jaxlm.hf.family import Family

# model_type of a model of several kinds of data -> field of config.json with its text part, and classes of the text
# model by those of the whole
_WITH_TEXT = {"gemma3": ("text_config", gemma.TEXT_CLASSES)}

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        bert.BERT,
        bert.ROBERTA,
        bert.XLM_ROBERTA,
        bert.CAMEMBERT,
        bert.PRELAYERNORM,
        distilbert.DISTILBERT,
        electra.ELECTRA,
        mpnet.MPNET,
        albert.ALBERT,
        deberta.DEBERTA_V2,
        nomic_bert.NOMIC_BERT,
        gpt2.GPT2,
        llama.LLAMA,
        llama.MISTRAL,
        llama.MIXTRAL,
        llama.QWEN2,
        llama.QWEN3,
        qwen_moe.QWEN2_MOE,
        qwen_moe.QWEN3_MOE,
        gpt_oss.GPT_OSS,
        gemma.GEMMA,
        gemma.GEMMA2,
        gemma.GEMMA3,
        gpt_neox.GPT_NEOX,
        gpt_neo.GPT_NEO,
        gptj.GPTJ,
        opt.OPT,
        bloom.BLOOM,
        falcon.FALCON,
        phi3.PHI3,
        olmo2.OLMO2,
        starcoder2.STARCODER2,
        stablelm.STABLELM,
        granite.GRANITE,
        smollm3.SMOLLM3,
        modernbert.MODERNBERT,
        t5.T5,
        t5.MT5,
        t5_parts.UMT5,
        bart.BART,
        bart.MBART,
        bart.MARIAN,
        bart.M2M100,
        pegasus.PEGASUS,
        pegasus.BLENDERBOT,
        pegasus.BLENDERBOT_SMALL,
    )
}

# families whose encoder has classes of its own
ENCODERS: dict[str, Family] = {
    family.model_type: family
    for family in (t5_parts.T5_ENCODER, t5_parts.MT5_ENCODER, t5_parts.UMT5_ENCODER)
}

# other tables of a model_type: family, and whether a config.json is one of its models
_VARIANTS = {"falcon": (falcon.FALCON_TWO_NORMS, falcon.has_two_norms)}


def of(settings: Mapping[str, Any]) -> Family:
    """The family of a config.json whose model_type is known."""
    model_type = settings["model_type"]
    architecture = (settings.get("architectures") or [None])[0]
    encoder = ENCODERS.get(model_type)
    if encoder is not None and architecture in (encoder.base, *encoder.heads):
        return encoder
    if model_type in _VARIANTS:
        variant, is_one = _VARIANTS[model_type]
        if is_one(settings):
            return variant
    return FAMILIES[model_type]


def every() -> Iterator[Family]:
    """All families with their variants, in the order of preference."""
    for model_type, family in FAMILIES.items():
        yield family
        if model_type in _VARIANTS:
            yield _VARIANTS[model_type][0]
    yield from ENCODERS.values()


def text_part(settings: dict[str, Any]) -> dict[str, Any]:
    """The config.json of the text model in a model of several kinds of data; any other is returned as it is."""
    model_type = settings.get("model_type")
    if not isinstance(model_type, str) or model_type not in _WITH_TEXT:
        return settings
    name, classes = _WITH_TEXT[model_type]
    parts = ("text_config", "vision_config", "audio_config", "model_type", "architectures")
    shared = {
        key: value
        for key, value in settings.items()
        if key not in parts and not key.startswith(("mm_", "boi_", "eoi_", "image_"))
    }
    own = {key: value for key, value in (settings.get(name) or {}).items() if value is not None}
    architectures = [classes.get(x, x) for x in settings.get("architectures") or []]
    text = shared | own | {"architectures": architectures}
    return text | {"model_type": own.get("model_type", f"{settings['model_type']}_text")}
