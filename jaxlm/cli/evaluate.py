"""`jaxlm evaluate`: the metrics of a run."""

from __future__ import annotations

import json
import pathlib

from jaxlm.cli.arguments import RunDir, Step, check_parent, parse
from jaxlm.config import MeshConfig


def run(argv: list[str]) -> None:
    """Evaluates the run that the arguments name."""
    parse(evaluate, argv, "jaxlm evaluate")


def evaluate(
    run_dir: RunDir,
    /,
    data: tuple[str, ...] = (),
    step: Step = None,
    batch_size: int | None = None,
    mesh: MeshConfig = MeshConfig(),
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    out: pathlib.Path | None = None,
) -> None:
    """Computes the metrics of a run's task over all of some data.

    Args:
        run_dir: folder of the run.
        data: sources; default: the run's validation data.
        step: of the checkpoint, or best (by the validation metric); default: the newest.
        batch_size: rows at a time; default: the run's.
        mesh: shape of the device mesh.
        text_column: column of the text; nothing, here and below: as in the run's own data.
        pair_column: column of the second text of a pair.
        label_column: column of the class.
        out: also write the metrics to this JSON file.
    """
    from jaxlm.run import evaluate, restore

    check_parent(out)
    given = dict(text_column=text_column, pair_column=pair_column, label_column=label_column)
    result = evaluate.evaluate(
        restore.restore(
            run_dir,
            sources=data,
            step=step,
            batch_size=batch_size,
            mesh=mesh,
            columns=given,
        )
    )
    if result.rendered:
        print(result.rendered)
    print(f"{run_dir}, step {result.step:,}, {result.examples:,} examples")
    print(", ".join(f"{name} {value:.4f}" for name, value in result.metrics.items()))
    if out is not None:
        about = {"run_dir": str(run_dir), "step": result.step, "examples": result.examples}
        out.write_text(json.dumps(about | result.metrics, indent=2) + "\n")
