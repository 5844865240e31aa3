"""What became of every document: the funnel as a picture, and a page on which a person reads what was removed and why.

`write` reads a finished folder of `jaxlm refine`:

    funnel.json
        {"recipe": "refinedweb", "inputs": ["..."], "finished": "2026-11-27T13:00:00+00:00", "seconds": 12.3,
         "versions": {...},
         "stages": [{"name": "read", "source": "", "seconds": 1.2,
                     "documents_in": 1000, "bytes_in": 123456, "documents_out": 990, "bytes_out": 120000,
                     "bytes_edited": 0, "dropped": {"damaged": {"documents": 10, "bytes": 3456}}}, ...],
         "output": {"documents": 200, "bytes": 20000, "files": 4}, "kept_dropped": false}
        In each stage documents_in = documents_out + dropped documents, and bytes_in = bytes_out + bytes_edited +
        dropped bytes; bytes are UTF-8 bytes of the text, of the page before extraction. bytes_edited is what was taken
        out of documents that were kept (extraction, corrections, cuts); it is negative where text grew.
    dropped/<stage>/NNNNN.jsonl.zst
        A JSON object a line: id, url, language, stage, rule, value, threshold, text. With --keep-dropped all dropped
        documents, otherwise the first 20 of a rule and task; texts are those before the stage. A document that a stage
        changed but kept has the rule "edited". What a stage took out, or would have taken out of a document that it
        dropped, is in "removed", a list of [rule, text] in the order of the text; it is marked in the text.

Texts are data: they go into the page as JSON without a character that could end it, the page makes text nodes of them,
and its security policy runs no script but its own.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import html
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from jaxlm.config import json_text
from jaxlm.refine import picture, samples
from jaxlm.refine.picture import dropped_by, fraction, percent, title
from jaxlm.report import formats

_TEMPLATE = pathlib.Path(__file__).with_suffix(".html")
table = picture.table


def write(folder: pathlib.Path) -> pathlib.Path:
    """Writes funnel.svg and report.html into a finished folder of `jaxlm refine`; returns the path of the page.

    Raises:
        ValueError: there is no funnel.json, or a file of dropped documents cannot be read.
    """
    path = folder / "funnel.json"
    if not path.is_file():
        raise ValueError(
            f"{folder}: there is no funnel.json; name a folder that `jaxlm refine` has finished"
        )
    funnel = json_text.read_object(path)
    svg = picture.wide(funnel, style=picture.STYLE)
    (folder / "funnel.svg").write_text(svg + "\n", encoding="utf-8")
    out = folder / "report.html"
    out.write_text(page(funnel, samples.read(folder / "dropped")), encoding="utf-8")
    return out


def page(funnel: Mapping[str, Any], documents: samples.Samples) -> str:
    """The page as HTML."""
    name = f"Refining: {title(funnel['recipe'])}"
    template = _TEMPLATE.read_text(encoding="utf-8")
    script = re.search(r"<script>(.*?)</script>", template, re.S)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    order = {stage["name"]: i for i, stage in enumerate(funnel["stages"])}
    parts = {
        "title": html.escape(name),
        "subtitle": html.escape(_subtitle(funnel)),
        "script_hash": f"sha256-{digest}",
        "account": _account(funnel),
        "tiles": _tiles(funnel),
        "wide": picture.wide(funnel),
        "narrow": picture.narrow(funnel),
        "rules": _rules(funnel, documents),
        "bounds": html.escape(documents.bounds),
        "documents": _json(sorted(documents.documents, key=lambda of: order.get(of["stage"], -1))),
        "facts": _facts(funnel),
    }
    # in one pass, so that braces in a text stay what they are; the script has none
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def _json(value: object) -> str:
    """JSON for a script element: no character of it can end the element or begin a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # JavaScript's line separators, and halves of surrogate pairs, which have no UTF-8
    return re.sub("[<>&\u2028\u2029\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _subtitle(funnel: Mapping[str, Any]) -> str:
    inputs = funnel["inputs"]
    shown = ", ".join(inputs[:3]) + (f" and {len(inputs) - 3} more" if len(inputs) > 3 else "")
    return f"{shown}; finished {_moment(funnel['finished'])}"


def _moment(text: str) -> str:
    """A time as in funnel.json, as people write it."""
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{moment:%Y-%m-%d %H:%M} {moment.tzname() or ''}".rstrip()


def _tiles(funnel: Mapping[str, Any]) -> str:
    stages, output = funnel["stages"], funnel["output"]
    if not stages:
        return ""
    documents, size = stages[0]["documents_in"], stages[0]["bytes_in"]
    kept = output["documents"]
    edited = sum(stage["bytes_edited"] for stage in stages)
    files = f"{output['files']:,} file{'' if output['files'] == 1 else 's'}"
    tiles = (
        ("documents in", f"{documents:,}", formats.size(size)),
        (
            "documents kept",
            f"{kept:,}",
            f"{percent(fraction(kept, documents))} of what came in, {files}",
        ),
        (
            "bytes kept",
            formats.size(output["bytes"]),
            f"{percent(fraction(output['bytes'], size))} of what came in",
        ),
        (
            "documents dropped",
            f"{sum(dropped_by(stage, 'documents') for stage in stages):,}",
            formats.size(sum(dropped_by(stage, "bytes") for stage in stages)),
        ),
        ("taken out of kept documents", picture.size(edited), percent(fraction(edited, size))),
        (
            "time",
            picture.time(funnel["seconds"]),
            f"stages together {picture.time(sum(stage['seconds'] for stage in stages))}",
        ),
    )
    return "".join(
        f"<div><dt>{name}</dt><dd>{value}<small>{html.escape(note)}</small></dd></div>"
        for name, value, note in tiles
    )


def _account(funnel: Mapping[str, Any]) -> str:
    """Whether the numbers add up, in words."""
    stages, output = funnel["stages"], funnel["output"]
    if not stages:
        return ""
    wrong = []
    for i, stage in enumerate(stages):
        for unit, edited in (("documents", 0), ("bytes", stage["bytes_edited"])):
            left = stage[f"{unit}_in"] - stage[f"{unit}_out"] - dropped_by(stage, unit) - edited
            following = stages[i + 1][f"{unit}_in"] if i + 1 < len(stages) else output[unit]
            if left or following != stage[f"{unit}_out"]:
                wrong.append(f"{unit} of {title(stage['name'])}")
    if wrong:
        return f'<p class="wrong" role="alert">The account does not add up: {html.escape(", ".join(wrong))}.</p>'
    dropped = sum(dropped_by(stage, "documents") for stage in stages)
    return (
        f"<p>Every document is accounted for: {stages[0]['documents_in']:,} in = {output['documents']:,} kept + "
        f"{dropped:,} dropped; in every stage the bytes add up too.</p>"
    )


def _rules(funnel: Mapping[str, Any], documents: samples.Samples) -> str:
    """A table with a group of rows for each stage, a row for each of its rules."""
    stages = funnel["stages"]
    if not stages:
        return ""
    all_documents = stages[0]["documents_in"]
    groups = []
    for stage in stages:
        head = (
            f'<tr class="stage"><th scope="rowgroup" class="text">{html.escape(title(stage["name"]))}</th>'
            f"{_cells(stage, dropped_by(stage, 'documents'), dropped_by(stage, 'bytes'), all_documents)}"
            f"<td>{_read(documents, stage['name'], '')}</td></tr>"
        )
        lines = [head]
        if stage["source"]:
            source = html.escape(stage["source"])
            lines.append(f'<tr class="stage"><td colspan="6" class="source">{source}</td></tr>')
        ordered = sorted(stage["dropped"].items(), key=lambda item: (-item[1]["documents"], item))
        for rule, dropped in ordered:
            cells = _cells(stage, dropped["documents"], dropped["bytes"], all_documents)
            lines.append(
                f'<tr><th scope="row" class="text">{html.escape(title(rule))}</th>{cells}'
                f"<td>{_read(documents, stage['name'], rule)}</td></tr>"
            )
        changed = documents.counts.get((stage["name"], samples.EDITED), 0)
        if stage["bytes_edited"] or changed:
            lines.append(
                f'<tr><th scope="row" class="text">taken out of documents that were kept</th><td></td>'
                f'<td class="on-desk">{picture.size(stage["bytes_edited"])}</td><td></td><td class="on-desk"></td>'
                f"<td>{_read(documents, stage['name'], samples.EDITED)}</td></tr>"
            )
        groups.append(f"<tbody>{''.join(lines)}</tbody>")
    return "".join(groups)


def _cells(stage: Mapping[str, Any], documents: int, num_bytes: int, all_documents: int) -> str:
    of_all = fraction(documents, all_documents)
    bar = (
        f'<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true"><rect class="track" '
        f'width="100" height="8"/><rect class="s1" width="{100 * of_all:.2f}" height="8"/></svg>'
    )
    return (
        f'<td>{documents:,}</td><td class="on-desk">{picture.size(num_bytes)}</td>'
        f"<td>{html.escape(percent(of_all))}{bar}</td>"
        f'<td class="on-desk">{html.escape(percent(fraction(documents, stage["documents_in"])))}</td>'
    )


def _read(documents: samples.Samples, stage: str, rule: str) -> str:
    """The button that opens the documents of a rule, or of a stage."""
    if rule:
        num = documents.counts.get((stage, rule), 0)
    else:
        num = sum(n for (of, _), n in documents.counts.items() if of == stage)
    if not num:
        return ""
    words = html.escape(f"Read {num} of {title(stage)}" + (f", {title(rule)}" if rule else ""))
    return (
        f'<button type="button" data-stage="{html.escape(stage)}" data-rule="{html.escape(rule)}" '
        f'aria-label="{words}"><span class="on-desk">Read </span>{num}</button>'
    )


def _facts(funnel: Mapping[str, Any]) -> str:
    facts = {
        "recipe": funnel["recipe"],
        "inputs": "\n".join(funnel["inputs"][:50])
        + (f"\nand {len(funnel['inputs']) - 50} more" if len(funnel["inputs"]) > 50 else ""),
        "finished": _moment(funnel["finished"]),
        "dropped documents": "all are in dropped/"
        if funnel["kept_dropped"]
        else "the first 20 of a rule and task are in dropped/; --keep-dropped keeps all",
        **{f"version of {name}": str(version) for name, version in funnel["versions"].items()},
    }
    return "".join(
        f'<tr><th scope="row" class="text">{html.escape(name)}</th><td class="text">{html.escape(value)}</td></tr>'
        for name, value in facts.items()
    )
