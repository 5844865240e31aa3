"""Writes low-rank adapters in the layout of peft; see `peft_layout`."""

from __future__ import annotations

import json
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save_file

from jaxlm.hf.family import Family
from jaxlm.hf.folders import new_folder
from jaxlm.hf.peft import CONFIG, PREFIX, TASKS, WEIGHTS
from jaxlm.hf.peft_checks import is_target
from jaxlm.hf.peft_layout import Layout, is_table, is_transposed
from jaxlm.hf.table import Source, resolve
from jaxlm.hf.tying import UNEMBEDDING
from jaxlm.models import lora
from jaxlm.params import sides


class _Module(NamedTuple):
    """An adapter of a module in transformers: a [R, inputs], b [outputs, R]."""

    name: str
    is_embedding: bool
    a: np.ndarray
    b: np.ndarray
    scale: float

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        ends = ("lora_embedding_A", "lora_embedding_B")
        ends = ends if self.is_embedding else ("lora_A.weight", "lora_B.weight")
        return {f"{PREFIX}{self.name}.{end}": x for end, x in zip(ends, (self.a, self.b))}


def save(
    folder: str | os.PathLike,
    family: Family,
    architecture: str,
    params: Any,
    *,
    base: str,
    trained: Sequence[str] = (),
    card: str | None = None,
    write_more: Callable[[pathlib.Path], None] | None = None,
) -> None:
    """Writes the adapters among the parameters so that `PeftModel.from_pretrained` loads them; atomically.

    Args:
        folder: where to write; must be empty or not exist.
        family: of the base model.
        architecture: its class in transformers.
        params: parameters with adapters.
        base: folder or hub id of the base model.
        trained: paths of the parameters that were trained as a whole, which are saved beside the adapters.
        card: text of README.md.
        write_more: writes further files to the folder, such as a tokenizer.

    Raises:
        ValueError: the folder is not empty, or peft has no place for an adapter.
    """
    flat = {path: np.asarray(x, np.float32) for path, x in lora.flat(params).items()}
    shapes = {path: x.shape for path, x in flat.items() if lora.ADAPTER not in path}
    table = family.whole_table(architecture)
    sources = resolve(table, shapes)
    modules = list(_modules(flat, sources, table))
    tensors = {name: x for module in modules for name, x in module.tensors.items()}
    saved = set()
    for path in trained:
        source = sources[path]
        for at, name in source.names():
            tensor = tensors.setdefault(PREFIX + name, np.empty(source.their_shape, np.float32))
            source.put(tensor, flat[path][at])
            saved.add(_saved_module(name, family))
    rank = min(module.rank for module in modules)
    scale = next(module.scale for module in modules if module.rank == rank)
    settings = {
        "peft_type": "LORA",
        "task_type": TASKS.get(family.kind(architecture)),
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": scale * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "fan_in_fan_out": any(
            is_transposed(path, s) for path, s in sources.items() if sides(path.rsplit("/", 1)[-1])
        ),
        "target_modules": _endings({module.name for module in modules}, sources),
        "modules_to_save": sorted(saved) or None,
        "rank_pattern": {m.name: m.rank for m in modules if m.rank != rank},
        "alpha_pattern": {
            m.name: m.scale * m.rank for m in modules if m.scale * m.rank != scale * rank
        },
        "inference_mode": True,
        "init_lora_weights": True,
    }
    with new_folder(folder) as temporary:
        text = json.dumps(settings, indent=2, ensure_ascii=False)
        (temporary / CONFIG).write_text(text + "\n", encoding="utf-8")
        arrays = {name: np.ascontiguousarray(x) for name, x in tensors.items()}
        save_file(arrays, temporary / WEIGHTS, {"format": "pt"})
        (temporary / WEIGHTS).chmod(0o644)  # the library restricts access to the owner
        if card is not None:
            (temporary / "README.md").write_text(card, encoding="utf-8")
        if write_more is not None:
            write_more(temporary)


def _modules(
    flat: Mapping[str, np.ndarray], sources: Mapping[str, Source], table: Mapping[str, Any]
) -> Iterator[_Module]:
    """The adapters by module; parameters of one module share one."""
    by_template: dict[str, list[tuple[str, Source]]] = {}
    for path, source in sources.items():
        if f"{path}{lora.ADAPTER}a" in flat:
            by_template.setdefault(source.template, []).append((path, source))
    for template, parts in by_template.items():
        if template.count("{") > 1:
            raise ValueError(
                f"peft has no place for adapters of experts ({template}): export the merged model instead"
            )
        for at, name in parts[0][1].names():
            module = _module(flat, name.removesuffix(".weight"), at, parts)
            yield module
            output = next((name for name, rule in table.items() if rule == UNEMBEDDING), None)
            if module.is_embedding and output is not None and UNEMBEDDING not in sources:
                # tied: in peft the output is a module of its own, which has the matrices exchanged
                yield _Module(
                    output.removesuffix(".weight"), False, module.b.T, module.a.T, module.scale
                )


def _module(
    flat: Mapping[str, np.ndarray],
    name: str,
    at: tuple[int, ...],
    parts: Sequence[tuple[str, Source]],
) -> _Module:
    path, source = parts[0]
    layout = Layout.of(path, source)
    get = lambda own, part: flat[f"{own}{lora.ADAPTER}{part}"][at]
    rank = get(path, "a").shape[-1]
    a = np.zeros((layout.num_inputs, rank * len(parts)), np.float32)
    b = np.zeros((layout.num_outputs, rank * len(parts)), np.float32)
    for i, (own, piece) in enumerate(parts):
        rows = slice(i * rank, (i + 1) * rank)
        layout = Layout.of(own, piece)
        layout.view_inputs(a, piece.piece)[..., rows] = get(own, "a")
        layout.view_outputs(b, piece.piece)[rows] = get(own, "b")
    scale = float(get(path, "scale"))
    if path.endswith("/unembedding"):
        return _Module(name, False, b.T, a, scale)
    return _Module(name, is_table(path), a.T, b, scale)


def _endings(adapted: set[str], sources: Mapping[str, Source]) -> list[str]:
    """Names for target_modules: endings without numbers that only adapted modules have, or else whole names."""
    every = {
        name.removesuffix(".weight")
        for source in sources.values()
        for _, name in source.names()
        if len(source.their_shape) == 2
    }
    ends_in = lambda module, end: is_target(module, [end])
    chosen: set[str] = set()
    for module in sorted(adapted):
        if any(ends_in(module, end) for end in chosen):
            continue
        parts = module.split(".")
        endings = (".".join(parts[i:]) for i in range(len(parts) - 1, 0, -1))
        fits = (
            end
            for end in endings
            if not re.search(r"(^|\.)\d+(\.|$)", end)
            and all(x in adapted for x in every if ends_in(x, end))
        )
        chosen.add(next(fits, module))
    return sorted(chosen)


def _saved_module(name: str, family: Family) -> str:
    """The name in modules_to_save of the module that a tensor belongs to: a layer of the backbone, or a whole head."""
    bare = family.bare(name)
    return bare.rsplit(".", 1)[0] if bare != name else bare.split(".")[0]
