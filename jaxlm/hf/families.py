"""All families by model_type; export uses the first one that is equivalent to the model."""

from __future__ import annotations

from jaxlm.hf import (
    albert,
    bart,
    bert,
    deberta,
    distilbert,
    electra,
    gemma,
    gpt2,
    gpt_neo,
    gpt_neox,
    llama,
    modernbert,
    mpnet,
    nomic_bert,
    opt,
    pegasus,
    t5,
    t5_parts,
)
from jaxlm.hf.family import Family

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
        gemma.GEMMA,
        gemma.GEMMA2,
        gemma.GEMMA3,
        gpt_neox.GPT_NEOX,
        gpt_neo.GPT_NEO,
        opt.OPT,
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
ALL: tuple[Family, ...] = (*FAMILIES.values(), *ENCODERS.values())


def of(model_type: str, architecture: str | None) -> Family:
    """The family of a class of a known model_type."""
    encoder = ENCODERS.get(model_type)
    if encoder is not None and architecture in (encoder.base, *encoder.heads):
        return encoder
    return FAMILIES[model_type]
