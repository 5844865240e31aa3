"""Low-rank adapters as folders in the layout of peft: adapter_config.json and adapter_model.safetensors.

An adapter of peft belongs to a module of transformers, one of ours to a parameter. Where a module holds several
parameters (the c_attn of GPT-2 holds query, key and value), their adapters become one of a rank that is their sum, and
one of peft's is given to each of them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from jaxlm.data import json_files
from jaxlm.hf import weights
from jaxlm.hf.family import Family
from jaxlm.hf.table import Source, pattern, resolve
from jaxlm.hf.weights import Stored
from jaxlm.models import lora
from jaxlm.params import PARAMS, sides

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_TASKS = {
    "causal_lm": "CAUSAL_LM",
    "seq2seq": "SEQ_2_SEQ_LM",
    "classifier": "SEQ_CLS",
    "tokens": "TOKEN_CLS",
    "span": "QUESTION_ANS",
    "none": "FEATURE_EXTRACTION",
}
# settings of peft that change what an adapter computes, with the values that are supported
_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": (None, "none"),
    "use_dora": (None, False),
    "use_qalora": (None, False),
    "lora_bias": (None, False),
    "fan_in_fan_out": (None, False, True),
    "trainable_token_indices": (None,),
    "target_parameters": (None, []),
    "megatron_config": (None,),
    "alora_invocation_tokens": (None,),
    "arrow_config": (None,),
    "layer_replication": (None,),
}


def is_adapter(folder: str | os.PathLike) -> bool:
    """Whether a folder has an adapter, and is not a model itself."""
    folder = pathlib.Path(folder)
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


@dataclasses.dataclass(frozen=True)
class Adapter:
    """An adapter that was not read yet."""

    folder: pathlib.Path
    settings: dict[str, Any]
    # by the names of the base model's tensors (`...q_proj.lora_A.weight`)
    stored: dict[str, Stored]

    @property
    def base(self) -> str:
        """The folder or hub id of the model that it belongs to, as the file names it."""
        return str(self.settings.get("base_model_name_or_path") or "")

    def scale(self, module: str, rank: int) -> float:
        """What the product of a module's adapter is multiplied by."""
        alpha = _by_pattern(self.settings.get("alpha_pattern"), module)
        alpha = self.settings.get("lora_alpha", 8) if alpha is None else alpha
        return alpha / (rank**0.5 if self.settings.get("use_rslora") else rank)


def _by_pattern(patterns: Mapping[str, Any] | None, module: str) -> Any:
    """The value of the first pattern that names a module, as peft finds it."""
    for key, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return None


def read(folder: str | os.PathLike) -> Adapter:
    """The settings and the headers of an adapter.

    Raises:
        ValueError: a file is missing or damaged, or it is an adapter of another kind.
    """
    folder = pathlib.Path(folder)
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder}: no {CONFIG}, so it is not an adapter in the layout of peft")
    settings = json_files.read_object(folder / CONFIG)
    for name, allowed in _SUPPORTED.items():
        value = settings.get(name)
        if value not in allowed:
            raise ValueError(f"{folder / CONFIG}: {name}={value!r} is not supported")
    if not (folder / WEIGHTS).is_file():
        raise ValueError(f"{folder}: no {WEIGHTS}")
    stored = {}
    for tensor in weights.header(folder / WEIGHTS):
        # names of adapters in memory, which files leave out
        name = tensor.name.removeprefix(_PREFIX).replace(".modules_to_save", "")
        stored[re.sub(r"(lora_\w+)\.default\b", r"\1", name)] = tensor
    return Adapter(folder, settings, stored)


# ---- reading


def parameters(
    adapter: Adapter,
    sources: Mapping[str, Source],
    shapes: Mapping[str, tuple[int, ...]],
    base: Any,
) -> dict[str, dict[str, np.ndarray]]:
    """The adapters by the paths of the base model's parameters: their parts as in `models.lora`.

    Args:
        adapter: from `read`.
        sources: tensors of the base model, from `table.resolve`.
        shapes: of its parameters.
        base: what to call the base model in messages.

    Raises:
        ValueError: it is an adapter of another model: a module or a shape that this one does not have.
    """
    left = {name for name in adapter.stored if ".lora_" in name}
    result: dict[str, dict[str, np.ndarray]] = {}
    for path, source in sources.items():
        if sides(path.rsplit("/", 1)[-1]) is None:
            continue
        found = {
            at: pair
            for at, name in source.names()
            if (pair := _pair(adapter, name.removesuffix(".weight"))) is not None
        }
        if not found:
            continue
        rank = max(pair.rank for pair in found.values())
        parts = {
            part: np.zeros(shape, np.float32)
            for part, shape in lora.adapter_shapes(path, shapes[path], rank).items()
        }
        parts["scale"][...] = scale = next(iter(found.values())).scale
        for at, pair in found.items():
            a, b = _from_peft(pair, path, source, base)
            # a number for each layer is enough, so what differs goes into one of the matrices
            parts["a"][at][..., : pair.rank] = a
            parts["b"][at][: pair.rank] = b * np.float32(pair.scale / scale)
            left -= set(pair.names)
        result[path] = parts
    tied = _tied(adapter, sources)
    left -= {name for pair in tied for name in pair.names}
    _check_tied(tied, result, adapter)
    if left:
        raise ValueError(
            f"{adapter.folder / WEIGHTS}: {min(left)} belongs to no matrix of {base}: it is an adapter of another base"
        )
    return result


@dataclasses.dataclass(frozen=True)
class _Pair:
    """The adapter of one module: a [R, inputs] and b [outputs, R]."""

    names: tuple[str, str]
    a: Stored
    b: Stored
    scale: float

    @property
    def rank(self) -> int:
        return self.a.shape[0]


def _pair(adapter: Adapter, module: str) -> _Pair | None:
    for a, b in (("lora_A.weight", "lora_B.weight"), ("lora_embedding_A", "lora_embedding_B")):
        names = f"{module}.{a}", f"{module}.{b}"
        if all(name in adapter.stored for name in names):
            stored = [adapter.stored[name] for name in names]
            return _Pair(names, *stored, adapter.scale(module, stored[0].shape[0]))
    return None


def _from_peft(pair: _Pair, path: str, source: Source, base: Any) -> tuple[np.ndarray, np.ndarray]:
    """The matrices of one layer with our dims: [inputs, R] and [R, outputs]."""
    letters = _Letters.of(path, source)
    wanted = (pair.rank, letters.width(letters.inputs)), (letters.width(letters.outputs), pair.rank)
    a, b = pair.a, pair.b
    if letters.is_table and pair.names[0].endswith("lora_A.weight"):
        # a table that gives logits [V, D] is a matrix of D inputs, so its two matrices change places
        a, b, wanted = b, a, ((wanted[0][1], pair.rank), (pair.rank, wanted[1][0]))
    for tensor, shape in zip((a, b), wanted):
        if tensor.shape != shape:
            raise ValueError(
                f"{tensor.path}: {tensor.name} is {list(tensor.shape)}, but {base} needs {list(shape)}: it is an "
                "adapter of another base"
            )
    first, second = (x.read().astype(np.float32) for x in (a, b))
    if a is not pair.a:
        first, second = first.T, second.T
    return (
        letters.ours(first.T, letters.inputs, source.piece),
        np.moveaxis(letters.ours(second, letters.outputs, source.piece), -1, 0),
    )


@dataclasses.dataclass(frozen=True)
class _Letters:
    """The letters of a tensor's layout: those of its inputs and of its outputs, in its own order, and their sizes."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    sizes: dict[str, int]
    # our order of the inputs, and of the outputs
    our_inputs: tuple[str, ...]
    our_outputs: tuple[str, ...]
    is_table: bool

    @classmethod
    def of(cls, path: str, source: Source) -> _Letters:
        both = sides(path.rsplit("/", 1)[-1])
        assert both is not None, path
        ours = source.layout.ours
        own = ours[: len(both[0])], ours[len(both[0]) :]
        first, second = source.layout.theirs
        inputs, outputs = (first, second) if set(first) & set(own[0]) else (second, first)
        sizes = dict(zip(ours, source.shape)) | {
            x: int(x) for x in (*first, *second) if x.isdigit()
        }
        is_table = PARAMS[path.rsplit("/", 1)[-1]].matrix is None
        return cls(inputs, outputs, sizes, *own, is_table)

    def width(self, letters: tuple[str, ...]) -> int:
        return int(np.prod([self.sizes[x] for x in letters]))

    def view(self, matrix: np.ndarray, letters: tuple[str, ...], piece: int) -> np.ndarray:
        """A view of [dims of the module, R] as [our dims, R]."""
        split = matrix.reshape(*(self.sizes[x] for x in letters), matrix.shape[-1])
        split = split[tuple(piece if x.isdigit() else slice(None) for x in letters)]
        kept = [x for x in letters if not x.isdigit()]
        wanted = self.our_inputs if letters == self.inputs else self.our_outputs
        return split.transpose(*(kept.index(x) for x in wanted), len(kept))

    def ours(self, matrix: np.ndarray, letters: tuple[str, ...], piece: int) -> np.ndarray:
        return self.view(np.ascontiguousarray(matrix), letters, piece)


def _tied(adapter: Adapter, sources: Mapping[str, Source]) -> list[_Pair]:
    """The adapters of output tables for which the base has no parameter, because it uses its input table."""
    if any(path.endswith("/unembedding") for path in sources):
        return []
    names = ("lm_head", "embed_out", "cls.predictions.decoder", "lm_head.decoder")
    return [pair for name in names if (pair := _pair(adapter, name)) is not None]


def _check_tied(tied: list[_Pair], result: Mapping[str, Any], adapter: Adapter) -> None:
    """Raises ValueError unless the input and the output of a tied table have the same adapter, as here."""
    table = next((x for path, x in result.items() if path.endswith("/embedding")), None)
    if table is None and not tied:
        return
    same = table is not None and len(tied) == 1
    if same:
        assert table is not None
        a, b = tied[0].b.read().astype(np.float32), tied[0].a.read().astype(np.float32)
        same = a.shape == table["a"].shape and b.shape == table["b"].shape
        same = same and np.allclose(
            tied[0].scale * (a @ b), float(table["scale"]) * (table["a"] @ table["b"]), atol=1e-6
        )
    if not same and (tied or _is_tied_alone(adapter)):
        raise ValueError(
            f"{adapter.folder}: the model's input and output tables are one, and the adapter changes only one of them, or "
            "each in another way; merge it with peft and load the result"
        )


def _is_tied_alone(adapter: Adapter) -> bool:
    """Whether the adapter belongs to a model that has logits: for others there is no output table to differ."""
    return adapter.settings.get("task_type") in (None, "CAUSAL_LM", "SEQ_2_SEQ_LM")


# ---- writing


def save(
    folder: str | os.PathLike,
    family: Family,
    architecture: str,
    params: Any,
    *,
    base: str,
    trained: tuple[str, ...] = (),
    card: str | None = None,
) -> None:
    """Writes the adapters among the parameters so that `PeftModel.from_pretrained` can load them; atomically.

    Args:
        folder: where to write; must be empty or not exist.
        family: of the base model.
        architecture: its class in transformers.
        params: parameters with adapters.
        base: folder or hub id of the base model.
        trained: paths of parameters that were trained as a whole, saved beside the adapters.
        card: text of README.md.

    Raises:
        ValueError: the folder is not empty, or peft has no place for an adapter.
    """
    folder = pathlib.Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: exists and is not empty; choose another folder")
    flat = {path: np.asarray(x) for path, x in lora.flat(params).items()}
    shapes = {path: x.shape for path, x in flat.items() if lora.ADAPTER not in path}
    table = family.whole_table(architecture)
    sources = resolve(table, shapes)
    tensors: dict[str, np.ndarray] = {}
    ranks: dict[str, tuple[int, float]] = {}
    for module, a, b, scale in _modules(flat, sources, table):
        is_table = not module.endswith("#")
        name = module.rstrip("#")
        suffixes = (
            ("lora_embedding_A", "lora_embedding_B")
            if is_table
            else ("lora_A.weight", "lora_B.weight")
        )
        tensors[f"{_PREFIX}{name}.{suffixes[0]}"], tensors[f"{_PREFIX}{name}.{suffixes[1]}"] = a, b
        ranks[name] = a.shape[0], scale
    whole = [s for path, s in sources.items() if path in trained]
    saved: set[str] = set()
    for path in trained:
        source = sources[path]
        for at, name in source.names():
            tensor = np.empty(source.their_shape, np.float32)
            source.layout.view(tensor, source.shape, source.piece)[...] = flat[path][at]
            tensors[_PREFIX + name] = tensor
            saved.add(_saved_module(name, family))
    del whole
    rank = min(r for r, _ in ranks.values())
    scale = next(s for r, s in ranks.values() if r == rank)
    settings = {
        "peft_type": "LORA",
        "task_type": _TASKS.get(family.kind(architecture)),
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": scale * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": _is_transposed(sources),
        "use_rslora": False,
        "target_modules": _target_modules(set(ranks), sources),
        "modules_to_save": sorted(saved) or None,
        "rank_pattern": {m: r for m, (r, _) in ranks.items() if r != rank},
        "alpha_pattern": {m: s * r for m, (r, s) in ranks.items() if s * r != scale * rank},
        "inference_mode": True,
        "init_lora_weights": True,
    }
    _write(folder, settings, tensors, card)


def _modules(
    flat: Mapping[str, np.ndarray], sources: Mapping[str, Source], table: Mapping[str, Any]
) -> Iterator[tuple[str, np.ndarray, np.ndarray, float]]:
    """Each module that has an adapter, with "#" behind a name that is no embedding: a, b and scale."""
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
            module = name.removesuffix(".weight")
            yield from _module(flat, module, at, parts)
            path = parts[0][0]
            output = _output_name(table)
            if (
                path.endswith("/embedding")
                and output
                and not any(p.endswith("/unembedding") for p in sources)
            ):
                # tied: the output is another module in peft, with the matrices exchanged
                for _, a, b, scale in _module(flat, module, at, parts):
                    yield f"{output}#", b.T.copy(), a.T.copy(), scale


def _module(flat, module, at, parts) -> Iterator[tuple[str, np.ndarray, np.ndarray, float]]:
    path, source = parts[0]
    letters = _Letters.of(path, source)
    get = lambda p, part: np.asarray(flat[f"{p}{lora.ADAPTER}{part}"], np.float32)
    rank = get(path, "a").shape[-1]
    total = rank * len(parts)
    a = np.zeros((letters.width(letters.inputs), total), np.float32)
    b = np.zeros((letters.width(letters.outputs), total), np.float32)
    for i, (own, piece) in enumerate(parts):
        rows = slice(i * rank, (i + 1) * rank)
        letters.view(a, letters.inputs, piece.piece)[..., rows] = get(own, "a")[at]
        letters.view(b, letters.outputs, piece.piece)[..., rows] = np.moveaxis(
            get(own, "b")[at], 0, -1
        )
    scale = get(path, "scale")
    scale = float(scale[at[:1]] if scale.ndim else scale)
    if not letters.is_table:
        yield f"{module}#", a.T.copy(), b, scale
    elif path.endswith("/unembedding"):
        yield f"{module}#", b.T.copy(), a, scale
    else:
        yield module, a.T.copy(), b, scale


def _output_name(table: Mapping[str, Any]) -> str | None:
    """The module that gives the logits."""
    names = {rule: name for name, rule in table.items() if isinstance(rule, str)}
    name = names.get("head/unembedding")
    return None if name is None else name.removesuffix(".weight")


def _is_transposed(sources: Mapping[str, Source]) -> bool:
    """Whether the modules are the Conv1D of GPT-2, whose weights are [inputs, outputs]."""
    return any(
        sides(path.rsplit("/", 1)[-1]) is not None
        and not (letters := _Letters.of(path, source)).is_table
        and source.layout.theirs[0] == letters.inputs
        for path, source in sources.items()
    )


def _target_modules(adapted: set[str], sources: Mapping[str, Source]) -> list[str]:
    """Names for peft's target_modules: endings that fit the adapted modules alone, or else whole names."""
    every = {
        name.removesuffix(".weight")
        for source in sources.values()
        for _, name in source.names()
        if len(source.their_shape) == 2
    }
    chosen: set[str] = set()
    for module in sorted(adapted):
        if any(module == x or module.endswith(f".{x}") for x in chosen):
            continue
        parts = module.split(".")
        endings = [".".join(parts[i:]) for i in range(len(parts) - 1, 0, -1)]
        fits = (
            e
            for e in endings
            if not re.search(r"(^|\.)\d+(\.|$)", e)
            and all(x in adapted for x in every if x == e or x.endswith(f".{e}"))
        )
        chosen.add(next(fits, module))
    return sorted(chosen)


def _saved_module(name: str, family: Family) -> str:
    """The name in modules_to_save of the module that a tensor belongs to."""
    bare = name.removeprefix(family.prefix)
    # a head's module as a whole, or the layer within the backbone
    return bare.split(".")[0] if bare == name else bare.rsplit(".", 1)[0]


def _write(
    folder: pathlib.Path, settings: dict[str, Any], tensors: dict[str, np.ndarray], card: str | None
) -> None:
    parent = folder.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        temporary = pathlib.Path(tempfile.mkdtemp(dir=parent, prefix=".export-"))
    except OSError as e:
        raise ValueError(f"{folder}: cannot be written: {e.strerror}") from e
    try:
        text = json.dumps(settings, indent=2, ensure_ascii=False)
        (temporary / CONFIG).write_text(text + "\n", encoding="utf-8")
        arrays = {name: np.ascontiguousarray(x, np.float32) for name, x in tensors.items()}
        save_file(arrays, temporary / WEIGHTS, {"format": "pt"})
        (temporary / WEIGHTS).chmod(0o644)  # the library restricts access to the owner
        if card is not None:
            (temporary / "README.md").write_text(card, encoding="utf-8")
        temporary.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        os.replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


__all__ = ["Adapter", "is_adapter", "parameters", "pattern", "read", "save"]
