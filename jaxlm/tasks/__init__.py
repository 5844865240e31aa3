"""Tasks: one file per task, and their registry."""

from collections.abc import Sequence
from typing import Any

from jaxlm.tasks.array_vae import ArrayVAE, ArrayVAEConfig
from jaxlm.tasks.downstream.answering import Answering, AnsweringConfig
from jaxlm.tasks.downstream.chat import Chat, ChatConfig
from jaxlm.tasks.downstream.classification import Classification, ClassificationConfig
from jaxlm.tasks.downstream.embedding import EmbeddingConfig, EmbeddingTask
from jaxlm.tasks.downstream.multi_label import MultiLabel, MultiLabelConfig
from jaxlm.tasks.downstream.regression import Regression, RegressionConfig
from jaxlm.tasks.downstream.tagging import Tagging, TaggingConfig
from jaxlm.tasks.downstream.text_to_text import TextToText, TextToTextConfig
from jaxlm.tasks.labelled_vae import LabelledVAE, LabelledVAEConfig
from jaxlm.tasks.pretraining.causal_lm import CausalLM, CausalLMConfig
from jaxlm.tasks.pretraining.denoising import Denoising, DenoisingConfig
from jaxlm.tasks.pretraining.fill_in_middle import FillInMiddle, FillInMiddleConfig
from jaxlm.tasks.pretraining.hybrid_lm import HybridLM, HybridLMConfig
from jaxlm.tasks.pretraining.masked_lm import MaskedLM, MaskedLMConfig
from jaxlm.tasks.pretraining.prefix_lm import PrefixLM, PrefixLMConfig
from jaxlm.tasks.pretraining.replaced_token import ReplacedToken, ReplacedTokenConfig
from jaxlm.tasks.pretraining.sentence_pair import SentencePair, SentencePairConfig
from jaxlm.tasks.pretraining.span_corruption import SpanCorruption, SpanCorruptionConfig
from jaxlm.tasks.pretraining.ul2 import UL2, UL2Config
from jaxlm.tasks.task import Context, Loss, Task
from jaxlm.tasks.vae import TextVAE, TextVAEConfig

TASKS: tuple[type[Task], ...] = (
    CausalLM,
    PrefixLM,
    FillInMiddle,
    HybridLM,
    MaskedLM,
    ReplacedToken,
    SentencePair,
    SpanCorruption,
    UL2,
    Denoising,
    TextVAE,
    LabelledVAE,
    ArrayVAE,
    Classification,
    MultiLabel,
    Regression,
    Tagging,
    Answering,
    TextToText,
    EmbeddingTask,
    Chat,
)

__all__ = [
    "TASKS",
    "AnsweringConfig",
    "ArrayVAEConfig",
    "CausalLMConfig",
    "ChatConfig",
    "ClassificationConfig",
    "Context",
    "DenoisingConfig",
    "EmbeddingConfig",
    "FillInMiddleConfig",
    "HybridLMConfig",
    "LabelledVAEConfig",
    "Loss",
    "MaskedLMConfig",
    "MultiLabelConfig",
    "PrefixLMConfig",
    "RegressionConfig",
    "ReplacedTokenConfig",
    "SentencePairConfig",
    "SpanCorruptionConfig",
    "TaggingConfig",
    "Task",
    "TextToTextConfig",
    "TextVAEConfig",
    "UL2Config",
    "config_classes",
    "task_class",
]


def task_class(settings: Any, tasks: Sequence[type[Task]] = ()) -> type[Task]:
    """The task class with these settings, among those of jaxlm and the custom `tasks`.

    Raises:
        ValueError: there is no such task.
    """
    for task in (*tasks, *TASKS):
        if task.Config is type(settings):
            return task
    raise ValueError(
        f"no task has the settings {type(settings).__name__}: pass its class, as in finetune(config, tasks=[MyTask])"
    )


def config_classes(tasks: Sequence[type[Task]] = ()) -> dict[str, Any]:
    """Settings classes by name, as used in config files."""
    return {task.Config.__name__: task.Config for task in (*TASKS, *tasks)}
