"""Which request is in which slot, and the settings of the slots as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxlm.generation.settings import Settings
from jaxlm.generation.step import MAX_BANNED, Control, SlotSettings


def check_banned(settings: Settings) -> None:
    """Raises ValueError if the settings list more tokens than a slot has room for."""
    count = len(settings.begin_suppress) + len(settings.stop_ids) * (settings.min_new_tokens > 0)
    if count > MAX_BANNED:
        raise ValueError(
            f"begin_suppress and stop_ids have {count} tokens; at most {MAX_BANNED} are possible"
        )


class Slots:
    """A fixed number of slots; arrays go to the device when they have changed."""

    def __init__(self, count: int, vocab_size: int):
        """All slots are free."""
        self.count = count
        self._vocab_size = vocab_size
        self._free = list(range(count))[::-1]
        self._arrays: dict[str, np.ndarray] = {
            name: np.full(count, value, kind) for name, (value, kind) in _DEFAULTS.items()
        }
        self._arrays["banned"] = np.zeros((count, MAX_BANNED), np.int32)
        self._arrays["banned_until"] = np.zeros((count, MAX_BANNED), np.int32)
        self._bias = np.zeros((count, vocab_size), np.float32)
        self._bias_on_device: Any = jnp.array(self._bias)
        words = np.full((count, -(-vocab_size // 32)), -1, np.int32)
        self._all_allowed: Any = jnp.array(words)
        self._settings: SlotSettings | None = None

    @property
    def has_log_probs(self) -> bool:
        """Whether a request asks for log-probabilities."""
        return bool(self._arrays["has_log_probs"].any())

    def take(self, request: Any) -> int:
        """Puts a request into a free slot and returns the slot."""
        slot, s = self._free.pop(), request.settings
        values = dict(
            temperature=s.temperature,
            top_k=self._vocab_size if s.top_k is None else min(s.top_k, self._vocab_size),
            top_p=1.0 if s.top_p is None else s.top_p,
            min_p=s.min_p or 0.0,
            repetition_penalty=s.repetition_penalty,
            presence_penalty=s.presence_penalty,
            frequency_penalty=s.frequency_penalty,
            no_repeat_ngram=s.no_repeat_ngram,
            seed=s.seed,
            prompt_length=len(request.prompt),
            has_log_probs=s.logprobs is not None,
        )
        for name, value in values.items():
            self._arrays[name][slot] = value
        self._set_bias(slot, s)
        banned = [(token, 1) for token in s.begin_suppress]
        if s.min_new_tokens:
            banned += [(token, s.min_new_tokens) for token in s.stop_ids]
        self._arrays["banned_until"][slot] = 0
        for i, (token, until) in enumerate(banned):
            self._arrays["banned"][slot, i] = token
            self._arrays["banned_until"][slot, i] = until
        self._settings = None
        return slot

    def release(self, slot: int) -> None:
        """Frees a slot; what is in it goes on to be computed, for nothing, as cheaply as possible."""
        self._free.append(slot)
        for name, (value, _) in _DEFAULTS.items():
            self._arrays[name][slot] = value
        self._arrays["banned_until"][slot] = 0
        self._settings = None

    def settings(self) -> SlotSettings:
        """The settings of all slots, on the device."""
        if self._settings is None:
            self._settings = SlotSettings(
                bias=self._bias_on_device,
                **{name: jnp.array(x) for name, x in self._arrays.items()},
            )
        return self._settings

    def control(self, rows: Sequence[tuple[int, int, int, np.ndarray | None]]) -> Control:
        """What a step does with (slot, tokens written so far, forced token or -1, allowed tokens' bits) of a row."""
        active = np.zeros(self.count, bool)
        written = np.zeros(self.count, np.int32)
        forced = np.full(self.count, -1, np.int32)
        has_allowed = np.zeros(self.count, bool)
        allowed = None
        for slot, count, token, bits in rows:
            active[slot], written[slot], forced[slot] = True, count, token
            if bits is not None:
                if allowed is None:
                    allowed = np.full(self._all_allowed.shape, -1, np.int32)
                allowed[slot], has_allowed[slot] = bits, True
        words = self._all_allowed if allowed is None else allowed
        arrays: Any = (active, written, forced, has_allowed, words)
        return Control(*arrays)

    def _set_bias(self, slot: int, settings: Settings) -> None:
        bias = settings.bias(self._vocab_size)
        self._arrays["has_bias"][slot] = bias is not None
        # what another request left in the slot goes
        if bias is not None or self._bias[slot].any():
            self._bias[slot] = 0 if bias is None else bias
            self._bias_on_device = jnp.array(self._bias)


_DEFAULTS: dict[str, tuple[Any, Any]] = {
    "temperature": (0.0, np.float32),
    "top_k": (2**30, np.int32),
    "top_p": (1.0, np.float32),
    "min_p": (0.0, np.float32),
    "repetition_penalty": (1.0, np.float32),
    "presence_penalty": (0.0, np.float32),
    "frequency_penalty": (0.0, np.float32),
    "no_repeat_ngram": (0, np.int32),
    "seed": (0, np.uint32),
    "prompt_length": (0, np.int32),
    "has_log_probs": (False, bool),
    "has_bias": (False, bool),
}
