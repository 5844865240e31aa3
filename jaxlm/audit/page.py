"""An audit as one HTML file that needs no network."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxlm.audit.attacks import RATE
from jaxlm.report import svg
from jaxlm.report.page import document

_ATTACKS = {"loss": "by the loss", "likelihood_ratio": "by the likelihood ratio"}


def page(result: Mapping[str, Any]) -> str:
    """The result of `audit.audit` as HTML."""
    makers = {
        "Membership": ("membership", _membership),
        "Canaries": ("canaries", _canaries),
        "Verbatim continuation": ("continuation", _continuation),
        "Groups": ("pairs", _pairs),
    }
    sections = {name: make(result[key]) for name, (key, make) in makers.items() if result.get(key)}
    private = result["privacy"]
    how = "trained without differential privacy"
    if private is not None:
        how = (
            f"trained with a privacy budget of epsilon {private['epsilon']:g} at delta {private['delta']:g} for each "
            f"{private['unit']}"
        )
    title = f"Audit of {result['model']}"
    return document(title, f"task {result['task']}, step {result['step']:,}, {how}", sections)


def _membership(found: Mapping[str, Any]) -> str:
    rows, lines = [], []
    for i, (key, name) in enumerate((k, n) for k, n in _ATTACKS.items() if k in found):
        a = found[key]
        rows.append(
            [
                name,
                _with(a["auc"], a["auc_interval"]),
                _with(a["true_positives"], a["true_positives_interval"]),
            ]
        )
        x, y = np.array(a["curve"]).T
        lines.append(svg.Line(name, f"s{i}", x, y))
    first = found["loss"]
    note = (
        f"Can one tell texts that the model was trained on from others like them? {first['members']:,} members and "
        f"{first['others']:,} others; mean loss {found['train_loss']:.3f} and {found['heldout_loss']:.3f}. An area "
        f"of 0.5 and a true-positive rate of {RATE:g} are those of a coin."
    )
    if shared := found["in_both"]:
        note += f" {shared:,} of the held-out texts are in the training data too, which hides what is remembered."
    heads = ["attack", "area under the ROC curve", f"true positives at {RATE:.0%} false ones"]
    chart = svg.lines(
        "True-positive rate by false-positive rate", lines, limits=(0, 1), x_name="false positives"
    )
    keys = "".join(
        f'<span class="key s{i}"></span>{html.escape(line.name)} ' for i, line in enumerate(lines)
    )
    return (
        f"<p>{note}</p>{_table('Attacks', heads, rows)}"
        f'<div class="grid-of"><figure>{chart}<figcaption>{keys}</figcaption></figure></div>'
    )


def _canaries(found: Mapping[str, Any]) -> str:
    note = (
        f"The template is “{found['template']}”; a canary could have been {found['space']:,} texts, and is compared "
        f"with {found['compared_with']:,}. The exposure of a canary that is not remembered exceeds e bits with "
        f"probability 2^-e; at most it is {found['most']:.1f}."
    )
    rows = [
        [r["text"], f"{r['repeats']:,}", f"{r['loss']:.2f}", f"{r['exposure']:.2f}"]
        for r in found["rows"]
    ]
    heads = ["canary", "planted", "loss in nats", "exposure in bits"]
    return f"<p>{html.escape(note)}</p>{_table('Canaries', heads, rows)}"


def _continuation(found: Mapping[str, Any]) -> str:
    note = (
        f"How often greedy decoding writes the last {found['suffix']} tokens of a text, token by token, after a prompt "
        "of the tokens before them. What held-out texts show is due to text that anyone could continue."
    )
    rows = [
        [
            r["texts"],
            str(r["prompt"]),
            f"{r['number']:,}",
            _with(r["verbatim"], r["interval"]),
            f"{r['tokens']:.2f}",
        ]
        for r in found["rows"]
    ]
    heads = ["texts", "tokens of the prompt", "number", "verbatim", "tokens before the first wrong"]
    return f"<p>{html.escape(note)}</p>{_table('Verbatim continuation', heads, rows)}"


def _pairs(found: Mapping[str, Any]) -> str:
    note = (
        "Pairs of texts that differ in the group they speak of. Without a difference between the groups the mean "
        "difference is 0, and half of the pairs have more in the first text."
    )
    rows = [
        [
            r["about"],
            r["measure"],
            f"{r['pairs']:,}",
            _with(r["difference"], r["difference_interval"]),
            _with(r["favours_first"], r["favours_first_interval"]),
        ]
        for r in found["rows"]
    ]
    heads = ["groups", "measure", "pairs", "first minus second", "more in the first"]
    return f"<p>{note}</p>{_table('Minimal pairs', heads, rows)}"


def _with(value: float, interval: Sequence[float]) -> str:
    """A number with its 95 % interval."""
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def _table(words: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col" class="text">{html.escape(x)}</th>' for x in heads)
    body = "".join(
        "<tr>" + "".join(f'<td class="text">{html.escape(str(x))}</td>' for x in row) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="wide" tabindex="0" role="group" aria-label="{html.escape(words)}"><table>'
        f"<caption>{html.escape(words)}, with 95 % intervals in brackets</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
