"""The control tokens of models that fill in the middle: before the prefix, the suffix and the middle."""

from __future__ import annotations

from jaxlm.data.tokenizer import Tokenizer

NAMES = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # ours, Qwen2.5-Coder
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek-Coder
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),  # Code Llama
)


def ids(tokenizer: Tokenizer) -> tuple[int, int, int] | None:
    """Their ids; None if the tokenizer has no such tokens."""
    for prefix, suffix, middle in NAMES:
        vocab = tokenizer.vocab
        if prefix in vocab and suffix in vocab and middle in vocab:
            return vocab[prefix], vocab[suffix], vocab[middle]
    return None


def prompt(tokenizer: Tokenizer, prefix: list[int], suffix: list[int]) -> list[int]:
    """The ids of `<PRE> prefix <SUF> suffix <MID>`, whose continuation is what stands between the two.

    Raises:
        ValueError: the tokenizer has no such tokens.
    """
    control = ids(tokenizer)
    if control is None:
        raise ValueError("this model was not trained to fill in the middle")
    before, after, middle = control
    return [before, *prefix, after, *suffix, middle]
