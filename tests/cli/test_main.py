"""The command line: user errors give one line on stderr and exit code 2, and lose nothing."""

import dataclasses
import errno
import json
import os
import pathlib
import re
import resource
import subprocess
import sys

import pytest

import jaxlm
from jaxlm import sharding
from jaxlm.cli import arguments
from jaxlm.cli import main as cli
from jaxlm.config import MeshConfig, TrainConfig, files
from jaxlm.run import quickstart


def run(capsys, *argv) -> tuple[int, str, str]:
    try:
        code = cli.main([str(a) for a in argv])
    except SystemExit as e:  # tyro's own way out
        code = e.code
    out, err = capsys.readouterr()
    return code, out, err


def refused(capsys, *argv) -> str:
    code, _, err = run(capsys, *argv)
    assert code == 2, (code, err)
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "fine"}\n{"text": "broken\n', "bad.jsonl:2"),
        ('{"text": "fine"}\n{"words": "x"}\n', "no column 'text'"),
        ('{"text": "fine"}\n{"text": null}\n', "bad.jsonl:2"),
        ('{"text": "fine"}\n{"text": 3}\n', "is not a string"),
        ("", "empty file"),
    ],
)
def test_bad_rows_are_named_by_file_and_line(folder, capsys, content, message):
    (folder / "bad.jsonl").write_text(content)
    assert message in refused(capsys, "train", "--data.train", "bad.jsonl", "--run-dir", "run")
    assert not (folder / "run/checkpoints").exists()


def test_bad_utf8_is_named_by_file_and_line(folder, capsys):
    (folder / "bad.txt").write_bytes(b"fine\nnot \xff fine\n")
    error = refused(capsys, "train", "--data.train", "bad.txt", "--data.text-unit", "line")
    assert "bad.txt:2" in error


@pytest.mark.parametrize(
    ("label", "message"),
    [("NaN", "rows.jsonl:3"), ("1.5", "rows.jsonl:3"), ("null", "rows.jsonl:3")],
)
def test_bad_labels_are_named_by_file_and_line(folder, capsys, trained, label, message):
    labels = ["0", "1", label]
    rows = "".join(f'{{"text": "text {i}", "label": {x}}}\n' for i, x in enumerate(labels))
    (folder / "rows.jsonl").write_text(rows)
    argv = ["finetune", "--init", trained, "--data.train", "rows.jsonl", "--run-dir", "tuned"]
    assert message in refused(capsys, *argv)


def test_an_unknown_label_is_named_with_the_nearest_class(folder, capsys, trained):
    rows = [{"text": f"text {i}", "label": ["good", "bad"][i % 2]} for i in range(20)]
    rows[7]["label"] = "goood"
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    argv = ["finetune", "--init", trained, "--data.train", "rows.jsonl", "--run-dir", "tuned"]
    error = refused(capsys, *argv, "--task.labels", "good", "bad")
    assert "rows.jsonl:8" in error
    assert "did you mean 'good'" in error
    error = refused(capsys, *argv, "--task.labels", "good", "bad", "good")
    assert "error: task.labels has 'good' twice" in error
    error = refused(capsys, *argv, "--data.max-documents", "1")
    assert (
        "data.train has only the label 'good': at least two are needed (data.max_documents=1 "
        in error
    )
    error = refused(capsys, *argv, "--task.labels", "good")
    assert "error: task.labels has only the label 'good'" in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model.num-heads", "5"], "model.num_heads=5 does not divide model.dim=128"),
        (["--data.seq-len", "4096"], "data.seq_len=4096 is more than model.max_len=256"),
        (["--optimizer.learning-rate", "-1"], "optimizer.learning_rate=-1"),
        (["--accumulate", "3"], "accumulate=3 does not divide batch_size=16"),
        (["--steps", "0"], "steps=0 must be at least 1"),
        (["--distributed.process-id", "1"], "go together"),
        (["--data.train", "no/such.jsonl"], "no/such.jsonl"),
        (["--data.train", "no/*.jsonl"], "no file matches"),
        (
            ["--run-dir", "hdfs://host/run"],
            "hdfs://host/run: a URL of a kind that is not supported",
        ),
        (["--data.weights", "0"], "error: data.weights[0]=0.0 must be positive; remove"),
        (["--data.weights", "nan"], "error: data.weights[0]=nan is not a finite number"),
        (["--model.norm-eps", "nan"], "error: model.norm_eps=nan is not a finite number"),
        (["--optimizer.learning-rate", "inf"], "error: optimizer.learning_rate=inf is not"),
    ],
)
def test_invalid_values_are_named(folder, capsys, flags, message):
    assert message in refused(capsys, "train", *flags)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--optimizer.lerning-rate", "1"], "did you mean --optimizer.learning-rate?"),
        (["--nonsense"], "--nonsense: no such option; `jaxlm train --help` lists them"),
        (["--steps", "3", "extra"], "extra: not expected here; options begin with --"),
        (["--steps", "many"], "error: --steps many: not a whole number"),
        (["--optimizer.learning-rate", "x"], "--optimizer.learning-rate x: not a number"),
        (["--steps"], "error: --steps needs a value"),
        (["--steps", "3", "--epochs=2"], "error: --steps and --epochs: give one of them"),
        (["--optimizer.name", "adam"], "--optimizer.name adam: not one of adamw, sgd"),
    ],
)
def test_mistyped_flags_are_reported_in_one_short_line(folder, capsys, argv, line):
    error = refused(capsys, "train", *argv)
    assert line in error
    assert len(error) < 110


def test_missing_arguments_are_reported_by_name(capsys):
    assert "error: OUT_DIR missing; `jaxlm convert --help`" in refused(capsys, "convert", "run")


def test_files_that_are_not_configs_are_rejected(folder, capsys):
    assert "no such config file" in refused(capsys, "train", "missing.py")
    (folder / "empty.py").write_text("x = 1\n")
    assert "get_config" in refused(capsys, "train", "empty.py")
    (folder / "broken.py").write_text("def get_config(:\n")
    assert "broken.py" in refused(capsys, "train", "broken.py")
    (folder / "tune.py").write_text("from jaxlm.run.quickstart import finetuning as get_config\n")
    assert "use jaxlm finetune" in refused(capsys, "train", "tune.py")


def test_fine_tuning_needs_a_run(folder, capsys):
    assert "no such run folder" in refused(capsys, "finetune", "--init", "nowhere")
    (folder / "other").mkdir()
    assert "config.json" in refused(capsys, "finetune", "--init", "other")


def test_a_run_of_an_own_task_is_named_with_what_reads_it(folder, capsys, trained):
    text = (trained / "config.json").read_text()
    (trained / "config.json").write_text(text.replace("CausalLMConfig", "StarsConfig"))
    for command in (["evaluate", trained], ["predict", trained, "--data", "x.txt"]):
        error = refused(capsys, *command)
        assert "'StarsConfig' is not one of CausalLMConfig" in error
        assert "call jaxlm.run.restore.restore(run_dir, tasks=[...]) in Python" in error


def test_evaluation_needs_a_run(folder, capsys):
    assert "no such run folder" in refused(capsys, "evaluate", "nowhere")
    assert "does not exist" in refused(capsys, "evaluate", "nowhere", "--out", "none/scores.json")
    (folder / "model").mkdir()
    (folder / "model/config.json").write_text('{"model_type": "bert"}')
    error = refused(capsys, "convert", "model", "out")
    assert "`jaxlm finetune --init model` starts a run from it" in error
    assert "_size is missing" in refused(capsys, "evaluate", "model")


def test_a_mesh_that_does_not_fit_the_devices(folder):
    with pytest.raises(ValueError, match="does not fit 8 device"):
        sharding.make_mesh(MeshConfig(data=3))


def test_checkpoints_without_their_config_are_rejected(folder, capsys):
    (folder / "run/checkpoints/100").mkdir(parents=True)
    (folder / "small.txt").write_text("some words\n" * 50)
    error = refused(
        capsys,
        "train",
        "--data.train",
        "small.txt",
        "--run-dir",
        "run",
        "--data.tokenizer.kind",
        "char",
    )
    assert "no config.json" in error


def test_commands_have_help(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for name in cli.COMMANDS:
        assert name in out
        code, text, _ = run(capsys, name, "--help")
        assert code == 0
        assert len(text) > 50, name
        assert "{None" not in text, name
    assert "no command" in refused(capsys, "trian")


def test_argument_names_agree_in_help_and_usage(capsys):
    for words, places in (
        ("tokenize", "OUT_DIR"),
        ("convert", "RUN_DIR OUT_DIR"),
        ("evaluate", "RUN_OR_MODEL_DIR"),
    ):
        _, text, _ = run(capsys, words, "--help")
        assert text.splitlines()[0].endswith(places)


def test_env_names_versions_and_devices(capsys):
    code, out, _ = run(capsys, "env")
    assert code == 0
    for word in ("jax ", "flax", "orbax-checkpoint", "python", "backend", "cpu"):
        assert word in out


def test_a_tokenizer_is_trained_and_written(folder, capsys):
    (folder / "small.txt").write_text("the cat sat on the mat\n" * 50)
    argv = ["tokenizer", "train", "out.json", "--data.train", "small.txt"]
    code, out, _ = run(capsys, *argv, "--data.tokenizer.kind", "char")
    assert code == 0
    assert (folder / "out.json").stat().st_size > 100
    assert "entries in out.json" in out
    assert "does not exist" in refused(capsys, "tokenizer", "train", "no/out.json")


@pytest.fixture
def trained(folder):
    """A minimal run folder, with which fine-tuning starts to read its data."""
    from jaxlm.config import TokenizerConfig
    from jaxlm.data import tokenizer

    config = quickstart.pretraining()
    run_dir = folder / "trained"
    run_dir.mkdir()
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=64))
    files.save(config, run_dir / "config.json")
    tokenizer.train(["some text"], TokenizerConfig(kind="char")).save(run_dir / "tokenizer.json")
    return run_dir


def test_the_version_is_printed(capsys):
    code, out, _ = run(capsys, "--version")
    assert code == 0
    assert out == f"jaxlm {jaxlm.__version__}\n"


@pytest.mark.parametrize("argv", [["--help"], ["train", "--help"]])
def test_a_closed_pipe_ends_quietly(argv):
    process = subprocess.Popen(
        [sys.executable, "-m", "jaxlm", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    process.stdout.close()
    errors = process.stderr.read().decode()
    assert process.wait(timeout=120) in (0, 141)
    assert not errors


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["evaluate", "x", "--out", "there"], "there: a folder: name the file to write"),
        (["predict", "x", "--data", "a", "--out", "there"], "there: a folder: name the file"),
        (["tokenizer", "train", "there"], "there: a folder: name the file to write"),
        (["tokenize", "file.txt", "file.txt"], "file.txt: file.txt is a file: name a folder"),
        (["tokenize", "file.txt", "file.txt/a"], "file.txt/a: file.txt is a file: name a folder"),
        (["tokenize", "file.txt", "a", "--shard-tokens", "0"], "shard_tokens=0 must be at least 1"),
        (["data", "inspect", "--out", "file.txt"], "file.txt is a file: name a folder to write"),
        (["vae", "map", "file.txt"], "file.txt: no such run folder"),
        (
            ["audit", "x", "--train", "a", "--out", "page.html"],
            "page.json: a folder: name the file",
        ),
        (
            ["audit", "x", "--train", "a", "--seed", "-1", "--out", "a.html"],
            "--seed -1: must not be",
        ),
        (["explain", "x", "--text", "a", "--out", "page.html"], "page.json: a folder: name the"),
        (
            ["explain", "x", "--text", "a", "--out", "a.json"],
            "a.json: name a file that ends in .html",
        ),
        (
            ["evaluate", "x", "--data", "*.txt", "--out", "file.txt"],
            "file.txt: is read, and would be",
        ),
        (
            ["report", "x", "--data", "file.txt", "--out", "./file.txt"],
            "file.txt: is read, and would",
        ),
        (["tokenizer", "train", "file.txt", "--data.train", "file.txt"], "file.txt: is read, and"),
        (
            ["audit", "canaries", "c", "--into", "file.txt", "--out", "file.txt"],
            "is read, and would",
        ),
        (["audit", "canaries", "c", "--into", "file.txt", "--out", "c"], "c: the canaries are"),
        (
            ["audit", "canaries", "c", "--into", "latin.txt", "--out", "d"],
            "latin.txt: cannot be read",
        ),
        (
            ["audit", "canaries", "c", "--into", "no.txt", "--out", "d"],
            "no.txt: cannot be read: No",
        ),
        (["audit", "canaries", "c", "--seed", "-1"], "--seed -1: must not be negative"),
        (["data", "inspect", "--examples", "²"], "--examples ² is not a whole number"),
        (["data", "inspect", "--examples", "99999999"], "--examples 99999999: at most 10,000"),
    ],
)
def test_outputs_that_cannot_be_written_are_refused_first(folder, capsys, argv, message):
    (folder / "there").mkdir()
    (folder / "page.json").mkdir()
    (folder / "file.txt").write_text("some words\n")
    (folder / "latin.txt").write_bytes(b"caf\xe9\n")
    assert message in refused(capsys, *argv)
    assert (folder / "file.txt").read_text() == "some words\n"


def test_a_batch_of_no_rows_is_refused(folder, capsys, trained):
    argv = ["evaluate", trained, "--batch-size", "0"]
    assert "--batch-size 0: must be at least 1" in refused(capsys, *argv)


SMALL = ("--data.train", "small.txt", "--data.tokenizer.kind", "char", "--run-dir", "a/run")


@pytest.mark.parametrize(
    "flags",
    [
        ("--data.train", "no.txt", "--run-dir", "a/run"),
        (*SMALL, "--batch-size", "3"),
        (*SMALL, "--mesh.data", "3"),
        (*SMALL, "--mesh.tensor", "8", "--mesh.data", "1", "--model.dim", "36"),
        (*SMALL, "--task.z-loss", "-1", "--model.vocab-size", "3"),
    ],
)
def test_a_start_that_fails_leaves_no_folder(folder, capsys, flags):
    (folder / "small.txt").write_text("some words and more of them\n" * 200)
    refused(capsys, "train", *flags)
    assert sorted(path.name for path in folder.iterdir()) == ["small.txt"]


def test_a_run_without_a_config_file_is_named_after_its_folder(tmp_path):
    read = lambda *argv: arguments.read_config([*argv], TrainConfig, quickstart.pretraining, "x")
    assert read().name == "python_docs"
    assert read("--run-dir", "out/mine/").name == read("--run-dir=out/mine").name == "mine"
    assert read("--run-dir", "out/mine", "--name", "other").name == "other"
    config = tmp_path / "epochs.py"
    config.write_text(
        "from jaxlm import CausalLMConfig, TrainConfig\n\n\ndef get_config():\n"
        "    return TrainConfig(task=CausalLMConfig(), epochs=3.0)\n"
    )
    assert read(str(config), "--run-dir", "out/mine").name == "epochs"
    # steps on the command line hold against epochs in the file
    assert read(str(config)).epochs == 3
    assert (read(str(config), "--steps", "7").epochs, read(str(config), "--steps", "7").steps) == (
        None,
        7,
    )


def test_a_start_that_fails_leaves_a_folder_that_was_there(folder, capsys):
    (folder / "small.txt").write_text("some words and more of them\n" * 200)
    (folder / "a/run").mkdir(parents=True)
    refused(capsys, "train", *SMALL, "--batch-size", "3")
    assert list((folder / "a/run").iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        ("predict", "run", "--data", "x.jsonl", "--out"),
        ("evaluate", "run", "--data", "x.jsonl", "--out"),
        ("report", "run", "--out"),
        ("generate", "run", "--prompt", "a", "--out"),
        ("tokenizer", "train"),
    ],
    ids=lambda command: command[0],
)
def test_a_file_that_cannot_be_written_is_told_before_anything_is_read(command, tmp_path, capsys):
    cases = {
        tmp_path / "missing" / "x": "does not exist",
        tmp_path: "a folder: name the file to write",
        pathlib.Path("/dev/null"): "a device: name the file to write",
        pathlib.Path("/proc/x"): "cannot be written: No such file",
    }
    for path, words in cases.items():
        if path.parent.is_dir() or "missing" in path.parts:
            assert cli.main([*command, str(path)]) == 2
            error = capsys.readouterr().err
            assert words in error
            assert error.count("\n") == 1
    assert pathlib.Path("/dev/null").is_char_device()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["predict", "evaluate", "report"])
def test_a_file_that_is_read_is_not_written(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # a line that could be the beginning of a prediction, in a file whose name looks like a pattern
    content = '{"id": "7", "text": "a good film"}'
    path = tmp_path / "part[1].jsonl"
    path.write_text(content)
    (tmp_path / "link.jsonl").symlink_to(path)
    for source in ("part[1].jsonl", "*.jsonl", "link.jsonl", "parallel:part[1].jsonl"):
        assert cli.main([command, "run", "--data", source, "--out", str(path)]) == 2
        assert "part[1].jsonl: is read, and would be overwritten" in capsys.readouterr().err
    assert path.read_text() == content


def test_a_full_disk_is_one_line(monkeypatch, capsys):
    def full(arguments):
        raise OSError(errno.ENOSPC, "No space left on device", "/data/x.json")

    monkeypatch.setattr("jaxlm.cli.env.run", full)
    assert cli.main(["env"]) == 1
    assert capsys.readouterr().err == "error: /data/x.json: No space left on device\n"


@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("tokenizer train out.json --data.train small.txt", "out.json"),
        ("tokenize small.txt out --data.tokenizer.kind char", "out"),
        ("audit canaries out.json", "out.json"),
        ("data inspect small.py --out out", "out"),
        ("train small.py --run-dir out", "out"),
    ],
)
def test_a_full_disk_is_one_line_that_names_what_is_written(folder, capsys, command, place):
    (folder / "small.txt").write_text("some words and more of them\n" * 200)
    (folder / "small.py").write_text(
        "from jaxlm import config as c, CausalLMConfig, TrainConfig\n\n\ndef get_config():\n"
        "    data = c.DataConfig(train=('small.txt',), tokenizer=c.TokenizerConfig(kind='char'), "
        "text_unit='line', seq_len=8)\n"
        "    model = c.DecoderConfig(dim=8, num_layers=1, num_heads=1, max_len=8)\n"
        "    return TrainConfig(task=CausalLMConfig(), data=data, model=model, steps=1)\n"
    )
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, most[1]))
    try:
        code = cli.main(command.split())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert code == 1
    # of progress there may be an empty line before it
    (line,) = capsys.readouterr().err.split("\n")[-2:-1]
    assert re.fullmatch(rf"error: (.*/)?{place}.*: File too large", line)


@pytest.mark.parametrize(
    "name", ["config.json.tmp", "metrics.jsonl", "curves.png", "summary.json.tmp", ".lock"]
)
def test_a_run_writes_through_no_link(folder, capsys, name):
    (folder / "victim").write_text("precious")
    (folder / "run").mkdir()
    (folder / "run" / name).symlink_to(folder / "victim")
    error = refused(capsys, "train", "--data.train", "no.txt", "--run-dir", "run")
    assert f"run/{name}: is a link" in error
    assert (folder / "victim").read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", '{"model_type": "llama"}', "a Hugging Face model, and would be replaced"),
        ("config.json", '{"port": 80}', "not of a run, and would be replaced"),
        ("config.json", "[]", "not of a run, and would be replaced"),
        ("manifest.json", "{}", "token shards, whose tokenizer the run would replace"),
    ],
)
@pytest.mark.parametrize("command", ["train", "finetune"])
def test_a_folder_of_something_else_is_no_run_folder(
    folder, capsys, command, name, text, message, trained
):
    (folder / "here").mkdir()
    (folder / "here" / name).write_text(text)
    init = ["--init", trained] if command == "finetune" else []
    error = refused(capsys, command, *init, "--data.train", "no.txt", "--run-dir", "here")
    assert message in error
    assert (folder / "here" / name).read_text() == text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("generate none --prompt a --sampling.top-p 2", "top_p=2.0 is out of range"),
        ("generate none --prompt a --sampling.min-new-tokens -1", "min_new_tokens=-1 is out of"),
        ("generate none --prompt a --prompt b --draft prompt", "--draft is for one prompt"),
        ("chat none --sampling.temperature -1", "temperature=-1.0 is out of range"),
    ],
)
def test_options_of_writing_are_checked_before_a_model_is_loaded(words, message, capsys):
    assert cli.main(words.split()) == 2
    assert message in capsys.readouterr().err
