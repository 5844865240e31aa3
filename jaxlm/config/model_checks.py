"""Which values of a model's config make no model, one clear line for each; `config` is a `TransformerConfig`."""

from __future__ import annotations

from typing import Any

from jaxlm.config.values import check_at_least, check_positive

# ten times the deepest that have been published (Wang et al. 2022, DeepNet, 2203.00555)
_MOST_LAYERS = 10_000
_QK_NORMS = {"qk", "qk_whole", "qk_by_head"}


def check(config: Any) -> None:
    """Raises ValueError for values that are out of range, without effect, or contradict each other."""
    _check_sizes(config)
    _check_positions(config)
    _check_experts(config)
    _check_dense_layers(config)
    _check_rates(config)
    _check_block(config)


def ordered(config: Any, name: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """The names in a field, different ones of those that are known, in their order."""
    values = getattr(config, name)
    if not isinstance(values, (tuple, list)) or len(set(values)) < len(values):
        raise ValueError(
            f"model.{name}={values!r} is not a tuple of different values; known: {', '.join(known)}"
        )
    for value in values:
        if value not in known:
            raise ValueError(f"model.{name} has {value!r}, which is not one of {', '.join(known)}")
    if len(_QK_NORMS & set(values)) > 1:
        raise ValueError(f"model.{name}={values!r} has two kinds of norms of queries and keys")
    # biases of norms that have none are left out
    has_none = () if config.norm == "layer_norm" else ("norm",)
    return tuple(x for x in known if x in values and x not in has_none)


def check_pattern(config: Any, name: str, *known: str) -> None:
    """Raises ValueError unless a field is a sequence of these words."""
    values = getattr(config, name)
    if not values or not set(values) <= set(known):
        raise ValueError(
            f"model.{name}={values!r} may contain only {' and '.join(known)}, and must not be empty"
        )


def check_size(config: Any, *names: str) -> None:
    """Raises ValueError for a field that is set and no size."""
    check_at_least(config, "model.", 1, *names)


def check_depth(config: Any, name: str) -> None:
    """What a small file may ask for without taking all memory, or for ever."""
    layers = getattr(config, name)
    if layers is not None and layers > _MOST_LAYERS:
        raise ValueError(f"model.{name}={layers} must be at most {_MOST_LAYERS:,}")


def check_not_alibi(config: Any) -> None:
    """Raises ValueError for a model that reads both ways with positions of those that read one way."""
    if config.positions == "alibi":
        raise ValueError(
            "model.positions=alibi is for decoders: it counts the distance to earlier tokens"
        )


def _check_sizes(config: Any) -> None:
    check_size(config, "dim", "num_layers", "num_heads", "max_len", "experts_per_token")
    check_size(config, "vocab_size", "num_kv_heads", "head_dim", "mlp_dim", "window")
    check_size(config, "shared_expert_dim", "dense_mlp_dim")
    check_at_least(config, "model.", 0, "router_balance", "position_offset")
    check_depth(config, "num_layers")
    check_positive(
        config,
        "model.",
        "norm_eps",
        "init_std",
        "rope_theta",
        "rope_local_theta",
        "alibi_scale",
        "swiglu_gain",
        "swiglu_limit",
        "attention_scale",
        "embedding_scale",
        "residual_scale",
    )
    groups = config.layer_groups
    if groups is not None and (groups < 1 or config.num_layers % groups):
        raise ValueError(
            f"model.layer_groups={groups} does not divide model.num_layers={config.num_layers}"
        )
    if config.head_dim is None and config.dim % config.num_heads:
        raise ValueError(
            f"model.num_heads={config.num_heads} does not divide model.dim={config.dim}: "
            "change one of them, or set model.head_dim"
        )
    if config.num_heads % config.kv_heads:
        raise ValueError(
            f"model.num_kv_heads={config.kv_heads} does not divide model.num_heads={config.num_heads}"
        )


# ---- positions


def _check_positions(config: Any) -> None:
    if config.position_offset and config.positions in ("rotary", "relative", "alibi", "none"):
        raise ValueError(
            f"model.position_offset={config.position_offset} has no effect with "
            f"model.positions={config.positions}: leave it out"
        )
    scores, buckets = config.relative_scores, config.relative_buckets
    if scores is not None and config.positions == "none":
        raise ValueError(
            f"model.relative_scores={scores} needs positions: use model.positions=relative instead of none"
        )
    if scores == "disentangled":
        _check_disentangled(config)
    elif "relative" in config.extra_norms:
        raise ValueError(
            "model.extra_norms has 'relative', which needs model.relative_scores=disentangled"
        )
    elif buckets < 4 or config.relative_max_distance <= buckets // 2:
        raise ValueError(
            f"model.relative_buckets={buckets} must be at least 4, and its half below "
            f"model.relative_max_distance={config.relative_max_distance}"
        )
    if not 0 < config.rope_fraction <= 1:
        raise ValueError(f"model.rope_fraction={config.rope_fraction} is not in (0, 1]")
    if config.positions == "rotary":
        _check_rotary(config)


def _check_disentangled(config: Any) -> None:
    has_norm = _QK_NORMS & {*config.extra_norms}
    if config.positions == "rotary" or has_norm or config.kv_heads < config.num_heads:
        raise ValueError(
            "model.relative_scores=disentangled does not support model.positions=rotary, a norm of queries and keys, "
            "or fewer key heads than query heads"
        )
    if not config.relative_terms:
        raise ValueError(
            "model.relative_terms is empty: leave out model.relative_scores=disentangled"
        )
    buckets, longest = config.relative_buckets, config.relative_max_distance
    if buckets < 4 or buckets % 2 or longest < buckets // 2:
        raise ValueError(
            f"model.relative_buckets={buckets} must be even, at least 4, and its half at most "
            f"model.relative_max_distance={longest}"
        )


def _check_rotary(config: Any) -> None:
    scaling = config.rope_scaling
    if 2 * config.rotary_pairs > config.head_width:
        raise ValueError(
            f"rotary positions rotate pairs, but model.head_dim={config.head_width} is odd: use an even one, or set "
            "model.rope_fraction"
        )
    if config.rotary_dim % 2 and (config.rope_pairs != "halves" or scaling is not None):
        raise ValueError(
            f"model.head_dim={config.head_width} times model.rope_fraction={config.rope_fraction} is odd, which is "
            "supported with model.rope_pairs=halves and without model.rope_scaling alone"
        )
    check_pattern(config, "rope_pattern", "rotary", "none")
    if scaling is not None and len(scaling.short_factor) not in (0, config.rotary_pairs):
        raise ValueError(
            f"model.rope_scaling.short_factor has {len(scaling.short_factor)} numbers, but a head has "
            f"{config.rotary_pairs} rotated pairs"
        )


# ---- experts


def _check_experts(config: Any) -> None:
    if config.num_experts is not None:
        if not 1 <= config.experts_per_token <= config.num_experts:
            raise ValueError(
                f"model.experts_per_token={config.experts_per_token} is not between 1 and "
                f"model.num_experts={config.num_experts}"
            )
    elif config.shared_expert_dim is not None:
        raise ValueError(
            f"model.shared_expert_dim={config.shared_expert_dim} has no effect without model.num_experts"
        )
    elif config.experts_per_token != type(config).experts_per_token:
        raise ValueError(
            f"model.experts_per_token={config.experts_per_token} has no effect without model.num_experts"
        )
    elif "router" in config.biases:
        raise ValueError(
            f"model.biases={config.biases} has 'router', which has no effect without model.num_experts"
        )


def _check_dense_layers(config: Any) -> None:
    layers, count = config.dense_layers, config.num_layers
    if layers and config.num_experts is None:
        raise ValueError(
            f"model.dense_layers={layers} has no effect without model.num_experts: no layer has experts"
        )
    if layers and not 0 <= layers[0] <= layers[-1] < count:
        raise ValueError(
            f"model.dense_layers={layers} must be layers from 0 to {count - 1}: model.num_layers={count}"
        )
    if len(layers) == count:
        raise ValueError(
            f"model.dense_layers={layers} are all layers: leave out model.num_experts instead"
        )
    if layers and config.layer_groups is not None:
        raise ValueError(
            f"model.dense_layers={layers} is not supported with model.layer_groups={config.layer_groups}"
        )
    if config.dense_mlp_dim is not None and not layers:
        raise ValueError(
            f"model.dense_mlp_dim={config.dense_mlp_dim} has no effect without model.dense_layers"
        )


# ---- rates and blocks


def _check_rates(config: Any) -> None:
    for name in ("dropout", "attention_dropout", "embedding_dropout", "router_jitter"):
        rate = getattr(config, name)
        if rate is not None and not 0 <= rate < 1:
            raise ValueError(f"model.{name}={rate} is not in [0, 1)")
    for name in ("attention_softcap", "logit_softcap"):
        cap = getattr(config, name)
        if cap is not None and cap <= 0:
            raise ValueError(f"model.{name}={cap} must be positive; leave it out for no cap")


def _check_block(config: Any) -> None:
    if config.parallel_block and config.norm_place == "post":
        raise ValueError(
            "model.parallel_block is not supported with model.norm_place=post: use pre or both"
        )
    if not config.first_attn_norm and (config.norm_place in ("post", "out") or config.shared_norm):
        raise ValueError(
            "model.first_attn_norm=False needs a norm before attention alone: leave it out with "
            f"model.norm_place={config.norm_place}, model.shared_norm={config.shared_norm}"
        )
    if config.shared_norm and not (config.parallel_block and config.norm_place in ("pre", "both")):
        raise ValueError(
            "model.shared_norm needs model.parallel_block and a norm before it (model.norm_place=pre or both)"
        )
    if config.scale_embeddings and config.embedding_scale != 1:
        raise ValueError(
            f"model.scale_embeddings and model.embedding_scale={config.embedding_scale} are two factors on the "
            "embeddings: leave one out"
        )
    if config.window is None and "global" in config.layer_pattern and len(config.layer_pattern) > 1:
        raise ValueError("model.layer_pattern mixes local and global layers: set model.window")
