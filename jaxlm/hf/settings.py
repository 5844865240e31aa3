"""Strict reading of a config.json: unsupported values raise, and values that were never read are reported."""

from __future__ import annotations

import warnings
from typing import Any

# fields that do not change the model's output
_IRRELEVANT = frozenset(
    """
    architectures model_type transformers_version torch_dtype dtype use_cache auto_map tokenizer_class language
    bos_token_id eos_token_id pad_token_id sep_token_id cls_token_id mask_token_id unk_token_id
    decoder_start_token_id forced_bos_token_id forced_eos_token_id max_length do_sample is_encoder_decoder
    id2label label2id num_labels _num_labels problem_type finetuning_task task_specific_params
    _name_or_path name_or_path _commit_hash output_past output_attentions output_hidden_states return_dict
    gradient_checkpointing torchscript xla_device chunk_size_feed_forward pruned_heads directionality
    _attn_implementation _attn_implementation_autoset
    """.split()  # noqa: SIM905
)
_REQUIRED: Any = object()


class Settings:
    """The values of a config.json; records which of them were read."""

    def __init__(self, values: dict[str, Any], where: str):
        """`where` is the path of the file, for messages."""
        self.values, self.where = values, where
        self._read: set[str] = set()

    def __call__(self, name: str, default: Any = _REQUIRED) -> Any:
        """A value of any type; `null` counts as missing.

        Raises:
            ValueError: it is missing and has no default.
        """
        self._read.add(name)
        value = self.values.get(name)
        if value is not None:
            return value
        if default is _REQUIRED:
            raise ValueError(f"{self.where}: {name} is missing")
        return default

    def nullable(self, name: str, default: Any) -> Any:
        """A value where `null` means None; the default applies only if it is missing."""
        self._read.add(name)
        return self.values.get(name, default)

    def typed(self, name: str, default: Any = _REQUIRED) -> Any:
        """A value of the type of its default, or an integer if there is no default; a float may be given as an integer.

        Raises:
            ValueError: it is of another type, or missing and has no default.
        """
        value = self(name, default)
        kind = int if default is _REQUIRED else type(default)
        fits = isinstance(value, (int, float) if kind is float else kind)
        if not fits or (isinstance(value, bool) and kind is not bool):
            names = {
                int: "an integer",
                float: "a number",
                bool: "true or false",
                str: "a string",
                list: "a list",
            }
            raise ValueError(f"{self.where}: {name}={value!r:.60} is not {names[kind]}")
        return value

    def only(self, name: str, *allowed: Any) -> None:
        """Raises ValueError if a value is not one of `allowed`, the first of which is the default."""
        value = self(name, allowed[0])
        if value not in allowed:
            raise self.unsupported(name, value, " or ".join(map(repr, allowed)))

    def unsupported(self, name: str, value: Any, known: str) -> ValueError:
        """The error for an unsupported value."""
        return ValueError(f"{self.where}: {name}={value!r:.60} is not supported, only {known}")

    def skip(self, *names: str) -> None:
        """Marks values that have no effect as read."""
        self._read.update(names)

    def finish(self) -> None:
        """Warns of values that are set but were never read: the model may differ from what its author intended."""
        unknown = {
            name: value
            for name, value in self.values.items()
            if name not in self._read | _IRRELEVANT and value not in (None, False, [], {})
        }
        if unknown:
            shown = ", ".join(f"{name}={value!r}"[:60] for name, value in unknown.items())
            warnings.warn(f"{self.where}: unknown fields are ignored: {shown}", stacklevel=2)
