"""From a model of ours to a folder that transformers loads: config.json, model.safetensors, tokenizer, model card."""

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

import jax
import ml_dtypes
import numpy as np
import tokenizers
from safetensors.numpy import save_file
from tokenizers import processors

from jaxlm.config import (
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    RopeScaling,
    TransformerConfig,
    files,
)
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.hf import families, weights
from jaxlm.hf.family import Family, Kind
from jaxlm.hf.fields import Fields, shortest_pattern
from jaxlm.hf.table import Tensor, export, resolve
from jaxlm.models import heads
from jaxlm.params import path_name

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
_TASKS: dict[Kind, str] = {
    "none": "feature-extraction",
    "causal_lm": "text-generation",
    "masked_lm": "fill-mask",
    "seq2seq": "text2text-generation",
    "classifier": "text-classification",
    "tokens": "token-classification",
    "span": "question-answering",
    "detector": "feature-extraction",
}


@dataclasses.dataclass(frozen=True)
class Choice:
    """The class of transformers that a model of ours is."""

    family: Family
    architecture: str
    # its config.json, of the model alone
    settings: dict[str, Any]


def choose(model: Any) -> Choice:
    """The class that is the same model.

    Raises:
        ValueError: there is none; the message names the nearest and what it cannot have.
    """
    kind: Kind = kind_of(model)
    config: Any = model.config
    nearest: tuple[list[str], str] | None = None
    for family in families.FAMILIES.values():
        names = [n for n in (family.base, *family.heads) if family.kind(n) == kind]
        if not names or not isinstance(config, family.config):
            continue
        settings = family.write(config)
        reasons = _differences(family, settings, config) + _pooling(model, settings)
        if not reasons:
            return Choice(family, names[0], settings)
        if nearest is None or len(reasons) < len(nearest[0]):
            nearest = reasons, names[0]
    what = f"{type(model).__name__} of a {type(config).__name__}"
    if nearest is None:
        raise ValueError(f"transformers has no class for a {what}")
    raise ValueError(
        f"transformers has no class for this {what}: the nearest, {nearest[1]}, cannot have {', '.join(nearest[0])}"
    )


def kind_of(model: Any) -> Kind:
    """What stands on the backbone of a model."""
    kinds: dict[type, Kind] = {
        heads.Headless: "none",
        heads.CausalLM: "causal_lm",
        heads.MaskedLM: "masked_lm",
        heads.Seq2SeqLM: "seq2seq",
        heads.Classifier: "classifier",
        heads.TokenClassifier: "tokens",
        heads.SpanQA: "span",
        heads.Detector: "detector",
    }
    if type(model) not in kinds:
        raise ValueError(f"transformers has no class for a {type(model).__name__}")
    return kinds[type(model)]


def _differences(family: Family, settings: dict[str, Any], config: TransformerConfig) -> list[str]:
    """What the family cannot have of a config."""
    try:
        again = family.read(Fields(settings, family.model_type))
    except ValueError as e:
        return [str(e)]
    found = files.differences(canonical(again), canonical(config))
    return [f"model.{name}={ours!r}" for name, (_, ours) in found.items()]


def _pooling(model: Any, settings: dict[str, Any]) -> list[str]:
    """What is in the way of how a classifier pools; writes it into the settings of the family that has a choice."""
    if not isinstance(model, heads.Classifier):
        return []
    config = model.config
    if isinstance(config, EncoderConfig) and config.head_norm and model.pooling != "last":
        settings["classifier_pooling"] = {"first": "cls", "mean": "mean"}[model.pooling]
        return []
    wanted = "last" if isinstance(config, DecoderConfig) else "first"
    return [] if model.pooling == wanted else [f"task.pooling={model.pooling}"]


def canonical(config: TransformerConfig) -> TransformerConfig:
    """The config with what changes no output at its default, and what is derived written out."""
    c = config
    default = type(c)()
    same = ["dropout", "attention_dropout", "init_std"]
    if c.positions != "rotary":
        same += ["rope_theta", "rope_local_theta", "rope_fraction", "rope_scaling"]
    if c.positions != "relative":
        same += ["relative_buckets", "relative_max_distance"]
    same += ["router_balance"] if c.num_experts else ["router_balance", "experts_per_token"]
    changes: dict[str, Any] = {name: getattr(default, name) for name in same}
    if isinstance(c, EncoderConfig):
        changes["embedding_dim"] = c.embedding_width
    changes |= dict(num_kv_heads=c.kv_heads, head_dim=c.head_width, mlp_dim=c.mlp_width)
    if isinstance(c, EncoderDecoderConfig):
        changes["num_decoder_layers"] = c.decoder.num_layers
    scale = c.head_width**-0.5 if c.attention_scale is None else c.attention_scale
    changes["attention_scale"] = round(scale, 9)
    if not any(c.local_layers):
        changes |= dict(window=None, layer_pattern=("local",), rope_local_theta=None)
    else:
        kinds = ("global", "local")
        changes["layer_pattern"] = shortest_pattern(tuple(kinds[x] for x in c.local_layers))
    if c.rope_local_theta == c.rope_theta and c.rope_scaling is None:
        changes["rope_local_theta"] = None
    if c.rope_scaling is not None and c.rope_scaling.kind == "linear":
        changes["rope_scaling"] = RopeScaling(kind="linear", factor=c.rope_scaling.factor)
    return dataclasses.replace(c, **changes)


def save(
    folder: str | os.PathLike,
    model: Any,
    params: Any,
    *,
    tokenizer: Tokenizer | None = None,
    token_ids: Mapping[str, Any] | None = None,
    labels: tuple[str, ...] = (),
    card: str | None = None,
    dtype: str = "float32",
    max_shard_size: str = "5GB",
) -> Choice:
    """Writes a model as `from_pretrained` reads it; the folder appears when all of it is written.

    Args:
        folder: must not exist, or be empty.
        model: any of `models.heads`.
        params: its parameters.
        tokenizer: written beside it.
        token_ids: of the control tokens by their names in config.json (`pad_token_id`); None: the tokenizer's.
        labels: names of the classes.
        card: text of README.md.
        dtype: of the numbers in the file.
        max_shard_size: a larger model is split into several files.

    Raises:
        ValueError: the folder is in use, or transformers has no such model.
    """
    folder = pathlib.Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: exists and is not empty; name another folder")
    limit = parse_size(max_shard_size)
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    choice = choose(model)
    parent = folder.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        temporary = pathlib.Path(tempfile.mkdtemp(dir=parent, prefix=".export-"))
    except OSError as e:
        raise ValueError(f"{folder}: cannot be written: {e.strerror}") from e
    try:
        ids = _token_ids(choice, tokenizer) if token_ids is None else dict(token_ids)
        settings = _settings(choice, ids, labels, dtype)
        _write_json(temporary / "config.json", settings)
        if choice.family.kind(choice.architecture) in ("causal_lm", "seq2seq"):
            _write_json(temporary / "generation_config.json", ids)
        if tokenizer is not None:
            _write_tokenizer(temporary, choice, tokenizer, model.config.max_len)
        if card is not None:
            (temporary / "README.md").write_text(card, encoding="utf-8")
        _write_weights(temporary, choice, params, DTYPES[dtype], limit)
        temporary.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        os.replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return choice


def parse_size(text: str) -> int:
    """Bytes of `5GB`, `500MB` or `10KB`."""
    match = re.fullmatch(r"(\d+)\s*(KB|MB|GB)", text.strip().upper())
    if not match or not int(match[1]):
        raise ValueError(f"max_shard_size {text!r} is no size such as 5GB or 500MB")
    return int(match[1]) * _UNITS[match[2]]


def _settings(
    choice: Choice, token_ids: dict[str, Any], labels: tuple[str, ...], dtype: str
) -> dict[str, Any]:
    """The whole config.json; `torch_dtype` and other old names stand beside the new ones for older readers."""
    settings = {
        "architectures": [choice.architecture],
        "model_type": choice.family.model_type,
        "dtype": dtype,
        "torch_dtype": dtype,
        **token_ids,
        **{name: value for name, value in choice.settings.items() if value is not None},
    }
    # absent would be the default of their class
    for name, value in choice.settings.items():
        if value is None and name != "rope_scaling":
            settings[name] = None
    if labels:
        settings["id2label"] = {str(i): name for i, name in enumerate(labels)}
        settings["label2id"] = {name: i for i, name in enumerate(labels)}
    return settings


def _token_ids(choice: Choice, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """Ids of the control tokens; null where the tokenizer has none, since their defaults are other models' ids."""
    names = ("bos", "eos", "pad")
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_id", None) for name in names}
    if choice.family.config is EncoderDecoderConfig:
        # as `tasks.span_corruption` begins a target
        start = ids["bos_token_id"] if ids["bos_token_id"] is not None else ids["pad_token_id"]
        ids |= {"decoder_start_token_id": start, "forced_eos_token_id": None}
    return ids


def _write_json(path: pathlib.Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_tokenizer(
    folder: pathlib.Path, choice: Choice, tokenizer: Tokenizer, max_len: int
) -> None:
    """tokenizer.json, which frames texts as the model was trained on them, and what wraps it."""
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    first, last = tokenizer.cls_id, tokenizer.sep_id
    is_lm = choice.family.kind(choice.architecture) == "causal_lm"
    if backend.post_processor is None and not is_lm and first is not None and last is not None:
        cls, sep = backend.id_to_token(first), backend.id_to_token(last)
        backend.post_processor = processors.TemplateProcessing(
            single=f"{cls} $A {sep}",
            pair=f"{cls} $A {sep} $B:1 {sep}:1",
            special_tokens=list({cls: first, sep: last}.items()),
        )
    (folder / "tokenizer.json").write_text(backend.to_str(pretty=True), encoding="utf-8")
    names = ("bos", "eos", "unk", "pad", "mask", "cls", "sep")
    ids = {name: getattr(tokenizer, f"{name}_id") for name in names}
    wrapper: dict[str, Any] = {
        f"{name}_token": backend.id_to_token(i) for name, i in ids.items() if i is not None
    }
    # the one name that transformers 4 and 5 both know
    wrapper |= dict(tokenizer_class="PreTrainedTokenizerFast", model_max_length=max_len)
    wrapper["clean_up_tokenization_spaces"] = False
    _write_json(folder / "tokenizer_config.json", wrapper)


def tensors(choice: Choice, params: Any) -> Iterator[Tensor]:
    """What stands in the file, one after another."""
    flat = {path_name(path): x for path, x in jax.tree_util.tree_flatten_with_path(params)[0]}
    table = choice.family.whole_table(choice.architecture)
    shapes = {path: x.shape for path, x in flat.items()}
    return export(resolve(table, shapes), flat)


def _write_weights(
    folder: pathlib.Path, choice: Choice, params: Any, dtype: np.dtype, limit: int
) -> None:
    """One file or, over the limit, several and their index; one of them is in memory at a time."""
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
    places: dict[str, str] = {}
    for name, shard in zip(names, shards):
        # without it the library writes what is not C-contiguous wrongly, and without a word
        arrays = {x.name: np.ascontiguousarray(x.make().astype(dtype)) for x in shard}
        save_file(arrays, folder / name, {"format": "pt"})
        (folder / name).chmod(0o644)  # the library lets nobody else read it
        places |= dict.fromkeys(arrays, name)
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(sizes)}, "weight_map": places}
        _write_json(folder / weights.INDEX, index)


def model_card(
    choice: Choice, name: str, facts: Mapping[str, Any], scores: Mapping[str, Any]
) -> str:
    """README.md: what the model is, how it was trained, what it reached, how it is loaded.

    Args:
        choice: what it is for transformers.
        name: of the model.
        facts: of the training, such as steps and data.
        scores: metric -> value on the validation data of the run.
    """
    kind = choice.family.kind(choice.architecture)
    results = [
        {"type": metric, "value": value, "name": metric}
        for metric, value in scores.items()
        if isinstance(value, (int, float))
    ]
    task = {"type": _TASKS[kind]}
    head: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": _TASKS[kind]}
    head["tags"] = ["jaxlm"]
    if results:
        data = {"name": "validation data of the run", "type": "validation"}
        head["model-index"] = [
            {"name": name, "results": [{"task": task, "dataset": data, "metrics": results}]}
        ]
    # JSON is YAML, and needs no care about what a name may hold
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in head.items()), "---", ""]
    lines += [f"# {name}", "", f"A {choice.architecture}, trained with jaxlm.", ""]
    lines += [f"- {fact}: {value}" for fact, value in facts.items()]
    if scores:
        lines += ["", "On the validation data of the run:", "", "| metric | value |", "|---|---|"]
        lines += [
            f"| {k} | {v:.4f} |" if isinstance(v, float) else f"| {k} | {v} |"
            for k, v in scores.items()
        ]
    loads = [
        "",
        "```python",
        f"from transformers import AutoTokenizer, {choice.architecture}",
        "",
        f"model = {choice.architecture}.from_pretrained(FOLDER)",
        "tokenizer = AutoTokenizer.from_pretrained(FOLDER)",
        "```",
        "",
    ]
    return "\n".join(lines + loads)
