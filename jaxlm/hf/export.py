"""Exports a model to a folder that transformers can load: config.json, model.safetensors, tokenizer, model card."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import types
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import ml_dtypes
import numpy as np
import tokenizers
from tokenizers import processors

from jaxlm.config import EncoderDecoderConfig
from jaxlm.data import frames, tokenizer_config
from jaxlm.data.frames import Frame
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.hf import sentence_transformers, tying, weights
from jaxlm.hf.card import Library, model_card
from jaxlm.hf.choice import Choice, canonical, choose
from jaxlm.hf.folders import check_new, new_folder
from jaxlm.hf.kinds import Kind
from jaxlm.hf.table import Tensor, export, resolve
from jaxlm.models.embedder import Embedding
from jaxlm.params import path_name

__all__ = [
    "Choice",
    "Library",
    "canonical",
    "choose",
    "model_card",
    "parse_size",
    "save",
    "tensors",
]

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


def save(
    folder: str | os.PathLike,
    model: Any,
    params: Any,
    *,
    tokenizer: Tokenizer | None = None,
    token_ids: Mapping[str, Any] | None = None,
    labels: tuple[str, ...] = (),
    settings: Mapping[str, Any] = types.MappingProxyType({}),
    generation: Mapping[str, Any] = types.MappingProxyType({}),
    card: str | None = None,
    dtype: str = "float32",
    max_shard_size: str = "5GB",
    embedding: Embedding | None = None,
) -> Choice:
    """Writes a model so that `from_pretrained` can load it; the folder is created atomically.

    Args:
        folder: where to write; must be empty or not exist.
        model: a model from `models.heads`.
        params: its parameters.
        tokenizer: written to the folder if given.
        token_ids: ids of the control tokens by their names in config.json (`pad_token_id`); None: the tokenizer's.
        labels: names of the classes.
        settings: further fields of config.json.
        generation: further fields of generation_config.json.
        card: text of README.md.
        dtype: dtype of the stored weights.
        max_shard_size: a larger model is split into several files.
        embedding: how the model makes vectors of texts; the files of sentence-transformers are written too.

    Raises:
        ValueError: the folder is not empty, or transformers has no such model.
    """
    check_new(folder)
    limit = parse_size(max_shard_size)
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    choice = choose(model)
    with new_folder(folder) as temporary:
        ids = _token_ids(choice, tokenizer) if token_ids is None else dict(token_ids)
        # transformers takes the number of classes from their names, and 2 without any
        labels = labels or tuple(f"LABEL_{i}" for i in range(getattr(model, "num_classes", 0)))
        _write_json(
            temporary / "config.json", {**_settings(choice, ids, labels, dtype), **settings}
        )
        if tokenizer is not None:
            _write_tokenizer(temporary, choice, tokenizer, model.config.max_len)
        _write_generation_config(temporary, choice, {**ids, **generation})
        if embedding is not None:
            for path, value in sentence_transformers.files(embedding, model.config.dim).items():
                (temporary / path if value is None else (temporary / path).parent).mkdir(
                    exist_ok=True
                )
                if value is not None:
                    _write_json(temporary / path, value)
        if card is not None:
            (temporary / "README.md").write_text(card, encoding="utf-8")
        _write_weights(temporary, choice, params, DTYPES[dtype], limit)
    return choice


def parse_size(text: str) -> int:
    """Bytes of `5GB`, `500MB` or `10KB`."""
    match = re.fullmatch(r"(\d+)\s*(KB|MB|GB)", text.strip().upper())
    if not match or not int(match[1]):
        raise ValueError(f"max_shard_size {text!r} is not a size such as 5GB or 500MB")
    return int(match[1]) * _UNITS[match[2]]


def _settings(
    choice: Choice, token_ids: dict[str, Any], labels: tuple[str, ...], dtype: str
) -> dict[str, Any]:
    """The whole config.json, with `torch_dtype` and other old names for older readers."""
    settings = {
        "architectures": [choice.architecture],
        "model_type": choice.family.model_type,
        "dtype": dtype,
        "torch_dtype": dtype,
        **token_ids,
        **{name: value for name, value in choice.settings.items() if value is not None},
    }
    # a missing field would take the default of the class
    for name, value in choice.settings.items():
        if value is None and name != "rope_scaling":
            settings[name] = None
    if labels:
        settings["id2label"] = {str(i): name for i, name in enumerate(labels)}
        settings["label2id"] = {name: i for i, name in enumerate(labels)}
    return settings


def _token_ids(choice: Choice, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """Ids of the control tokens; null where the tokenizer has none, because transformers has other defaults."""
    names = ("bos", "eos", "pad")
    ids: dict[str, Any] = {f"{x}_token_id": getattr(tokenizer, f"{x}_id", None) for x in names}
    if tokenizer is not None and len(tokenizer.end_ids) > 1:
        ids["eos_token_id"] = [*tokenizer.end_ids]
    if choice.family.config is EncoderDecoderConfig:
        # the token that `tasks.span_corruption` prepends to a target
        start = None if tokenizer is None else tokenizer.start_id
        ids |= {"decoder_start_token_id": start, "forced_eos_token_id": None}
    return ids


def _write_json(path: pathlib.Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_tokenizer(
    folder: pathlib.Path, choice: Choice, tokenizer: Tokenizer, max_len: int
) -> None:
    """Writes a tokenizer to a folder without a model, with its chat template and the tokens that end a text."""
    _write_tokenizer(folder, choice, tokenizer, max_len)
    _write_generation_config(folder, choice, _token_ids(choice, tokenizer))


def _write_generation_config(folder: pathlib.Path, choice: Choice, ids: dict[str, Any]) -> None:
    if choice.family.kind(choice.architecture) in ("causal_lm", "seq2seq"):
        _write_json(folder / "generation_config.json", ids)


def _write_tokenizer(
    folder: pathlib.Path, choice: Choice, tokenizer: Tokenizer, max_len: int
) -> None:
    """Writes tokenizer.json, which adds the special tokens as in training, and tokenizer_config.json."""
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    frame = _frame(choice.family.kind(choice.architecture), tokenizer)
    has_types = getattr(choice.config, "num_token_types", 0) > 1
    if frame is not None:
        template = _template(backend, frame, ":1" if has_types else "")
        # what is there changes offsets alone
        both = [] if backend.post_processor is None else [backend.post_processor]
        both = [*both, template] if frames.of(tokenizer) == Frame() else [template]
        backend.post_processor = both[0] if len(both) == 1 else processors.Sequence(both)
    (folder / "tokenizer.json").write_text(backend.to_str(pretty=True), encoding="utf-8")
    names = ("bos", "eos", "unk", "pad", "mask", "cls", "sep")
    ids = {name: getattr(tokenizer, f"{name}_id") for name in names}
    wrapper: dict[str, Any] = {
        f"{name}_token": backend.id_to_token(i) for name, i in ids.items() if i is not None
    }
    # the only class name that both transformers 4 and 5 accept
    wrapper |= dict(tokenizer_class="PreTrainedTokenizerFast", model_max_length=max_len)
    wrapper["clean_up_tokenization_spaces"] = False
    # unless told otherwise, transformers 4 gives types to all models (GPT-2 would add an embedding of them), 5 to none
    types = ["token_type_ids"] if has_types else []
    wrapper["model_input_names"] = ["input_ids", *types, "attention_mask"]
    _write_json(folder / "tokenizer_config.json", wrapper)
    tokenizer_config.write_template(folder, tokenizer.chat_template)


def _frame(kind: Kind, tokenizer: Tokenizer) -> Frame | None:
    """The control tokens that training put around texts; None: those that the tokenizer's file adds anyway."""
    if tokenizer.frame is not None:
        return None if frames.of(tokenizer) == tokenizer.frame else tokenizer.frame
    if tokenizer.backend.post_processor is not None:
        return None
    some = lambda i: () if i is None else (i,)
    bos, eos = some(tokenizer.bos_id), some(tokenizer.eos_id)
    if kind == "seq2seq":
        # sources end in eos and begin with nothing, in all tasks of encoder-decoders
        frame = Frame((), eos, ((), eos, eos))
    elif kind == "causal_lm":
        # a text begins as documents do in training; where bos and eos are one token, nothing is before them
        bos = () if bos == eos else bos
        frame = Frame(bos, (), (bos, bos, ()))
    else:
        frame = frames.of_rows(tokenizer)
    return None if frame == Frame() else frame


def _template(backend: tokenizers.Tokenizer, frame: Frame, second: str) -> Any:
    """A post-processor that adds the frame; `second` is the token type of a pair's second text, such as `:1`."""
    names = lambda ids, kind="": [f"{backend.id_to_token(i)}{kind}" for i in ids]
    before, between, after = frame.pair
    pair = [*names(before), "$A", *names(between), f"$B{second}", *names(after, second)]
    used = {*frame.before, *frame.after, *before, *between, *after}
    return processors.TemplateProcessing(
        single=[*names(frame.before), "$A", *names(frame.after)],
        pair=pair,
        special_tokens=[(backend.id_to_token(i), i) for i in sorted(used)],
    )


def tensors(choice: Choice, params: Any) -> Iterator[Tensor]:
    """The tensors of the file, in the order in which they are written."""
    flat = {path_name(path): x for path, x in jax.tree_util.tree_flatten_with_path(params)[0]}
    table = choice.family.whole_table(choice.architecture)
    shapes = {path: x.shape for path, x in flat.items()}
    names = tying.written_names(choice.family, choice.architecture, choice.config)
    for tensor in export(resolve(table, shapes), flat):
        for name in names.get(tensor.name, (tensor.name,)):
            yield dataclasses.replace(tensor, name=name)


def _write_weights(
    folder: pathlib.Path, choice: Choice, params: Any, dtype: np.dtype, limit: int
) -> None:
    """Writes one file or, above the limit, several and an index; only one tensor is in memory at a time."""
    shards: list[list[Tensor]] = [[]]
    sizes = [0]
    for tensor in tensors(choice, params):
        size = int(np.prod(tensor.shape)) * dtype.itemsize
        if shards[-1] and sizes[-1] + size > limit:
            shards.append([])
            sizes.append(0)
        shards[-1].append(tensor)
        sizes[-1] += size
    names = [weights.SINGLE]
    if len(shards) > 1:
        count = len(shards)
        names = [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    weight_map: dict[str, str] = {}
    for name, shard in zip(names, shards):
        weights.write(folder / name, shard, dtype)
        weight_map |= {tensor.name: name for tensor in shard}
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(sizes)}, "weight_map": weight_map}
        _write_json(folder / weights.INDEX, index)
