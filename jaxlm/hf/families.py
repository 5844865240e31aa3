"""All families, by their model_type."""

from __future__ import annotations

from jaxlm.hf import bart, bert, gpt2, gpt_neox, llama, modernbert, t5
from jaxlm.hf.family import Family

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        bert.BERT,
        bert.ROBERTA,
        bert.XLM_ROBERTA,
        bert.PRELAYERNORM,
        bert.DISTILBERT,
        bert.ELECTRA,
        gpt2.GPT2,
        llama.LLAMA,
        llama.MISTRAL,
        llama.MIXTRAL,
        llama.QWEN2,
        llama.QWEN3,
        llama.GEMMA2,
        llama.GEMMA3,
        gpt_neox.GPT_NEOX,
        modernbert.MODERNBERT,
        t5.T5,
        t5.MT5,
        bart.BART,
        bart.MBART,
        bart.MARIAN,
        bart.M2M100,
    )
}
