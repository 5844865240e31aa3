"""The report of a run: one HTML file that needs no network. It is given everything and computes nothing."""

from __future__ import annotations

import dataclasses
import html
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxlm.report import svg
from jaxlm.report.formats import number
from jaxlm.report.series import series, smoothed
from jaxlm.tasks import calibration, scores

_TEMPLATE = pathlib.Path(__file__).with_name("report.html")
# classes with a row and a column of the confusion matrix; of more, the most frequent confusions are listed
_MOST_CLASSES = 20
# characters of a text in a table
_MOST_TEXT = 600


@dataclasses.dataclass(frozen=True)
class Example:
    """A record with its prediction."""

    where: str
    # (name of the column, text)
    inputs: tuple[tuple[str, str], ...]
    answer: str
    prediction: str
    # how sure the model was, or how large the error is
    note: str = ""
    right: bool | None = None


@dataclasses.dataclass(frozen=True)
class Classes:
    """What a task with one class for each example has besides."""

    labels: Sequence[str]
    # [C true, C predicted]
    confusion: np.ndarray
    bins: calibration.Bins | None = None


@dataclasses.dataclass(frozen=True)
class Report:
    """The contents of a report."""

    title: str
    subtitle: str
    metrics: Mapping[str, float]
    # name of the metric that the task is judged by
    main: str
    settings: Mapping[str, Any]
    intervals: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    # name -> value, about the run and its data
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    # of metrics.jsonl
    history: Sequence[dict[str, Any]] = ()
    classes: Classes | None = None
    # heading -> (what these are, examples)
    examples: Mapping[str, tuple[str, Sequence[Example]]] = dataclasses.field(default_factory=dict)
    # (where a text is from, its loss in nats per token, its tokens with their losses)
    texts: Sequence[tuple[str, float, Sequence[tuple[str, float]]]] = ()
    # tokens of each row, and how many a row can have
    lengths: np.ndarray | None = None
    longest: int = 0


def page(report: Report) -> str:
    """The report as HTML."""
    sections = {
        "Results": _results(report),
        "Curves": _curves(report.history),
        "Classes": "" if report.classes is None else _classes(report.classes),
        "Calibration": "" if report.classes is None else _calibration(report.classes),
        **{name: _examples(*shown) for name, shown in report.examples.items()},
        "Worst texts": _texts(report.texts),
        "Lengths": _lengths(report.lengths, report.longest),
        "Run": _facts(report.facts),
        "Settings": _settings(report.settings),
    }
    return document(
        report.title, report.subtitle, {name: body for name, body in sections.items() if body}
    )


def document(title: str, subtitle: str, sections: Mapping[str, str]) -> str:
    """A page of sections: heading -> HTML. Title, subtitle and headings are plain text."""
    ids = {name: re.sub(r"\W+", "-", name.lower()) for name in sections}
    parts = {
        "title": html.escape(title),
        "subtitle": html.escape(subtitle),
        "nav": "\n".join(f'<a href="#{ids[name]}">{html.escape(name)}</a>' for name in sections),
        "sections": "\n".join(
            f'<section id="{ids[name]}" aria-labelledby="{ids[name]}-h">'
            f'<h2 id="{ids[name]}-h">{html.escape(name)}</h2>\n{body}\n</section>'
            for name, body in sections.items()
        ),
    }
    # in one pass, so that braces in a text stay what they are
    template = _TEMPLATE.read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def _results(report: Report) -> str:
    tiles = []
    for name in sorted(report.metrics, key=lambda name: name != report.main):
        interval = report.intervals.get(name)
        low_high = (
            f"<small>95%: {number(interval[0], 3)} to {number(interval[1], 3)}</small>"
            if interval
            else ""
        )
        style = ' class="main"' if name == report.main else ""
        tiles.append(
            f"<div{style}><dt>{_words(name)}</dt><dd>{number(report.metrics[name])}{low_high}</dd></div>"
        )
    note = (
        "<p>Intervals by resampling the examples: how much a number would differ with other examples from the same "
        "source, not with another seed.</p>"
        if report.intervals
        else ""
    )
    return f'{note}<dl class="tiles">{"".join(tiles)}</dl>'


def _curves(history: Sequence[dict[str, Any]]) -> str:
    rows = list(history)
    figures = []
    steps, raw = series(rows, "loss")
    at, evaluated = series(rows, "eval/loss")
    drawn = []
    if len(steps):
        if len(steps) > 80:
            drawn.append(svg.Line("training", "s0", steps, raw, pale=True))
        drawn.append(svg.Line("training", "s0", steps, smoothed(raw)))
    if len(at):
        drawn.append(svg.Line("validation", "s1", at, evaluated, dots=True))
    if drawn:
        last = [
            f"{line.name} ends at {number(float(line.y[-1]))}" for line in drawn if not line.pale
        ]
        key = '<span class="key s0"></span>training<span class="key s1"></span>validation'
        figures.append(_figure("loss", f"Loss by step: {'; '.join(last)}", drawn, key))
    names = sorted({name for row in rows for name in row if name.startswith("eval/")})
    for name in [*names, "learning_rate", "grad_norm"]:
        x, y = series(rows, name)
        # a single value is among the results already
        if name == "eval/loss" or len(x) < 2:
            continue
        is_eval = name.startswith("eval/")
        plain = _words(name.removeprefix("eval/"))
        drawn = [svg.Line(plain, "s1" if is_eval else "s0", x, y, dots=is_eval)]
        words = f"{plain} by step: from {number(float(y[0]))} to {number(float(y[-1]))}"
        figures.append(_figure(plain, words, drawn))
    return f'<div class="grid-of">{"".join(figures)}</div>' if figures else ""


def _figure(title: str, words: str, drawn: Sequence[svg.Line], key: str = "") -> str:
    caption = f"<figcaption>{key}</figcaption>" if key else ""
    chart = svg.lines(words, drawn, x_name="step")
    return f"<figure><h3>{title}</h3>{chart}{caption}</figure>"


def _classes(classes: Classes) -> str:
    confusion, labels = classes.confusion, classes.labels
    table = scores.table(confusion, labels)["classes"]
    order = sorted(table, key=lambda name: -table[name]["support"])
    rows = "".join(
        f'<tr><th scope="row" class="text">{html.escape(name)}</th>'
        + "".join(f"<td>{table[name][score]:.3f}</td>" for score in ("precision", "recall", "f1"))
        + f"<td>{table[name]['support']:,.0f}</td></tr>"
        for name in order[:60]
    )
    more = f"<p>The 60 most frequent of {len(order)} classes.</p>" if len(order) > 60 else ""
    heads = "".join(f'<th scope="col">{x}</th>' for x in ("precision", "recall", "F1", "examples"))
    scores_table = (
        f"{_open('Scores by class')}<caption>Scores by class</caption>"
        '<thead><tr><th scope="col" class="text">class</th>'
        f"{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
    matrix = (
        _matrix(confusion, labels) if len(labels) <= _MOST_CLASSES else _pairs(confusion, labels)
    )
    return f'{more}<div class="grid-of">{scores_table}{matrix}</div>'


def _matrix(confusion: np.ndarray, labels: Sequence[str]) -> str:
    """The confusion matrix as a table whose cells are shaded by the fraction of their row."""
    heads = "".join(
        f'<th scope="col"><span>{html.escape(_short(x, 24))}</span></th>' for x in labels
    )
    rows = []
    for i, name in enumerate(labels):
        total = max(confusion[i].sum(), 1)
        cells = []
        for j, value in enumerate(confusion[i]):
            alpha = 0.75 * value / total
            style = f' style="background: rgba(var(--strong), {alpha:.2f})"' if value else ""
            shown = f"<strong>{value:,.0f}</strong>" if i == j else f"{value:,.0f}" if value else ""
            cells.append(f"<td{style}>{shown}</td>")
        rows.append(
            f'<tr><th scope="row">{html.escape(_short(name, 24))}</th>{"".join(cells)}</tr>'
        )
    return (
        f"{_open('Confusion matrix', 'confusion')}<caption>Confusion matrix: true classes down, predicted ones "
        f"across</caption><thead><tr><td></td>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _pairs(confusion: np.ndarray, labels: Sequence[str]) -> str:
    """The most frequent confusions."""
    off = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-off, axis=None, kind="stable")[:20]
    rows = []
    for i, j in zip(*np.unravel_index(order, off.shape)):
        if off[i, j]:
            rows.append(
                f'<tr><td class="text">{html.escape(labels[i])}</td><td class="text">{html.escape(labels[j])}</td>'
                f"<td>{off[i, j]:,.0f}</td><td>{off[i, j] / max(confusion[i].sum(), 1):.1%}</td></tr>"
            )
    return (
        f"{_open('Confusions')}<caption>The most frequent confusions</caption><thead><tr>"
        '<th scope="col" class="text">true</th><th scope="col" class="text">predicted</th>'
        '<th scope="col">examples</th><th scope="col">of the class</th>'
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _calibration(classes: Classes) -> str:
    bins = classes.bins
    if bins is None:
        return ""
    words = f"Reliability diagram: expected calibration error {bins.error:.3f}. " + "; ".join(
        f"probability {p:.2f}, right {a:.2f}, {int(n)} examples"
        for n, p, a in zip(bins.counts, bins.confidence, bins.accuracy)
        if n
    )
    mean = float((bins.counts * bins.confidence).sum() / max(bins.counts.sum(), 1))
    accuracy = float((bins.counts * bins.accuracy).sum() / max(bins.counts.sum(), 1))
    tendency = "more" if mean > accuracy else "less"
    return (
        f"<p>Expected calibration error {bins.error:.3f}: the mean distance between the probability of a prediction "
        f"and how often such predictions are right, in {len(bins.counts)} intervals (Guo et al. 2017, equation 3). "
        f"The model is {tendency} confident ({mean:.3f} on average) than right ({accuracy:.3f}).</p>"
        f'<div class="grid-of"><figure>{svg.reliability(words, *bins)}'
        '<figcaption><span class="key s0"></span>fraction that is right; darker: more examples'
        '<span class="key s1"></span>at the mean probability; dashed: perfect calibration</figcaption></figure></div>'
    )


def _examples(what: str, examples: Sequence[Example]) -> str:
    if not examples:
        return ""
    names = list(dict.fromkeys(name for e in examples for name, _ in e.inputs))
    has_note = any(e.note for e in examples)
    heads = [*names, "answer", "prediction", *([""] if has_note else [])]
    rows = []
    for e in examples:
        given = dict(e.inputs)
        cells = [f'<td class="text">{_text(given.get(name, ""))}</td>' for name in names]
        cells[0] = cells[0].replace(
            "</td>", f'<span class="more">{html.escape(e.where)}</span></td>'
        )
        style = {None: "", True: " right", False: " wrong"}[e.right]
        cells.append(f'<td class="text">{_text(e.answer)}</td>')
        cells.append(f'<td class="text{style}">{_text(e.prediction)}</td>')
        if has_note:
            cells.append(f"<td>{html.escape(e.note)}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(f'<th scope="col" class="text">{html.escape(x)}</th>' for x in heads)
    return (
        f"<p>{html.escape(what)}</p>{_open('Examples', 'examples')}<thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _texts(texts: Sequence[tuple[str, float, Sequence[tuple[str, float]]]]) -> str:
    if not texts:
        return ""
    parts = [
        "<p>The texts with the highest loss per token, in nats. The darker a token, the less the model expected it; "
        "its loss is in its tooltip.</p>"
    ]
    for where, loss, tokens in texts:
        spans = "".join(
            f'<span style="background: rgba(var(--loss), {min(nats / 12, 1) * 0.8:.2f})" title="{nats:.2f}">'
            f"{html.escape(piece)}</span>"
            for piece, nats in tokens
        )
        parts.append(
            f'<h3>{number(loss)} <span class="more">{html.escape(where)}</span></h3><p class="tokens">{spans}</p>'
        )
    return "".join(parts)


def _lengths(lengths: np.ndarray | None, longest: int) -> str:
    if lengths is None or not len(lengths):
        return ""
    full = float((lengths >= longest).mean())
    words = (
        f"Tokens per row: median {np.median(lengths):.0f}, 95% have at most {np.percentile(lengths, 95):.0f}, "
        f"the longest {lengths.max():.0f}; {full:.1%} fill all {longest}"
    )
    chart = svg.histogram(words, lengths, x_name="tokens per row", mark=longest)
    cut = " and may have been cut" if full else ""
    return f'<p>{words}{cut}.</p><div class="grid-of"><figure>{chart}</figure></div>'


def _open(words: str, style: str = "") -> str:
    """The start of a table, which can be scrolled by the keyboard where it is too wide."""
    return (
        f'<div class="wide" tabindex="0" role="group" aria-label="{words}"><table class="{style}">'
    )


def _facts(facts: Mapping[str, str]) -> str:
    rows = "".join(
        f'<tr><th scope="row" class="text">{html.escape(name)}</th><td class="text">{html.escape(value)}</td></tr>'
        for name, value in facts.items()
    )
    return f"{_open('About the run')}<tbody>{rows}</tbody></table></div>" if rows else ""


def _settings(settings: Mapping[str, Any]) -> str:
    text = html.escape(json.dumps(settings, indent=2, ensure_ascii=False))
    return f"<details><summary>All settings, as in config.json</summary><pre>{text}</pre></details>"


def _text(text: str) -> str:
    return html.escape(_short(text, _MOST_TEXT))


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _words(name: str) -> str:
    return html.escape(name.replace("_", " "))
