"""Loads a model from a folder in the Hugging Face layout; each parameter is read directly to its device."""

from __future__ import annotations

import functools
import os
import pathlib
import re
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxlm import sharding
from jaxlm.config import ComputeConfig
from jaxlm.config.urls import refuse_url
from jaxlm.data import tokenizer as tokenizers
from jaxlm.data import tokenizer_files
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.hf import gguf, gguf_tokenizer, kinds, peft, weights
from jaxlm.hf.description import Description, describe
from jaxlm.hf.family import Family
from jaxlm.hf.loaded import LoadedModel
from jaxlm.hf.table import Index, Source, resolve
from jaxlm.hf.tying import UNEMBEDDINGS
from jaxlm.hf.weights import Stored
from jaxlm.models import heads, lora
from jaxlm.params import path_name


def load(
    path_or_hub_id: str | os.PathLike,
    *,
    base: str | os.PathLike | None = None,
    mesh: Mesh | None = None,
    backbone_only: bool = False,
    compute: ComputeConfig | None = None,
    dtype: Any = np.float32,
    revision: str | None = None,
) -> LoadedModel:
    """Loads config.json, model.safetensors (one file or several with an index) and the tokenizer, or a GGUF file.

    Of a folder with an adapter of peft the base model is loaded, and the adapter is added to its matrices.

    Parameters are read one shard of the mesh at a time: besides the parameters themselves, the host holds at most one
    shard of one parameter and one tensor of the file.

    Args:
        path_or_hub_id: a folder, a GGUF file, or `owner/name` on the hub.
        base: of an adapter: the model that it belongs to; None: as its adapter_config.json says.
        mesh: from `sharding.make_mesh`; None: everything on the first device.
        backbone_only: do not load the head.
        compute: compute settings of the model; None: the defaults.
        dtype: dtype of the parameters; they are cast if the file has another.
        revision: branch, tag or commit on the hub; use a commit for reproducibility.

    Raises:
        ValueError: the files are invalid or do not fit together; the message names the file and the tensor.
    """
    adapter = peft.read(path_or_hub_id) if peft.is_adapter(path_or_hub_id) else None
    if adapter is None:
        if base is not None:
            raise ValueError(f"{path_or_hub_id}: base={base} is for adapters, and this is none")
        folder = local_folder(path_or_hub_id, revision)
        tokenizer = read_tokenizer(folder)
    else:
        folder = local_folder(adapter.base(base), revision)
        tokenizer = read_tokenizer(adapter.folder) or read_tokenizer(folder)
    if adapter is None or backbone_only:
        description = describe(folder, backbone_only=backbone_only)
    else:
        description = peft.describe(adapter, folder)
    model = build(description, compute or ComputeConfig())
    abstract = jax.eval_shape(lambda: heads.init_params(model, jax.random.key(0)))
    if mesh is None:
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        shardings = jax.tree.map(lambda _: here, abstract)
    else:
        shardings = sharding.param_shardings(abstract, mesh)
    target = jax.tree.map(
        lambda x, where: jax.ShapeDtypeStruct(x.shape, dtype, sharding=where), abstract, shardings
    )
    params = load_params(description, target)
    if adapter is not None:
        params = add_adapter(
            params,
            adapter,
            description.family,
            description.architecture,
            folder,
            is_tied=description.config.tie_embeddings,
        )
        if base is not None:
            adapter.warn_of_other_base(base)
    return LoadedModel(
        model,
        params,
        description.config,
        tokenizer,
        description.settings,
        mesh,
        description.family.positions,
    )


def add_adapter(
    params: Any,
    adapter: peft.Adapter,
    family: Family,
    architecture: str,
    where: object,
    *,
    is_tied: bool,
) -> Any:
    """The parameters with an adapter added to their matrices; arguments and errors are those of `peft.parameters`."""
    shapes = {path: x.shape for path, x in lora.flat(params).items()}
    parts = peft.parameters(adapter, family, architecture, shapes, where, is_tied=is_tied)
    merge = lambda params, parts: lora.merge(lora.put(params, parts))
    return jax.jit(merge, out_shardings=sharding.shardings_of(params))(params, parts)


def local_folder(path_or_hub_id: str | os.PathLike, revision: str | None = None) -> pathlib.Path:
    """The folder itself, or the folder to which the hub's files were downloaded."""
    path = pathlib.Path(path_or_hub_id)
    if path.is_dir() or gguf.is_gguf(path):
        return path
    name = str(path_or_hub_id)
    refuse_url(name)
    if not re.fullmatch(r"[\w.\-]+(/[\w.\-]+)?", name) or ".." in name:
        raise ValueError(f"{name}: no such folder")
    # imported here because it is slow to import and rarely needed
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(
            name,
            revision=revision,
            allow_patterns=[
                *("*.json", "*.safetensors", "vocab.txt", "merges.txt", "*.jinja"),
                *("spiece.model", "tokenizer.model", "sentencepiece.bpe.model", "*.spm"),
            ],
        )
    except Exception as e:  # network, hub and name errors have no common class
        reason = " ".join(f"{type(e).__name__}: {e}".split())[:200]
        raise ValueError(
            f"{name}: no such folder, and the download from the Hugging Face hub failed; check the name and the "
            f"network connection: {reason}"
        ) from e
    return pathlib.Path(folder)


def read_tokenizer(folder: pathlib.Path) -> Tokenizer | None:
    """The tokenizer of a folder; None if it has no tokenizer files, or, with a warning, none that are read."""
    if gguf.is_gguf(folder):
        return gguf_tokenizer.read(gguf.open_file(folder).metadata, str(folder))
    if any((folder / name).is_file() for name in tokenizer_files.NAMES):
        return tokenizers.load(folder)
    unread = [name for name in tokenizer_files.UNREAD if (folder / name).is_file()]
    if unread:
        warnings.warn(
            f"{folder}: the model has no tokenizer here: {', '.join(unread)} is not supported, only "
            f"{', '.join(tokenizer_files.NAMES)}",
            stacklevel=3,
        )
    return None


def build(description: Description, compute: ComputeConfig) -> Any:
    """The model that config.json describes."""
    return kinds.build(description.kind, description.config, description.settings, compute)


def load_params(description: Description, target: Any) -> Any:
    """Reads the parameters directly to their devices, after checking all names, shapes and dtypes.

    `target` is the model's tree of ShapeDtypeStruct with shardings, or a part of it, such as the encoder of an
    encoder-decoder.

    Raises:
        ValueError: the stored tensors are not those of the model.
    """
    model = build(description, ComputeConfig())
    whole = jax.eval_shape(lambda: heads.init_params(model, jax.random.key(0)))
    leaves = jax.tree_util.tree_flatten_with_path(whole)[0]
    shapes = {path_name(path): x.shape for path, x in leaves}
    table = description.family.whole_table(description.architecture)
    sources = resolve(table, shapes)
    _check(description, sources)
    weights.verify(
        tensor.path
        for tensor in description.stored.values()
        if tensor.path.suffix == ".safetensors"
    )

    def make(path, x):
        source = sources[path_name(path)]
        read = functools.partial(
            _read_shard, source, description.stored, x.shape, np.dtype(x.dtype)
        )
        return jax.make_array_from_callback(x.shape, x.sharding, read)

    return jax.tree.map_with_path(make, target)


def _check(description: Description, sources: Mapping[str, Source]) -> None:
    """Raises ValueError unless the stored tensors are exactly those that the config implies."""
    stored = description.stored
    wanted: set[str] = set()
    for source in sources.values():
        for _, name in source.names():
            wanted.add(name)
            tensor = stored.get(name)
            if tensor is None and name in description.family.zeros:
                continue
            if tensor is None:
                raise ValueError(
                    f"{description.folder}: {name} is missing; config.json implies it for {description.architecture}"
                )
            if tensor.shape != source.their_shape:
                raise ValueError(
                    f"{tensor.path}: {tensor.name} is {list(tensor.shape)}, but config.json implies "
                    f"{list(source.their_shape)}"
                )
            if tensor.dtype.kind not in "fV":
                raise ValueError(
                    f"{tensor.path}: {tensor.name} has dtype {tensor.dtype}: quantised weights are not supported"
                )
    table = description.family.whole_table(description.architecture)
    tied = {name for name, rule in table.items() if rule in UNEMBEDDINGS}
    for name in sorted(set(stored) - wanted - tied):
        raise ValueError(
            f"{stored[name].path}: {stored[name].name} is not a tensor of {description.architecture} by config.json"
        )


def _read_shard(
    source: Source, stored: Mapping[str, Stored], shape: tuple, dtype: np.dtype, index: Index
) -> np.ndarray:
    """The part of a parameter at `index`."""
    depth = len(source.stacked)
    rows, inside, rest = source.rows(index[depth:])
    if not depth and source.template not in stored:
        # one of those that may be missing
        return np.zeros([len(range(*i.indices(n))) for i, n in zip(index, shape)], dtype)
    if not depth:
        tensor = stored[source.template].read(rows)
        part = source.take(tensor, inside)[rest]
        if part.flags.c_contiguous and part.dtype == dtype:
            return part
    spans = [range(*i.indices(n)) for i, n in zip(index, shape)]
    shard = weights.aligned(tuple(len(span) for span in spans), dtype)
    if not depth:
        shard[...] = part
        return shard
    for at in np.ndindex(*(len(span) for span in spans[:depth])):
        name = source.name(tuple(span[i] for span, i in zip(spans, at)))
        if name is None:
            # this layer has no such norm: the stacked parameter still has an entry for it, which is not used
            shard[at] = 1.0
            continue
        tensor = stored[name].read(rows)
        shard[at] = source.take(tensor, inside)[rest]
    return shard
