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
    opt,
    t5,
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
        mpnet.MPNET,
        albert.ALBERT,
        deberta.DEBERTA_V2,
        electra.ELECTRA,
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
        bart.BART,
        bart.MBART,
        bart.MARIAN,
        bart.M2M100,
    )
}
