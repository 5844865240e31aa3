"""`jaxlm report`: a page about a run."""

from __future__ import annotations

import pathlib

from jaxlm.cli.arguments import (
    ModelDir,
    Step,
    beside,
    check_not_read,
    check_numbers,
    parse,
    read_columns,
)
from jaxlm.config import MeshConfig
from jaxlm.config.disk import write_text


def run(argv: list[str]) -> None:
    """Writes the report that the arguments name."""
    parse(report, argv, "jaxlm report")


def report(
    model: ModelDir,
    /,
    data: tuple[str, ...] = (),
    out: pathlib.Path | None = None,
    task: str | None = None,
    columns: tuple[str, ...] = (),
    bootstrap: int = 1000,
    seed: int = 0,
    step: Step = None,
    batch_size: int | None = None,
    mesh: MeshConfig = MeshConfig(),
) -> None:
    """Writes one HTML file about a run that needs no network: curves, metrics with intervals, confusion matrix,
    calibration, the examples to look at, lengths and settings.

    Args:
        model: folder of a run, or of a Hugging Face model.
        data: sources to evaluate on; default: the run's validation data.
        out: file to write; default: report.html in the folder.
        task: name of the task, for a model that fits several.
        columns: role=name, as in text=sentence: columns of the file; default: as in the run's own data.
        bootstrap: samples that the intervals come from; 0: no intervals.
        seed: of the bootstrap, and of the choice of examples.
        step: of a run's checkpoint, or best (by the validation metric); default: the newest.
        batch_size: rows at a time; default: the run's.
        mesh: shape of the device mesh.
    """
    check_numbers(0, bootstrap=bootstrap, seed=seed)
    check_numbers(1, batch_size=batch_size)
    path = beside(out, model, "report.html")
    check_not_read(path, *data)
    from jaxlm.run import report

    page = report.report(
        model,
        sources=data,
        task=task,
        step=step,
        batch_size=batch_size,
        mesh=mesh,
        columns=read_columns(columns),
        samples=bootstrap,
        seed=seed,
    )
    write_text(path, page)
    print(f"the report is in {path}")
