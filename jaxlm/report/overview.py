"""Printed before the first step: sizes of model, data and memory, and one row of the first batch."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxlm.params import ADAPTER, DENSE
from jaxlm.report.formats import count, size
from jaxlm.tasks.task import Piece

_MEMORY = {
    "argument_bytes": "arguments",
    "temporary_bytes": "temporaries",
    "output_bytes": "outputs",
}


def count_parameters(params: Any) -> dict[str, int]:
    """Parameters by part: adapters, embedding, blocks, head, other; parts that a model does not have are omitted.

    Args:
        params: nested dicts of anything with a shape, named as in `jaxlm.models`.
    """
    parts = {ADAPTER: "adapters", "embed": "embedding", "blocks": "blocks", "head": "head"}
    counts = dict.fromkeys([*parts.values(), "other"], 0)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = [str(getattr(key, "key", key)) for key in path]
        keys = [ADAPTER] if ADAPTER in names[-1] else names
        keys = ["blocks" if name.startswith(DENSE) else name for name in keys]
        part = next((parts[name] for name in keys if name in parts), "other")
        counts[part] += math.prod(leaf.shape)
    return {part: n for part, n in counts.items() if n}


def memory(compiled: jax.stages.Compiled) -> dict[str, int]:
    """Bytes per device according to XLA: argument_bytes, temporary_bytes, output_bytes (without outputs that reuse the
    buffers of arguments)."""
    plan: Any = compiled.memory_analysis()
    return {
        "argument_bytes": int(plan.argument_size_in_bytes),
        "temporary_bytes": int(plan.temp_size_in_bytes),
        "output_bytes": int(plan.output_size_in_bytes - plan.alias_size_in_bytes),
    }


def start_table(
    params: Any,
    *,
    tokens_per_step: int,
    total_tokens: int,
    flops_per_step: float,
    mesh: Mapping[str, int],
    dtypes: str,
    memory: Mapping[str, int],
    run_dir: str | os.PathLike,
    trained: int | None = None,
    stages: Sequence[object] = (),
    phases: Sequence[object] = (),
    attention: Sequence[str] = (),
    console: Console | None = None,
) -> None:
    """Prints a table of the sizes of a run.

    Args:
        params: see `count_parameters`; abstract arrays are enough.
        tokens_per_step: over all devices, in the last stage.
        total_tokens: of the whole run.
        flops_per_step: theoretical, over all devices, in the last stage.
        mesh: devices along each axis.
        dtypes: description of the dtypes.
        memory: from `memory`, for the stage that needs most.
        run_dir: the run's folder.
        trained: number of parameters that are trained in the first phase; shown if some are frozen.
        stages: printed if there are several.
        phases: printed if there are several.
        attention: from `ops.attention.choices`.
        console: where to print; default: standard output.
    """
    parts = count_parameters(params)
    total = sum(parts.values())
    devices = math.prod(mesh.values())
    table = Table(box=box.ROUNDED, show_header=False, border_style="dim")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("parameters", f"{count(total)}  ({total:,})")
    for part, n in parts.items():
        table.add_row(f"  {part}", f"{count(n):<6}{n / total:>6.1%}", style="dim")
    if trained is not None and trained < total:
        table.add_row("  trained", f"{count(trained):<6}{trained / total:>6.1%}", style="dim")
    step = "per step at the end" if len(stages) > 1 else "per step"
    table.add_row("tokens", f"{count(tokens_per_step)} {step}, {count(total_tokens)} in total")
    table.add_row(
        "FLOPs",
        f"{count(flops_per_step)} {step}, {count(flops_per_step / tokens_per_step)} per token",
    )
    for i, stage in enumerate(stages if len(stages) > 1 else ()):
        table.add_row("stages" if i == 0 else "", str(stage))
    for i, phase in enumerate(phases if len(phases) > 1 else ()):
        table.add_row("phases" if i == 0 else "", f"{i + 1}. {phase}")
    axes = "  ".join(f"{name}={n}" for name, n in mesh.items())
    table.add_row("mesh", f"{axes}  ({devices} device{'s' if devices != 1 else ''})")
    table.add_row("dtypes", dtypes)
    for i, line in enumerate(attention):
        table.add_row("attention" if i == 0 else "", line)
    table.add_row("memory", f"{size(sum(memory.values()))} per device")
    for name, label in _MEMORY.items():
        table.add_row(f"  {label}", size(memory[name]), style="dim")
    table.add_row("run folder", str(run_dir))
    (console or Console()).print(table)


def batch_preview(
    pieces: Sequence[Piece],
    *,
    title: str = "first row",
    legend: str | None = None,
    limit: int = 200,
    console: Console | None = None,
) -> None:
    """Prints one row of a batch and marks the tokens that count in the loss.

    On a terminal they are coloured, in two alternating colours that show token boundaries; elsewhere runs of them are
    bracketed. The target is shown after an arrow, unless it is the next token. A bar separates the texts of a row.

    Args:
        pieces: the tokens.
        title: printed before the row.
        legend: what is to be predicted; default: the marked tokens.
        limit: maximum number of tokens to show.
        console: where to print; default: standard output.
    """
    console = console or Console()
    colour = console.is_terminal
    row = Text()
    # whether a bracket is open, to which the next piece may be added
    open_ = False
    for i, piece in enumerate(pieces[:limit]):
        arrow = piece.counts and piece.target is not None
        shown = _visible(f"{piece.text}→{piece.target}" if arrow else piece.text)
        if piece.begins:
            row.append("]" * open_ + _BAR, "bold")
            open_ = False
        if colour:
            row.append(shown, ("green", "cyan")[i % 2] if piece.counts else "dim")
            continue
        row.append("]" * (open_ and not piece.counts) + "[" * (piece.counts and not open_) + shown)
        row.append("]" * arrow)
        open_ = piece.counts and not arrow
    row.append("]" * open_)
    if len(pieces) > limit:
        row.append(f" … and {len(pieces) - limit} more tokens", "italic")
    if legend is None:
        marked = sum(piece.counts for piece in pieces)
        style = "coloured" if colour else "bracketed"
        legend = (
            f"{marked} of {len(pieces)} tokens count in the loss ({style}); the target is the next token, or follows "
            f"an arrow; {_BAR.strip()} separates texts"
        )
    console.print(
        f"{title}: {legend}",
        style="bold",
        highlight=False,
        soft_wrap=True,
    )
    console.print(row, soft_wrap=not colour)


_BAR = " ║ "


def _visible(text: str) -> str:
    """The text with visible symbols for line breaks and tabs."""
    return text.replace("\n", "↵").replace("\t", "⇥")
