"""The output of a run: exact files, readable lines, no record lost or duplicated."""

import io
import json
import os
import re
import struct
import subprocess
import sys

import jax
import numpy as np
import pytest
from rich.console import Console

from jaxlm.config import DecoderConfig
from jaxlm.models import heads
from jaxlm.report import formats, metrics_file, overview, run_log
from jaxlm.report.curves import curves, phase_starts, series, smoothed
from jaxlm.report.throughput import Throughput
from jaxlm.tasks.task import Piece


class Clock:
    """A clock that is advanced by hand."""

    now = 0.0

    def __call__(self):
        return self.now


def new_log(folder, clock=None, *, terminal=False, **options):
    """A log of 100 steps and the text that it prints."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120)
    options = {"total_steps": 100, "is_main": True, **options}
    return run_log.RunLog(folder, console=console, clock=clock or Clock(), **options), out


def write_steps(log, steps):
    for step in steps:
        log.step(step, {"loss": 1 / step, "learning_rate": 1e-3})
        if step % 20 == 0:
            log.evaluation(step, {"loss": 2 / step})
    log.close()


def strict_json(text):
    """Like json.loads, but rejects NaN."""

    def refuse(name):
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


def events(folder):
    """The events of all TensorBoard files, by the format of TFRecord: length, checksum, bytes, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            found.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def test_every_step_and_evaluation_is_a_line_of_strict_json(tmp_path):
    log, _ = new_log(tmp_path)
    log.step(1, {"loss": np.float32(2.5), "grad_norm": float("inf"), "tokens_per_second": None})
    log.evaluation(1, {"loss": float("nan"), "accuracy": 0.5})
    rows = [strict_json(line) for line in log.metrics_path.read_text().splitlines()]
    log.close()
    assert rows == [
        {"step": 1, "loss": 2.5, "grad_norm": None, "nonfinite": {"grad_norm": "inf"}},
        {"step": 1, "eval/loss": None, "eval/accuracy": 0.5, "nonfinite": {"eval/loss": "nan"}},
    ]


def test_a_resumed_run_writes_the_file_of_an_uninterrupted_one(tmp_path):
    log, _ = new_log(tmp_path / "whole")
    write_steps(log, range(10, 101, 10))
    log, _ = new_log(tmp_path / "twice")
    write_steps(log, range(10, 71, 10))
    with open(tmp_path / "twice" / "metrics.jsonl", "a") as file:
        file.write('{"step": 80, "lo')  # the crash came in the middle of a line
    log, _ = new_log(tmp_path / "twice", start_step=40)
    write_steps(log, range(50, 101, 10))
    whole, twice = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "twice"))
    assert twice == whole


def test_a_new_run_does_not_inherit_lines(tmp_path):
    write_steps(new_log(tmp_path)[0], [10, 20])
    write_steps(new_log(tmp_path)[0], [5])
    assert [row["step"] for row in metrics_file.read_metrics(tmp_path / "metrics.jsonl")] == [5]


def test_a_corrupt_line_is_named_and_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": oh\n{"step": 3}\n')
    with pytest.warns(UserWarning, match=r"metrics\.jsonl:2: not a JSON object"):
        new_log(tmp_path, start_step=3)
    assert path.read_text() == '{"step": 1}\n{"step": 3}\n'


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000])
def test_a_damaged_summary_is_an_error_of_one_line(tmp_path, text):
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(ValueError, match=r"summary\.json: not a JSON .*: delete the file"):
        run_log.read_summary(tmp_path)


def test_tensorboard_gets_every_number_and_hides_repeated_steps(tmp_path):
    log, _ = new_log(tmp_path)
    log.step(10, {"loss": 2.5})
    log.sample(10, "once\nupon")
    log.close()
    log, _ = new_log(tmp_path, start_step=5)
    log.evaluation(10, {"loss": 2.0})
    log.close()
    points = [(e.step, v) for e in events(tmp_path) for v in e.summary.value]
    numbers = [(step, v.tag, v.simple_value) for step, v in points if v.HasField("simple_value")]
    assert numbers == [(10, "train/loss", 2.5), (10, "eval/loss", 2.0)]
    texts = [v.tensor.string_val[0] for _, v in points if v.HasField("tensor")]
    assert texts == [b"    once\n    upon\n"]
    starts = [e.step for e in events(tmp_path) if e.HasField("session_log")]
    assert starts == [0, 6]


def test_only_the_main_process_writes(tmp_path):
    log, out = new_log(tmp_path / "run", is_main=False)
    write_steps(log, [10, 20])
    log.note("a note")
    log.sample(1, "text")
    log.finish({"steps": 20})
    assert out.getvalue() == ""
    assert list(tmp_path.iterdir()) == []


def test_plain_lines_without_a_terminal(tmp_path):
    clock = Clock()
    log, out = new_log(tmp_path, clock)
    metrics = {"accuracy": 0.5, "loss": 2.3141, "learning_rate": 9.8e-4, "grad_norm": 0.7123}
    metrics |= {"tokens_per_second": 41234.0, "mfu": 0.1234, "skipped": 0}
    log.step(10, metrics)
    clock.now = 24.0
    log.step(40, {**metrics, "skipped": 2})
    log.note("[not markup] :smile:")
    log.evaluation(40, {"loss": 2.0, "perplexity": 7.389})
    log.close()
    speed = "41.2k tok/s  mfu 12.3%"
    assert out.getvalue().splitlines() == [
        f"step 10/100  loss 2.314  lr 9.8e-04  grad 0.71  {speed}  accuracy 0.5000",
        f"step 40/100  loss 2.314  lr 9.8e-04  grad 0.71  {speed}  eta 48s  accuracy 0.5000  skipped 2",
        "[not markup] :smile:",
        "eval 40/100  loss 2.000  perplexity 7.389",
    ]


def test_notes_are_printed_above_the_progress_line(tmp_path):
    log, out = new_log(tmp_path, terminal=True)
    log.step(10, {"loss": 2.5})
    log.note("checkpoint saved")
    log.step(20, {"loss": 2.25})
    log.close()
    log.close()
    shown = out.getvalue()
    assert "checkpoint saved\n" in shown
    assert shown.rindex("loss 2.250") > shown.index("checkpoint saved")
    # drawn over itself, with the cursor hidden meanwhile and shown again in the end
    assert "\x1b[2K" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1


def test_finish_writes_a_summary_and_a_figure(tmp_path):
    log, _ = new_log(tmp_path)
    write_steps(log, range(10, 101, 10))
    log.finish({"steps": 100, "best": {"loss": float("nan")}, "texts": ("ä",)})
    expected = {"steps": 100, "best": {"loss": None}, "texts": ["ä"]}
    assert strict_json((tmp_path / "summary.json").read_text("utf-8")) == expected
    assert run_log.read_summary(tmp_path) == expected
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob("*.tmp"))


def test_there_is_no_summary_before_the_end(tmp_path):
    with pytest.raises(ValueError, match="the run has not ended"):
        run_log.read_summary(tmp_path)


def test_a_summary_is_written_even_if_the_metrics_are_damaged(tmp_path):
    log, _ = new_log(tmp_path)
    log.close()
    log.metrics_path.write_text("damaged\n")
    with pytest.warns(UserWarning, match=r"metrics\.jsonl:1"):
        log.finish({"steps": 3})
    assert run_log.read_summary(tmp_path) == {"steps": 3}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_is_reported_and_does_not_stop_the_run(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    log, out = new_log(tmp_path)
    log.step(10, {"loss": 2.5})
    log.close()
    assert out.getvalue().count("No space left on device") == 2


def test_throughput_is_over_the_last_steps_without_pauses():
    clock = Clock()
    meter = Throughput(100, window=3, clock=clock)
    clock.now = 50.0  # compilation
    meter.step()
    assert meter.tokens_per_second is None
    for seconds in (5.0, 1.0, 1.0):
        clock.now += seconds
        meter.step()
    assert meter.tokens_per_second == pytest.approx(300 / 7)
    with meter.paused():
        clock.now += 1000
    clock.now += 2.0
    meter.step()
    assert meter.tokens_per_second == pytest.approx(300 / 4)


def test_counts_sizes_times_and_numbers():
    counts = [0, 7, 999, 999.6, 1000, 41_234, 999_600, 12_345_678, 1.5e9, 3.1e14, 7.2e17]
    assert [formats.count(n) for n in counts] == (
        ["0", "7", "999", "1k", "1k", "41.2k", "1M", "12.3M", "1.5B", "310T", "720000T"]
    )
    assert [formats.size(n) for n in (512, 1023.9, 1536, 3 << 30, 5 << 40)] == (
        ["512 B", "1 KiB", "1.5 KiB", "3 GiB", "5 TiB"]
    )
    assert [formats.duration(s) for s in (0.4, 59.6, 72, 7500, 277_200)] == (
        ["0s", "1m00s", "1m12s", "2h05m", "3d05h"]
    )
    values = [2.31, 0.012, 431.2, 54321.0, 1.2e8, float("nan"), 3]
    assert [formats.number(x) for x in values] == (
        ["2.310", "0.01200", "431.2", "54321", "1.200e+08", "nan", "3"]
    )
    assert [formats.number(x, 2) for x in (0.7123, 12.3, 123.0)] == ["0.71", "12", "123"]


def test_the_start_table_shows_parts_tokens_and_memory():
    model = heads.CausalLM(DecoderConfig(vocab_size=64, dim=16, num_layers=2, max_len=32))
    params = jax.eval_shape(lambda: heads.init_params(model, jax.random.key(0)))
    parts = overview.count_parameters(params)
    assert parts["embedding"] == (64 + 32) * 16
    assert parts["other"] == 2 * 16
    assert sum(parts.values()) == sum(x.size for x in jax.tree.leaves(params))
    assert "head" not in parts
    out = io.StringIO()
    overview.start_table(
        params,
        tokens_per_step=8192,
        total_tokens=8_192_000,
        flops_per_step=8.192e12,
        mesh={"data": 4, "fsdp": 2},
        dtypes="parameters float32, compute bfloat16",
        memory={"argument_bytes": 3 << 30, "temporary_bytes": 1 << 30, "output_bytes": 0},
        run_dir="runs/x",
        stages=["steps 1 to 10: short", "steps 11 to 20: long"],
        phases=["steps 1 to 15: trains head", "steps 16 to 20: trains rest"],
        attention=["splash", "xla: splash does not support a bias on the scores"],
        console=Console(file=out, width=100),
    )
    text = out.getvalue()
    for part in (
        "8.19k per step at the end, 8.19M in total",
        "8.19T per step at the end, 1B per token",
        "│ stages        │ steps 1 to 10: short",
        "│               │ steps 11 to 20: long",
        "│ phases        │ 1. steps 1 to 15: trains head",
        "│               │ 2. steps 16 to 20: trains rest",
        "data=4  fsdp=2  (8 devices)",
        "│ attention     │ splash",
        "│               │ xla: splash does not support a bias on the scores",
        "4 GiB per device",
        "temporaries │ 1 GiB",
        f"({sum(parts.values()):,})",
        "runs/x",
    ):
        assert part in text


def preview(pieces, *, terminal=False, **options):
    out = io.StringIO()
    colours = "standard" if terminal else None
    console = Console(file=out, force_terminal=terminal, width=60, color_system=colours)
    overview.batch_preview(pieces, console=console, **options)
    return out.getvalue()


def test_a_preview_marks_the_tokens_that_count():
    causal = [Piece("The", True), Piece(" [cat]", True), Piece("\n"), Piece("</s>")]
    head, row = preview(causal).splitlines()
    assert row == "[The [cat]]↵</s>"
    assert preview(causal, limit=1).splitlines()[1] == "[The] … and 3 more tokens"
    assert head.startswith("first row: 2 of 4 tokens count")
    masked = [Piece("The"), Piece("<mask>", True, " cat"), Piece("on", True, "sat"), Piece("sat")]
    assert preview(masked).splitlines()[1] == "The[<mask>→ cat][on→sat]sat"
    assert preview(masked, limit=1).splitlines()[1] == "The … and 3 more tokens"
    labelled = [Piece("fine"), Piece("=>", True, "good")]
    assert preview(labelled).splitlines()[1] == "fine[=>→good]"
    head = preview(labelled, legend="the class follows the arrow").splitlines()[0]
    assert head == "first row: the class follows the arrow"
    # the last token of a text that is written out has nothing behind it
    written = [Piece("x"), Piece(" => "), Piece("<s>", True), Piece("y", True, "</s>")]
    assert preview(written).splitlines()[1] == "x => [<s>y→</s>]"
    coloured = preview(masked, terminal=True)
    assert "\x1b[36m<mask>→ cat\x1b[0m" in coloured
    assert "[<mask>" not in coloured.replace("\x1b[", "")
    # the words do not depend on what is shown
    strip = lambda pieces: re.sub(r"\d", "", preview(pieces).splitlines()[0])
    assert strip(causal) == strip(masked) == strip(labelled)


def test_a_preview_separates_the_texts_of_a_row():
    pieces = [
        Piece("a", True),
        Piece("b", True, begins=True),
        Piece("c", True),
        Piece("[PAD]", begins=True),
    ]
    assert preview(pieces).splitlines()[1] == "[a] ║ [bc] ║ [PAD]"
    assert " ║ " in preview(pieces, terminal=True).splitlines()[-1]


LINES = {
    "nothing": "",
    "one point": '{"step": 1, "loss": 2.0, "learning_rate": 0.1, "grad_norm": 1.0}\n',
    "no number": '{"step": 1, "loss": null}\n{"step": 2, "loss": null}\n',
    "no training": '{"step": 0, "eval/loss": 2.0}\n',
    "zero": '{"step": 1, "loss": 0.0, "grad_norm": 0}\n{"step": 2, "loss": 0.0, "grad_norm": 9}\n',
    "wide": '{"step": 1, "loss": 2, "grad_norm": 0.01}\n{"step": 2, "loss": 1, "grad_norm": 9}\n',
    "phases": '{"step": 1, "loss": 2.0, "phase": 1}\n{"step": 2, "loss": 1.0, "phase": 2}\n',
    "evaluation": '{"step": 1, "loss": 2.0}\n{"step": 1, "eval/loss": 2.0, "eval/accuracy": 0.5}\n',
}


@pytest.mark.parametrize("lines", LINES.values(), ids=LINES)
def test_curves_of_any_history_are_drawn(tmp_path, lines):
    (tmp_path / "metrics.jsonl").write_text(lines)
    curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    header = (tmp_path / "curves.png").read_bytes()[:24]
    _, height = struct.unpack(">II", header[16:])
    # a second row of panels where there is anything to put in it
    has_panels = any(name in lines for name in ("learning_rate", "grad_norm", "accuracy"))
    assert header.startswith(b"\x89PNG")
    assert height == 150 * (4.9 + 2.3 * has_panels)


def test_the_curves_mark_where_phases_begin():
    rows = [{"step": s, "loss": 1.0, "phase": 1 + (s > 3) + (s > 7)} for s in range(1, 11)]
    rows.insert(4, {"step": 4, "eval/loss": 1.0})
    assert phase_starts(rows) == [4, 8]
    assert phase_starts([{"step": 1, "loss": 1.0}, {"step": 2, "loss": 1.0}]) == []


def test_a_series_is_finite_and_smoothing_keeps_lines_but_not_spikes():
    rows = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": None}, {"step": 3, "eval/loss": 1.0}]
    assert [x.tolist() for x in series(rows, "loss")] == [[1.0], [3.0]]
    line = np.linspace(5, 1, 400)
    spiked = line.copy()
    spiked[200] = 1000
    assert np.abs(smoothed(spiked) - line)[10:-10].max() < 0.1
    assert smoothed(line[:5]).tolist() == line[:5].tolist()


def test_importing_the_log_imports_nothing_heavy():
    heavy = ["matplotlib", "tensorboardX", "torch", "tensorflow"]
    code = f"import sys, jaxlm.report.run_log as _; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
