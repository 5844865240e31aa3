"""Corruptions of text for pretraining, as pure functions of tokens and a random key for each example.

A key is `counter.bits(seed, epoch, example)`: a row is corrupted the same way alone, in any batch and on any process,
so that resumed runs see the same data. There is a file for each objective; the tasks use them.
"""

from jaxlm.data.corruption.denoising import denoise
from jaxlm.data.corruption.fill_in_middle import fill_in_middle
from jaxlm.data.corruption.masking import (
    geometric_chances,
    mask_tokens,
    ngram_chances,
    unit_starts,
)
from jaxlm.data.corruption.prefix import prefix_lengths
from jaxlm.data.corruption.sentence_pair import sample_outside, sentence_pairs, sentence_starts
from jaxlm.data.corruption.spans import (
    corrupt_spans,
    corrupted_lengths,
    longest_piece,
    noise_counts,
)

__all__ = [
    "corrupt_spans",
    "corrupted_lengths",
    "denoise",
    "fill_in_middle",
    "geometric_chances",
    "longest_piece",
    "mask_tokens",
    "ngram_chances",
    "noise_counts",
    "prefix_lengths",
    "sample_outside",
    "sentence_pairs",
    "sentence_starts",
    "unit_starts",
]
