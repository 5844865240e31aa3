"""All families by model_type; export uses the first one that is equivalent to the model."""

from __future__ import annotations

from jaxlm.hf import (
    bart,
    bert,
    distilbert,
    electra,
    gemma,
    gpt2,
    gpt_neo,
    gpt_neox,
    gptj,
    granite,
    llama,
    modernbert,
    olmo2,
    opt,
    phi3,
    qwen_moe,
    smollm3,
    stablelm,
    starcoder2,
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
        electra.ELECTRA,
        gpt2.GPT2,
        llama.LLAMA,
        llama.MISTRAL,
        llama.MIXTRAL,
        llama.QWEN2,
        llama.QWEN3,
        qwen_moe.QWEN2_MOE,
        qwen_moe.QWEN3_MOE,
        gemma.GEMMA,
        gemma.GEMMA2,
        gemma.GEMMA3,
        gpt_neox.GPT_NEOX,
        gpt_neo.GPT_NEO,
        gptj.GPTJ,
        opt.OPT,
        phi3.PHI3,
        olmo2.OLMO2,
        starcoder2.STARCODER2,
        stablelm.STABLELM,
        granite.GRANITE,
        smollm3.SMOLLM3,
        modernbert.MODERNBERT,
        t5.T5,
        t5.MT5,
        bart.BART,
        bart.MBART,
        bart.MARIAN,
        bart.M2M100,
    )
}
