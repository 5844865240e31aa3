"""An explanation in a terminal: the last question of its page, a line for each token, layer or activation."""

from __future__ import annotations

from typing import Any

from jaxlm.explain.page import METRICS, named_tokens, number, sure, visible

# cells of a patching grid, those that restore most
_CELLS = 8


def as_text(values: dict[str, Any]) -> str:
    """The values of an `Explanation` in lines."""
    if "latents" in values:
        return "\n".join(_latents(values))
    row, count = values["rows"][-1], len(values["rows"])
    which = f", token {count} of {count}; the others are in the page" if count > 1 else ""
    lines = [
        f"{values['model']}: {row['answer']!r}{which}, {sure(values, row['probability'])}, score {row['score']:+.3f} "
        f"({values['score']})",
        *values["notes"],
    ]
    for name, found in values["methods"].items():
        lines += [name, *_attributions(values, found)]
    if "lens" in values:
        lines += ["lens: the answer after each layer", *_lens(values)]
    if "patching" in values:
        lines += [f"patching of {values['patching']['place']}", *_patching(values)]
    return "\n".join(lines)


def _attributions(values: dict[str, Any], found: dict[str, Any]) -> list[str]:
    lines = []
    for kind, tokens in named_tokens(values).items():
        for piece, a in zip(tokens, found.get(kind, [[]])[-1]):
            lines.append(f"  {a:+.4f}  {visible(piece)}")
    metrics = [f"{label} {number(found[k][-1])}" for k, label in METRICS.items() if k in found]
    return [*lines, f"  {'; '.join(metrics)}"]


def _lens(values: dict[str, Any]) -> list[str]:
    """The last column: the answer itself, or the last token of the text."""
    lines = []
    for layer, cells in enumerate(values["lens"]["layers"]):
        best, rank = cells[-1]["top"][0], cells[-1]["rank"] + 1
        name = f"layer {layer - 1}" if layer else "embeddings"
        lines.append(
            f"  {name}: {visible(best['answer'])} {sure(values, best['probability'])}, answer is no. {rank:,}"
        )
    return lines


def _patching(values: dict[str, Any]) -> list[str]:
    """The scores, and the cells that restore most."""
    found = values["patching"]
    cells = [
        (x, layer, place)
        for layer, row in enumerate(found["restored"])
        for place, x in enumerate(row)
    ]
    return [
        f"  score {found['clean_score']:+.3f}, of the corrupted text {found['corrupt_score']:+.3f}; restored most by",
        *(
            f"  {x:+.2f}  layer {layer}, token {place}: {visible(values['tokens'][place])} for "
            f"{visible(found['corrupt_tokens'][place])}"
            for x, layer, place in sorted(cells, key=lambda cell: -cell[0])[:_CELLS]
        ),
    ]


def _latents(values: dict[str, Any]) -> list[str]:
    found = values["latents"]
    kl = sorted(enumerate(found["kl"]), key=lambda item: -item[1])[:8]
    return [
        f"{values['model']}: {sum(found['kl']):.3f} nats of divergence; the most in "
        + ", ".join(f"dim {i} {x:.3f}" for i, x in kl),
        "what each token gains from the latent, in nats",
        *(f"  {g:+.4f}  {visible(piece)}" for piece, g in zip(found["tokens"], found["gain"])),
    ]
