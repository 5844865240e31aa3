"""Chooses the transformers class for a jaxlm model: the one whose config.json, read back, gives the same model."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxlm.config import (
    DecoderConfig,
    RopeScaling,
    TransformerConfig,
    files,
)
from jaxlm.hf import families, kinds, tying
from jaxlm.hf.family import Family
from jaxlm.hf.fields import explicit
from jaxlm.hf.settings import Settings
from jaxlm.models import heads


@dataclasses.dataclass(frozen=True)
class Choice:
    """The transformers class that is equivalent to a jaxlm model."""

    family: Family
    architecture: str
    config: TransformerConfig
    # the fields of config.json that describe the model
    settings: dict[str, Any]


def choose(model: Any) -> Choice:
    """The transformers class that is equivalent to the model.

    Raises:
        ValueError: there is none; the message names the closest class and the fields that it does not support.
    """
    kind = kinds.kind_of(model)
    config: Any = model.config
    nearest: tuple[list[str], str] | None = None
    for family in families.every():
        names = [n for n in (family.base, *family.heads) if family.kind(n) == kind]
        if not names or not isinstance(config, family.config):
            continue
        described = tying.described(family, config)
        settings = family.write(described)
        named = {"model_type": family.model_type, "architectures": names[:1]}
        if families.of(settings | named) is not family:
            continue
        reasons = _differences(family, settings, described) + _pooling(model, settings)
        reasons += _reading(family, model, settings)
        if not reasons:
            return Choice(family, names[0], config, settings)
        if nearest is None or len(reasons) < len(nearest[0]):
            nearest = reasons, names[0]
    what = f"{type(model).__name__} of a {type(config).__name__}"
    if nearest is None:
        raise ValueError(f"transformers has no class for a {what}")
    raise ValueError(
        f"transformers has no class for this {what}: "
        f"the closest, {nearest[1]}, does not support {', '.join(nearest[0])}"
    )


def _differences(family: Family, settings: dict[str, Any], config: TransformerConfig) -> list[str]:
    """The fields of a config that the family cannot represent."""
    try:
        again = family.read(Settings(settings, family.model_type))
    except ValueError as e:
        return [str(e)]
    differences = files.differences(canonical(again), canonical(config))
    return [f"model.{name}={ours!r}" for name, (_, ours) in differences.items()]


def _pooling(model: Any, settings: dict[str, Any]) -> list[str]:
    """The pooling, if the class does not support it; where it can be configured, it is written into the settings."""
    if not isinstance(model, heads.Classifier):
        return []
    config = model.config
    if kinds.pooling_is_a_setting(config) and model.pooling != "last":
        settings["classifier_pooling"] = {"first": "cls", "mean": "mean"}[model.pooling]
        return []
    wanted = "last" if isinstance(config, DecoderConfig) else "first"
    return [] if model.pooling == wanted else [f"task.pooling={model.pooling}"]


def _reading(family: Family, model: Any, settings: dict[str, Any]) -> list[str]:
    """The control tokens by which an encoder-decoder classifies, which are written into the settings."""
    reading = getattr(model, "reading", None)
    if reading is None:
        return []
    if (family.model_type == "mbart") != (reading.start is None):
        return [f"a decoder whose first token is {reading.start}"]
    settings |= {"eos_token_id": reading.end, "pad_token_id": reading.padding}
    if reading.start is not None:
        settings["decoder_start_token_id"] = reading.start
    return []


def canonical(config: TransformerConfig) -> TransformerConfig:
    """The config with derived sizes filled in, and with defaults for fields that do not change the output."""
    c = config
    default = type(c)()
    same = ["dropout", "attention_dropout", "embedding_dropout", "init_std"]
    if c.positions != "rotary":
        same += ["rope_theta", "rope_local_theta", "rope_fraction", "rope_scaling"]
        same += ["rope_pairs", "rope_pattern"]
    if c.positions != "alibi":
        same += ["alibi_scale", "alibi_dtype"]
    scores = c.distance_scores
    if scores is None:
        same += ["relative_buckets", "relative_max_distance"]
    if scores != "disentangled":
        same += ["relative_terms", "relative_projections"]
    if "embedding" not in c.extra_norms:
        same += [n for n in ("embedding_norm", "decoder_embedding_norm") if hasattr(c, n)]
    same += [] if getattr(c, "convolution", 0) is not None else ["convolution_activation"]
    same += ["router_balance", "router_jitter"]
    same += [] if c.num_experts else ["experts_per_token", "router_weights"]
    same += [] if c.dense_layers else ["dense_mlp_dim"]
    derived = explicit(c)
    names = ["num_kv_heads", "head_dim", "mlp_dim", "embedding_dim", "num_decoder_layers"]
    names += ["dense_mlp_dim"] if c.dense_layers else []
    names += ["num_decoder_heads", "decoder_mlp_dim", "lm_head_activation"]
    changes: dict[str, Any] = {name: derived[name] for name in names if hasattr(c, name)}
    changes |= {name: getattr(default, name) for name in same}
    if c.layer_groups == c.num_layers:
        changes["layer_groups"] = None
    if c.positions == "relative" and scores == "shared":
        changes["relative_scores"] = None
    if getattr(c, "decoder_embedding_norm", None) == c.embedding_norm:
        changes["decoder_embedding_norm"] = None
    if getattr(c, "decoder_scale_embeddings", None) == c.scale_embeddings:
        changes["decoder_scale_embeddings"] = None
    changes["attention_scale"] = round(derived["attention_scale"], 9)
    if c.positions == "rotary":
        changes["rope_pattern"] = derived["rope_pattern"]
    if isinstance(c, DecoderConfig):
        changes["logit_scale"] = round(c.logit_scale, 9)
    if not any(c.local_layers):
        changes |= dict(window=None, layer_pattern=("local",), rope_local_theta=None)
    else:
        changes["layer_pattern"] = derived["layer_pattern"]
    if c.rope_local_theta == c.rope_theta and c.rope_scaling is None:
        changes["rope_local_theta"] = None
    if c.rope_scaling is not None and c.rope_scaling.kind == "linear":
        changes["rope_scaling"] = RopeScaling(kind="linear", factor=c.rope_scaling.factor)
    return dataclasses.replace(c, **changes)
