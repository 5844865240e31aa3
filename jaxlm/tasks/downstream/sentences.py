"""The sentence of a record whose words are tagged: its text, its words and their tags.

A record has words and tags, or a text and spans of its characters; a text is split into words here.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxlm.data.bad_rows import EMPTY_TEXT, BadRow
from jaxlm.data.records import Column, Records
from jaxlm.tasks.downstream import texts
from jaxlm.tasks.downstream.spans import OUTSIDE, entities
from jaxlm.tasks.task import Purpose

# a word is a run of letters, digits and underscores of one kind of script; other signs are words by themselves
_CJK = "\u3005\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+|[^\w\s]")


class Sentence(NamedTuple):
    """A text and its words, as characters of the text [n, 2]."""

    text: str
    words: np.ndarray


def columns(settings: Any, text_column: str, purpose: Purpose) -> Mapping[str, Column]:
    """Words and tags, or a text and spans; to predict, words or a text."""
    names = settings.words_column, settings.tags_column
    if purpose == "predict":
        text = Column(text_column, "text", required=settings.spans_column is not None)
        return {"words": Column(names[0], "words", required=False), "text": text}
    if settings.spans_column is not None:
        target = Column(settings.spans_column, "spans", over="text", option="task.spans-column")
        return {"text": Column(text_column, "text"), "tags": target}
    tags = Column(names[1], "tags", over="words", option="task.tags-column")
    return {"words": Column(names[0], "words", option="task.words-column"), "tags": tags}


def joined(words: Sequence[str], separator: str) -> Sentence:
    """The sentence of words that are given as a list."""
    ends = np.cumsum([len(word) + len(separator) for word in words], dtype=np.int64)
    sizes = np.array([len(word) for word in words])
    ends = ends - len(separator)
    return Sentence(separator.join(words), np.stack([ends - sizes, ends], 1))


def split(text: str) -> Sentence:
    """The words of a text: runs of letters and digits; Chinese and Japanese characters and other signs one by one."""
    found = [match.span() for match in _WORD.finditer(text)]
    return Sentence(text, np.array(found, np.int64).reshape(-1, 2))


def sentence_of(settings: Any, record: dict[str, Any]) -> Sentence:
    """The sentence of a record, by the settings of the tagging."""
    words = record.get("words")
    return split(record["text"]) if words is None else joined(words, settings.separator)


def tags_of(settings: Any, record: dict[str, Any], sentence: Sentence) -> Any:
    """The tags of the words of a labelled record; a BadRow if its spans have none."""
    if settings.spans_column is None:
        return record["tags"]
    return to_tags(record["tags"], sentence)


def all_tags(settings: Any, records: Records) -> list[list[str]]:
    """The tags of the words of each labelled record that can be used."""
    rows = (records.record(i) for i in range(len(records)))
    return [list(tags_of(settings, row, sentence_of(settings, row))) for row in rows]


def used_tags(settings: Any, records: Records) -> set[str]:
    """The tags of the records; of spans, those of their first words."""
    rows = records.columns["tags"]
    if settings.spans_column is None:
        return {tag for row in rows for tag in row}
    return {f"B-{span['label']}" for row in rows for span in row}


def fault(settings: Any, record: dict[str, Any]) -> BadRow | None:
    """Why a record cannot be used."""
    if record.get("words") is None and record.get("text") is None:
        return EMPTY_TEXT
    if record.get("tags") is None:
        return None
    tags = tags_of(settings, record, sentence_of(settings, record))
    if isinstance(tags, BadRow):
        return tags
    unknown = next((tag for tag in tags if tag not in settings.labels), None)
    if unknown is None:
        return None
    return BadRow("unknown tag", f"{unknown!r}; {texts.hint(unknown, settings.labels, 'tags')}")


def to_tags(found: Sequence[dict[str, Any]], sentence: Sentence) -> list[str] | BadRow:
    """The BIO tags of the words for sorted spans of characters (start, end, label); a BadRow if there are none."""
    tags = [OUTSIDE] * len(sentence.words)
    shown = [f"{sentence.text[s['start'] : s['end']]!r} ({s['label']})" for s in found]
    for (a, b), names in zip(itertools.pairwise(found), itertools.pairwise(shown)):
        if b["start"] < a["end"]:
            return BadRow("overlapping spans", f"{names[0]} and {names[1]}; a word has one tag")
    starts, ends = sentence.words[:, 0], sentence.words[:, 1]
    for span, name in zip(found, shown):
        inside = sentence.text[span["start"] : span["end"]]
        # spaces at the ends of a span do no harm, half words do
        start = span["start"] + len(inside) - len(inside.lstrip())
        end = span["end"] - (len(inside) - len(inside.rstrip()))
        if not inside.strip():
            return BadRow("span of spaces only", f"{name} at {span['start']}")
        first, last = np.searchsorted(starts, start), np.searchsorted(ends, end)
        if not (first <= last < len(ends) and starts[first] == start and ends[last] == end):
            words = sentence.text[_around(starts, ends, start, end)]
            return BadRow("span that cuts a word", f"{name} in {words!r}")
        tags[first] = f"B-{span['label']}"
        tags[first + 1 : last + 1] = [f"I-{span['label']}"] * (last - first)
    return tags


def spans_of(tags: Sequence[str], p: np.ndarray, sentence: Sentence) -> list[dict[str, Any]]:
    """The opposite of `to_tags`, with the text of each span and the mean probability [W] of its words."""
    found = []
    for label, first, end in entities(tags):
        start, stop = int(sentence.words[first, 0]), int(sentence.words[end - 1, 1])
        span = {"label": label, "start": start, "end": stop, "text": sentence.text[start:stop]}
        found.append({**span, "probability": round(float(p[first:end].mean()), 6)})
    return found


def _around(starts: np.ndarray, ends: np.ndarray, start: int, end: int) -> slice:
    """The characters of all words that a span touches."""
    touched = np.flatnonzero((starts < end) & (ends > start))
    return slice(min(start, int(starts[touched[0]])), max(end, int(ends[touched[-1]])))
