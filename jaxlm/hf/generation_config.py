"""Reads generation_config.json: how the makers of a model sample from it, as defaults for a request."""

from __future__ import annotations

import os
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

from jaxlm.config import json_text

NAME = "generation_config.json"
# their name -> field of `generation.settings.Settings`
_SAME = {
    "max_new_tokens": "max_new_tokens",
    "min_new_tokens": "min_new_tokens",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "no_repeat_ngram_size": "no_repeat_ngram",
    "forced_bos_token_id": "forced_first",
    "forced_eos_token_id": "forced_last",
    "suppress_tokens": "suppress",
    "begin_suppress_tokens": "begin_suppress",
    "eos_token_id": "stop_ids",
    "stop_strings": "stop",
}
_INTEGERS = {
    "max_new_tokens",
    "min_new_tokens",
    "top_k",
    "no_repeat_ngram",
    "forced_first",
    "forced_last",
}
_NUMBERS = {"temperature", "top_p", "min_p", "repetition_penalty"}
# no effect on what is written, or read elsewhere: `data.tokenizer` has the ids
_IRRELEVANT = frozenset(
    """
    bos_token_id pad_token_id decoder_start_token_id transformers_version _from_model_config use_cache do_sample
    cache_implementation cache_config return_legacy_cache output_attentions output_hidden_states output_scores
    output_logits return_dict_in_generate num_return_sequences max_time trust_remote_code low_memory compile_config
    disable_compile is_assistant num_assistant_tokens num_assistant_tokens_schedule assistant_confidence_threshold
    prompt_lookup_num_tokens max_matching_ngram_size chat_format early_stopping length_penalty max_window_size
    """.split()  # noqa: SIM905
)
# values that change nothing
_NEUTRAL: dict[str, Any] = {
    "num_beams": 1,
    "num_beam_groups": 1,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "diversity_penalty": 0.0,
    "encoder_repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "guidance_scale": 1.0,
    "top_h": 1.0,
}


def read(folder: str | os.PathLike) -> dict[str, Any]:
    """The fields of `generation.settings.Settings` that a model's folder sets; a warning names what is not supported.

    Without generation_config.json they are those of config.json, where old models have them. `do_sample: false` is
    temperature 0.

    Raises:
        ValueError: a value is of the wrong type; the message names the file and the field.
    """
    folder = pathlib.Path(folder)
    path = folder / NAME
    config_path = folder / "config.json"
    config = json_text.read_object(config_path) if config_path.is_file() else {}
    if path.is_file():
        values = json_text.read_object(path)
    elif "model_type" in config:
        known = {*_SAME, "max_length", "min_length", "bad_words_ids", "do_sample"}
        path, values = config_path, {k: v for k, v in config.items() if k in known}
    else:
        return {}
    return parse(values, str(path), is_encoder_decoder=bool(config.get("is_encoder_decoder")))


def parse(
    values: Mapping[str, Any], where: str, *, is_encoder_decoder: bool = False
) -> dict[str, Any]:
    """The fields for the contents of a generation_config.json; `where` is for messages."""
    result: dict[str, Any] = {}
    unsupported: dict[str, Any] = {}
    bad: tuple[int, ...] = ()
    for name, value in values.items():
        if value is None or name in _IRRELEVANT:
            continue
        if name in _SAME:
            result[_SAME[name]] = _value(where, name, value)
        elif name in ("max_length", "min_length") and is_encoder_decoder:
            # the length of the target with its start token
            result.setdefault(f"{name[:3]}_new_tokens", max(_integer(where, name, value) - 1, 0))
        elif name == "bad_words_ids":
            ids = [_ids(where, name, entry) for entry in value] if isinstance(value, list) else []
            bad = tuple(x[0] for x in ids if len(x) == 1)
            if any(len(x) != 1 for x in ids):
                unsupported[name] = value
        elif value != _NEUTRAL.get(name, False) and value not in ([], {}, 0):
            unsupported[name] = value
    if bad:
        result["suppress"] = (*result.get("suppress", ()), *bad)
    if values.get("do_sample") is False:
        result["temperature"] = 0.0
    if not result.get("max_new_tokens", 1):
        del result["max_new_tokens"]
    if unsupported:
        shown = ", ".join(f"{name}={value!r}"[:60] for name, value in unsupported.items())
        warnings.warn(f"{where}: not supported and ignored: {shown}", stacklevel=2)
    return result


def _value(where: str, name: str, value: Any) -> Any:
    field = _SAME[name]
    if field in _INTEGERS:
        if name == "forced_eos_token_id" and isinstance(value, list):
            value = next(iter(value), None)
        number = _integer(where, name, value)
        return None if field == "top_k" and number == 0 else number
    if field in _NUMBERS:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{where}: {name}={value!r} is not a number")
        return float(value)
    if field == "stop":
        strings = [value] if isinstance(value, str) else value
        if not isinstance(strings, list) or not all(isinstance(x, str) for x in strings):
            raise ValueError(f"{where}: {name}={value!r} is not a list of strings")
        return tuple(strings)
    return _ids(where, name, value)


def _integer(where: str, name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{where}: {name}={value!r} is not an integer of 0 or more")
    return value


def _ids(where: str, name: str, value: Any) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(_integer(where, name, x) for x in values)
