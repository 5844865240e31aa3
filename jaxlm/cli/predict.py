"""`jaxlm predict`: a run's predictions for new examples."""

from __future__ import annotations

import json
import pathlib
import sys

from jaxlm.cli.arguments import RunDir, Step, check_parent, parse
from jaxlm.config import MeshConfig


def run(argv: list[str]) -> None:
    """Predicts with the run that the arguments name."""
    parse(predict, argv, "jaxlm predict")


def predict(
    run_dir: RunDir,
    /,
    data: tuple[str, ...],
    out: pathlib.Path | None = None,
    step: Step = None,
    batch_size: int | None = None,
    mesh: MeshConfig = MeshConfig(),
    text_column: str | None = None,
    pair_column: str | None = None,
) -> None:
    """Writes a JSON object a line for each example: where it comes from, and the prediction.

    Args:
        run_dir: folder of the run.
        data: sources; answers in them are not read.
        out: file to write; default: standard output.
        step: of the checkpoint, or best (by the validation metric); default: the newest.
        batch_size: rows at a time; default: the run's.
        mesh: shape of the device mesh.
        text_column: column of the text; nothing, here and below: as in the run's own data.
        pair_column: column of the second text of a pair.
    """
    from jaxlm.run import predict, restore

    check_parent(out)
    given = dict(text_column=text_column, pair_column=pair_column)
    answers = predict.predict(
        restore.restore(
            run_dir,
            sources=data,
            purpose="predict",
            step=step,
            batch_size=batch_size,
            mesh=mesh,
            columns=given,
        )
    )
    lines = "".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers)
    if out is None:
        sys.stdout.write(lines)
        return
    out.write_text(lines, encoding="utf-8")
    print(f"{len(answers):,} predictions in {out}")
