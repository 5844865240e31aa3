"""Text that must match a JSON schema, a regular expression or a grammar, through the `llguidance` library."""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import threading
from typing import Any

import numpy as np

from jaxlm.data.token_bytes import TokenBytes
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.generation.settings import Constraint

# compiled constraints
_KEPT = 16


class Matcher:
    """What one text may be continued with."""

    def __init__(self, matcher: Any, words: int):
        """Wraps a matcher of llguidance, whose masks may have more words than the `words` that the vocabulary needs."""
        self._matcher, self._words = matcher, words
        self._bits: np.ndarray | None = None

    def bits(self) -> np.ndarray:
        """The tokens that may come next as 32-bit words [W]: token i is bit i % 32 of word i // 32.

        Raises:
            ValueError: llguidance cannot go on; it would offer the end token then, as if the text were complete.
        """
        if self._bits is None:
            mask = self._matcher.compute_bitmask()
            self._check()
            self._bits = np.frombuffer(mask, np.int32)[: self._words]
        return self._bits

    def accept(self, token: int) -> bool:
        """Goes on by a token; returns whether the text is complete, so that nothing may follow.

        Raises:
            ValueError: see `bits`.
        """
        self._matcher.consume_token(token)
        self._check()
        self._bits = None
        return self._matcher.is_stopped() or not self.bits().any()

    def copy(self) -> Matcher:
        """Another matcher in the same state."""
        return Matcher(self._matcher.deep_copy(), self._words)

    def _check(self) -> None:
        if self._matcher.is_error():
            reason = " ".join(self._matcher.get_error().split())
            raise ValueError(f"the constraint cannot be used: {reason[:300]}")


class Compiler:
    """Makes matchers for the vocabulary of one tokenizer; several threads may use it."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int):
        """The vocabulary is read when the first constraint comes."""
        self._tokenizer, self._vocab_size = tokenizer, vocab_size
        # several answers to one request have the same constraint, and compiling it may take seconds
        self._compiled: collections.OrderedDict[str, Matcher] = collections.OrderedDict()
        self._lock = threading.Lock()

    def matcher(self, constraint: Constraint) -> Matcher:
        """A matcher at the start of a text.

        Raises:
            ValueError: llguidance is missing, the constraint is wrong or cannot be met by any token, or the tokens of
                the tokenizer are no strings of bytes.
        """
        key = json.dumps(dataclasses.asdict(constraint))
        with self._lock:
            compiled = self._compiled.get(key)
        if compiled is None:
            compiled = self._compile(constraint)
            with self._lock:
                self._compiled[key] = compiled
                if len(self._compiled) > _KEPT:
                    self._compiled.popitem(last=False)
        return compiled.copy()

    def _compile(self, constraint: Constraint) -> Matcher:
        try:
            from llguidance import LLMatcher
        except ImportError as e:
            raise ValueError("constraints need llguidance: pip install 'jaxlm[generate]'") from e
        if constraint.regex is not None:
            grammar = LLMatcher.grammar_from_regex(constraint.regex)
        elif constraint.grammar is not None:
            grammar = LLMatcher.grammar_from_lark(constraint.grammar)
        else:
            schema = constraint.json_schema
            text = json.dumps({"type": "object"} if schema is True else schema)
            grammar = LLMatcher.grammar_from_json_schema(text)
        matcher = LLMatcher(self._vocabulary, grammar, log_level=0)
        result = Matcher(matcher, -(-self._vocab_size // 32))
        result._check()
        if not result.bits().any():
            raise ValueError(
                "no token of the vocabulary can begin a text that meets the constraint"
            )
        return result

    @functools.cached_property
    def _vocabulary(self) -> Any:
        from llguidance import LLTokenizer, TokenizerWrapper

        wrapper = TokenizerWrapper(_Vocabulary(self._tokenizer, self._vocab_size))
        return LLTokenizer(wrapper, n_vocab=self._vocab_size)


class _Vocabulary:
    """A vocabulary with the attributes that llguidance's TokenizerWrapper reads."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int):
        self._tokenizer = tokenizer
        table = TokenBytes(tokenizer)
        try:
            table.check_joins()
        except ValueError as e:
            raise ValueError(f"constraints are not possible with this tokenizer: {e}") from None
        self.tokens = [table.get(i) or b"" for i in range(vocab_size)]
        self.special_token_ids = sorted(tokenizer.special_ids)
        if tokenizer.eos_id is None:
            raise ValueError("constraints need a tokenizer with an end token")
        self.eos_token_id, self.bos_token_id = tokenizer.eos_id, tokenizer.bos_id

    def __call__(self, text: bytes) -> list[int]:
        """Tokens that add exactly these bytes, as many of them as the vocabulary has.

        Those of the tokenizer where they do: it may put a space before a text, as Llama's does.
        """
        ids = self._tokenizer.encode(text.decode(errors="replace"))
        if b"".join(self.tokens[i] for i in ids) == text:
            return ids
        ids, at = [], 0
        while at < len(text):
            sizes = range(min(self._longest, len(text) - at), 0, -1)
            size = next((n for n in sizes if text[at : at + n] in self._by_bytes), None)
            if size is None:
                break
            ids.append(self._by_bytes[text[at : at + size]])
            at += size
        return ids

    @functools.cached_property
    def _by_bytes(self) -> dict[bytes, int]:
        special = set(self.special_token_ids)
        return {x: i for i, x in enumerate(self.tokens) if x and i not in special}

    @functools.cached_property
    def _longest(self) -> int:
        return max(map(len, self._by_bytes), default=0)
