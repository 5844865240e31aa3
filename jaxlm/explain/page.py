"""The page of an explanation: one HTML file that needs no network, readable without colours and without a mouse."""

from __future__ import annotations

import base64
import html
import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

_TEMPLATE = pathlib.Path(__file__).with_suffix(".html")
# colours of the tables get no stronger beyond this fraction of what is restored
_MOST_RESTORED = 1.0
# methods whose sign says for or against the answer
SIGNED = ("integrated_gradients", "input_x_gradient", "occlusion")
METRICS = {
    "completeness_error": "completeness error",
    "comprehensiveness": "comprehensiveness (high is good)",
    "sufficiency": "sufficiency (low is good)",
    "tau_leave_one_out": "τ with leave-one-out",
    "tau_random_weights": "τ with random weights (near 0 is good)",
}


def as_json(values: dict[str, Any]) -> str:
    """The values as JSON; refuses numbers that are none."""
    return json.dumps(values, ensure_ascii=False, allow_nan=False, indent=1)


def page(values: dict[str, Any], attention: dict[str, np.ndarray]) -> str:
    """The page as HTML.

    Args:
        values: of an `Explanation`.
        attention: weights by stack: name -> [L, N, T, S].
    """
    sections = {
        "Attributions": _attributions(values) if values.get("methods") else "",
        "Metrics": _metrics(values) if values.get("methods") else "",
        "Lens": _lens(values["lens"], values) if "lens" in values else "",
        "Patching": _patching(values["patching"], values) if "patching" in values else "",
        "Attention": _attention(attention),
        "Latent": _latents(values["latents"]) if "latents" in values else "",
    }
    body = "\n".join(
        f'<section aria-labelledby="{name}"><h2 id="{name}">{name}</h2>\n{content}\n</section>'
        for name, content in sections.items()
        if content
    )
    answers = " ".join(row["answer"].strip() for row in values.get("rows", ())) or values["text"]
    parts = {
        "title": html.escape(f"{values['model']}: {answers}"),
        "answers": _answers(values) if "rows" in values else "",
        "sections": body,
        # a text may hold what ends a script
        "data": json.dumps(_data(values, attention)).replace("<", "\\u003c"),
    }
    # in one pass, so that braces in a text stay what they are
    template = _TEMPLATE.read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def named_tokens(values: dict[str, Any]) -> dict[str, list[str]]:
    """The tokens that have attributions, by kind: those of the text, and of the target where there is one."""
    named = {"tokens": values["tokens"], "decoder_tokens": values["target_tokens"]}
    return {name: tokens for name, tokens in named.items() if tokens}


def visible(piece: str) -> str:
    """A token so that it can be seen: spaces at its ends stay, line breaks are signs."""
    return piece.replace("\n", "⏎").replace("\t", "⇥") or "∅"


def number(x: float | None) -> str:
    """A metric in three digits."""
    if x is None:
        return "none"
    return f"{x:.1e}" if 0 < abs(x) < 1e-3 else f"{x:.3f}"


def sure(values: dict[str, Any], probability: float) -> str:
    """A probability in percent; of a number the number."""
    return f"{probability:.4g}" if values["answers_with"] == "number" else f"{probability:.1%}"


def _answers(values: dict[str, Any]) -> str:
    """What the model answers; of a target a button for each token."""
    rows, out = values["rows"], []
    text = f"Score: {values['score']}."
    out.append(f"<p>{html.escape(' '.join([text, *values['notes']]))}</p>")
    if len(rows) > 1:
        buttons = "".join(
            f'<button type="button" data-row="{i}" aria-pressed="{_bool(i == 0)}">'
            f"{html.escape(visible(row['answer']))}</button>"
            for i, row in enumerate(rows)
        )
        out.append(
            f'<div class="choice" role="group" aria-label="Token to explain">{buttons}</div>'
        )
    for i, row in enumerate(rows):
        top = "".join(
            f"<li>{html.escape(visible(t['answer']))} <b>{sure(values, t['probability'])}</b></li>"
            for t in row["top"]
        )
        out.append(
            f'<div data-row="{i}"{_hidden(i > 0)}><p>Explained: '
            f"<strong>{html.escape(visible(row['answer']))}</strong>, "
            f"{sure(values, row['probability'])}, score {row['score']:+.3f}. The model's answers:</p>"
            f'<ol class="top">{top}</ol></div>'
        )
    return "\n".join(out)


def _unsigned(names: Sequence[str]) -> str:
    """What is to be said of methods without a direction."""
    found = [name.replace("_", " ") for name in names if name not in SIGNED]
    if not found:
        return ""
    return f" Those of {', '.join(found)} say how much a token counts, not whether for the answer or against it."


def _attributions(values: dict[str, Any]) -> str:
    names = list(values["methods"])
    out = [_choice("method", names, "Method")]
    out.append(
        '<p class="legend"><span class="token" style="--p:1">speaks for the answer</span> '
        '<span class="token" style="--n:1">speaks against it</span> The strongest token of each method has the full '
        f"colour; numbers of different methods have different units.{_unsigned(names)}</p>"
    )
    for name in names:
        found = values["methods"][name]
        for i in range(len(values["rows"])):
            groups = []
            # of a target only what was written before the token
            own = {k: found[k][i] for k in named_tokens(values)}
            most = max((abs(a) for row in own.values() for a in row), default=0) or 1
            for kind, tokens in named_tokens(values).items():
                shown = own[kind] if kind == "tokens" else own[kind][: i + 1]
                label = (
                    "" if len(own) == 1 else {"tokens": "Source", "decoder_tokens": "Target"}[kind]
                )
                groups.append(_line(tokens, shown, most, label))
            hidden = _hidden(i > 0 or name != names[0])
            out.append(f'<div data-method="{name}" data-row="{i}"{hidden}>{"".join(groups)}</div>')
    return "\n".join(out)


def _line(tokens: Sequence[str], numbers: Sequence[float], most: float, label: str) -> str:
    """Tokens coloured by their numbers, which are also read out."""
    spans = []
    for piece, a in zip(tokens, numbers):
        strength = f"{'--p' if a >= 0 else '--n'}:{min(abs(a) / most, 1):.3f}"
        shown = html.escape(visible(piece))
        spans.append(
            f'<span class="token" style="{strength}" title="{a:+.4f}">{shown}'
            f'<span class="read"> ({a:+.3f}) </span></span>'
        )
    head = f"<h3>{label}</h3>" if label else ""
    return f'{head}<p class="text" dir="auto">{"".join(spans)}</p>'


def _choice(kind: str, names: Sequence[str], label: str) -> str:
    buttons = "".join(
        f'<button type="button" data-{kind}="{html.escape(name)}" aria-pressed="{_bool(i == 0)}">'
        f"{html.escape(name.replace('_', ' '))}</button>"
        for i, name in enumerate(names)
    )
    return f'<div class="choice" role="group" aria-label="{label}">{buttons}</div>'


def _metrics(values: dict[str, Any]) -> str:
    """The numbers of each method, of the row that is shown."""
    out = []
    for i in range(len(values["rows"])):
        head = "".join(f'<th scope="col">{label}</th>' for label in METRICS.values())
        rows = []
        for name, found in values["methods"].items():
            cells = "".join(
                f"<td>{number(found[k][i]) if k in found else '–'}</td>" for k in METRICS
            )
            rows.append(f'<tr><th scope="row">{name.replace("_", " ")}</th>{cells}</tr>')
        out.append(
            f'<div class="wide" data-row="{i}"{_hidden(i > 0)} tabindex="0"><table><thead><tr>'
            f'<th scope="col">method</th>'
            f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        )
    note = (
        "<p>Comprehensiveness: what the probability loses without the tokens ranked first; sufficiency: what it loses "
        "with them alone. Numbers of one text vary a lot: compare methods over many.</p>"
    )
    return note + "\n".join(out)


def _lens(found: dict[str, Any], values: dict[str, Any]) -> str:
    head = "".join(f'<th scope="col">{html.escape(visible(c))}</th>' for c in found["columns"])
    rows = []
    for layer, cells in reversed(list(enumerate(found["layers"]))):
        tds = []
        for cell in cells:
            best = cell["top"][0]
            others = ", ".join(
                f"{visible(t['answer'])} {sure(values, t['probability'])}" for t in cell["top"]
            )
            tds.append(
                f'<td class="shade" style="--p:{max(min(best["probability"], 1), 0):.3f}" '
                f'title="{html.escape(others)}">{html.escape(visible(best["answer"]))} '
                f"<small>{sure(values, best['probability'])}, answer is no. {cell['rank'] + 1}</small></td>"
            )
        name = f"layer {layer - 1}" if layer else "embeddings"
        rows.append(f'<tr><th scope="row">{name}</th>{"".join(tds)}</tr>')
    return (
        "<p>The model's own head, applied to the state after each layer: the most probable answer, and the place of "
        "the explained answer.</p>"
        f'<div class="wide" tabindex="0"><table><thead><tr><th scope="col">after</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _patching(found: dict[str, Any], values: dict[str, Any]) -> str:
    head = "".join(
        f'<th scope="col">{html.escape(visible(a))}<br><small>{html.escape(visible(b))}</small></th>'
        for a, b in zip(values["tokens"], found["corrupt_tokens"])
    )
    rows = []
    for layer, numbers in reversed(list(enumerate(found["restored"]))):
        cells = "".join(
            f'<td class="shade" style="{"--p" if x >= 0 else "--n"}:{min(abs(x) / _MOST_RESTORED, 1):.3f}">{x:.2f}</td>'
            for x in numbers
        )
        rows.append(f'<tr><th scope="row">layer {layer}</th>{cells}</tr>')
    return (
        f"<p>The score is {found['clean_score']:+.3f} for the text and {found['corrupt_score']:+.3f} for the corrupted "
        "one (small letters). Each cell: the fraction of the difference that comes back when one "
        f"{html.escape(found['place'])} of the corrupted text is that of the text.</p>"
        f'<div class="wide" tabindex="0"><table class="grid"><thead><tr><th scope="col">layer</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _attention(attention: dict[str, np.ndarray]) -> str:
    if not attention:
        return ""
    stacks = _choice("stack", list(attention), "Stack") if len(attention) > 1 else ""
    return (
        "<p>Choose a head, then a token: the others are coloured by the weight that it gives them. A weight is not yet "
        "an explanation: compare the metrics above.</p>"
        f'{stacks}<div id="heads" role="group" aria-label="Heads: a row for each layer"></div>'
        '<h3 id="head" aria-live="polite"></h3>'
        '<p class="text" id="queries" role="group" aria-label="Token that attends"></p>'
        '<p class="text" id="keys" aria-live="polite"></p>'
    )


def _latents(found: dict[str, Any]) -> str:
    """Nats by dim as bars, and what each token gains."""
    most = max((abs(x) for x in found["gain"]), default=0) or 1
    kl = sorted(enumerate(found["kl"]), key=lambda item: -item[1])
    widest = max(kl[0][1], 1e-9)
    bars = "".join(
        f'<tr><th scope="row">dim {i}</th><td><span class="bar" style="--w:{x / widest:.3f}"></span> {x:.3f}</td></tr>'
        for i, x in kl
    )
    return (
        f"<p>What each token gains from the latent, in nats: {sum(found['gain']):.2f} together.</p>"
        f"{_line(found['tokens'], found['gain'], most, '')}"
        f"<p>Divergence of the posterior from the standard normal: {sum(found['kl']):.2f} nats in all dims.</p>"
        '<div class="wide" tabindex="0"><table><thead><tr><th scope="col">dim</th><th scope="col">nats</th></tr>'
        f"</thead><tbody>{bars}</tbody></table></div>"
    )


def _data(values: dict[str, Any], attention: dict[str, np.ndarray]) -> dict[str, Any]:
    """What the script needs: weights as bytes, 255 is 1."""
    out = {}
    for name, a in attention.items():
        target = values["target_tokens"] or values["tokens"]
        is_decoder = name.startswith("decoder")
        keys = values["tokens"] if not is_decoder or "cross" in name else target
        out[name] = {
            "shape": a.shape,
            "queries": [visible(x) for x in (target if is_decoder else values["tokens"])],
            "keys": [visible(x) for x in keys],
            "weights": base64.b64encode(np.rint(a * 255).astype(np.uint8).tobytes()).decode(),
        }
    return out


def _hidden(hidden: bool) -> str:
    return " hidden" if hidden else ""


def _bool(x: bool) -> str:
    return "true" if x else "false"
