"""Reads GGUF, the files of llama.cpp: the config and the tensors of Llama-like models, under their Hugging Face names.

Weights are dequantised by the `gguf` library when they are read. The tokenizer is in `gguf_tokenizer`.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxlm.hf.weights import Stored

SUFFIX = ".gguf"
# architecture of llama.cpp -> model_type and class here; `llama` is Mistral too
_ARCHITECTURES = {
    "llama": ("llama", "LlamaForCausalLM"),
    "qwen2": ("qwen2", "Qwen2ForCausalLM"),
    "qwen3": ("qwen3", "Qwen3ForCausalLM"),
    "gemma": ("gemma", "GemmaForCausalLM"),
}
# key behind the architecture -> field of config.json
_FIELDS = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}
_REQUIRED = [
    name
    for name in _FIELDS
    if "rope" not in name and "key_length" not in name and "_kv" not in name
]
# checked below, or without effect on the model
_KNOWN = {
    *("attention.value_length", "rope.dimension_count", "rope.scaling.type", "rope.scaling.factor"),
    *("rope.scaling.original_context_length", "rope.scale_linear", "expert_count", "vocab_size"),
    *(
        "rope.scaling.attn_factor",
        "expert_used_count",
        "tensor_data_layout",
        "rope.scaling.finetuned",
        "attention.causal",
    ),
}
_TENSORS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "blk.#.attn_norm": "model.layers.#.input_layernorm",
    "blk.#.attn_q": "model.layers.#.self_attn.q_proj",
    "blk.#.attn_k": "model.layers.#.self_attn.k_proj",
    "blk.#.attn_v": "model.layers.#.self_attn.v_proj",
    "blk.#.attn_output": "model.layers.#.self_attn.o_proj",
    "blk.#.attn_q_norm": "model.layers.#.self_attn.q_norm",
    "blk.#.attn_k_norm": "model.layers.#.self_attn.k_norm",
    "blk.#.ffn_norm": "model.layers.#.post_attention_layernorm",
    "blk.#.ffn_gate": "model.layers.#.mlp.gate_proj",
    "blk.#.ffn_up": "model.layers.#.mlp.up_proj",
    "blk.#.ffn_down": "model.layers.#.mlp.down_proj",
}


@dataclasses.dataclass(frozen=True)
class Packed(Stored):
    """A tensor of a GGUF file, perhaps quantised."""

    # of the gguf library
    tensor: Any = None
    # rows are in the order of llama.cpp's rotary positions, for this number of heads
    heads: int = 0
    # subtracted from all values
    offset: float = 0.0

    def read(self, rows: slice = slice(None)) -> np.ndarray:
        """The tensor, or some of its rows, in float32."""
        quants = _library().quants
        data = self.tensor.data
        if self.heads:
            # pairs (2i, 2i + 1) of a head's rows belong together there, and (i, i + H / 2) here
            whole = quants.dequantize(data, self.tensor.tensor_type).reshape(self.shape)
            pairs = whole.reshape(self.heads, self.shape[0] // self.heads // 2, 2, -1)
            array = pairs.swapaxes(1, 2).reshape(self.shape)[rows]
        else:
            array = quants.dequantize(data[rows], self.tensor.tensor_type)
            array = array.reshape(-1, *self.shape[1:])
        return np.ascontiguousarray(array - np.float32(self.offset), np.float32)


def is_gguf(path: Any) -> bool:
    """Whether a path is that of a GGUF file."""
    path = pathlib.Path(path)
    return path.suffix == SUFFIX and path.is_file()


def _library() -> Any:
    try:
        import gguf
    except ImportError as e:
        raise ValueError(
            "GGUF files need the library gguf, which is not installed: pip install 'jaxlm[gguf]'"
        ) from e
    return gguf


@dataclasses.dataclass(frozen=True)
class File:
    """An open GGUF file."""

    path: pathlib.Path
    metadata: Mapping[str, Any]
    tensors: tuple[Any, ...]


@functools.lru_cache(maxsize=1)
def _opened(path: str, changed: int) -> File:
    library = _library()
    with open(path, "rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise ValueError(f"{path}: not a GGUF file: it begins with {magic!r}")
    try:
        reader = library.GGUFReader(path)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
        tensors = tuple(reader.tensors)
    except Exception as e:  # the library indexes into whatever is there
        reason = " ".join(f"{type(e).__name__}: {e}".split())[:150]
        raise ValueError(
            f"{path}: not a complete GGUF file ({reason}); download or write it again"
        ) from e
    return File(pathlib.Path(path), metadata, tensors)


def open_file(path: Any) -> File:
    """The metadata and tensors of a file; the last file is kept open.

    Raises:
        ValueError: not a complete GGUF file.
    """
    path = pathlib.Path(path)
    return _opened(str(path), path.stat().st_mtime_ns)


def read(path: Any) -> tuple[dict[str, Any], dict[str, Stored]]:
    """The contents of a config.json for a file, and its tensors by their names in the Hugging Face layout.

    Raises:
        ValueError: not a complete GGUF file, or a model or quantisation that is not supported.
    """
    file = open_file(path)
    settings = _settings(file)
    return settings, _tensors(file, settings)


def _settings(file: File) -> dict[str, Any]:
    path, metadata = file.path, file.metadata
    architecture = metadata.get("general.architecture")
    if architecture not in _ARCHITECTURES:
        raise ValueError(
            f"{path}: general.architecture {architecture!r} is not supported, only {', '.join(_ARCHITECTURES)}"
        )
    if metadata.get("split.count", 1) > 1:
        raise ValueError(
            f"{path}: one of several files of a model; join them with llama-gguf-split --merge"
        )
    own = {
        k.removeprefix(f"{architecture}."): v
        for k, v in metadata.items()
        if k.startswith(f"{architecture}.")
    }
    for name in _REQUIRED:
        if name not in own:
            raise ValueError(f"{path}: {architecture}.{name} is missing")
    if own.get("expert_count", 0):
        raise ValueError(
            f"{path}: {architecture}.expert_count={own['expert_count']} is not supported"
        )
    model_type, kind = _ARCHITECTURES[architecture]
    settings: dict[str, Any] = {"model_type": model_type, "architectures": [kind]}
    for name, field in _FIELDS.items():
        if name in own:
            settings[field] = _number(path, f"{architecture}.{name}", own[name])
    names = {tensor.name for tensor in file.tensors}
    settings["tie_word_embeddings"] = "output.weight" not in names
    if model_type == "llama":
        settings["attention_bias"] = "blk.0.attn_q.bias" in names
        settings["mlp_bias"] = "blk.0.ffn_gate.bias" in names
    heads = settings["num_attention_heads"]
    width = settings.setdefault("head_dim", settings["hidden_size"] // max(heads, 1))
    for name in ("attention.value_length", "rope.dimension_count"):
        if own.get(name, width) != width:
            raise ValueError(
                f"{path}: {architecture}.{name}={own[name]} is not supported, only {width}"
            )
    settings.setdefault("rope_theta", 10_000.0)
    table = next((t for t in file.tensors if t.name == "token_embd.weight"), None)
    if table is None:
        raise ValueError(f"{path}: token_embd.weight is missing")
    settings["vocab_size"] = int(table.shape[-1])
    scaling = _rope_scaling(file, own, settings)
    if scaling:
        settings["rope_scaling"] = scaling
    for role, name in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        settings[f"{role}_token_id"] = metadata.get(f"tokenizer.ggml.{name}_token_id")
    unknown = {k: v for k, v in own.items() if k not in {*_FIELDS, *_KNOWN}}
    if unknown:
        shown = ", ".join(f"{architecture}.{k}={v!r}"[:60] for k, v in unknown.items())
        warnings.warn(f"{path}: unknown fields are ignored: {shown}", stacklevel=4)
    return settings


def _number(path: pathlib.Path, name: str, value: Any) -> int | float:
    if isinstance(value, list) and len(set(value)) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(
            f"{path}: {name}={value!r:.60} is not a number that is the same in all layers"
        )
    # a float32 in the file
    return float(f"{value:.7g}") if isinstance(value, float) else value


def _rope_scaling(
    file: File, own: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, Any] | None:
    kind = own.get("rope.scaling.type", "linear" if "rope.scale_linear" in own else "none")
    factor = own.get("rope.scaling.factor", own.get("rope.scale_linear", 1.0))
    freqs = next((t for t in file.tensors if t.name == "rope_freqs.weight"), None)
    if freqs is not None:
        return _llama3(file, np.asarray(freqs.data, np.float64).reshape(-1), settings)
    if kind == "none" or (kind == "linear" and factor == 1):
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": float(factor)}
    original = own.get("rope.scaling.original_context_length")
    if kind == "yarn" and original and own.get("rope.scaling.attn_factor", 1) == 1:
        return {
            "rope_type": "yarn",
            "factor": float(factor),
            "original_max_position_embeddings": original,
        }
    raise ValueError(
        f"{file.path}: rope.scaling.type={kind!r} is not supported, only linear and plain yarn"
    )


def _llama3(file: File, divisors: np.ndarray, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of Llama 3.1's scaling for its result, by which llama.cpp divides each frequency."""
    width, theta = settings["head_dim"], settings["rope_theta"]
    factor, low, high, original = float(divisors.max()), 1.0, 4.0, 8192
    wave = 2 * np.pi * theta ** (np.arange(0, width, 2) / width)
    smooth = np.clip((original / wave - low) / (high - low), 0, 1)
    wanted = 1 / ((1 - smooth) / factor + smooth)
    if divisors.shape != wanted.shape or not np.allclose(divisors, wanted, rtol=1e-4):
        raise ValueError(
            f"{file.path}: rope_freqs.weight is not the scaling of Llama 3.1, no other is supported"
        )
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }


def _tensors(file: File, settings: Mapping[str, Any]) -> dict[str, Stored]:
    result: dict[str, Stored] = {}
    # llama.cpp's `llama` rotates neighbouring values, the other architectures halves
    permuted = settings["model_type"] == "llama"
    counts = {
        "attn_q": settings["num_attention_heads"],
        "attn_k": settings.get("num_key_value_heads", settings["num_attention_heads"]),
    }
    readable: set[Any] = set()
    for tensor in file.tensors:
        if tensor.name == "rope_freqs.weight":
            continue
        stem, _, end = tensor.name.rpartition(".")
        layer = re.search(r"\d+", stem)
        theirs = _TENSORS.get(re.sub(r"\d+", "#", stem, count=1))
        if theirs is None or end not in ("weight", "bias"):
            raise ValueError(
                f"{file.path}: {tensor.name} is not a tensor of {settings['model_type']}"
            )
        name = f"{theirs.replace('#', layer[0] if layer else '')}.{end}"
        kind = stem.rpartition(".")[2]
        shape = tuple(int(n) for n in reversed(tensor.shape))
        if tensor.tensor_type not in readable:
            _check_readable(file.path, tensor)
            readable.add(tensor.tensor_type)
        heads = counts.get(kind, 0) if permuted else 0
        if heads and shape[0] % (2 * heads):
            raise ValueError(f"{file.path}: {tensor.name} of {list(shape)} has not {heads} heads")
        # Gemma's norms multiply by 1 + scale, and llama.cpp stores the sum
        is_norm = kind.endswith("norm") and settings["model_type"] == "gemma"
        result[name] = Packed(
            file.path, tensor.name, np.dtype(np.float32), shape, 0, tensor, heads, float(is_norm)
        )
    return result


def _check_readable(path: pathlib.Path, tensor: Any) -> None:
    try:
        _library().quants.dequantize(tensor.data[:1], tensor.tensor_type)
    except Exception as e:
        raise ValueError(
            f"{path}: {tensor.name} is quantised as {tensor.tensor_type.name}, which the gguf library cannot read"
        ) from e
