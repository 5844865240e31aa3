"""UL2: an encoder-decoder learns regular, sequential and extreme denoising at once, told apart by mode tokens."""

from __future__ import annotations

from jaxlm.config import ModelConfig, RunConfig, UL2Config
from jaxlm.data.documents import TokenDocuments
from jaxlm.data.mixture import Mixture
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.tasks import task
from jaxlm.tasks.pretraining import span_corruption
from jaxlm.tasks.pretraining.span_corruption import Denoiser, SpanRows
from jaxlm.tasks.task import Corpora, Task

load = task.load_documents

# Tay et al. 2022, 2205.05131, section 3.1.2; the names of the modes are those of its published models
R = [Denoiser(0.15, 3.0, "[NLU]"), Denoiser(0.15, 8.0, "[NLU]")]
S = [Denoiser(0.25, None, "[S2S]")]
X = [
    Denoiser(0.5, 3.0, "[NLG]"),
    Denoiser(0.5, 8.0, "[NLG]"),
    Denoiser(0.15, 64.0, "[NLG]"),
    Denoiser(0.5, 64.0, "[NLG]"),
]


def target_len(config: RunConfig) -> int:
    """Target tokens in a row."""
    assert isinstance(config.task, UL2Config)
    return config.task.target_len or config.data.seq_len


def added_tokens(config: RunConfig) -> list[str]:
    """The modes and the sentinels."""
    modes = [group[0].mode or "" for group in (R, S, X)]
    return modes + span_corruption.sentinel_names(
        R + S + X, config.data.seq_len, target_len(config)
    )


def _name(d: Denoiser) -> str:
    if d.mean_span is None:
        return f"{d.mode} the last {d.density:.0%}"
    return f"{d.mode} {d.density:.0%} in spans of {d.mean_span:.0f}"


def build(config: RunConfig, model: ModelConfig, tokenizer: Tokenizer, corpora: Corpora) -> Task:
    """The task over the documents of `corpora`."""
    settings = config.task
    assert isinstance(settings, UL2Config)
    sentinels = tokenizer.ids_of(added_tokens(config)[3:])
    groups = (
        (R, settings.regular_share),
        (S, settings.sequential_share),
        (X, settings.extreme_share),
    )
    drawn = [(d, share / len(group)) for group, share in groups for d in group if share]

    def rows(docs: TokenDocuments, training: bool) -> Mixture:
        parts = [
            SpanRows.of(
                docs,
                denoiser,
                tokenizer,
                input_capacity=config.data.seq_len,
                target_capacity=target_len(config),
                sentinels=sentinels,
                seed=config.seed,
            )
            for denoiser, _ in drawn
        ]
        names = tuple(_name(denoiser) for denoiser, _ in drawn)
        return Mixture(tuple(parts), names, tuple(share for _, share in drawn), config.seed)

    length = target_len(config)
    return span_corruption.text_to_text(config, model, tokenizer, corpora, "ul2", length, rows)
