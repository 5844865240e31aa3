"""Rows of whole texts, as the encoder of a VAE reads them and its decoder writes them, with one or two tokenizers."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxlm.data import corpora
from jaxlm.data.documents import TokenDocuments, TwoTokenizations, tokenize
from jaxlm.data.loader import Batch
from jaxlm.data.packing import Members
from jaxlm.data.ragged import framed
from jaxlm.data.rows import CorruptedRows, Keys, PairRows
from jaxlm.data.tokenizer import Tokenizer, TwoTokenizers

# a row has one text for at most this many of its positions: the number of latents per row is fixed
ROOM = 8

Documents = TokenDocuments | TwoTokenizations


def texts_per_row(seq_len: int) -> int:
    """M: the number of latents of a row."""
    return max(seq_len // ROOM, 1)


def reader_of(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer of the encoder, which is that of the decoder unless there are two."""
    return getattr(tokenizer, "encoder", tokenizer)


def start_id(tokenizer: Tokenizer) -> int:
    """The first token that the decoder reads."""
    start = tokenizer.bos_id
    assert start is not None, "one of the roles"
    return start


# ---- texts as tokens


def split_documents(text: Any, tokenizer: Tokenizer) -> list[Any]:
    """The texts of a split as token ids of the decoder and, if it has a tokenizer of its own, of the encoder."""
    written = corpora.token_documents(text, tokenizer)
    if not isinstance(tokenizer, TwoTokenizers):
        return written
    read = corpora.token_documents(text, tokenizer.encoder)
    return [TwoTokenizations(*sides) for sides in zip(read, written)]


def text_documents(texts: Sequence[str], tokenizer: Tokenizer) -> Documents:
    """Texts as the documents that `pack` takes."""
    written = tokenize(texts, tokenizer)
    if not isinstance(tokenizer, TwoTokenizers):
        return written
    return TwoTokenizations(tokenize(texts, tokenizer.encoder), written)


def lengths(data: Documents) -> np.ndarray:
    """Tokens of each text [N] on the side that needs more of a row, without the two control tokens; 0 if empty."""
    if isinstance(data, TokenDocuments):
        # the encoder reads two control tokens with each text, the decoder writes one
        return data.lengths
    read, written = data.read.lengths, data.written.lengths
    return np.where(np.minimum(read, written) > 0, np.maximum(read, written - 1), 0)


# ---- rows


def pack(
    data: Documents,
    tokenizer: Tokenizer,
    seq_len: int,
    seed: int,
    *,
    cut: bool,
    counts_words: bool,
) -> CorruptedRows:
    """Rows of several texts each; texts that are longer than a row are refused, or cut into several."""
    if seq_len <= 2:
        raise ValueError(
            f"data.seq_len={seq_len}: no room for text beside 2 control tokens; increase it"
        )
    _check_lengths(data, seq_len, cut)
    # a row has room for a fixed number of texts
    room = lambda sizes: np.maximum(sizes, min(ROOM, seq_len))
    options: Any = dict(
        input_capacity=seq_len, target_capacity=seq_len, start_id=start_id(tokenizer)
    )
    pad_ids = reader_of(tokenizer).pad_id or 0, tokenizer.pad_id or 0
    if isinstance(data, TwoTokenizations):
        sides = room(data.read.lengths + 2), room(data.written.lengths + 1)
        packed = PairRows.of_two(data, *sides, pad_ids=pad_ids, **options)
    else:
        sizes = np.arange(seq_len - 1)
        packed = PairRows.of(data, room(sizes + 2), room(sizes + 1), pad_id=pad_ids[1], **options)
    ends = functools.partial(frame, tokenizer=tokenizer, counts_words=counts_words)
    return CorruptedRows(packed, ends, seed)


def shows_words(tokenizer: Tokenizer) -> bool:
    """Whether tokens show where words begin."""
    try:
        tokenizer.word_starts(np.zeros(1, np.int64))
    except ValueError:
        return False
    return True


def _check_lengths(data: Documents, seq_len: int, cut: bool) -> None:
    counts = lengths(data)
    empty = int((counts == 0).sum())
    if empty == len(counts):
        raise ValueError(f"none of {len(counts):,} texts has tokens: is it another vocabulary?")
    if isinstance(data, TwoTokenizations):
        both = (data.read.lengths == 0) & (data.written.lengths == 0)
        if lost := empty - int(both.sum()):
            warnings.warn(
                f"{lost:,} of {len(counts):,} texts are left out: one of the two tokenizers has no tokens for them",
                stacklevel=2,
            )
    too_long = int((counts + 2 > seq_len).sum())
    two = isinstance(data, TwoTokenizations)
    if too_long and (two or not cut):
        hint = "shorten them (encoder and decoder have different tokenizers: none can be cut)"
        raise ValueError(
            f"{too_long:,} of {len(counts):,} texts have more than {seq_len - 2} tokens (the longest "
            f"{counts.max():,}), and a latent is of a whole text: raise data.seq_len={seq_len} (--seq-len of a trained "
            f"model), or {hint if two else 'set task.long_texts=cut (--settings long_texts=cut of a trained model)'}"
        )


def frame(
    packed: PairRows, members: Members, keys: Keys, *, tokenizer: Tokenizer, counts_words: bool
) -> Batch:
    """Each text between two control tokens for the encoder, and with its end for the decoder.

    With the number of words and ends of each row, "words" [n], if they are to be counted.
    """
    reader = reader_of(tokenizer)
    read = framed(packed.take_read(members), reader.cls_id, reader.sep_id)
    written = framed(packed.take(members), None, tokenizer.eos_id)
    batch = packed.build_rows(read, written, members)
    if counts_words:
        batch["words"] = count_words(batch, tokenizer)
    return batch


def count_words(batch: Batch, tokenizer: Tokenizer) -> np.ndarray:
    """Number of words of the targets of each row, with an end of each text [n]."""
    targets, real = batch["targets"], batch["decoder_segment_ids"] > 0
    # a word of any length is one
    starts = tokenizer.word_starts(targets, longest=targets.shape[1])
    starts |= batch["decoder_positions"] == 0
    words = (starts & ~tokenizer.blanks[targets]) | (targets == tokenizer.eos_id)
    return (words & real).sum(1).astype(np.float32)
