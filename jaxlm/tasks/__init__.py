"""What is learnt. Each file joins data and a model into a `Task`: features, loss, metrics, a look at a row."""

from jaxlm.config import CausalLMConfig, ClassificationConfig, MaskedLMConfig
from jaxlm.tasks import causal_lm, classification, masked_lm
from jaxlm.tasks.task import Corpora, Task

# Every module here has load(config) -> Corpora and build(config, model_config, tokenizer, corpora) -> Task.
TASKS = {
    CausalLMConfig: causal_lm,
    MaskedLMConfig: masked_lm,
    ClassificationConfig: classification,
}

__all__ = ["TASKS", "Corpora", "Task"]
