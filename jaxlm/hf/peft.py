"""Reads low-rank adapters in the layout of peft: adapter_config.json and adapter_model.safetensors.

See `peft_layout` for how the matrices map to ours, and `peft_export` for the way back.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxlm.config import json_text
from jaxlm.hf import description, gguf, peft_checks, tying, weights
from jaxlm.hf.description import Description
from jaxlm.hf.family import Family, Head
from jaxlm.hf.kinds import Kind
from jaxlm.hf.peft_layout import Layout, is_table
from jaxlm.hf.table import Source, resolve
from jaxlm.hf.tying import UNEMBEDDING
from jaxlm.hf.weights import Stored
from jaxlm.models import lora
from jaxlm.params import sides

NO_HEAD = Head("none", {})
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
# peft's names of the kinds of models
TASKS: dict[Kind, str] = {
    "causal_lm": "CAUSAL_LM",
    "seq2seq": "SEQ_2_SEQ_LM",
    "classifier": "SEQ_CLS",
    "tokens": "TOKEN_CLS",
    "span": "QUESTION_ANS",
    "none": "FEATURE_EXTRACTION",
}


def is_adapter(folder: str | os.PathLike) -> bool:
    """Whether a folder has an adapter, and no model."""
    folder = pathlib.Path(folder)
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


@dataclasses.dataclass(frozen=True)
class Adapter:
    """An adapter whose tensors have not been read."""

    folder: pathlib.Path
    # contents of adapter_config.json
    settings: dict[str, Any]
    # by the names of the base model's modules: `...q_proj.lora_A.weight`
    stored: dict[str, Stored]

    @property
    def whole(self) -> dict[str, Stored]:
        """The tensors that replace those of the base model, such as a head."""
        return {name: x for name, x in self.stored.items() if ".lora_" not in name}

    def scale(self, module: str, rank: int) -> float:
        """What the product of a module's matrices is multiplied by."""
        alpha = self._of_module("lora_alpha", "alpha_pattern", module)
        return alpha / (rank**0.5 if self.settings.get("use_rslora") else rank)

    def rank(self, module: str) -> int:
        """The rank of a module's matrices by the settings."""
        return self._of_module("r", "rank_pattern", module)

    def _of_module(self, name: str, patterns: str, module: str) -> Any:
        for key, value in (self.settings.get(patterns) or {}).items():
            if re.match(rf"(.*\.)?({key})$", module):  # as peft does
                return value
        return self.settings.get(name, 8)

    def base(self, given: str | os.PathLike | None = None) -> pathlib.Path | str:
        """The folder of the base model, or its id on the hub: the one given, or that of the adapter's own settings.

        Raises:
            ValueError: the settings name none.
        """
        named = self.settings.get("base_model_name_or_path") if given is None else given
        if not named:
            raise ValueError(
                f"{self.folder / CONFIG}: base_model_name_or_path is missing; name the model that it belongs to"
            )
        for folder in (pathlib.Path(named), self.folder / named):
            if folder.is_dir() or gguf.is_gguf(folder):
                return folder
        return str(named)

    def warn_of_other_base(self, given: str | os.PathLike) -> None:
        """Warns if the settings name another base than the one that is given: two models may have the same shapes."""
        named = self.settings.get("base_model_name_or_path")
        if named and pathlib.PurePath(named).name != pathlib.PurePath(given).name:
            warnings.warn(
                f"{self.folder}: the adapter was trained on {named}, and is put on {given}: only shapes are compared",
                stacklevel=3,
            )


def read(folder: str | os.PathLike) -> Adapter:
    """The settings of an adapter and the headers of its tensors.

    Raises:
        ValueError: a file is missing or damaged, or it is an adapter of another kind.
    """
    folder = pathlib.Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ValueError(f"{folder}: no {name}, so it is not an adapter in the layout of peft")
    settings = json_text.read_object(folder / CONFIG)
    peft_checks.check_settings(settings, folder / CONFIG)
    stored = {}
    for tensor in weights.header(folder / WEIGHTS):
        # without parts that only names in memory have
        name = tensor.name.removeprefix(PREFIX).replace(".modules_to_save", "")
        name = name.replace(".base_layer", "")
        stored[re.sub(r"(lora_\w+)\.default\b", r"\1", name)] = tensor
    peft_checks.check_tensors(stored, folder / WEIGHTS)
    return Adapter(folder, settings, stored)


def describe(adapter: Adapter, base: str | os.PathLike) -> Description:
    """The model that an adapter belongs to, with the tensors that the adapter replaces and its head.

    Raises:
        ValueError: the base is not a model, or has no such class.
    """
    whole = adapter.whole
    if not whole:
        if modules := adapter.settings.get("modules_to_save"):
            raise ValueError(
                f"{adapter.folder / WEIGHTS}: the tensors of {', '.join(modules)} are missing, which "
                f"modules_to_save of {CONFIG} names"
            )
        return description.describe(base)
    found = description.describe(base, backbone_only=True)
    family, wanted = found.family, adapter.settings.get("task_type")
    kind = next((kind for kind, task in TASKS.items() if task == wanted), "masked_lm")
    classes = [name for name in (family.base, *family.heads) if family.kind(name) == kind]
    if not classes:
        raise ValueError(f"{adapter.folder / CONFIG}: {family.model_type} has no {wanted}")
    architecture = classes[0]
    table = family.whole_table(architecture)
    # what the adapter does not replace of the head is the base's
    full = description.stored_tensors(family, architecture, base)
    head = {*family.heads.get(architecture, NO_HEAD).table, *family.twins}
    own = {name: x for name, x in full.items() if name in head}
    prefix = family.prefix_of(architecture)
    backbone = description.stored_tensors(family, family.base, base)
    stored = {prefix + name: tensor for name, tensor in backbone.items()} | own | whole
    known = {name for rule in (table, family.table) for name in rule if "{" not in name}
    for name in whole:
        if name not in known and prefix + name not in known:
            raise ValueError(
                f"{adapter.folder / WEIGHTS}: {name} is not a tensor of {architecture}: it is an adapter of another "
                "base"
            )
    settings, config = dict(found.settings), found.config
    rows = {table.get(name): x.shape[0] for name, x in whole.items() if x.shape}
    if count := rows.get("head/classes/kernel"):
        settings["id2label"] = {str(i): f"LABEL_{i}" for i in range(count)}
    if size := rows.get("backbone/embed/token/embedding"):
        config = dataclasses.replace(config, vocab_size=size)
    config, stored = tying.as_stored(family, architecture, config, stored)
    return Description(found.folder, family, architecture, config, settings, stored)


@dataclasses.dataclass(frozen=True)
class _Pair:
    """The two matrices of a module: lora_A [R, inputs] and lora_B [outputs, R]."""

    names: tuple[str, str]
    a: Stored
    b: Stored
    scale: float

    @property
    def rank(self) -> int:
        return self.a.shape[0]


def parameters(
    adapter: Adapter,
    family: Family,
    architecture: str,
    shapes: Mapping[str, tuple[int, ...]],
    where: object,
    *,
    is_tied: bool,
) -> dict[str, dict[str, np.ndarray]]:
    """The parts of the adapters, as in `models.lora`, by the path of the parameter that they are added to.

    Args:
        adapter: from `read`.
        family: of the base model.
        architecture: its class in transformers.
        shapes: of its parameters by path, without adapters.
        where: what to call the base model in messages.
        is_tied: whether its output table is the input table.

    Raises:
        ValueError: it is an adapter of another model, or one that no model here can represent.
    """
    sources = resolve(family.whole_table(architecture), shapes)
    pairs = _pairs(adapter, family)
    left = dict(pairs)
    without: set[str] = set()
    result: dict[str, dict[str, np.ndarray]] = {}
    for path, source in sources.items():
        if sides(path.rsplit("/", 1)[-1]) is None:
            continue
        modules = {at: _module(name, family) for at, name in source.names()}
        if path.startswith("backbone/"):
            without.update(modules.values())
        found = {at: pairs[module] for at, module in modules.items() if module in pairs}
        if not found:
            continue
        matrices = {at: _matrices(pair, path, source, where) for at, pair in found.items()}
        rank = max(a.shape[-1] for a, _ in matrices.values())
        shape = lora.adapter_shapes(path, shapes[path], rank)
        parts = {part: np.zeros(shape[part], np.float32) for part in lora.PARTS}
        scale = next(iter(found.values())).scale
        parts["scale"][...] = scale
        for at, pair in found.items():
            a, b = matrices[at]
            parts["a"][at][..., : len(b)] = a
            # what differs from layer to layer goes into a matrix
            parts["b"][at][: len(b)] = b * np.float32(pair.scale / scale)
            left.pop(modules[at], None)
        result[path] = parts
    output = _output(family, architecture)
    # the adapter of an output table that the model does not have, or that is one with the input table
    unused = left.pop(output, None) if output is not None and UNEMBEDDING not in shapes else None
    if is_tied and output is not None:
        _check_tied(adapter, unused, result)
    if left:
        name = min(left.values(), key=lambda pair: pair.names).names[0]
        raise ValueError(
            f"{adapter.folder / WEIGHTS}: {name} belongs to no matrix of {where}: it is an adapter of another base, or "
            "of a part of the model that has no adapters here"
        )
    without -= {*pairs, *(_module(name, family) for name in adapter.whole)}
    peft_checks.check_complete(adapter.settings, without, family.bare, adapter.folder / WEIGHTS)
    return result


def _module(name: str, family: Family) -> str:
    """The module of a tensor without the prefix that only classes with a head have."""
    return family.bare(name.removesuffix(".weight"))


def _pairs(adapter: Adapter, family: Family) -> dict[str, _Pair]:
    """The matrices by their module.

    Raises:
        ValueError: there is only one of the two.
    """
    modules = {re.sub(r"\.lora_.*", "", name) for name in adapter.stored if ".lora_" in name}
    peft_checks.check_targets(adapter.settings, modules, adapter.folder / WEIGHTS)
    pairs = {}
    for name in adapter.stored:
        if ".lora_" not in name:
            continue
        other = re.sub(r"lora_(embedding_)?A", r"lora_\1B", name)
        first = re.sub(r"lora_(embedding_)?B", r"lora_\1A", name)
        if other not in adapter.stored or first not in adapter.stored:
            raise ValueError(
                f"{adapter.folder / WEIGHTS}: {name} is one of two matrices, and the other is missing"
            )
        if name != first:
            continue
        module = re.sub(r"\.lora_.*", "", name)
        a, b = adapter.stored[first], adapter.stored[other]
        if a.shape[0] != (rank := adapter.rank(module)):
            raise ValueError(
                f"{a.path}: {a.name} is of rank {a.shape[0]}, but {CONFIG} says {rank}: they are not of one adapter"
            )
        scale = adapter.scale(module, a.shape[0])
        for old, new in family.aliases.items():
            module = module.replace(old.removesuffix(".weight"), new.removesuffix(".weight"))
        pairs[_module(module, family)] = _Pair((first, other), a, b, scale)
    return pairs


def _matrices(
    pair: _Pair, path: str, source: Source, where: object
) -> tuple[np.ndarray, np.ndarray]:
    """The matrices of one layer with our dims: [inputs, R] and [R, outputs]."""
    layout = Layout.of(path, source)
    # a table that gives logits [V, D] is a module of D inputs: its two matrices change places
    swapped = is_table(path) and "lora_A" in pair.names[0]
    inputs, outputs = layout.num_inputs, layout.num_outputs
    if swapped:
        inputs, outputs = outputs, inputs
    for tensor, shape in ((pair.a, (pair.rank, inputs)), (pair.b, (outputs, pair.rank))):
        if tensor.shape != shape:
            raise ValueError(
                f"{tensor.path}: {tensor.name} is {list(tensor.shape)}, but {where} needs {list(shape)}: it is an "
                "adapter of another base"
            )
    a, b = (peft_checks.check_finite(x, x.read().astype(np.float32)) for x in (pair.a, pair.b))
    a, b = (b.T, a.T) if swapped else (a, b)
    a = layout.view_inputs(np.ascontiguousarray(a.T), source.piece)
    b = layout.view_outputs(np.ascontiguousarray(b), source.piece)
    # of a module of several parameters: without what belongs to the others, as `peft_export` writes it
    used = b.reshape(len(b), -1).any(axis=1)
    is_shared = source.num_rows is not None or any(x.isdigit() for x in layout.outputs)
    return (a[..., used], b[used]) if is_shared and used.any() else (a, b)


def _output(family: Family, architecture: str) -> str | None:
    """The module that gives the logits."""
    table = family.whole_table(architecture)
    name = next((name for name, rule in table.items() if rule == UNEMBEDDING), None)
    return None if name is None else _module(name, family)


def _check_tied(
    adapter: Adapter, pair: _Pair | None, result: Mapping[str, Mapping[str, np.ndarray]]
) -> None:
    """Raises ValueError unless the adapter of a tied output table is that of the input table."""
    own = next((x for path, x in result.items() if path.endswith("/embedding")), None)
    if pair is None and own is None:
        return
    same = pair is not None and own is not None
    if pair is not None and own is not None:
        theirs = pair.scale * (pair.b.read().astype(np.float32) @ pair.a.read().astype(np.float32))
        ours = float(own["scale"]) * (own["a"] @ own["b"])
        same = theirs.shape == ours.shape and np.allclose(theirs, ours, rtol=1e-4, atol=1e-6)
    if not same:
        raise ValueError(
            f"{adapter.folder}: input and output table of the model are one, but the adapter changes only one of them, "
            "or both differently: export it merged from peft, with its own output table"
        )
