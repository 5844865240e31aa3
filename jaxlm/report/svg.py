"""Small charts as SVG for a page, whose style sheet has their colours; each says in words what it shows."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxlm.report.formats import count, number

_WIDTH, _HEIGHT = 480, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 18, 12, 40


class Line(NamedTuple):
    """A line of a chart."""

    name: str
    # class of the style sheet: s0, s1, ...
    style: str
    x: np.ndarray
    y: np.ndarray
    # draw its points, each with its values
    dots: bool = False
    # draw it thin and pale
    pale: bool = False


class _Scale(NamedTuple):
    low: float
    high: float
    first: float
    last: float

    def __call__(self, value: float) -> float:
        """The place of a value."""
        return self.first + (value - self.low) / (self.high - self.low) * (self.last - self.first)


def lines(
    words: str, drawn: Sequence[Line], *, limits: tuple[float, float] | None = None, x_name: str
) -> str:
    """A chart of lines.

    Args:
        words: what it shows, for people who do not see it.
        drawn: with at least one point each.
        limits: of the values; default: those of the lines that are not pale, with some room.
        x_name: what is along the horizontal axis.
    """
    xs = np.concatenate([line.x for line in drawn])
    main = [line.y for line in drawn if not line.pale] or [line.y for line in drawn]
    ys = np.concatenate(main)
    low, high = limits or (float(ys.min()), float(ys.max()))
    if limits is None:
        room = 0.08 * (high - low) or 0.5 * abs(high) or 1.0
        low, high = low - room, high + room
    right = max(float(xs.max()), float(xs.min()) + 1e-9)
    x = _Scale(min(0.0, float(xs.min())), right, _LEFT, _WIDTH - _RIGHT)
    y = _Scale(low, high, _HEIGHT - _BOTTOM, _TOP)
    parts = [_axes(x, y, x_name)]
    for line in drawn:
        shown = np.clip(line.y, low, high)
        points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(line.x, shown))
        pale = " pale" if line.pale else ""
        if len(line.x) > 1:
            parts.append(f'<polyline class="{line.style}{pale}" points="{points}"/>')
        if line.dots or len(line.x) == 1:
            parts += [
                f'<circle class="{line.style}" cx="{x(a):.1f}" cy="{y(b):.1f}" r="3">'
                f"<title>{html.escape(line.name)} {number(float(v))} at {count(a)}</title></circle>"
                for a, b, v in zip(line.x, shown, line.y)
            ]
    return _svg(words, parts)


def histogram(words: str, values: np.ndarray, *, x_name: str, mark: float | None = None) -> str:
    """How often values occur, in at most 30 intervals of equal width; a dashed line at `mark`."""
    low, high = float(values.min()), max(float(values.max()), float(values.min()) + 1)
    step = max(1, math.ceil((high - low) / 30))
    edges = np.arange(low, high + step, step)
    counts, edges = np.histogram(values, edges)
    right = max(float(edges[-1]), mark or 0.0)
    x = _Scale(0.0, right, _LEFT, _WIDTH - _RIGHT)
    y = _Scale(0.0, float(counts.max()) * 1.05, _HEIGHT - _BOTTOM, _TOP)
    parts = [_axes(x, y, x_name)]
    for number_of, left, end in zip(counts, edges, edges[1:]):
        if number_of:
            height = y(0) - y(number_of)
            name = f"{left:g}" if step == 1 else f"{left:g} to {end - 1:g}"
            parts.append(
                f'<rect class="s0" x="{x(left):.1f}" y="{y(number_of):.1f}" '
                f'width="{max(x(end) - x(left) - 1, 1):.1f}" height="{height:.1f}">'
                f"<title>{name}: {number_of:,}</title></rect>"
            )
    if mark is not None:
        at = f"{x(mark):.1f}"
        parts.append(f'<line class="mark" x1="{at}" x2="{at}" y1="{_TOP}" y2="{y(0):.1f}"/>')
    return _svg(words, parts)


def reliability(
    words: str, counts: np.ndarray, confidence: np.ndarray, accuracy: np.ndarray
) -> str:
    """A reliability diagram: the fraction that is right in each interval of probability, and the diagonal."""
    bins, total = len(counts), max(int(counts.sum()), 1)
    x = _Scale(0.0, 1.0, _LEFT, _WIDTH - _RIGHT)
    y = _Scale(0.0, 1.0, _HEIGHT - _BOTTOM, _TOP)
    parts = [_axes(x, y, "probability of the predicted class")]
    for i in range(bins):
        if not counts[i]:
            continue
        left, width, top = x(i / bins), x(1 / bins) - x(0) - 1, y(accuracy[i])
        title = (
            f"{i / bins:.2f} to {(i + 1) / bins:.2f}: {counts[i]:,} examples ({counts[i] / total:.1%}), "
            f"mean probability {confidence[i]:.3f}, right {accuracy[i]:.3f}"
        )
        shade = 0.25 + 0.75 * math.sqrt(counts[i] / counts.max())
        parts.append(
            f'<rect class="s0" fill-opacity="{shade:.2f}" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" '
            f'height="{max(y(0) - top, 1):.1f}"><title>{title}</title></rect>'
            f'<circle class="s1" cx="{x(confidence[i]):.1f}" cy="{top:.1f}" r="3.5"><title>{title}</title></circle>'
        )
    parts.append(
        f'<line class="mark" x1="{x(0):.1f}" y1="{y(0):.1f}" x2="{x(1):.1f}" y2="{y(1):.1f}"/>'
    )
    return _svg(words, parts)


def _svg(words: str, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(words)}">\n'
        f"{body}\n</svg>"
    )


def _axes(x: _Scale, y: _Scale, x_name: str) -> str:
    """Grid lines with their numbers."""
    parts = []
    for value in ticks(y.low, y.high, 5):
        at = y(value)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text x="{_LEFT - 6}" y="{at + 5:.1f}" text-anchor="end">{_label(value)}</text>'
        )
    bottom = _HEIGHT - _BOTTOM
    for value in ticks(x.low, x.high, 6):
        parts.append(
            f'<text x="{x(value):.1f}" y="{bottom + 18}" text-anchor="middle">{_label(value)}</text>'
        )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        f'<text class="name" x="{middle}" y="{_HEIGHT - 5}" text-anchor="middle">{html.escape(x_name)}</text>'
    )
    return "\n".join(parts)


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most about `most` round numbers from `low` to `high`."""
    span = max(high - low, 1e-12)
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * k for k in (1, 2, 5, 10, 20) if span / (power * k) <= most)
    return [
        round(i * step, 12)
        for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def _label(value: float) -> str:
    """A tick's number, short."""
    return count(value) if abs(value) >= 1000 else f"{value:g}"
