"""The tokenizer and the chat template in the metadata of a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from jaxlm.data import sentencepiece_model, tokenizer_config
from jaxlm.data import tokenizer as data_tokenizer
from jaxlm.data.sentencepiece_model import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER, Piece
from jaxlm.data.tokenizer import Tokenizer

# the types of tokens are those of sentencepiece's pieces, in another order
_TYPES = {1: NORMAL, 2: UNKNOWN, 3: CONTROL, 4: USER, 5: UNUSED, 6: BYTE}
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def read(metadata: Mapping[str, Any], where: str) -> Tokenizer | None:
    """The tokenizer of a file; None if it has none.

    Raises:
        ValueError: a kind that is not supported; the message names it.
    """
    kind = metadata.get("tokenizer.ggml.model", "none")
    if kind == "none":
        return None
    readers = {"gpt2": _byte_level, "llama": _pieces, "t5": _pieces}
    if kind not in readers:
        raise ValueError(
            f"{where}: tokenizer.ggml.model {kind!r} is not supported, only {', '.join(readers)}"
        )
    names = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(names, list) or not all(isinstance(x, str) for x in names):
        raise ValueError(f"{where}: tokenizer.ggml.tokens is missing")
    types = metadata.get("tokenizer.ggml.token_type", [1] * len(names))
    if not isinstance(types, list) or len(types) != len(names) or not set(types) <= set(_TYPES):
        raise ValueError(f"{where}: tokenizer.ggml.token_type does not fit tokenizer.ggml.tokens")
    if len(set(names)) != len(names):
        raise ValueError(f"{where}: tokenizer.ggml.tokens has a token twice")
    try:
        backend = readers[kind](metadata, names, [_TYPES[x] for x in types])
    except ValueError as e:
        raise ValueError(f"{where}: {e}") from e
    roles = {}
    for role, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        i = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if isinstance(i, int) and 0 <= i < len(names):
            roles[role] = names[i]
    ends = [roles.get("eos")]
    for key in ("eot", "eom"):
        i = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if isinstance(i, int) and 0 <= i < len(names):
            ends.append(names[i])
    known = tuple(dict.fromkeys(x for x in ends if x is not None))
    data_tokenizer.mark_special(backend, (*roles.values(), *known))
    return Tokenizer(backend, roles, _template(metadata, where), known if len(known) > 1 else ())


def _template(metadata: Mapping[str, Any], where: str) -> tokenizer_config.Template | None:
    named = tokenizer_config.parse_template(metadata.get("tokenizer.chat_template"), where)
    for name in metadata.get("tokenizer.chat_templates", ()):
        more = metadata.get(f"tokenizer.chat_template.{name}")
        if isinstance(more, str):
            named[name] = more
    return named["default"] if set(named) == {"default"} else named or None


def _byte_level(
    metadata: Mapping[str, Any], names: list[str], types: list[int]
) -> tokenizers.Tokenizer:
    pre = metadata.get("tokenizer.ggml.pre", "default")
    merges = metadata.get("tokenizer.ggml.merges")
    if not isinstance(merges, list):
        raise ValueError("tokenizer.ggml.merges is missing")
    # a space in a piece is spelled Ġ, so that the first one separates
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    vocab = {name: i for i, name in enumerate(names)}
    is_llama3 = pre in ("llama-bpe", "llama3", "llama-v3")
    model = models.BPE(vocab, pairs, ignore_merges=is_llama3)  # type: ignore[arg-type]
    backend = tokenizers.Tokenizer(model)
    space = bool(metadata.get("tokenizer.ggml.add_space_prefix", False))
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=space)
    plain = pre_tokenizers.ByteLevel(add_prefix_space=space, use_regex=False)
    steps: list[pre_tokenizers.PreTokenizer]
    if pre in ("default", "gpt-2", "olmo"):
        steps = [gpt2]
    elif pre in ("smollm", "starcoder", "refact", "command-r"):
        steps = [pre_tokenizers.Digits(individual_digits=True), gpt2]
    elif is_llama3:
        steps = [pre_tokenizers.Split(Regex(_LLAMA3), "isolated"), plain]
    elif pre in ("qwen2", "deepseek-r1-qwen"):
        backend.normalizer = normalizers.NFC()
        steps = [pre_tokenizers.Split(Regex(_QWEN2), "isolated"), plain]
    else:
        raise ValueError(
            f"tokenizer.ggml.pre {pre!r} is not supported, only default, gpt-2, olmo, smollm, starcoder, refact, "
            "command-r, llama-bpe, qwen2"
        )
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    for name, kind in zip(names, types):
        if kind in (CONTROL, UNKNOWN):
            backend.add_special_tokens([AddedToken(name, special=True, normalized=False)])
        elif kind == USER:
            backend.add_tokens([AddedToken(name, special=False, normalized=False)])
    return backend


def _pieces(
    metadata: Mapping[str, Any], names: list[str], types: list[int]
) -> tokenizers.Tokenizer:
    """A vocabulary of sentencepiece: BPE by scores, or a Unigram (`t5`)."""
    is_bpe = metadata["tokenizer.ggml.model"] == "llama"
    scores = metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(names):
        raise ValueError("tokenizer.ggml.scores does not fit tokenizer.ggml.tokens")
    if types.count(UNKNOWN) != 1:
        raise ValueError("tokenizer.ggml.token_type has not one token for unknown text")
    # llama.cpp cuts these out of a text, and puts a space in front of what follows, as in front of the text
    whole = [name for name, kind in zip(names, types) if kind == USER]
    kinds = [CONTROL if kind == USER else kind for kind in types]
    charsmap = metadata.get("tokenizer.ggml.precompiled_charsmap")
    model = sentencepiece_model.Model(
        tuple(map(Piece, names, scores, kinds)),
        kind=sentencepiece_model.BPE if is_bpe else sentencepiece_model.UNIGRAM,
        byte_fallback=BYTE in types,
        rule="nmt_nfkc" if charsmap else "",
        charsmap=bytes(charsmap or b""),
        add_dummy_prefix=bool(metadata.get("tokenizer.ggml.add_space_prefix", True)),
        remove_extra_whitespaces=bool(
            metadata.get("tokenizer.ggml.remove_extra_whitespaces", False)
        ),
    )
    return sentencepiece_model.build(model, whole=whole)
