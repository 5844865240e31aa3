"""A plan as one HTML file that needs no network."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from jaxlm.plan import lines
from jaxlm.plan.chips import CHIPS
from jaxlm.report.formats import count, size
from jaxlm.report.page import document

# of the bar of memory, in the style sheet's colours; each kind a shade of one of them
_SHADES = {
    "parameters": ("s0", 1.0),
    "optimizer": ("s0", 0.65),
    "gradients": ("s0", 0.35),
    "batch": ("s1", 1.0),
    "activations": ("s1", 0.6),
}
_WIDTH, _LEFT, _RIGHT, _ROW = 960, 150, 20, 44


def page(plan: Mapping[str, Any]) -> str:
    """The result of `planner.plan` as HTML."""
    memory = plan["memory"]
    sections = {
        "Plan": _tiles(plan),
        "Memory": _memory(plan),
        "Time": "" if plan["time"] is None else _time(plan["time"]),
        "Collectives": _collectives(plan["collectives"]),
        "What helps": _knobs(plan),
        "Meshes": _meshes(plan["meshes"]),
        "Figures": _figures(plan),
    }
    fits = "" if memory["limit"] is None else " fits" if memory["fits"] else " does not fit"
    return document(
        f"Plan of {plan['name'] or 'a run'}",
        f"{plan['topology']}, {plan['devices']} x {plan['device_kind']}, mesh "
        f"{lines.mesh_name(plan['mesh'])}:{fits or ' memory has no limit'}",
        {name: body for name, body in sections.items() if body},
    )


def _tiles(plan: Mapping[str, Any]) -> str:
    memory, time = plan["memory"], plan["time"]
    tiles = [("memory a device", size(memory["total"]))]
    if memory["limit"] is not None:
        tiles.append(("there is", size(memory["limit"])))
    if time is not None:
        tiles += [
            ("step, expected", lines.milliseconds(time["expected"])),
            ("tokens a second", count(plan["tokens_per_second"])),
            ("MFU", f"{plan['mfu']:.1%}"),
        ]
    if plan["cost_per_billion_tokens"] is not None:
        tiles.append(("cost of a billion tokens", f"{plan['cost_per_billion_tokens']:,.2f}"))
    shown = "".join(
        f"<div><dt>{name}</dt><dd>{html.escape(value)}</dd></div>" for name, value in tiles
    )
    what = (
        f"{count(plan['parameters'])} parameters; {plan['batch_size']:,} rows of {plan['seq_len']:,} tokens a step; "
        f"accumulate {plan['accumulate']}, remat {plan['remat']}. Helps most: {lines.best(plan)}."
    )
    return f'<dl class="tiles">{shown}</dl><p>{html.escape(what)}</p>'


def _memory(plan: Mapping[str, Any]) -> str:
    memory = plan["memory"]
    kinds = {lines.KINDS[kind]: (memory[kind], *_SHADES[kind]) for kind in _SHADES}
    rows = [["kind", "a device", "of all"]] + [
        [name, size(value), f"{value / max(memory['total'], 1):.1%}"]
        for name, (value, *_) in kinds.items()
    ]
    words = f"Memory: {lines.verdict(memory)}"
    bars = {"this plan": list(kinds.items())}
    picture = _bars(words, bars, memory["limit"], size)
    return f"<p>{html.escape(words)}.</p>{picture}{_table('Memory by kind', rows)}"


def _time(time: Mapping[str, Any]) -> str:
    beside = [
        ("compute", (time["compute"], "s0", 1.0)),
        ("collectives that are waited for", (time["exposed"], "s1", 1.0)),
    ]
    hidden = [("collectives beside the computation", (time["overlapped"], "s1", 0.6))]
    milliseconds = lines.milliseconds
    words = (
        f"A step takes at least {milliseconds(time['least'])} at the chip's full speed, and "
        f"{milliseconds(time['expected'])} are expected, which is {time['efficiency']:.0%} of that speed; compute is "
        f"by the {time['source']}"
    )
    picture = _bars(
        words, {"computation": beside, "beside it": hidden}, time["expected"], milliseconds
    )
    return f"<p>{html.escape(words)}. The dashed line is the expected time.</p>{picture}"


def _bars(
    words: str,
    bars: Mapping[str, Sequence[tuple[str, tuple[float, str, float]]]],
    mark: float | None,
    form: Any,
) -> str:
    """Horizontal bars of several parts: name -> (value, style, shade); a dashed line at `mark`."""
    longest = max(sum(value for _, (value, *_) in parts) for parts in bars.values())
    scale = (_WIDTH - _LEFT - _RIGHT) / (max(longest, mark or 0.0) or 1.0)
    height = _ROW * len(bars) + 30
    drawn, keys = [], []
    for i, (label, parts) in enumerate(bars.items()):
        top, x = 10 + i * _ROW, float(_LEFT)
        drawn.append(
            f'<text x="{_LEFT - 8}" y="{top + 20}" text-anchor="end">{html.escape(label)}</text>'
        )
        for name, (value, style, shade) in parts:
            told = f"{name}: {form(value)}"
            drawn.append(
                f'<rect class="{style}" fill-opacity="{shade}" x="{x:.1f}" y="{top}" '
                f'width="{max(value * scale, 0):.1f}" height="30"><title>{html.escape(told)}</title></rect>'
            )
            keys.append(
                f'<span class="key {style}" style="opacity: {shade}"></span>{html.escape(told)}'
            )
            x += value * scale
    if mark:
        at = f"{_LEFT + mark * scale:.1f}"
        drawn.append(f'<line class="mark" x1="{at}" x2="{at}" y1="2" y2="{height - 22}"/>')
        drawn.append(
            f'<text x="{at}" y="{height - 6}" text-anchor="end">{html.escape(form(mark))}</text>'
        )
    body = "\n".join(drawn)
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{html.escape(words)}">\n{body}\n</svg>'
        f"<figcaption>{' '.join(keys)}</figcaption></figure>"
    )


def _collectives(collectives: Sequence[Mapping[str, Any]]) -> str:
    rows = [["operation", "axes", "devices", "a step", "a device sends", ""]]
    for c in collectives:
        axes, where = " x ".join(c["axes"]), "between nodes" if c["crosses_nodes"] else ""
        sent = size(c["bytes"])
        rows.append([c["operation"], axes, str(c["group"]), f"{c['count']:,}", sent, where])
    return _table("Collectives of a step by axis of the mesh", rows) if collectives else ""


def _knobs(plan: Mapping[str, Any]) -> str:
    rows = [["option", "memory a device", "by", "fits", "speed on paper"]]
    for k in plan["knobs"]:
        memory = "more than there is" if k["memory"] is None else size(k["memory"])
        speed = "" if k["speed"] is None else f"{k['speed']:.2f}"
        fits = "yes" if k["fits"] else "no"
        rows.append([f"{k['option']}={k['value']}", memory, k["source"], fits, speed])
    note = "One option changed at a time; speed is that of tokens, as a multiple of this plan's."
    return f"<p>{note}</p>{_table('Options', rows)}" if plan["knobs"] else ""


def _meshes(meshes: Sequence[Mapping[str, Any]]) -> str:
    rows = [["mesh", "result", "memory a device", "time on paper"]]
    for m in meshes:
        memory = "" if m["memory"] is None else size(m["memory"])
        seconds = lines.milliseconds(m["seconds"]) if m["seconds"] else ""
        rows.append([lines.mesh_name(m["mesh"]), m["result"], memory, seconds])
    return _table("Meshes of these devices", rows) if meshes else ""


def _figures(plan: Mapping[str, Any]) -> str:
    chip = CHIPS[plan["topology"].partition(":")[0]]
    rows = [["figure", "value"]]
    for name, value, unit in (
        ("bfloat16", chip.flops, "GFLOP/s"),
        ("memory", chip.memory if chip.bandwidth else None, "GB"),
        ("memory bandwidth", chip.bandwidth, "GB/s"),
        ("links to other chips", chip.link, "GB/s"),
        ("network between nodes", chip.network, "GB/s"),
    ):
        if value is not None:
            rows.append([name, f"{value / 1e9:,.0f} {unit}"])
    rows += [["source", chip.source]]
    rows += [[name, version] for name, version in plan["versions"].items()]
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in plan["notes"])
    return f"<ul>{notes}</ul>{_table('The chip by its data sheet, and versions', rows)}"


def _table(words: str, rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col" class="text">{html.escape(x)}</th>' for x in rows[0])
    body = "".join(
        "<tr>" + "".join(f'<td class="text">{html.escape(x)}</td>' for x in row) + "</tr>"
        for row in rows[1:]
    )
    return (
        f'<div class="wide" tabindex="0" role="group" aria-label="{html.escape(words)}"><table>'
        f"<caption>{html.escape(words)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
