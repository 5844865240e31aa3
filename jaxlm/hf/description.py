"""Describes the model in a folder in the Hugging Face layout without reading its weights."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxlm.config import json_text
from jaxlm.hf import families, gguf, mxfp4, tying, weights
from jaxlm.hf.family import Family
from jaxlm.hf.kinds import Kind
from jaxlm.hf.settings import Settings
from jaxlm.hf.table import pattern
from jaxlm.hf.weights import Stored
from jaxlm.ops import positions


@dataclasses.dataclass(frozen=True)
class Description:
    """A model as config.json and the headers of the weights describe it."""

    folder: pathlib.Path
    family: Family
    architecture: str
    config: Any
    # contents of config.json
    settings: dict[str, Any]
    # the tensors, by the names of the family's table
    stored: dict[str, Stored]

    @property
    def kind(self) -> Kind:
        """The kind of head."""
        return self.family.kind(self.architecture)


def describe(folder: str | os.PathLike, *, backbone_only: bool = False) -> Description:
    """Reads config.json and the headers of the weights.

    Args:
        folder: a model folder in the Hugging Face layout, or a GGUF file.
        backbone_only: ignore the head.

    Raises:
        ValueError: a file is missing or damaged, or describes an unsupported model.
    """
    folder = pathlib.Path(folder)
    if gguf.is_gguf(folder):
        path = folder
        settings, tensors = gguf.read(folder)
    else:
        path, tensors = folder / "config.json", None
        if not path.is_file():
            raise ValueError(
                f"{folder}: no config.json, so it is not a model in the Hugging Face layout"
            )
        settings = families.text_part(json_text.read_object(path))
    model_type = settings.get("model_type")
    if model_type is None and settings.get("class") in ("TrainConfig", "FinetuneConfig"):
        raise ValueError(
            f"{folder}: a run of jaxlm: load it with jaxlm.load, or write a Hugging Face folder with `jaxlm convert "
            f"{folder} OUT_DIR`"
        )
    if not isinstance(model_type, str) or model_type not in families.FAMILIES:
        known = ", ".join(families.FAMILIES)
        raise ValueError(
            f"{path}: model_type {model_type!r:.60} is not supported; supported are {known}"
        )
    named = _architecture(settings, path)
    family = families.of(settings)
    config = _read_config(family, Settings(settings, str(path)))
    if named is None and not backbone_only:
        raise ValueError(
            f"{path}: has no architectures, so the head is not known: add one of "
            f"{', '.join([family.base, *family.heads])}, or set backbone_only=True to load the model without its head"
        )
    architecture = family.base if backbone_only else named
    if architecture != family.base and architecture not in family.heads:
        raise ValueError(
            f"{path}: architecture {named} is not supported, only {', '.join([family.base, *family.heads])}; "
            "set backbone_only=True to load the model without its head"
        )
    if tensors is None:
        tensors = mxfp4.unpacked(weights.find(folder))
    stored = _by_table_names(family, architecture, tensors)
    # each layer has a tensor of its own, or shares those of a group with a few hundred others
    layers = max(config.num_layers, getattr(config, "num_decoder_layers", None) or 0)
    if layers > 1000 + len(stored):
        raise ValueError(
            f"{path}: describes {layers:,} layers, but the model has {len(stored):,} tensors"
        )
    try:
        config, stored = tying.as_stored(family, architecture, config, stored)
    except ValueError as e:
        raise ValueError(f"{folder}: {e}") from e
    return Description(folder, family, architecture, config, settings, stored)


def _architecture(settings: dict[str, Any], path: pathlib.Path) -> Any:
    """The class that the model is of in transformers, if config.json names one."""
    named = settings.get("architectures") or [None]
    if not isinstance(named, list) or not isinstance(named[0], str | None):
        raise ValueError(f"{path}: architectures is not a list of names: {named!r:.60}")
    return named[0]


def is_model(folder: str | os.PathLike) -> bool:
    """Whether a folder has a config.json in the Hugging Face layout, or a path is that of a GGUF file."""
    if gguf.is_gguf(folder):
        return True
    path = pathlib.Path(folder) / "config.json"
    return path.is_file() and "model_type" in json_text.read_object(path)


def _read_config(family: Family, settings: Settings) -> Any:
    try:
        config = family.read(settings)
    except (TypeError, AttributeError, LookupError, ArithmeticError) as e:
        raise ValueError(f"{settings.where}: a value has a wrong type or size ({e})") from e
    except ValueError as e:
        if str(e).startswith(settings.where):
            raise
        raise ValueError(f"{settings.where}: {e}") from e
    settings.finish()
    return config


def stored_tensors(
    family: Family, architecture: str, folder: str | os.PathLike
) -> dict[str, Stored]:
    """The tensors of a folder or GGUF file by the names that a class of the family has for them."""
    folder = pathlib.Path(folder)
    tensors = gguf.read(folder)[1] if gguf.is_gguf(folder) else mxfp4.unpacked(weights.find(folder))
    return _by_table_names(family, architecture, tensors)


def _by_table_names(
    family: Family, architecture: str, stored: dict[str, Stored]
) -> dict[str, Stored]:
    """The stored tensors under the names of the table: replaces old names, adds or removes the prefix."""
    bare_names = [*family.table, *family.whole_twins(family.base)]
    base = [pattern(template) for template in bare_names]
    whole = [*family.whole_table(architecture), *family.whole_twins(architecture)]
    own = [pattern(template) for template in whole]
    sines = [re.compile(x) for x in family.sines]
    ignored = [*sines, *(re.compile(x) for x in family.ignored)]
    if architecture == family.base:
        names = {name for head in family.heads.values() for name in head.table} | {*family.twins}
        ignored += [pattern(template) for template in names - {*bare_names}]
    prefix = family.prefix_of(architecture)
    result: dict[str, Stored] = {}
    for stored_name, tensor in stored.items():
        name = stored_name
        for old, new in family.aliases.items():
            name = name.replace(old, new)
        if not any(x.fullmatch(name) for x in own):
            bare = family.bare(name)
            if any(x.fullmatch(bare) for x in base):
                name = prefix + bare
            elif any(x.fullmatch(name) or x.fullmatch(bare) for x in ignored):
                if any(x.fullmatch(bare) for x in sines):
                    _check_sines(tensor, family)
                continue
        if name in result:
            raise ValueError(
                f"{tensor.path}: {stored_name} and {result[name].name} are the same tensor"
            )
        result[name] = tensor
    return result


def _check_sines(tensor: Stored, family: Family) -> None:
    """Raises ValueError unless a stored table has the sinusoidal positions 0, 1, ..., in any precision."""
    table = np.asarray(tensor.read(slice(None))).astype(np.float32)
    inclusive = family.style["positions"] == "sinusoidal_inclusive"
    rows = np.arange(len(table))
    wanted = np.array(
        positions.sinusoidal(jnp.array(rows)[None], table.shape[1], inclusive=inclusive)[0]
    )
    if inclusive:
        # the row of the padding token
        wanted[rows[~table.any(1)][:1]] = 0
    if not np.allclose(table, wanted, atol=1e-2):
        raise ValueError(
            f"{tensor.path}: {tensor.name} is not the table of sines that this family has: a table of other positions "
            "is not supported"
        )
