"""Spans of words in sequences of tags, and their scores.

`entities` follows conlleval (Tjong Kim Sang & Buchholz 2000, the CoNLL shared tasks) as seqeval does in its default
mode: a tag I- without a B- before it, or of another type than the tag before it, begins a span.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jaxlm.tasks.downstream import counts

OUTSIDE = "O"
# prefixes that make a tag that of a span: BIO, BIOES, BILOU
_SPAN_TAG = re.compile(r"O|[BIESLU](-.*)?", re.DOTALL)


class Entity(NamedTuple):
    """A span of words: its type, its first word and the word after its last."""

    label: str
    start: int
    end: int


def is_span_scheme(tags: Iterable[str]) -> bool:
    """Whether all tags are those of spans (O, B-PER, I-PER, ...), rather than classes of single words."""
    return all(_SPAN_TAG.fullmatch(tag) for tag in tags)


def all_tags(tags: set[str]) -> tuple[str, ...]:
    """The tags to predict, from those of the training data: O first; of spans, B- and I- of every type."""
    if not is_span_scheme(tags):
        return tuple(sorted(tags))
    types = sorted({kind for tag in tags if tag != OUTSIDE for _, kind in [_parts(tag)]})
    both = [f"{prefix}-{kind}" for kind in types for prefix in "BI" if kind != "_"]
    return tuple(dict.fromkeys([OUTSIDE, *both, *sorted(tags)]))


def _parts(tag: str) -> tuple[str, str]:
    """Prefix and type: ("B", "PER") of B-PER, ("B", "_") of B."""
    return tag[:1], tag[1:].split("-", 1)[-1] or "_"


def entities(tags: Sequence[str]) -> list[Entity]:
    """The spans of a sequence of tags."""
    found = []
    before, kind_before, begun = OUTSIDE, "", 0
    for i, tag in enumerate([*tags, OUTSIDE]):
        prefix, kind = _parts(tag)
        other = kind != kind_before
        ends = (
            before in "ES" or (before in "BI" and prefix in "BSO") or (before not in "O." and other)
        )
        if ends:
            found.append(Entity(kind_before, begun, i))
        if prefix in "BS" or (before in "ESO" and prefix in "EI") or (prefix not in "O." and other):
            begun = i
        before, kind_before = prefix, kind
    return found


def with_continued(tags: Sequence[str | None], labels: Sequence[str]) -> list[str]:
    """The tags with those of words without a token of their own filled in: what the word before is goes on.

    Words lose their token where the tokenizer joins several, such as three full stops, so that they share its tag.
    """
    out: list[str] = []
    for tag in tags:
        if tag is None:
            before = out[-1] if out else labels[0]
            inner = f"I-{before[2:]}"
            tag = inner if before.startswith("B-") and inner in labels else before
        out.append(tag)
    return out


def count(
    true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> tuple[np.ndarray, list[str]]:
    """Counts [3, types] of correct, predicted and true spans, and the types, sorted."""
    totals: dict[str, np.ndarray] = collections.defaultdict(lambda: np.zeros(3))
    for a, b in zip(true, predicted, strict=True):
        gold, found = set(entities(a)), set(entities(b))
        for which, some in enumerate((gold & found, found, gold)):
            for entity in some:
                totals[entity.label][which] += 1
    names = sorted(totals)
    return np.array([totals[name] for name in names]).reshape(-1, 3).T, names


def score(true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, float]:
    """accuracy of the tags; precision, recall and f1 of whole spans; and f1 of each type as f1_<type>."""
    pairs = [
        (a, b) for s, t in zip(true, predicted, strict=True) for a, b in zip(s, t, strict=True)
    ]
    result = {"accuracy": sum(a == b for a, b in pairs) / max(1, len(pairs))}
    totals, names = count(true, predicted)
    overall = counts.micro(totals) if names else counts.Scores(*np.zeros(3))
    result |= {name: float(x) for name, x in overall._asdict().items()}
    each = counts.scores(*totals).f1
    return result | {f"f1_{name}": float(x) for name, x in zip(names, each)}


def resample(
    true: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    draws: Iterable[np.ndarray],
    *,
    with_spans: bool,
) -> dict[str, np.ndarray]:
    """accuracy and, `with_spans`, precision, recall and f1 of each sample [R], see `Task.resample`."""
    right = np.array([[sum(x == y for x, y in zip(a, b)), len(a)] for a, b in zip(true, predicted)])
    each = np.array([count([a], [b])[0].sum(1) for a, b in zip(true, predicted)])
    rows = []
    for drawn in draws:
        found = {"accuracy": right[drawn, 0].sum() / max(1, right[drawn, 1].sum())}
        if with_spans:
            found |= counts.scores(*each[drawn].sum(0))._asdict()
        rows.append(found)
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}
