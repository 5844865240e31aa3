"""Rows of sentences whose words are tagged: windows of tokens, and where each word begins in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxlm.data import frames
from jaxlm.data.rows import ArrayRows
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.tasks.downstream import spans
from jaxlm.tasks.downstream.sentences import Sentence
from jaxlm.tasks.task import Outputs


def rows(
    sentences: Sequence[Sentence], tokenizer: Tokenizer, seq_len: int, overlap: int
) -> ArrayRows:
    """Rows [CLS] tokens [SEP] of sentences; one that is longer has several, which share `overlap` tokens.

    Returns:
        tokens, segment_ids, token_types, word [n, seq_len] int32: `word` is the index of the word whose first token is
        at this position, -1 elsewhere; a word is in exactly one row. record [n]: the index of the sentence.

    Raises:
        ValueError: a row has no room for more than the overlap.
    """
    frame = frames.of_rows(tokenizer)
    room = seq_len - len(frame.before) - len(frame.after)
    if room <= overlap:
        raise ValueError(
            f"task.overlap={overlap} leaves no room in rows of data.seq_len={seq_len}: lower one or raise the other"
        )
    encoded = tokenizer.encode_with_offsets([sentence.text for sentence in sentences])
    parts: list[tuple[int, np.ndarray, np.ndarray]] = []
    for record, (sentence, (ids, characters)) in enumerate(zip(sentences, encoded)):
        first = first_tokens(characters, sentence.words)
        for start, mine in windows(len(ids), first, room, overlap):
            word = np.full(min(room, len(ids) - start), -1, np.int32)
            word[first[mine] - start] = mine
            parts.append((record, ids[start : start + room], word))
    shape = (len(parts), seq_len)
    tokens = np.full(shape, tokenizer.pad_id or 0, np.int32)
    segment_ids, word_at = np.zeros(shape, np.int32), np.full(shape, -1, np.int32)
    for i, (_, ids, word) in enumerate(parts):
        row = [*frame.before, *ids, *frame.after]
        tokens[i, : len(row)] = row
        segment_ids[i, : len(row)] = 1
        first_text = len(frame.before)
        word_at[i, first_text : first_text + len(word)] = word
    return ArrayRows(
        {
            "tokens": tokens,
            "segment_ids": segment_ids,
            "token_types": np.zeros(shape, np.int32),
            "word": word_at,
            "record": np.array([record for record, *_ in parts], np.int32),
        }
    )


def with_labels(
    unlabelled: ArrayRows, tags: Sequence[Sequence[str]], labels: Sequence[str]
) -> ArrayRows:
    """The rows with labels [n, seq_len] int32, the index of each word's tag at its first token, 0 elsewhere.

    The remark says how many words have no token of their own and another tag than they will be predicted to have.
    """
    index = {tag: i for i, tag in enumerate(labels)}
    word, record = unlabelled.arrays["word"], unlabelled.arrays["record"]
    ids = [np.array([index[tag] for tag in row] or [0], np.int32) for row in tags]
    label = np.zeros_like(word)
    readable = [np.zeros(len(row), bool) for row in tags]
    for i, owner in enumerate(record):
        label[i] = np.where(word[i] >= 0, ids[owner][word[i]], 0)
        readable[owner][word[i][word[i] >= 0]] = True
    lost = 0
    for row, has_token in zip(tags, readable):
        if not has_token.all():
            known = [tag if has else None for tag, has in zip(row, has_token)]
            lost += sum(a != b for a, b in zip(row, spans.with_continued(known, labels)))
    remark = f"{lost:,} tags are of words that share a token of the word before" if lost else ""
    return ArrayRows({**unlabelled.arrays, "labels": label}, remark)


def joined(outputs: Outputs, words: int) -> tuple[np.ndarray, np.ndarray]:
    """The tag of each word of a sentence [W], -1 if it has none, and its probability [W], from all windows."""
    tags, p = np.full(words, -1), np.ones(words)
    for out in outputs:
        at = out["word"] >= 0
        tags[out["word"][at]], p[out["word"][at]] = out["tag"][at], out["probability"][at]
    return tags, p


def first_tokens(characters: np.ndarray, words: np.ndarray) -> np.ndarray:
    """The index of the first token that begins in each word [W]; -1 if there is none.

    A word has none if the tokenizer drops all of its characters, or joins it with the word before it.

    Args:
        characters: span of each token [n, 2], from `Tokenizer.encode_with_offsets`.
        words: span of each word [W, 2], in order.
    """
    real = np.flatnonzero(characters[:, 1] > characters[:, 0])
    if not len(real):
        return np.full(len(words), -1)
    starts = characters[real, 0]
    at = np.searchsorted(starts, words[:, 0])
    inside = starts[np.minimum(at, len(real) - 1)] < words[:, 1]
    return np.where((at < len(real)) & inside, real[np.minimum(at, len(real) - 1)], -1)


def windows(
    num_tokens: int, first: np.ndarray, room: int, overlap: int
) -> list[tuple[int, np.ndarray]]:
    """The start of each window of `room` tokens, and the words [w] that count in it.

    A word counts where the nearer end of the window is farthest from its first token; the ends of the text are no ends.
    """
    starts = np.array([0])
    if num_tokens > room:
        starts = np.append(np.arange(0, num_tokens - room, room - overlap), num_tokens - room)
    ends = np.minimum(starts + room, num_tokens)
    has_token = np.flatnonzero(first >= 0)
    at = first[has_token][:, None]
    left = np.where(starts == 0, num_tokens, at - starts)
    right = np.where(ends == num_tokens, num_tokens, ends - 1 - at)
    best = np.minimum(left, right).argmax(1)
    return [(int(start), has_token[best == i]) for i, start in enumerate(starts)]
