"""Reading config.json strictly: a value that we cannot honour is refused by name, a name that nobody knows is told."""

from __future__ import annotations

import warnings
from typing import Any, cast

from jaxlm.config import RopeScaling
from jaxlm.config.model import GATED, Activation, ActivationFunction, Bias

# their activation -> ours; the first of several is the one that we write
ACTIVATIONS: dict[str, ActivationFunction] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}

# names that say nothing about what the model computes
_IRRELEVANT = {
    "architectures",
    "model_type",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "use_cache",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "sep_token_id",
    "cls_token_id",
    "mask_token_id",
    "unk_token_id",
    "decoder_start_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "finetuning_task",
    "task_specific_params",
    "_name_or_path",
    "name_or_path",
    "_commit_hash",
    "_num_labels",
    "output_past",
    "gradient_checkpointing",
    "return_dict",
    "output_attentions",
    "output_hidden_states",
    "tokenizer_class",
    "language",
    "directionality",
    "auto_map",
    "_attn_implementation",
    "_attn_implementation_autoset",
    "chunk_size_feed_forward",
    "pruned_heads",
    "torchscript",
    "is_encoder_decoder",
    "max_length",
    "do_sample",
    "xla_device",
}

_REQUIRED: Any = object()


class Fields:
    """The values of a config.json, remembering which of them were asked for."""

    def __init__(self, values: dict[str, Any], where: str):
        """`where` is the file, for messages."""
        self.values, self.where = values, where
        self._asked: set[str] = set()

    def __call__(self, name: str, default: Any = _REQUIRED) -> Any:
        """A value; `null` counts as absent.

        Raises:
            ValueError: it is absent and has no default.
        """
        self._asked.add(name)
        value = self.values.get(name)
        if value is not None:
            return value
        if default is _REQUIRED:
            raise ValueError(f"{self.where}: {name} is missing")
        return default

    def nullable(self, name: str, default: Any) -> Any:
        """A value where `null` means none of it, and only absence means the default."""
        self._asked.add(name)
        return self.values.get(name, default)

    def integer(self, name: str, default: Any = _REQUIRED) -> Any:
        """A whole number."""
        value = self(name, default)
        if value is not default and (not isinstance(value, int) or isinstance(value, bool)):
            raise ValueError(f"{self.where}: {name}={value!r} is not a whole number")
        return value

    def only(self, name: str, *allowed: Any) -> None:
        """Refuses a value that is not among those allowed, the first of which is the default."""
        value = self(name, allowed[0])
        if value not in allowed:
            raise self.unsupported(name, value, " or ".join(map(repr, allowed)))

    def unsupported(self, name: str, value: Any, known: str) -> ValueError:
        """The error for a value that we cannot honour."""
        return ValueError(f"{self.where}: {name}={value!r} is not supported, only {known}")

    def skip(self, *names: str) -> None:
        """Marks values as known that change nothing here (dropouts of heads, kernels to use)."""
        self._asked.update(names)

    def activation(self, name: str, default: str) -> ActivationFunction:
        """An activation by our name."""
        value = self(name, default)
        if value not in ACTIVATIONS:
            raise self.unsupported(name, value, ", ".join(ACTIVATIONS))
        return ACTIVATIONS[value]

    def layer_pattern(self) -> tuple[str, ...] | None:
        """`layer_types` as the shortest pattern that repeats to it; None where it is not given."""
        kinds = {"sliding_attention": "local", "full_attention": "global"}
        given = self("layer_types", None)
        if given is None:
            return None
        for kind in given:
            if kind not in kinds:
                raise self.unsupported("layer_types", kind, " or ".join(kinds))
        return shortest_pattern(tuple(kinds[kind] for kind in given))

    def finish(self) -> None:
        """Warns of values that are set and that nothing asked for: the model may not be what its author meant."""
        unknown = {
            name: value
            for name, value in self.values.items()
            if name not in self._asked | _IRRELEVANT and value not in (None, False, [], {})
        }
        if unknown:
            shown = ", ".join(f"{name}={value!r}"[:60] for name, value in unknown.items())
            warnings.warn(f"{self.where}: not known and not used: {shown}", stacklevel=2)


def shortest_pattern(kinds: tuple[str, ...]) -> tuple[str, ...]:
    """The shortest start of `kinds` that, repeated and cut, gives all of it."""
    for size in range(1, len(kinds)):
        if all(kind == kinds[i % size] for i, kind in enumerate(kinds)):
            return kinds[:size]
    return kinds


def gated(function: ActivationFunction) -> Activation:
    """The activation with a gate that applies a function."""
    return cast("Activation", next(name for name, of in GATED.items() if of == function))


def biases(**parts: bool) -> tuple[Bias, ...]:
    """The parts that have biases."""
    return cast("tuple[Bias, ...]", tuple(name for name, given in parts.items() if given))


def activation_name(ours: ActivationFunction) -> str:
    """Their name for one of our activation functions."""
    return next(theirs for theirs, name in ACTIVATIONS.items() if name == ours)


# --- rotary positions: `rope_parameters` since transformers 5, `rope_theta` and `rope_scaling` before ---


def read_rope(
    f: Fields, *, theta: float, fraction: float = 1.0
) -> tuple[float, float, RopeScaling | None]:
    """Base, rotated share of a head, and stretch; the arguments are the family's defaults."""
    values = dict(f("rope_parameters", None) or {})
    old = f("rope_scaling", None) or {}
    if not values:
        values = {**old, "rope_theta": f("rope_theta", theta)}
    f.skip("rope_theta")
    return _rope(f, values, theta, fraction)


def read_rope_by_layer(
    f: Fields, *, theta: float, local_theta: float, old_theta: str, old_local_theta: str
) -> tuple[float, float, RopeScaling | None]:
    """Base of global layers, base of local ones, and the stretch of the global ones."""
    values = f("rope_parameters", None) or {}
    if "full_attention" not in values:
        values = {
            "full_attention": {
                **(f("rope_scaling", None) or {}),
                "rope_theta": f(old_theta, theta),
            },
            "sliding_attention": {"rope_theta": f(old_local_theta, local_theta)},
        }
    f.skip(old_theta, old_local_theta, "rope_scaling")
    base, share, scaling = _rope(f, values["full_attention"], theta, 1.0)
    local, local_share, stretched = _rope(f, values.get("sliding_attention", {}), local_theta, 1.0)
    if share != 1 or local_share != 1:
        raise f.unsupported("partial_rotary_factor", min(share, local_share), "1")
    if stretched is not None:
        raise f.unsupported(
            "rope_parameters.sliding_attention.rope_type", stretched.kind, "default"
        )
    return base, local, scaling


def _rope(
    f: Fields, values: dict[str, Any], theta: float, fraction: float
) -> tuple[float, float, RopeScaling | None]:
    values = {name: value for name, value in values.items() if value is not None}
    base = float(values.pop("rope_theta", theta))
    share = float(values.pop("partial_rotary_factor", fraction))
    old_kind = values.pop("type", "default")
    kind = values.pop("rope_type", old_kind)
    original = values.pop("original_max_position_embeddings", None)
    if kind == "default":
        return base, share, None
    names = {
        "linear": (),
        "llama3": ("low_freq_factor", "high_freq_factor"),
        "yarn": ("beta_fast", "beta_slow"),
    }
    if kind not in names:
        raise f.unsupported("rope_type", kind, ", ".join(["default", *names]))
    if values.get("truncate") is True:
        del values["truncate"]
    settings: dict[str, Any] = {
        name: float(values.pop(name)) for name in ("factor", *names[kind]) if name in values
    }
    if "factor" not in settings:
        raise ValueError(f"{f.where}: rope_parameters.factor is missing")
    if values:
        raise ValueError(
            f"{f.where}: {', '.join(values)} of the {kind} rotary positions is not supported"
        )
    if kind != "linear":
        settings["original_max_len"] = int(original or f.integer("max_position_embeddings"))
    return base, share, RopeScaling(kind=kind, **settings)


def write_rope(theta: float, scaling: RopeScaling | None, fraction: float = 1.0) -> dict[str, Any]:
    """`rope_parameters` for transformers 5 and, for what reads older files, `rope_theta` and `rope_scaling`."""
    stretch = _write_scaling(scaling)
    parameters: dict[str, Any] = {"rope_theta": theta, "rope_type": "default", **(stretch or {})}
    if fraction != 1:
        parameters["partial_rotary_factor"] = fraction
    return {"rope_parameters": parameters, "rope_theta": theta, "rope_scaling": stretch}


def write_rope_by_layer(
    theta: float, local_theta: float, scaling: RopeScaling | None
) -> dict[str, Any]:
    """`rope_parameters` of models whose local layers have a base of their own."""
    return {
        "rope_parameters": {
            "full_attention": {
                "rope_theta": theta,
                "rope_type": "default",
                **(_write_scaling(scaling) or {}),
            },
            "sliding_attention": {"rope_theta": local_theta, "rope_type": "default"},
        }
    }


def _write_scaling(scaling: RopeScaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    values: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind != "linear":
        values["original_max_position_embeddings"] = scaling.original_max_len
    if scaling.kind == "llama3":
        values |= dict(
            low_freq_factor=scaling.low_freq_factor, high_freq_factor=scaling.high_freq_factor
        )
    if scaling.kind == "yarn":
        values |= dict(beta_fast=scaling.beta_fast, beta_slow=scaling.beta_slow)
    return values
