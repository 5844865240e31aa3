"""The curves of a run as one figure.

Imports matplotlib, which is slow: import this module only where it is used.
"""

from __future__ import annotations

import os
import pathlib
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from jaxlm.report.formats import count, number
from jaxlm.report.metrics_file import read_metrics
from jaxlm.report.series import phase_starts, series, smoothed

_INK, _GREY, _BLUE, _ORANGE = "#27313b", "#8b95a1", "#2868b0", "#d95f1e"


def curves(metrics_path: str | os.PathLike, out_png: str | os.PathLike) -> None:
    """Draws losses, other validation metrics, learning rate and gradient norm of a metrics.jsonl.

    Dashed lines show where phases of the run begin, after the first one.
    Missing and non-finite values are skipped; a metric without any value gets no panel.
    """
    rows = read_metrics(metrics_path)
    names = sorted({name for row in rows for name in row if name.startswith("eval/")})
    # perplexity is a function of the loss
    names = [name for name in names if name not in ("eval/loss", "eval/perplexity")]
    names = [n for n in [*names, "learning_rate", "grad_norm"] if len(series(rows, n)[0])]
    columns = 3 if len(names) <= 6 else 4
    heights = [4.6] + [2.3] * -(-len(names) // columns)
    figure = Figure(figsize=(10, 0.3 + sum(heights)), layout="constrained", facecolor="white")
    # 12 columns can be divided among one, two, three or four panels
    grid = figure.add_gridspec(len(heights), 12, height_ratios=heights)
    panels = [figure.add_subplot(grid[0, :])]
    for i in range(len(names)):
        row, column = divmod(i, columns)
        width = 12 // min(columns, len(names) - row * columns)
        panels.append(figure.add_subplot(grid[1 + row, column * width : (column + 1) * width]))
    _losses(panels[0], rows)
    for axes, name in zip(panels[1:], names):
        _small(axes, rows, name)
    last = max((row["step"] for row in rows), default=0)
    for axes in panels:
        axes.set_xlim(-0.02 * max(last, 1), 1.02 * max(last, 1))
        for step in phase_starts(rows):
            axes.axvline(step, color=_GREY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    folder = pathlib.Path(metrics_path).resolve().parent.name
    figure.suptitle(folder, x=0.012, ha="left", fontsize=13, fontweight="bold", color=_INK)
    figure.savefig(out_png, dpi=150)


def _losses(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Training loss, raw and smoothed, and validation loss with its best value marked."""
    _style(axes, "loss")
    steps, raw = series(rows, "loss")
    eval_steps, evaluated = series(rows, "eval/loss")
    if not len(steps) and not len(eval_steps):
        axes.text(0.5, 0.5, "no finite loss", transform=axes.transAxes, ha="center", color=_GREY)
        return
    if len(steps):
        smooth = smoothed(raw)
        axes.plot(steps, raw, color=_BLUE, alpha=0.22, linewidth=0.8)
        axes.plot(steps, smooth, color=_BLUE, linewidth=1.8, marker=_dot(steps), label="training")
        # the limits ignore spikes of single steps
        shown = np.concatenate([smooth, evaluated, np.percentile(raw, [1, 99])])
        margin = 0.06 * (np.ptp(shown) or 1.0)
        axes.set_ylim(shown.min() - margin, shown.max() + margin)
    if len(eval_steps):
        axes.plot(
            eval_steps,
            evaluated,
            color=_ORANGE,
            linewidth=1.8,
            marker="o",
            markersize=3.5,
            label="validation",
        )
        _mark_best(axes, eval_steps, evaluated, lower=True)
    axes.legend(frameon=False, loc="upper right", labelcolor=_INK)


def _small(axes: Axes, rows: list[dict[str, Any]], name: str) -> None:
    """One metric in a panel of its own."""
    _style(axes, name.removeprefix("eval/").replace("_", " "))
    steps, values = series(rows, name)
    if name.startswith("eval/"):
        axes.plot(steps, values, color=_ORANGE, linewidth=1.6, marker="o", markersize=3)
        if (lower := lower_is_better(name)) is not None:
            _mark_best(axes, steps, values, lower=lower)
    elif name == "grad_norm":
        axes.plot(steps, values, color=_BLUE, alpha=0.22, linewidth=0.8)
        axes.plot(steps, smoothed(values), color=_BLUE, linewidth=1.4, marker=_dot(steps))
        if values.min() > 0 and values.max() > 20 * values.min():
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    else:
        axes.plot(steps, values, color=_BLUE, linewidth=1.6, marker=_dot(steps))
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))


_LOWER = ("loss", "perplexity", "error", "bits", "nll", "neg_elbo", "reconstruction")
# sizes and settings, and how much of a latent is used, of which neither more nor less is better
_NEITHER = ("swap_loss", "kl", "active_units", "mutual_information", "distinct_samples")
_NEITHER_ENDS = ("_per_text", "_texts", "_threshold")


def lower_is_better(metric: str) -> bool | None:
    """Whether lower values of a metric are better (losses and errors, as opposed to scores); None: neither is."""
    name = metric.removeprefix("eval/")
    if name in _NEITHER or name.endswith(_NEITHER_ENDS):
        return None
    return any(word in name for word in _LOWER)


def _mark_best(axes: Axes, steps: np.ndarray, values: np.ndarray, *, lower: bool) -> None:
    """Marks the best value with a ring, and labels it on the side away from the curve."""
    best = int(values.argmin() if lower else values.argmax())
    ring: dict[str, Any] = dict(
        markersize=9, markerfacecolor="none", markeredgecolor=_INK, clip_on=False
    )
    axes.plot(steps[best], values[best], "o", **ring)
    low, high = axes.get_ylim()
    room = 0.16 * (high - low)
    axes.set_ylim(low - room * lower, high + room * (not lower))
    fraction = steps[best] / max(steps.max(), 1)
    axes.annotate(
        f"best {number(float(values[best]))} at step {steps[best]:,.0f}",
        (steps[best], values[best]),
        xytext=(0, -9 if lower else 9),
        textcoords="offset points",
        ha="right" if fraction > 0.7 else "left" if fraction < 0.3 else "center",
        va="top" if lower else "bottom",
        fontsize=9,
        color=_INK,
    )


def _dot(steps: np.ndarray) -> str | None:
    """A marker if there is only one point, for which no line is drawn."""
    return "o" if len(steps) == 1 else None


def _style(axes: Axes, title: str) -> None:
    """Sets the title, a light grid and a minimal frame."""
    axes.set_title(title, loc="left", fontsize=10.5, color=_INK)
    axes.grid(True, color="#e6e9ed", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#c3cad2")
    axes.tick_params(colors=_GREY, labelsize=8.5, length=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: count(x)))
