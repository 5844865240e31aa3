"""The values of a config.json, read strictly: what we cannot honour is refused, what nothing reads is reported."""

from __future__ import annotations

import warnings
from typing import Any

# names that do not change what a model computes
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
    """The values of a config.json, remembering which of them were read."""

    def __init__(self, values: dict[str, Any], where: str):
        """`where` is the file, for messages."""
        self.values, self.where = values, where
        self._read: set[str] = set()

    def __call__(self, name: str, default: Any = _REQUIRED) -> Any:
        """A value of any type; `null` counts as absent.

        Raises:
            ValueError: it is absent and has no default.
        """
        self._read.add(name)
        value = self.values.get(name)
        if value is not None:
            return value
        if default is _REQUIRED:
            raise ValueError(f"{self.where}: {name} is missing")
        return default

    def nullable(self, name: str, default: Any) -> Any:
        """A value where `null` means none of it, and only absence means the default."""
        self._read.add(name)
        return self.values.get(name, default)

    def typed(self, name: str, default: Any = _REQUIRED) -> Any:
        """A value of the type of its default, an integer if it has none; integers are numbers too.

        Raises:
            ValueError: it is of another type, or absent and has no default.
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
            raise ValueError(f"{self.where}: {name}={value!r} is not {names[kind]}")
        return value

    def only(self, name: str, *allowed: Any) -> None:
        """Refuses a value that is not among those allowed, the first of which is the default."""
        value = self(name, allowed[0])
        if value not in allowed:
            raise self.unsupported(name, value, " or ".join(map(repr, allowed)))

    def unsupported(self, name: str, value: Any, known: str) -> ValueError:
        """The error for a value that we cannot honour."""
        return ValueError(f"{self.where}: {name}={value!r} is not supported, only {known}")

    def skip(self, *names: str) -> None:
        """Marks values as known that change nothing here."""
        self._read.update(names)

    def finish(self) -> None:
        """Warns of values that are set and that nothing read: the model may not be what its author meant."""
        unknown = {
            name: value
            for name, value in self.values.items()
            if name not in self._read | _IRRELEVANT and value not in (None, False, [], {})
        }
        if unknown:
            shown = ", ".join(f"{name}={value!r}"[:60] for name, value in unknown.items())
            warnings.warn(f"{self.where}: not known and not used: {shown}", stacklevel=2)
