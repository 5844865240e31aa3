"""Pairs of texts for sentence embeddings: their columns, rows, identities, predictions and metrics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxlm.config import DataConfig
from jaxlm.data import frames
from jaxlm.data.bad_rows import BadRow
from jaxlm.data.frames import Edges
from jaxlm.data.loader import Batch
from jaxlm.data.records import Column, Records
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.models.embedder import Embedding
from jaxlm.tasks.downstream import correlation, retrieval
from jaxlm.tasks.task import Piece, Purpose

# the texts of a record, in this order
SIDES = ("text", "pair", "negative")


def columns(
    data: DataConfig, purpose: Purpose, negative: str | None, group: str | None, score: str | None
) -> Mapping[str, Column]:
    """A text; except for predictions its second text, and a negative, a class or a score if they have a column.

    Raises:
        ValueError: `data.pair_column` is not set.
    """
    needed = purpose != "predict"
    columns = {"text": Column(data.text_column, "text")}
    if data.pair_column is None:
        if not needed:
            return columns
        raise ValueError(
            "task embedding compares two texts: set data.pair_column to the column of the second one"
        )
    columns["pair"] = Column(data.pair_column, "text", required=needed)
    if negative is not None:
        columns["negative"] = Column(negative, "text", required=purpose == "train")
    if group is not None:
        columns["group"] = Column(group, "label", required=needed)
    if score is not None:
        columns["score"] = Column(score, "number", required=needed)
    return columns


def usable(records: Records, max_score: float | None, on_bad_row: str) -> Records:
    """The records without scores beyond -`max_score` to `max_score`, and negatives that are the second text.

    Raises:
        ValueError: there is one, and `on_bad_row` is "error"; the message names its file and row.
    """
    faults = (_fault(records.record(i), max_score) for i in range(len(records)))
    bad = {i: fault for i, fault in enumerate(faults) if fault is not None}
    if bad and on_bad_row == "error":
        i, fault = next(iter(bad.items()))
        raise ValueError(f"{records.ids[i]}: {fault}")
    return records.without(bad, "skip")


def _fault(record: Mapping[str, Any], max_score: float | None) -> BadRow | None:
    score = record.get("score")
    if score is not None and max_score is not None and abs(score) > max_score:
        detail = f"{score:g}, expected {-max_score:g} to {max_score:g}; set task.max_score"
        return BadRow("score out of range", detail)
    if record.get("negative") is not None and record["negative"] == record["pair"]:
        return BadRow("the negative is the second text", repr(record["pair"][:40]))
    return None


def settings_of(old: Embedding) -> dict[str, Any]:
    """The settings of the task by name, with which a model makes the vectors that it makes already."""
    return {
        "pooling": old.pooling,
        "normalize": old.normalize,
        "text_prompt": old.prompt_of("query"),
        "pair_prompt": old.prompt_of("document", "passage"),
    }


def sides(records: Records) -> list[str]:
    """The texts that the records have."""
    known = [side for side in SIDES if side in records.columns]
    return [side for side in known if any(x is not None for x in records.columns[side])]


def edges(tokenizer: Tokenizer) -> Edges:
    """The control tokens before and after a text: those of the tokenizer's file, else its cls and sep tokens, which
    an export adds to the file."""
    if tokenizer.backend.post_processor is not None:
        frame = frames.of(tokenizer)
        return frame.before, frame.after
    some = lambda token: () if token is None else (token,)
    return some(tokenizer.cls_id), some(tokenizer.sep_id)


def text_arrays(
    records: Records, prompts: Mapping[str, str], tokenizer: Tokenizer, length: int
) -> tuple[dict[str, np.ndarray], int]:
    """tokens and segment_ids [n, S, length] int32 of the texts of each record, and how many are cut to `length`.

    Raises:
        ValueError: a text is missing or has no tokens, or there is no room for one.
    """
    before, after = edges(tokenizer)
    room = length - len(before) - len(after)
    if room < 1:
        raise ValueError(f"data.seq_len={length} has no room for text beside control tokens")
    names = sides(records)
    tokens = np.full((len(records), len(names), length), tokenizer.pad_id or 0, np.int32)
    segment_ids = np.zeros_like(tokens)
    cut = 0
    for j, side in enumerate(names):
        texts = records.columns[side]
        for text, where in zip(texts, records.ids):
            if text is None:
                raise ValueError(f"{where}: no text for {side!r}, which other rows have")
        for i, ids in enumerate(tokenizer.encode_batch([prompts[side] + x for x in texts])):
            cut += len(ids) > room
            row = [*before, *ids[:room], *after]
            if not row:
                raise ValueError(f"{records.ids[i]}: the text has no tokens: {texts[i][:40]!r}")
            tokens[i, j, : len(row)] = row
            segment_ids[i, j, : len(row)] = 1
    return {"tokens": tokens, "segment_ids": segment_ids}, cut


def identities(records: Records) -> np.ndarray:
    """An integer for each text of a record, the same for the same text, then one for its class [n, S + 1] int32."""
    numbers: dict[str, int] = {}
    texts = [
        [numbers.setdefault(x, len(numbers)) for x in records.columns[s]] for s in sides(records)
    ]
    groups: list[Any] = records.columns.get("group") or list(range(len(records)))
    classes: dict[Any, int] = {}
    texts.append([classes.setdefault(x, len(classes)) for x in groups])
    return np.array(texts, np.int32).T.reshape(len(records), len(texts))


def targets(records: Records, scale: float) -> dict[str, np.ndarray]:
    """texts, see `identities`, and the scores [n] if the records have them, divided by `scale`."""
    found = {"texts": identities(records)}
    if "score" in records.columns:
        found["scores"] = np.array(records.columns["score"], np.float32) / scale
    return found


def prediction(vectors: np.ndarray, record: Mapping[str, Any]) -> dict[str, Any]:
    """The vectors [S, D] of a record as JSON values; of a pair also the cosine."""
    names = [side for side in SIDES if record.get(side) is not None]
    # seven digits are those of a float32
    values = np.round(vectors.astype(np.float64), 7).tolist()
    keys = {"text": "vector", "pair": "pair_vector", "negative": "negative_vector"}
    out: dict[str, Any] = {keys[name]: value for name, value in zip(names, values)}
    if "pair" in names:
        a, b = retrieval.unit(vectors[:2])
        out["similarity"] = round(float(a @ b), 6)
    return out


def score(
    predictions: Sequence[Mapping[str, Any]], records: Records, sizes: Sequence[int]
) -> dict[str, float]:
    """Correlations if the records have scores, else retrieval; `<metric>_<size>` of the first numbers of vectors."""
    out: dict[str, float] = {}
    if "score" not in records.columns:
        for size, ranks in _ranks(predictions, records, sizes).items():
            out |= _named(retrieval.retrieval(ranks), size)
        return out
    a, b = _vectors(predictions, "vector"), _vectors(predictions, "pair_vector")
    for size in (None, *sizes):
        cosines = (retrieval.unit(a[:, :size]) * retrieval.unit(b[:, :size])).sum(-1)
        scores = records.columns["score"]
        found = {
            "spearman": correlation.spearman(cosines, scores),
            "pearson": correlation.pearson(cosines, scores),
        }
        out |= _named(found, size)
    return out


def resample(
    predictions: Sequence[Mapping[str, Any]],
    records: Records,
    draws: Iterable[np.ndarray],
    sizes: Sequence[int],
) -> dict[str, np.ndarray]:
    """The metrics of retrieval for resampled queries, each among all candidates; see `Task.resample`.

    With resampled candidates there would be a third fewer, among which it is easier to be the nearest.
    """
    ranks = _ranks(predictions, records, sizes)
    rows = []
    for draw in draws:
        found: dict[str, float] = {}
        for size, own in ranks.items():
            found |= _named(retrieval.retrieval(own[draw]), size)
        rows.append(found)
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _ranks(
    predictions: Sequence[Mapping[str, Any]], records: Records, sizes: Sequence[int]
) -> dict[int | None, np.ndarray]:
    """The rank of the right candidate of each record, by whole vectors and by their first numbers; see `retrieval`."""
    a, b = _vectors(predictions, "vector"), _vectors(predictions, "pair_vector")
    numbers = identities(records)
    own, others = [b], [numbers[:, 1]]
    if "negative_vector" in predictions[0]:
        own.append(_vectors(predictions, "negative_vector"))
        others.append(numbers[:, 2])
    # every text is a candidate once
    texts, first = np.unique(np.concatenate(others), return_index=True)
    candidates = np.concatenate(own)[first]
    right, ignored = _right(numbers, {int(text): i for i, text in enumerate(texts)})
    return {
        size: retrieval.ranks(a[:, :size], candidates[:, :size], right, ignored)
        for size in (None, *sizes)
    }


def _vectors(predictions: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    return np.array([p[key] for p in predictions], np.float32)


def _named(metrics: dict[str, float], size: int | None) -> dict[str, float]:
    return {name if size is None else f"{name}_{size}": value for name, value in metrics.items()}


def _right(
    numbers: np.ndarray, places: Mapping[int, int]
) -> tuple[list[set[int]], list[int | None]]:
    """For each record the candidates that are right (second texts of records with the same first text, second text or
    class), and the candidate that is the first text itself, which does not count.

    Args:
        numbers: from `identities`.
        places: index of the candidate that is a text.
    """
    members: dict[tuple[int, int], set[int]] = defaultdict(set)
    roles = (0, 1, numbers.shape[1] - 1)
    for row in numbers.tolist():
        for role in roles:
            members[role, row[role]].add(places[row[1]])
    right: list[set[int]] = []
    ignored: list[int | None] = []
    for row in numbers.tolist():
        found = set().union(*(members[role, row[role]] for role in roles))
        itself = places.get(row[0])
        if found == {itself}:
            itself = None
        right.append(found - {itself})
        ignored.append(itself)
    return right, ignored


def preview(row: Batch, tokenizer: Tokenizer) -> list[Piece]:
    """The texts of a row, each after an arrow."""
    pieces: list[Piece] = []
    for tokens, segment_ids in zip(row["tokens"], row["segment_ids"]):
        pieces += [Piece("=>")] if pieces else []
        pieces += [Piece(tokenizer.piece(int(i))) for i in tokens[segment_ids > 0]]
    return pieces
