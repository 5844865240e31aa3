"""The phases of a text VAE: which side of the model is trained when."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from jaxlm.config import GroupConfig, PhaseConfig, RunConfig, VAEConfig

Scheme = Literal["joint", "decoder_last", "encoder_first", "fresh_decoder", "aggressive"]


def check(config: RunConfig, model: VAEConfig, encoder: tuple[str, ...]) -> None:
    """Refuses groups and phases of the config that are not those of the scheme; a run that has begun has those."""
    scheme = _settings(config).scheme
    if scheme == "joint":
        return
    if config.groups:
        raise ValueError(
            f"task.scheme={scheme} defines the groups of each phase: leave groups unset, or use joint with phases of "
            "your own"
        )
    without_ends = lambda parts: [
        dataclasses.replace(p, end=None, end_fraction=None) for p in parts
    ]
    own = without_ends(config.phases)
    if own and own != without_ends(phases(config, model, encoder)):
        raise ValueError(
            f"task.scheme={scheme} has two phases, and those of the config are others: leave phases unset, or use "
            "scheme=joint"
        )


def encoder_params(model: VAEConfig) -> tuple[str, ...]:
    """The parameters of posterior and prior; the rest are the decoder's."""
    names = ("backbone/encoder/*", "head/posterior/*")
    return (*names, "head/pseudo_inputs") if model.prior == "vamp" else names


def decoder_params(model: VAEConfig) -> tuple[str, ...]:
    """The parameters that the decoder reads the latent and writes text with."""
    head = [f"head/{way}/*" for way in model.inject]
    if not model.decoder.tie_embeddings:
        head.append("head/unembedding")
    return ("backbone/decoder/*", *head)


def phases(
    config: RunConfig, model: VAEConfig, encoder: tuple[str, ...]
) -> tuple[PhaseConfig, ...]:
    """The two phases of the scheme, none with `joint`; `encoder` are the parameters on the encoder's side."""
    s = _settings(config)
    if s.scheme == "joint":
        return ()
    last = _last_step(config)
    # those of a run that has begun are in its config
    if not config.phases and not 0 < last < config.steps:
        raise ValueError(
            f"task.first_fraction={s.first_fraction} ends the first phase of task.scheme={s.scheme} at step {last} of "
            f"{config.steps}: each phase needs a step; change it, or raise steps"
        )
    end = s.first_fraction
    own = GroupConfig(name="encoder", params=encoder)
    if s.scheme == "decoder_last":
        frozen = GroupConfig(name="encoder", params=encoder, frozen=True)
        return PhaseConfig(end_fraction=end), PhaseConfig(groups=(frozen,))
    if s.scheme == "encoder_first":
        rest = ("backbone/decoder/*", "head/*")
        frozen = GroupConfig(name="decoder", params=rest, frozen=True)
        return PhaseConfig(end_fraction=end, groups=(own, frozen)), PhaseConfig(groups=(own,))
    if s.scheme == "fresh_decoder":
        reset = decoder_params(model)
        return (
            PhaseConfig(end_fraction=end, groups=(own,)),
            PhaseConfig(groups=(own,), reset=reset),
        )
    turns = (*(("encoder",),) * s.encoder_updates, ("rest",))
    return PhaseConfig(end_fraction=end, groups=(own,), turns=turns), PhaseConfig(groups=(own,))


def is_encoder_fixed(config: RunConfig, phase: int) -> bool:
    """Whether the encoder is a fixed function in a phase."""
    return _settings(config).scheme == "decoder_last" and phase == 1


def schedule_start(config: RunConfig) -> int:
    """Steps before the schedule of the weight of the divergence begins."""
    if _settings(config).scheme != "fresh_decoder":
        return 0
    if not config.phases:
        return _last_step(config)
    # a run that has begun has the end in steps
    first = config.phases[0]
    return first.end or round((first.end_fraction or 0) * config.steps)


def _last_step(config: RunConfig) -> int:
    """The last step of the first phase."""
    return round(_settings(config).first_fraction * config.steps)


def _settings(config: RunConfig) -> Any:
    """The `TextVAEConfig`."""
    return config.task
