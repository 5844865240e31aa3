"""UL2: a mixture of regular, sequential and extreme denoising, each marked by a mode token."""

from __future__ import annotations

import dataclasses

from jaxlm.config import RunConfig, TaskConfig
from jaxlm.data.documents import TokenDocuments
from jaxlm.data.mixture import Mixture
from jaxlm.tasks.pretraining.text_to_text import (
    Denoiser,
    EncoderDecoderTask,
    check_target_len,
    sentinel_names,
    span_rows,
)
from jaxlm.tasks.task import Purpose

# Tay et al. 2022, 2205.05131, section 3.1.2; mode names as in the published models
R = [Denoiser(0.15, 3.0, "[NLU]"), Denoiser(0.15, 8.0, "[NLU]")]
S = [Denoiser(0.25, None, "[S2S]")]
X = [
    Denoiser(0.5, 3.0, "[NLG]"),
    Denoiser(0.5, 8.0, "[NLG]"),
    Denoiser(0.15, 64.0, "[NLG]"),
    Denoiser(0.5, 64.0, "[NLG]"),
]
MODES = [group[0].mode or "" for group in (R, S, X)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class UL2Config(TaskConfig):
    """A mixture of regular, sequential and extreme denoising, each with its mode token (Tay et al. 2022, 2205.05131).

    R replaces 15 percent in spans of 3 or 8, S the last quarter, X half of the text in spans of 3 or 8, or 15 or 50
    percent in spans of 64. The kind is drawn per row; the settings within R and within X are equally likely.
    """

    # fraction of the rows with short spans; the paper uses each of its seven settings equally often
    regular_fraction: float = 2 / 7
    # fraction of the rows with one span at the end
    sequential_fraction: float = 1 / 7
    # fraction of the rows with long or many spans
    extreme_fraction: float = 4 / 7
    # target tokens per row; default: data.seq_len
    target_len: int | None = None

    def __post_init__(self):
        super().__post_init__()
        names = ("regular_fraction", "sequential_fraction", "extreme_fraction")
        self.check_fractions(*names)
        total = sum(getattr(self, name) for name in names)
        if abs(total - 1) > 1e-6:
            raise ValueError(
                f"task.regular_fraction, task.sequential_fraction and task.extreme_fraction add up to {total}, not to 1"
            )
        check_target_len(self.target_len)


class UL2(EncoderDecoderTask):
    """See `UL2Config`."""

    Config = UL2Config
    name = "ul2"

    @classmethod
    def added_tokens(cls, config: RunConfig) -> list[str]:
        """The mode tokens and the sentinels."""
        return MODES + sentinel_names(R + S + X, config.data.seq_len, _target_len(config))

    @property
    def target_len(self) -> int:
        """The number set, or that of the inputs."""
        return _target_len(self.config)

    def rows(self, data: TokenDocuments, purpose: Purpose) -> Mixture:
        """Rows of all denoisers, mixed by their fractions."""
        s = self.settings
        groups = (
            (R, s.regular_fraction),
            (S, s.sequential_fraction),
            (X, s.extreme_fraction),
        )
        drawn = {d: part / len(group) for group, part in groups for d in group if part}
        sentinels = self.tokenizer.ids_of(self.added_tokens(self.config)[len(MODES) :])
        parts = tuple(span_rows(self, data, denoiser, sentinels) for denoiser in drawn)
        names = tuple(_describe(denoiser) for denoiser in drawn)
        return Mixture(parts, names, tuple(drawn.values()), self.config.seed)


def _target_len(config: RunConfig) -> int:
    assert isinstance(config.task, UL2Config)
    return config.task.target_len or config.data.seq_len


def _describe(d: Denoiser) -> str:
    if d.mean_span is None:
        return f"{d.mode} the last {d.noise_fraction:.0%}"
    return f"{d.mode} {d.noise_fraction:.0%} in spans of {d.mean_span:.0f}"
