"""Optimizers from optax by name, their schedules, and learning rates by depth."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlm.config import OptimizerConfig
from jaxlm.params import entry, matrix_dims, path_name
from jaxlm.training import groups


def make_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Learning rate at each step: linear warm-up, then the schedule of the config, down to `final_fraction`."""
    peak, warmup = config.learning_rate, config.warmup_steps
    after = max(steps - warmup, 1)
    if config.name == "schedule_free_adamw" or config.schedule == "constant":
        main = optax.constant_schedule(peak)
    elif config.schedule == "cosine":
        main = optax.cosine_decay_schedule(peak, after, alpha=config.final_fraction)
    elif config.schedule == "linear":
        main = optax.linear_schedule(peak, peak * config.final_fraction, after)
    else:
        decay = max(round(config.decay_fraction * steps), 1)
        main = optax.linear_schedule(
            peak, peak * config.final_fraction, decay, max(after - decay, 0)
        )
    if warmup == 0:
        return main
    # the first step has 1/warmup of the peak, not 0
    return optax.join_schedules(
        [optax.linear_schedule(peak / warmup, peak, max(warmup - 1, 1)), main], [warmup]
    )


def make_optimizer(
    config: OptimizerConfig, steps: int, multipliers: Any = None
) -> optax.GradientTransformation:
    """The optimizer of a config, for all or some parameters, without clipping.

    Args:
        config: name, schedule and decay.
        steps: length of the schedule.
        multipliers: of the learning rate of each parameter, a tree of numbers or of arrays that broadcast; None: 1.
    """
    if multipliers is None:
        # chained for compatibility with the optimizer state of existing checkpoints
        return optax.chain(optax.identity(), _named(config, steps))
    scale = _scale_by_tree(multipliers)
    if config.name == "schedule_free_adamw":
        # scaled before averaging, so that the average follows the scaled updates
        return optax.chain(optax.identity(), _named(config, steps, scale))
    return optax.chain(optax.chain(optax.identity(), _named(config, steps)), scale)


def _named(
    config: OptimizerConfig, steps: int, scale: optax.GradientTransformation | None = None
) -> optax.GradientTransformation:
    """The optimizer by name; `scale` is applied to the updates that a schedule-free optimizer averages."""
    rate = make_schedule(config, steps)
    c = config
    adamw = optax.adamw(
        rate, b1=c.b1, b2=c.b2, eps=c.eps, weight_decay=c.weight_decay, mask=decay_mask
    )
    if c.name == "adamw":
        return adamw
    if c.name == "sgd":
        decay = optax.add_decayed_weights(c.weight_decay, decay_mask)
        return optax.chain(decay, optax.sgd(rate, momentum=c.b1 or None))
    if c.name == "lion":
        return optax.lion(rate, b1=c.b1, b2=c.b2, weight_decay=c.weight_decay, mask=decay_mask)
    if c.name == "adafactor":
        return _adafactor(rate, c.weight_decay)
    if c.name == "muon":
        muon = optax.contrib.muon(
            rate,
            weight_decay=c.weight_decay,
            muon_weight_dimension_numbers=_muon_dims,
            # updates as large as AdamW's, so that learning rates carry over (Liu et al. 2025, 2502.16982)
            consistent_rms=0.2,
        )
        return optax.partition({"muon": muon, "adamw": adamw}, _muon_or_adamw)
    assert c.name == "schedule_free_adamw", c.name
    base = optax.chain(
        optax.scale_by_rms(decay=c.b2, eps=c.eps, eps_in_sqrt=False, bias_correction=True),
        optax.add_decayed_weights(c.weight_decay, decay_mask),
        optax.scale_by_learning_rate(rate),
        *([] if scale is None else [scale]),
    )
    return optax.contrib.schedule_free(base, learning_rate=rate, b1=c.b1)


def _adafactor(rate: optax.Schedule, weight_decay: float) -> optax.GradientTransformation:
    """Adafactor (Shazeer and Stern 2018, 1804.04235) with the decay of AdamW, which follows the schedule.

    `optax.adafactor` decays by a constant, after the learning rate. The empty steps at the end give the state the
    structure that it has there, in which runs have stored it.
    """
    decay = optax.add_decayed_weights(weight_decay, decay_mask)
    scale = optax.scale_by_learning_rate(rate)

    def update(updates, state, params):
        updates, _ = decay.update(updates, decay.init(params), params)
        return scale.update(updates, state, params)

    return optax.chain(
        optax.scale_by_factored_rms(),
        optax.clip_by_block_rms(1.0),
        optax.GradientTransformation(scale.init, update),
        *([optax.masked(optax.identity(), decay_mask)] if weight_decay else []),
        optax.identity(),
    )


def keeps_average(config: OptimizerConfig) -> bool:
    """Whether the optimizer keeps an average of the parameters, to be used for evaluation."""
    return config.name == "schedule_free_adamw"


def evaluation_params(opt_state: Any, params: Any) -> Any:
    """The parameters to evaluate: the average that a schedule-free optimizer keeps, otherwise `params`."""
    is_average = lambda x: isinstance(x, optax.contrib.ScheduleFreeState)
    for state in jax.tree.leaves(opt_state, is_leaf=is_average):
        if is_average(state):
            return optax.contrib.schedule_free_eval_params(state, params)
    return params


def decay_mask(params: Any) -> Any:
    """True for parameters that weight decay applies to."""
    return jax.tree.map_with_path(lambda path, _: entry(path).decay, params)


def _muon_or_adamw(params: Any) -> Any:
    """Muon for the matrices of the blocks, AdamW for everything else."""
    return jax.tree.map_with_path(
        lambda path, x: "adamw" if matrix_dims(path, x.ndim) is None else "muon", params
    )


def _muon_dims(params: Any) -> Any:
    """Input and output dims of each matrix of the blocks."""

    def one(path, x):
        dims = matrix_dims(path, x.ndim)
        assert dims is not None, path
        return optax.contrib.MuonDimensionNumbers(*dims)

    return jax.tree.map_with_path(one, params)


def layer_decay_multipliers(decay: float, params: Any) -> Any:
    """Multipliers of the learning rate by depth, shaped to broadcast: [L, 1, ...] for stacked blocks.

    With `decay` d, the head has 1, the top block d, the next d^2, ..., and the embeddings d times that of the lowest
    block (Howard and Ruder 2018, 1801.06146; ELECTRA, 2003.10555, appendix B). Encoder and decoder count their own
    blocks and share embeddings, which are below the deeper of both; a final norm has the rate of the head.
    """
    known = groups.leaves_of(params)
    num_layers = groups.depth(known)

    def one(path, x):
        leaf = known[path_name(path)]
        names = leaf.name.split("/")
        if names[0] == "head":
            return np.ones((), np.float32)
        if leaf.layers is not None:
            factor = np.asarray(decay ** (leaf.depth - np.asarray(leaf.layers)), np.float32)
            return factor.reshape(-1, *[1] * (x.ndim - 1)) if factor.ndim else factor
        return np.float32(decay ** (0 if "final_norm" in names else num_layers + 1))

    return jax.tree.map_with_path(one, params)


def _scale_by_tree(multipliers: Any) -> optax.GradientTransformation:
    """Multiplies updates by a tree of constants."""
    return optax.stateless(
        lambda updates, _: jax.tree.map(lambda u, m: u * jnp.asarray(m), updates, multipliers)
    )
