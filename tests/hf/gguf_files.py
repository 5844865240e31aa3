"""Writes GGUF files as llama.cpp's conversion does, from folders in the Hugging Face layout."""

import json

import gguf
import numpy as np
from safetensors import safe_open

from jaxlm.hf.gguf import _FIELDS, _TENSORS

ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma": "gemma"}


def permuted(rows, heads):
    """The rows of a query or key projection in llama.cpp's order (its `permute`)."""
    pairs = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def of_folder(folder):
    """The architecture, the metadata and the tensors for a folder."""
    config = json.loads((folder / "config.json").read_text())
    metadata = {k: config[v] for k, v in _FIELDS.items() if config.get(v) is not None}
    rope = config["rope_parameters"]
    metadata["rope.freq_base"] = rope["rope_theta"]
    if rope["rope_type"] != "default":
        metadata["rope.scaling.type"] = rope["rope_type"]
        metadata["rope.scaling.factor"] = rope["factor"]
        metadata["rope.scaling.original_context_length"] = rope["original_max_position_embeddings"]
    arrays = {}
    for path in folder.glob("model*.safetensors"):
        with safe_open(path, "flax") as file:
            arrays |= {n: np.asarray(file.get_tensor(n), np.float32) for n in file.keys()}  # noqa: SIM118
    tensors = {}
    for name, array in arrays.items():
        for theirs, ours in _TENSORS.items():
            parts = name.split(".")
            layer = next((p for p in parts if p.isdigit()), "")
            if name.rpartition(".")[0] == ours.replace("#", layer):
                tensors[f"{theirs.replace('#', layer)}.{parts[-1]}"] = array
    assert len(tensors) == len(arrays)
    if config["model_type"] == "llama":
        for name in tensors:
            if "attn_q." in name or "attn_k." in name:
                key = "num_attention_heads" if "attn_q" in name else "num_key_value_heads"
                tensors[name] = permuted(tensors[name], config[key])
    if config["model_type"] == "gemma":
        tensors = {k: v + 1 if "norm" in k else v for k, v in tensors.items()}
    return ARCHITECTURES[config["model_type"]], metadata, tensors


def write(path, architecture, metadata, tensors, tokenizer=None, types=None):
    """Writes a file; `types` has the quantisation of tensors by name."""
    writer = gguf.GGUFWriter(path, architecture)
    pairs = {f"{architecture}.{k}": v for k, v in metadata.items()}
    for key, value in (pairs | {f"tokenizer.{k}": v for k, v in (tokenizer or {}).items()}).items():
        add = {
            bool: writer.add_bool,
            int: writer.add_uint32,
            float: writer.add_float32,
            str: writer.add_string,
            list: writer.add_array,
        }[type(value)]
        add(key, value)
    for name, array in tensors.items():
        kind = (types or {}).get(name)
        if kind is None:
            writer.add_tensor(name, np.ascontiguousarray(array))
        else:
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
