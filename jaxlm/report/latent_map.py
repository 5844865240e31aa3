"""A page with a map of texts in two dimensions: one HTML file that needs no network."""

from __future__ import annotations

import collections
import html
import math
import pathlib
import re
from collections.abc import Callable, Sequence

import numpy as np

_TEMPLATE = pathlib.Path(__file__).with_suffix(".html")
# size of the map, and of its margins: left and below for the axes, right and above
_WIDTH, _HEIGHT, _AXES, _MARGIN = 960, 640, 56, 16
# classes with a colour of their own; the template has one more, for all others
_COLOURS = 8
OTHERS = "other classes"


def page(
    title: str,
    texts: Sequence[str],
    points: np.ndarray,
    fractions: np.ndarray,
    labels: Sequence[str] | None = None,
) -> str:
    """The page as HTML; the most frequent classes have colours, the others share one.

    Args:
        title: of the page.
        texts: shown when their point is chosen, N of them.
        points: [N, 2].
        fractions: of the variance, along each of the two [2].
        labels: the class of each text; None: there are no classes.
    """
    assert len(texts) == len(points) > 0
    counts = collections.Counter(labels or ())
    names = [name for name, _ in counts.most_common(_COLOURS)]
    colour = {name: min(i, _COLOURS) for i, (name, _) in enumerate(counts.most_common())}
    x, y = _places(points)
    circles = []
    for i, text in enumerate(texts):
        label, of = "", 0
        if labels is not None:
            label, of = f' data-label="{html.escape(labels[i])}"', colour[labels[i]]
        circles.append(
            f'<circle class="c{of}" cx="{x(points[i, 0]):.1f}" cy="{y(points[i, 1]):.1f}" r="4"{label} '
            f'data-text="{html.escape(text)}"/>'
        )
    others = sum(counts.values()) - sum(counts[name] for name in names)
    shown = [*((name, counts[name]) for name in names), *([(OTHERS, others)] if others else [])]
    parts = {
        "title": html.escape(title),
        "summary": f"{len(texts):,} texts by the two main directions of their posterior means.",
        "colours": "\n".join(f".c{i} {{ --c: var(--c{i}); }}" for i in range(_COLOURS + 1)),
        "legend": "".join(
            f'<button type="button" class="c{i}" aria-pressed="true">{html.escape(name)} ({n:,})</button>'
            for i, (name, n) in enumerate(shown)
        ),
        "width": str(_WIDTH),
        "height": str(_HEIGHT),
        "axes": _axes(points, fractions, x, y),
        "points": "\n".join(circles),
    }
    # in one pass, so that braces in a text stay what they are
    template = _TEMPLATE.read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


# from a coordinate to its place on the page
_Axis = Callable[[float], float]


def _places(points: np.ndarray) -> tuple[_Axis, _Axis]:
    """Both axes, with one scale: distances on the page are distances in the plane."""
    low, high = points.min(axis=0), points.max(axis=0)
    room = np.array([_WIDTH, _HEIGHT]) - _AXES - 2 * _MARGIN
    scale = float((room / np.maximum(high - low, 1e-9)).min())
    middle = (low + high) / 2
    return (
        lambda value: (_WIDTH + _AXES) / 2 + scale * (value - middle[0]),
        lambda value: (_HEIGHT - _AXES) / 2 - scale * (value - middle[1]),
    )


def _axes(points: np.ndarray, fractions: np.ndarray, x: _Axis, y: _Axis) -> str:
    """Grid lines with their numbers, and what the axes are."""
    right, bottom = _WIDTH - _MARGIN, _HEIGHT - _AXES
    lines = []
    for value in _ticks(points[:, 0]):
        at = f"{x(value):.1f}"
        lines.append(f'<line class="grid" x1="{at}" x2="{at}" y1="0" y2="{bottom}"/>')
        lines.append(f'<text x="{at}" y="{bottom + 18}" text-anchor="middle">{value:g}</text>')
    for value in _ticks(points[:, 1]):
        down = y(value)
        lines.append(
            f'<line class="grid" x1="{_AXES}" x2="{right}" y1="{down:.1f}" y2="{down:.1f}"/>'
        )
        lines.append(f'<text x="{_AXES - 6}" y="{down + 5:.1f}" text-anchor="end">{value:g}</text>')
    names = [f"component {i + 1}: {part:.1%} of the variance" for i, part in enumerate(fractions)]
    middle = bottom / 2
    lines.append(
        f'<text x="{(_AXES + right) / 2}" y="{_HEIGHT - 10}" text-anchor="middle">{names[0]}</text>'
    )
    lines.append(
        f'<text x="18" y="{middle}" text-anchor="middle" transform="rotate(-90 18 {middle})">'
        f"{names[1]}</text>"
    )
    return "\n".join(lines)


def _ticks(values: np.ndarray) -> list[float]:
    """Round numbers within the range of the values, about five."""
    low, high = float(values.min()), float(values.max())
    span = max(high - low, 1e-9)
    power = 10.0 ** math.floor(math.log10(span / 5))
    step = next(power * k for k in (1, 2, 5, 10) if span / (power * k) <= 6)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(i * step, 10) for i in range(first, last + 1)]
