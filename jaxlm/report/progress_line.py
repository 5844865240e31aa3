"""The progress of a run as one line: its text, and the live display on a terminal."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from jaxlm.report.formats import count, duration, number


def live_progress(console: Console, total_steps: int, start_step: int) -> Progress | None:
    """The progress line of a terminal; None if the output is not a terminal."""
    if not console.is_terminal or console.is_dumb_terminal:
        return None
    bar = [BarColumn(bar_width=16)] if console.width >= 110 else []
    progress = Progress(
        TextColumn("[bold]step {task.completed}/{task.total}"),
        *bar,
        TextColumn("{task.fields[line]}", markup=False),
        console=console,
    )
    progress.add_task("", total=total_steps, completed=start_step, line="")
    return progress


def progress_line(metrics: dict[str, float], seconds_left: float | None) -> str:
    """loss 2.314  lr 9.8e-04  grad 0.71  41.2k tok/s  mfu 12.3%  goodput 97.1%  eta 1m12s, then others by name."""
    formats: dict[str, Callable[[float], str]] = {
        "loss": lambda x: f"loss {number(x)}",
        "learning_rate": lambda x: f"lr {x:.1e}",
        "grad_norm": lambda x: f"grad {number(x, 2)}",
        "tokens_per_second": lambda x: f"{count(x)} tok/s",
        "mfu": lambda x: f"mfu {x:.1%}",
        "goodput": lambda x: f"goodput {x:.1%}",
    }
    parts = [form(metrics[name]) for name, form in formats.items() if name in metrics]
    if seconds_left is not None:
        parts.append(f"eta {duration(seconds_left)}")
    # counts of zero, such as skipped steps, are not shown
    rest = {
        name: x for name, x in metrics.items() if name not in formats and (x or type(x) is float)
    }
    return "  ".join([*parts, *(f"{name} {number(x)}" for name, x in rest.items())])
