"""What is learnt. Each file joins data and a model into a `Task`: features, loss, metrics, a look at a row."""

from typing import Any

from jaxlm import config
from jaxlm.tasks.downstream import classification
from jaxlm.tasks.pretraining import (
    causal_lm,
    denoising,
    fill_in_middle,
    hybrid_lm,
    masked_lm,
    prefix_lm,
    replaced_token,
    sentence_pair,
    span_corruption,
    ul2,
)
from jaxlm.tasks.task import Corpora, Task

# Every module here has load(config) -> Corpora, added_tokens(config) -> names of control tokens that the tokenizer must
# have, and build(config, model_config, tokenizer, corpora) -> Task.
TASKS: dict[type, Any] = {
    config.CausalLMConfig: causal_lm,
    config.PrefixLMConfig: prefix_lm,
    config.FillInMiddleConfig: fill_in_middle,
    config.HybridLMConfig: hybrid_lm,
    config.MaskedLMConfig: masked_lm,
    config.ReplacedTokenConfig: replaced_token,
    config.SentencePairConfig: sentence_pair,
    config.SpanCorruptionConfig: span_corruption,
    config.UL2Config: ul2,
    config.DenoisingConfig: denoising,
    config.ClassificationConfig: classification,
}

__all__ = ["TASKS", "Corpora", "Task"]
