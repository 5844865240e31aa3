"""Refuses adapters that are damaged, or whose settings and tensors contradict each other."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from jaxlm.hf.weights import Stored

# settings that change what an adapter computes or which tensors it has, with the values that are supported
_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": (None, "none"),
    "lora_bias": (None, False),
    "use_rslora": (None, False, True),
    "use_dora": (None, False),
    "use_qalora": (None, False),
    "target_parameters": (None, []),
    "trainable_token_indices": (None,),
    "layer_replication": (None, []),
    "alora_invocation_tokens": (None,),
    "arrow_config": (None,),
    "kasa_config": (None,),
    "monteclora_config": (None,),
    "use_bdlora": (None, False),
}
# how adapters may have begun: with others, such as PiSSA (Meng et al. 2024, 2404.02948), peft changes the base as well
_BEGINNINGS = (None, True, False, "gaussian", "eva", "orthogonal")


def check_settings(settings: Mapping[str, Any], where: object) -> None:
    """Raises ValueError unless adapter_config.json, which messages call `where`, describes an adapter that is read."""
    for name, allowed in _SUPPORTED.items():
        if settings.get(name) not in allowed:
            raise ValueError(f"{where}: {name}={settings[name]!r} is not supported")
    if (beginning := settings.get("init_lora_weights")) not in _BEGINNINGS:
        raise ValueError(
            f"{where}: init_lora_weights={beginning!r} is not supported, because peft changes the base with it: save "
            "the adapter as plain LoRA (path_initial_model_for_weight_conversion of save_pretrained), or merged"
        )
    values = {name: settings[name] for name in ("r", "lora_alpha") if name in settings}
    for name in ("rank_pattern", "alpha_pattern"):
        pattern = settings.get(name) or {}
        if not isinstance(pattern, dict):
            raise ValueError(f"{where}: {name}={pattern!r} is not an object")
        for key, value in pattern.items():
            _check_pattern(key, f"{where}: {name}")
            values[f"{name}[{key!r}]"] = value
    for name, value in values.items():
        is_rank = name.startswith("r")
        is_number = isinstance(value, int if is_rank else int | float)
        is_number = is_number and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or value == 0 or (is_rank and value < 0):
            kind = "a positive whole number" if is_rank else "a number other than 0"
            raise ValueError(f"{where}: {name}={value!r} is not {kind}")
    for name in ("target_modules", "modules_to_save"):
        value = settings.get(name)
        is_list = isinstance(value, list) and all(isinstance(x, str) for x in value)
        if not is_list and not (value is None or (isinstance(value, str) and name[0] == "t")):
            raise ValueError(f"{where}: {name}={value!r} is not a list of names")
    if isinstance(pattern := settings.get("target_modules"), str):
        _check_pattern(pattern, f"{where}: target_modules")


def _check_pattern(pattern: str, where: str) -> None:
    try:
        re.compile(pattern)
    except re.error as e:
        raise ValueError(f"{where}: {pattern!r} is not a pattern: {e}") from None


def check_tensors(stored: Mapping[str, Stored], where: object) -> None:
    """Raises ValueError unless there are tensors of adapters, or some that replace those of the base."""
    if not stored:
        raise ValueError(
            f"{where}: there are no tensors in it, so the adapter would change nothing"
        )
    for name, tensor in stored.items():
        if ".lora_" in name and not re.search(r"\.lora_(embedding_)?[AB](\.weight)?$", name):
            raise ValueError(f"{where}: {tensor.name} is no matrix of LoRA")
        if ".lora_" in name and len(tensor.shape) != 2:
            raise ValueError(f"{where}: {tensor.name} is {list(tensor.shape)}, not a matrix")
        if tensor.dtype.kind not in "fV":
            raise ValueError(f"{where}: {tensor.name} has dtype {tensor.dtype}, not one of floats")


def check_finite(tensor: Stored, values: np.ndarray) -> np.ndarray:
    """The values of a tensor; raises ValueError if some are not finite."""
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise ValueError(
            f"{tensor.path}: {tensor.name} has {count:,} values that are not finite numbers: the adapter is damaged"
        )
    return values


def check_targets(settings: Mapping[str, Any], adapted: Iterable[str], where: object) -> None:
    """Raises ValueError if the settings do not name a module that has an adapter in `where`."""
    for module in sorted(adapted):
        if (named := settings.get("target_modules")) and not is_target(module, named):
            raise ValueError(
                f"{where}: has an adapter of {module}, which target_modules of its settings does not name: they are "
                "the settings of another adapter"
            )


def check_complete(
    settings: Mapping[str, Any], missing: Iterable[str], bare: Callable[[str], str], where: object
) -> None:
    """Raises ValueError if the settings name a module that has no adapter.

    Args:
        settings: of the adapter.
        missing: modules of the base that could have an adapter in `where`, and have none.
        bare: removes what is in front of the name of a module of the backbone.
        where: what to call the file of tensors.
    """
    named = settings.get("target_modules")
    if not isinstance(named, list):
        return  # a pattern, whose exceptions are not seen here
    if settings.get("layers_to_transform") is not None or settings.get("exclude_modules"):
        return
    for module in sorted(missing):
        if is_target(module, [bare(name) for name in named]):
            raise ValueError(
                f"{where}: has no adapter of {module}, which target_modules of its settings names: tensors are missing"
            )


def is_target(module: str, named: str | Iterable[str]) -> bool:
    """Whether target_modules, names in full or their endings, or a pattern, name a module; as in peft."""
    if isinstance(named, str):
        return named == "all-linear" or re.fullmatch(named, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in named)
