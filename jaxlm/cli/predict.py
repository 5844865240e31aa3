"""`jaxlm predict`: the predictions of a run or a Hugging Face model for new examples."""

from __future__ import annotations

import pathlib
import sys
from typing import Literal

from jaxlm.cli import lines
from jaxlm.cli.arguments import (
    ModelDir,
    Step,
    check_file,
    check_not_read,
    check_numbers,
    parse,
    read_columns,
    read_settings,
)
from jaxlm.config import MeshConfig


def run(argv: list[str]) -> None:
    """Predicts with the model that the arguments name."""
    parse(predict, argv, "jaxlm predict")


def predict(
    model: ModelDir,
    /,
    data: tuple[str, ...],
    out: pathlib.Path | None = None,
    task: str | None = None,
    columns: tuple[str, ...] = (),
    on_bad_row: Literal["error", "skip"] | None = None,
    step: Step = None,
    batch_size: int | None = None,
    seq_len: int | None = None,
    mesh: MeshConfig = MeshConfig(),
    text_column: str | None = None,
    pair_column: str | None = None,
    settings: tuple[str, ...] = (),
) -> None:
    """Writes a JSON object a line for each row, in the order of the rows: its "id" (file and row), and the prediction.

    An output file that is there already is continued: what it has is not predicted again.

    Args:
        model: folder of a run, or of a Hugging Face model, which predicts with its own head.
        data: sources, or - for standard input (JSON objects or texts, a line each); answers in them are not read.
        out: file to write; default: standard output.
        task: name of the task, for a model that fits several.
        columns: role=name, as in text=sentence pair=other: columns of the file; default: as in the run's own data.
        on_bad_row: error: a row that cannot be used stops the command; skip: its line is {"id": ..., "error": ...};
            default: as the run's own data.
        step: of a run's checkpoint, or best (by the validation metric); default: the newest.
        batch_size: rows at a time; default: the run's.
        seq_len: tokens that are read of a row; default: as in the run.
        mesh: shape of the device mesh.
        text_column: the same as text=... in --columns.
        pair_column: the same as pair=... in --columns.
        settings: name=value, as in num_beams=1: settings of the task that can be changed after training.
    """
    from jaxlm import sharding
    from jaxlm.run import predict, restore

    check_numbers(1, batch_size=batch_size, seq_len=seq_len)
    check_file(out)
    check_not_read(out, *data)
    given = read_columns(columns, text=text_column, pair=pair_column)
    found = restore.find(
        model,
        task=task,
        step=step,
        batch_size=batch_size,
        seq_len=seq_len,
        mesh=sharding.make_mesh(mesh),
        columns=given,
        on_bad_row=on_bad_row,
        settings=read_settings(settings),
        purpose="predict",
    )
    predict.check(found)
    done = lines.whole(out, '{"id": ') if out else 0
    if done:
        print(f"{out}: {done:,} lines are there already", file=sys.stderr)
    counts = predict.Counts()
    existing = lines.read(out, done) if out else iter(())
    answers = predict.stream(found.load("predict"), data, counts=counts, done=existing)
    try:
        written = lines.write(
            out, lines.with_progress(answers, "predictions", done=done), done=done
        )
    except predict.OtherLines as e:
        raise ValueError(f"{out}: {e}") from None
    more = f", {written:,} of them new" if done else ""
    # of the rows of this command; an error is a line too
    errors = written - counts.predicted if counts.rows.skipped else 0
    failed = f" and {errors:,} errors" if errors > 0 else ""
    notes = [f"{done + written - errors:,} predictions{failed} in {out}{more}"] if out else []
    if counts.rows.skipped:
        notes.append(str(counts.rows))
    if counts.full:
        notes.append(
            f"{counts.full:,} texts fill all {counts.full_length} tokens of a row and may have been cut; "
            "--seq-len changes that"
        )
    if getattr(found.config.task, "unanswerable", False) is None:
        notes.append(
            "config.json does not say whether a question may have no answer, so every one got an answer; with "
            "--settings unanswerable=True (for models of SQuAD 2) some get none"
        )
    for note in notes:
        print(note, file=sys.stdout if out else sys.stderr)
