"""The funnel of a refined folder as a picture and as plain text."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxlm.report import formats

# of a picture that stands alone; a page has colours of its own under the same names
STYLE = """<style>
:root {
  color-scheme: light dark; --card: #fff; --ink: #27313b; --quiet: #5b6670; --line: #dfe4e9;
  --s0: #2868b0; --s1: #c2500f; --s2: #7a4fa3;
}
@media (prefers-color-scheme: dark) {
  :root {
    --card: #1c2229; --ink: #e4e9ee; --quiet: #a0abb6; --line: #303841;
    --s0: #6ea8ec; --s1: #f08b4b; --s2: #b794e0;
  }
}
svg { background: var(--card); font-family: system-ui, sans-serif; }
text { fill: var(--quiet); font-size: 14px; } text.strong { fill: var(--ink); font-weight: 600; }
.s0 { fill: var(--s0); } .s1 { fill: var(--s1); } .s2 { fill: var(--s2); } .track { fill: var(--line); }
</style>"""


class Row(NamedTuple):
    """A stage of the picture; its fractions of documents and of bytes are those of all that came in.

    After extraction they are fractions of the extracted bytes: a page is mostly markup, beside which no text is seen.
    """

    name: str
    documents: int
    bytes: int
    kept: tuple[float, float]
    dropped: tuple[float, float]
    # bytes that were taken out of documents that the stage kept
    edited: float
    # fraction of the documents that reached the stage
    lost: float
    seconds: float


def title(name: str) -> str:
    """A name of a stage or rule as people read it."""
    return name.replace("_", " ")


def fraction(part: float, whole: float) -> float:
    """The fraction; 0 of nothing."""
    return part / whole if whole else 0.0


def percent(value: float) -> str:
    """Three digits, and never 0% or 100% for what is not none or all: 0%, <0.01%, 0.12%, 24.3%, 99.9%, 100%."""
    if value in (0, 1):
        return f"{value:.0%}"
    if abs(value) < 0.0001:
        return "<0.01%"
    if 0.9995 <= value < 1:
        return ">99.9%"
    return f"{value:.2%}" if abs(value) < 0.01 else f"{value:.1%}"


def time(seconds: float) -> str:
    """A duration: 0.42s, 8.1s, 1m12s."""
    return f"{seconds:.2g}s" if seconds < 9.95 else formats.duration(seconds)


def size(num_bytes: float) -> str:
    """A number of bytes, also one that was added."""
    return "-" + formats.size(-num_bytes) if num_bytes < 0 else formats.size(num_bytes)


def dropped_by(stage: Mapping[str, Any], unit: str) -> int:
    """`documents` or `bytes` that a stage dropped, by all of its rules."""
    return sum(rule[unit] for rule in stage["dropped"].values())


def rows(funnel: Mapping[str, Any]) -> list[Row]:
    """The stages in their order."""
    stages: Sequence[Mapping[str, Any]] = funnel["stages"]
    if not stages:
        return []
    documents, size_in = stages[0]["documents_in"], stages[0]["bytes_in"]
    out = []
    for stage in stages:
        row = Row(
            name=stage["name"],
            documents=stage["documents_out"],
            bytes=stage["bytes_out"],
            kept=(
                fraction(stage["documents_out"], documents),
                fraction(stage["bytes_out"], size_in),
            ),
            dropped=(
                fraction(dropped_by(stage, "documents"), documents),
                fraction(dropped_by(stage, "bytes"), size_in),
            ),
            edited=fraction(stage["bytes_edited"], size_in),
            lost=fraction(dropped_by(stage, "documents"), stage["documents_in"]),
            seconds=stage["seconds"],
        )
        out.append(row)
        if stage["name"] == "extraction":
            size_in = stage["bytes_out"]
    return out


def table(funnel: Mapping[str, Any]) -> str:
    """The funnel as text for a terminal, at most 80 columns wide."""
    lines = [
        f"{'stage':<16}{'documents':>13}{'kept':>8}{'dropped':>13}{'of stage':>10}{'bytes':>10}{'time':>9}"
    ]
    for stage, row in zip(funnel["stages"], rows(funnel)):
        dropped = dropped_by(stage, "documents")
        lines.append(
            f"{title(row.name):<16}{row.documents:>13,}{percent(row.kept[0]):>8}{dropped:>13,}"
            f"{percent(row.lost):>10}{formats.size(row.bytes):>10}{time(row.seconds):>9}"
        )
    return "\n".join(lines)


def wide(funnel: Mapping[str, Any], *, style: str = "") -> str:
    """The picture as SVG, 1000 wide, in columns.

    Args:
        funnel: as in funnel.json.
        style: a style sheet, for a picture that is not on a page.
    """
    shown = rows(funnel)
    slowest = max((row.seconds for row in shown), default=0.0)
    head = 34
    parts = [
        f'<text x="{x}" y="20" text-anchor="{anchor}">{words}</text>'
        for x, anchor, words in (
            (8, "start", "after stage"),
            (150, "start", "documents kept"),
            (475, "start", "bytes kept"),
            (866, "end", "dropped"),
            (885, "start", "time"),
        )
    ]
    for i, row in enumerate(shown):
        y = head + 36 * i
        parts += [
            f'<text class="strong" x="8" y="{y + 18}">{_name(row)}</text>',
            *_bar(row, 0, (150, y, 200, 24)),
            f'<text x="358" y="{y + 18}">{formats.count(row.documents)}, {_percent(row.kept[0])}</text>',
            *_bar(row, 1, (475, y, 200, 24)),
            f'<text x="683" y="{y + 18}">{formats.size(row.bytes)}, {_percent(row.kept[1])}</text>',
            f'<text class="strong" x="866" y="{y + 18}" text-anchor="end">{_percent(row.lost)}</text>',
            f'<rect class="track" x="885" y="{y}" width="{40 * fraction(row.seconds, slowest):.1f}" height="24"/>',
            f'<text x="932" y="{y + 18}">{time(row.seconds)}</text>',
        ]
    return _svg(funnel, 1000, head + 36 * len(shown), [style, *parts])


def narrow(funnel: Mapping[str, Any]) -> str:
    """The picture as SVG, 360 wide, for a phone."""
    parts = []
    shown = rows(funnel)
    for i, row in enumerate(shown):
        y = 66 * i
        parts += [
            f'<text class="strong" x="0" y="{y + 16}">{_name(row)}</text>',
            f'<text x="360" y="{y + 16}" text-anchor="end">dropped {_percent(row.lost)} in {time(row.seconds)}</text>',
            *_bar(row, 0, (0, y + 23, 240, 14)),
            f'<text x="248" y="{y + 35}">{formats.count(row.documents)} docs</text>',
            *_bar(row, 1, (0, y + 40, 240, 14)),
            f'<text x="248" y="{y + 52}">{formats.size(row.bytes)}</text>',
        ]
    return _svg(funnel, 360, 66 * len(shown), parts)


def _svg(funnel: Mapping[str, Any], width: int, height: int, parts: Sequence[str]) -> str:
    words = "; ".join(
        f"after {title(row.name)} {percent(row.kept[0])} of the documents and {percent(row.kept[1])} of the bytes"
        for row in rows(funnel)
    )
    body = "\n".join(filter(None, parts))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{html.escape("What was kept: " + words)}">\n{body}\n</svg>'
    )


def _percent(value: float) -> str:
    return html.escape(percent(value))


def _name(row: Row) -> str:
    return html.escape(title(row.name))


def _bar(row: Row, unit: int, box: tuple[int, int, int, int]) -> list[str]:
    """What a stage kept, dropped and took out, of all that came in: rectangles side by side in a box (x, y, w, h)."""
    x, y, width, height = box
    what = ("documents", "bytes")[unit]
    parts = [f'<rect class="track" x="{x}" y="{y}" width="{width}" height="{height}"/>']
    at = float(x)
    pieces = [("s0", row.kept[unit], "kept"), ("s1", row.dropped[unit], "dropped here")]
    if unit:
        pieces.append(("s2", row.edited, "taken out of documents that were kept"))
    for style, part, words in pieces:
        # what is there is seen; text may have grown, then the bars could leave their box
        length = min(max(part * width, 1.0), x + width - at) if part > 0 else 0.0
        if length > 0:
            parts.append(
                f'<rect class="{style}" x="{at:.1f}" y="{y}" width="{length:.1f}" height="{height}">'
                f"<title>{_name(row)}: {_percent(part)} of all {what} {words}</title></rect>"
            )
            at += length
    return parts
