"""What is learnt. Each file joins data and a model into a `Task`: features, loss, metrics, a look at a row."""

from typing import Any

from jaxlm.config import (
    CausalLMConfig,
    ClassificationConfig,
    FillInMiddleConfig,
    HybridLMConfig,
    MaskedLMConfig,
    PrefixLMConfig,
)
from jaxlm.tasks import (
    causal_lm,
    classification,
    fill_in_middle,
    hybrid_lm,
    masked_lm,
    prefix_lm,
)
from jaxlm.tasks.task import Corpora, Task

# Every module here has load(config) -> Corpora, added_tokens(config) -> names of control tokens that the tokenizer must
# have, and build(config, model_config, tokenizer, corpora) -> Task.
TASKS: dict[type, Any] = {
    CausalLMConfig: causal_lm,
    PrefixLMConfig: prefix_lm,
    FillInMiddleConfig: fill_in_middle,
    HybridLMConfig: hybrid_lm,
    MaskedLMConfig: masked_lm,
    ClassificationConfig: classification,
}

__all__ = ["TASKS", "Corpora", "Task"]
