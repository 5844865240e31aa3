"""Prediction: applies a model to examples without labels, row by row of their files."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax

from jaxlm.data.bad_rows import EMPTY_TEXT, BadRow, RowCounts
from jaxlm.data.columns import Column, Record
from jaxlm.data.columns import check as columns_check
from jaxlm.data.reading import bad_row_error, read_all
from jaxlm.data.records import Records
from jaxlm.run import override
from jaxlm.run.model import Model, Restored
from jaxlm.tasks.downstream.text_pairs import TextPairs
from jaxlm.tasks.task import Task
from jaxlm.training import predictions

# rows that are read, predicted and written together: always the same ones, so that a file which is continued becomes
# what it would have been
WINDOW = 1024
# of a row without a prediction, if nothing else is known about it
_UNUSED = "nothing of it can be used"


def predict(run: Restored) -> list[dict[str, Any]]:
    """The prediction for each record of `run.data`, in order: its "id" (file and row) and the fields from `Task.read`.

    Raises:
        ValueError: the task makes no predictions.
    """
    check(run)
    with jax.set_mesh(run.mesh):
        indices, answers = predictions.predict(
            run.task,
            predictions.compile_predict(run.task, run.mesh),
            run.params,
            run.rows,
            run.data,
            batch_size=run.config.batch_size,
            mesh=run.mesh,
        )
    return [{"id": run.data.ids[i], **answer} for i, answer in zip(indices, answers)]


def check(model: Any) -> None:
    """Raises ValueError if the task of a model makes no predictions."""
    if not model.task.predicts():
        raise ValueError(f"{model.folder}: task {model.task.name} makes no predictions")


@dataclasses.dataclass
class Counts:
    """What became of the rows of some sources."""

    rows: RowCounts = dataclasses.field(default_factory=RowCounts)
    predicted: int = 0
    # rows as long as the longest that are read: their texts may have been cut
    full: int = 0
    full_length: int = 0


class OtherLines(ValueError):
    """What is to be continued are not the first lines of this output."""


class Predictor:
    """A model that predicts many windows of records with one compiled program a length."""

    def __init__(self, model: Model):
        """Compiles nothing yet.

        Raises:
            ValueError: the task makes no predictions.
        """
        check(model)
        self.model = model
        self._run = predictions.compile_predict(model.task, model.mesh)

    def adjusted(self, settings: Mapping[str, Any]) -> Predictor:
        """The same with other settings of its task; see `Task.adjustable`."""
        task = self.model.task
        config = override.with_settings(type(task), self.model.config, settings, "predict")
        changed = type(task)(config, task.tokenizer)
        return Predictor(dataclasses.replace(self.model, config=config, task=changed))

    def __call__(
        self, records: Records, counts: Counts | None = None, batch_size: int | None = None
    ) -> dict[str, dict[str, Any]]:
        """The predictions for records by their ids; records that the task cannot use are missing."""
        model, task = self.model, self.model.task
        records = type(task).select(task.settings, records, model.config)
        if not len(records):
            return {}
        with jax.set_mesh(model.mesh):
            rows = task.rows(records, "predict")
            if not len(rows):
                return {}
            if counts is not None:
                _count_full(rows, counts)
            indices, answers = predictions.predict(
                task,
                self._run,
                model.params,
                rows,
                records,
                batch_size=batch_size or model.config.batch_size,
                mesh=model.mesh,
            )
        return {records.ids[i]: answer for i, answer in zip(indices, answers)}


def _count_full(rows: Any, counts: Counts) -> None:
    arrays = getattr(rows, "arrays", {})
    segments = arrays.get("segment_ids")
    # the windows of a long text lose nothing
    if segments is not None and "record" not in arrays:
        counts.full += int((segments[..., -1] > 0).sum())
        counts.full_length = segments.shape[-1]
    elif isinstance(rows, TextPairs):
        counts.full += rows.full_sources
        counts.full_length = rows.source_limit


def stream(
    model: Model | Predictor,
    sources: Iterable[str],
    *,
    counts: Counts | None = None,
    done: Iterable[dict[str, Any]] = (),
    window: int = WINDOW,
) -> Iterator[dict[str, Any]]:
    """A line for each row of the sources, in their order: its "id" (file and row) and the fields from `Task.read`.

    A row that cannot be used is an error, or with `data.on_bad_row` "skip" a line {"id": ..., "error": ...}. A row with
    an empty text, which is never an error, is such a line too.

    Args:
        model: with its task; a `Predictor` keeps its compiled programs from call to call.
        sources: as in `data.validation`, or "-" for standard input.
        counts: updated as rows are read.
        done: the first lines, if they are there already: they are not made again.
        window: rows in memory at a time.

    Raises:
        ValueError: the task makes no predictions, or a row cannot be used.
        OtherLines: `done` are lines of other rows, or of another model.
    """
    predictor = model if isinstance(model, Predictor) else Predictor(model)
    model = predictor.model
    counts = counts if counts is not None else Counts()
    waiting, number = iter(done), 0
    # the first line that is not compared with its row yet
    following = next(waiting, None)
    config = model.config.data
    wanted, targets = input_columns(type(model.task), model.config)
    rows = (
        (source, where, record)
        for source in sources
        for where, record in read_all(source, config, columns=wanted, split="validation")
    )
    for part in _batched(rows, window):
        old = [] if following is None else [following, *itertools.islice(waiting, len(part) - 1)]
        following = next(waiting, None)
        for line, (_, where, _) in zip(old, part):
            number += 1
            if line.get("id") != where:
                raise OtherLines(
                    f"line {number} is no prediction of {where}: remove the file or name another one"
                )
        if len(old) == len(part) and following is not None:
            # only the last window is made again, to see that its lines are those of this model
            continue
        lines = _window(predictor, part, targets, counts)
        if lines[: len(old)] != old:
            raise OtherLines(
                "its last lines are predictions of another model or other options: remove the file or name another one"
            )
        yield from lines[len(old) :]
    if following is not None:
        raise OtherLines("has predictions of more rows: remove the file or name another one")


def _batched(rows: Iterator[Any], size: int) -> Iterator[tuple[Any, ...]]:
    """The rows, `size` at a time."""
    # itertools.batched needs Python 3.12
    while part := tuple(itertools.islice(rows, size)):
        yield part


class _Skipped(RowCounts):
    """Counts that remember why each row was skipped."""

    def __init__(self, counts: RowCounts):
        super().__init__(counts.read, counts.skipped, counts.first)
        self.reasons: dict[str, str] = {}

    def skip(self, bad: BadRow, where: str) -> None:
        """Counts a row as skipped."""
        super().skip(bad, where)
        self.reasons[where] = str(bad)


def _window(
    predictor: Predictor,
    part: tuple[tuple[str, str, Record | BadRow], ...],
    targets: list[str],
    counts: Counts,
) -> list[dict[str, Any]]:
    """The lines of some rows."""
    on_bad_row = predictor.model.config.data.on_bad_row
    skipped = _Skipped(counts.rows)
    records: list[Record] = []
    for source, where, record in part:
        counts.rows.read += 1
        if not isinstance(record, BadRow):
            records.append(dict.fromkeys(targets) | record)
        elif record == EMPTY_TEXT or on_bad_row == "skip":
            skipped.skip(record, where)
        else:
            raise bad_row_error(source, where, record)
    columns = [role for role in records[0] if role != "id"] if records else []
    answers = predictor(Records.of(records, columns, skipped), counts) if records else {}
    counts.predicted += len(answers)
    lines = []
    for _, where, _ in part:
        if where in answers:
            lines.append({"id": where, **answers[where]})
        else:
            lines.append({"id": where, "error": skipped.reasons.get(where, _UNUSED)})
    return lines


# kinds of columns that are never read to predict, if they are not required
_TARGETS = ("label", "labels", "number", "tags", "spans", "answers")


def input_columns(kind: type[Task], config: Any) -> tuple[dict[str, Column], list[str]]:
    """The columns that predictions are made from, and the roles of the targets, which are not read."""
    wanted = kind.columns(config, "predict")
    targets = [r for r, c in wanted.items() if c.kind in _TARGETS and not c.required]
    return {role: column for role, column in wanted.items() if role not in targets}, targets


def predict_values(predictor: Predictor, inputs: Any) -> Any:
    """The prediction for an input, or for each of several; see `LanguageModel.predict`."""
    is_one = isinstance(inputs, (str, tuple, dict))
    values = [inputs] if is_one else list(inputs)
    model = predictor.model
    kind, config = type(model.task), model.config
    if not model.step and any(isinstance(value, tuple) for value in values):
        # a model that is no run: it reads what it is given
        config = dataclasses.replace(config, data=_with_pairs(config.data))
    columns, targets = input_columns(kind, config)
    in_order = dict(sorted(columns.items(), key=lambda item: item[1].over is not None))
    records: list[Record] = []
    for i, value in enumerate(values):
        row = _row(value, columns)
        record = f"{type(value).__name__}, not a text, a pair or a dict" if row is None else None
        checked = columns_check(row, in_order) if row is not None else None
        if isinstance(checked, BadRow):
            record = str(checked)
        if record is not None:
            raise ValueError(f"input {i}: {record}")
        assert isinstance(checked, dict)
        records.append(dict.fromkeys(targets) | checked | {"id": f"input {i}"})
    if not records:
        return []
    names = [role for role in records[0] if role != "id"]
    size = config.batch_size
    if model.mesh.size == 1:
        size = min(size, 1 << (len(records) - 1).bit_length())
    skipped = _Skipped(RowCounts())
    answers = predictor(Records.of(records, names, skipped), batch_size=size)
    for where in (checked["id"] for checked in records):
        if where not in answers:
            raise ValueError(f"{where}: {skipped.reasons.get(where, _UNUSED)}")
    found = [answers[checked["id"]] for checked in records]
    return found[0] if is_one else found


def _with_pairs(data: Any) -> Any:
    return dataclasses.replace(data, pair_column=data.pair_column or "pair")


def _row(value: Any, columns: dict[str, Column]) -> dict[str, Any] | None:
    """An input as the row of a file; None: it is nothing that is read."""
    if isinstance(value, dict):
        named = {c.name: value[role] for role, c in columns.items() if role in value}
        return named | value
    parts = (value,) if isinstance(value, str) else value
    if not isinstance(parts, tuple) or not all(isinstance(part, str) for part in parts):
        return None
    required = [column for column in columns.values() if column.required]
    # where a row may have one of several
    required = required or [column for column in columns.values() if column.kind == "text"][:1]
    if len(parts) != len(required):
        names = ", ".join(column.name for column in required)
        raise ValueError(
            f"an input of {len(parts)} texts, where the model reads {len(required)}: {names}"
        )
    return {
        column.name: part.split() if column.kind == "words" else part
        for column, part in zip(required, parts)
    }
