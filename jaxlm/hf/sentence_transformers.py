"""The files of the sentence-transformers library around a model: pooling, normalisation, length and prompts.

modules.json lists what happens to a text: a transformer, a pooling, perhaps a normalisation. What is written has the
names of version 2, which all later versions read; those of version 6 are read as well.
"""

from __future__ import annotations

import os
import pathlib
from typing import Any

from jaxlm.config import json_text
from jaxlm.models.embedder import Embedding, Pooling

MODULES = "modules.json"
_WHOLE = "config_sentence_transformers.json"
_TRANSFORMER = "sentence_bert_config.json"
# older names of the same file
_TRANSFORMER_NAMES = (
    _TRANSFORMER,
    *(
        f"sentence_{kind}_config.json"
        for kind in ("roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
    ),
)
# name of a pooling in version 6, key of version 2 -> ours; None: not supported
_POOLINGS: dict[str, Pooling | None] = {
    "cls": "first",
    "mean": "mean",
    "lasttoken": "last",
    "max": None,
    "mean_sqrt_len_tokens": None,
    "weightedmean": None,
}
_KEYS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


def read(folder: str | os.PathLike) -> Embedding | None:
    """How a folder's model embeds texts; None if it is no folder of sentence-transformers.

    Raises:
        ValueError: a file is damaged, or the model does something that jaxlm cannot do; the message names it.
    """
    folder = pathlib.Path(folder)
    if not (folder / MODULES).is_file():
        return None
    modules = _modules(folder)
    kinds = [kind for kind, _ in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        odd = [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
        what = f"module {odd[0]}" if odd else f"the modules {', '.join(kinds) or 'none'}"
        raise ValueError(
            f"{folder / MODULES}: {what}: only a Transformer, a Pooling and then perhaps a Normalize are supported; "
            "jaxlm.hf.load gives the hidden states"
        )
    if modules[0][1] not in ("", "."):
        raise ValueError(
            f"{folder / MODULES}: the transformer is in {modules[0][1]}, not in the folder itself: not supported"
        )
    whole = _optional(folder / _WHOLE)
    prompts = whole.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(x, str) for x in prompts.values()):
        raise ValueError(f"{folder / _WHOLE}: prompts is not an object of texts")
    default = whole.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise ValueError(f"{folder / _WHOLE}: default_prompt_name {default!r} is not in prompts")
    return Embedding(
        pooling=_pooling(folder / modules[1][1] / "config.json"),
        normalize=len(kinds) == 3,
        max_len=_max_len(folder),
        prompts=prompts,
        default_prompt=default,
    )


def files(embedding: Embedding, dim: int) -> dict[str, Any]:
    """The files to write: path in the folder -> JSON value, or None for an empty folder.

    Args:
        embedding: of the model.
        dim: width of the vectors.
    """
    poolings = {ours: theirs for theirs, ours in _POOLINGS.items() if ours is not None}
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules += [("2_Normalize", "Normalize")] if embedding.normalize else []
    used = {key: theirs == poolings[embedding.pooling] for theirs, key in _KEYS.items()}
    written: dict[str, Any] = {
        MODULES: [
            dict(idx=i, name=str(i), path=path, type=f"sentence_transformers.models.{kind}")
            for i, (path, kind) in enumerate(modules)
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": dim, **used, "include_prompt": True},
        _TRANSFORMER: {"max_seq_length": embedding.max_len, "do_lower_case": False},
        _WHOLE: {
            "model_type": "SentenceTransformer",
            "prompts": dict(embedding.prompts),
            "default_prompt_name": embedding.default_prompt,
            "similarity_fn_name": "cosine",
        },
    }
    return written | ({"2_Normalize": None} if embedding.normalize else {})


def _modules(folder: pathlib.Path) -> list[tuple[str, str]]:
    """The kind and the path of each module."""
    path = folder / MODULES
    listed = json_text.read(path)
    whole = isinstance(listed, list) and all(
        isinstance(module, dict) and isinstance(module.get("type"), str) for module in listed
    )
    if not whole:
        raise ValueError(f"{path}: not a list of modules with a type and a path")
    return [(m["type"].rsplit(".", 1)[-1], str(m.get("path") or "")) for m in listed]


def _pooling(path: pathlib.Path) -> Pooling:
    config = json_text.read_object(path)
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [name for name, key in _KEYS.items() if config.get(key)]
    modes = [modes] if isinstance(modes, str) else list(modes)
    ours = _POOLINGS.get(modes[0]) if len(modes) == 1 else None
    if ours is None:
        known = ", ".join(name for name, x in _POOLINGS.items() if x is not None)
        raise ValueError(
            f"{path}: pooling {', '.join(map(str, modes)) or 'none'} is not supported, only one of {known}"
        )
    if config.get("include_prompt") is False:
        raise ValueError(f"{path}: include_prompt=false is not supported")
    return ours


def _max_len(folder: pathlib.Path) -> int | None:
    """Tokens after which a text is cut: max_seq_length, or what the tokenizer says, as the library does."""
    path = next((folder / name for name in _TRANSFORMER_NAMES if (folder / name).is_file()), None)
    config = {} if path is None else json_text.read_object(path)
    if config.get("do_lower_case"):
        raise ValueError(f"{path}: do_lower_case=true is not supported")
    length = config.get("max_seq_length")
    if length is None:
        length = _optional(folder / "tokenizer_config.json").get("model_max_length")
        # transformers writes 1e30 where there is no limit
        length = length if isinstance(length, int) and length < 10**9 else None
    if length is not None and (not isinstance(length, int) or length < 1):
        raise ValueError(f"{path}: max_seq_length {length!r} is not a positive whole number")
    return length


def _optional(path: pathlib.Path) -> dict[str, Any]:
    return json_text.read_object(path) if path.is_file() else {}
