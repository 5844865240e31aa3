"""Fine-tuning as people do it: several seeds, gradual unfreezing, early stopping, the best checkpoint exported."""

import contextlib
import dataclasses
import io
import json
import statistics

import jax
import numpy as np
import pytest
from runs import (
    interrupted_after,
    losses,
    small_runs,
    stored_params,
    tiny,
    write_corpus,
    write_labelled,
)

import jaxlm
from jaxlm.cli import evaluate
from jaxlm.cli.main import main
from jaxlm.config import (
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    FinetuneConfig,
    LoraConfig,
    OptimizerConfig,
)
from jaxlm.data import tokenizer as tokenizers
from jaxlm.models import heads
from jaxlm.params import path_name
from jaxlm.report import seeds as report
from jaxlm.run import folder as run_folder
from jaxlm.run import init_from, prepare, seeds
from jaxlm.run.convert import convert
from jaxlm.run.finetune import finetune
from jaxlm.run.pretrain import pretrain
from jaxlm.run.restore import restore
from jaxlm.tasks import ClassificationConfig, task_class
from jaxlm.training import hooks, loop, phases
from jaxlm.training.progress import Progress

# whole runs
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    write_corpus(folder)
    write_labelled(folder)
    with small_runs():
        pretrain(tiny(folder, "base", steps=1))
        yield folder


def config_of(folder, name, **changes):
    config = FinetuneConfig(
        name=name,
        run_dir=str(folder / name),
        init=str(folder / "base"),
        task=ClassificationConfig(pooling="last"),
        data=DataConfig(
            train=(str(folder / "labelled.jsonl"),), validation_fraction=0.2, seq_len=16
        ),
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=2, weight_decay=0.0),
        evaluation=EvaluationConfig(every=2),
        checkpoint=CheckpointConfig(every=2, keep=1),
        steps=6,
        batch_size=8,
        log_every=1,
    )
    return dataclasses.replace(config, **changes)


@contextlib.contextmanager
def accuracies(*values):
    """Evaluations give these accuracies, one after another."""
    evaluate, rest = hooks.Evaluate._evaluate, list(values)

    def given(self, *args):
        return evaluate(self, *args) | {"accuracy": rest.pop(0)}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hooks.Evaluate, "_evaluate", given)
        yield


@contextlib.contextmanager
def interrupted_in(*, seed, step):
    """Interrupts the run of a seed, once the metrics of a step are recorded."""
    record = loop._Loop._record

    def interrupted(self, segment, recorded, metrics):
        record(self, segment, recorded, metrics)
        if (self.session.config.seed, recorded) == (seed, step):
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Loop, "_record", interrupted)
        with pytest.raises(KeyboardInterrupt):
            yield


def said(function, *args, **options):
    """What a function returns, and what it prints."""
    page = io.StringIO()
    with contextlib.redirect_stdout(page):
        result = function(*args, **options)
    return result, page.getvalue()


@pytest.mark.slow
def test_several_seeds_have_a_run_each_and_one_summary(folder, tmp_path):
    config = config_of(folder, "several", seeds=2, seed=3, steps=4)
    out = tmp_path / "exported"
    config = dataclasses.replace(config, export=str(out))
    # stopped in the second run
    with accuracies(0.5, 0.25, 0.625), interrupted_in(seed=4, step=3):
        finetune(config)
    assert not (folder / "several/summary.json").exists()
    assert (folder / "several/seed_3/summary.json").exists()
    compiled = []
    with pytest.MonkeyPatch.context() as patch, accuracies(0.875):
        programs = loop.Programs

        def counted(*args):
            compiled.append(args)
            return programs(*args)

        patch.setattr(loop, "Programs", counted)
        summary, page = said(finetune, config)
    # the first is not run, nor compiled, again
    assert len(compiled) == 1
    assert "complete at step 4; nothing to do" in page
    assert "exported" in page
    runs = [json.loads((folder / f"several/seed_{s}/summary.json").read_text()) for s in (3, 4)]
    assert [run["seed"] for run in runs] == [3, 4]
    assert summary == json.loads((folder / "several/summary.json").read_text())
    for name, mean in summary["evaluation"].items():
        values = [run["evaluation"][name] for run in runs]
        assert mean == pytest.approx(statistics.fmean(values))
        assert summary["deviation"][name] == pytest.approx(statistics.stdev(values))
    assert summary["best"] == {"accuracy": pytest.approx((0.5 + 0.875) / 2)}
    assert summary["best_seed"] == 4
    lines = run_folder.closing_lines(summary)
    assert " ".join(lines.splitlines()[2].split()) == (
        "best accuracy 0.5000 0.8750 0.6875 ± 0.2652"
    )
    # the best seed's best step
    assert "several_seed_4" in (out / "README.md").read_text()
    again, page = said(finetune, config)
    assert again == summary
    assert f"{out} is there already" in page
    for message, other in (
        ("contains the runs of several seeds", dataclasses.replace(config, seeds=1)),
        ("another config", dataclasses.replace(config, batch_size=4)),
    ):
        with pytest.raises(ValueError, match=message):
            finetune(other)
    with pytest.raises(ValueError, match="contains the runs of 2 seeds: name one, such as"):
        restore(folder / "several")


def test_means_of_what_not_every_run_has_are_none():
    run = dict(metric="loss", lower_is_better=True, wall_seconds=1.0, run_dir="x", steps=1)
    runs = [
        run | dict(seed=0, evaluation={"loss": 1.0, "f1": None}, best={"step": 2, "loss": 0.5}),
        run | dict(seed=1, evaluation={"loss": 2.0}, best={}),
    ]
    summary = report.summarise("name", "dir", runs)
    assert summary["evaluation"] == {"loss": 1.5, "f1": None}
    assert summary["best"] == {"loss": None}
    assert summary["best_seed"] == 0
    assert "-" in report.table(summary)


def test_summaries_are_strict_json(tmp_path):
    nan = {"pearson": float("nan")}
    one = dict(metric="pearson", lower_is_better=False, wall_seconds=1.0, evaluation=nan, best={})
    config = FinetuneConfig(task=ClassificationConfig(), run_dir=str(tmp_path / "all"), seeds=2)
    (tmp_path / "all").mkdir()
    seeds.run(config, lambda own: one | {"seed": own.seed})
    evaluate._write(tmp_path / "scores.json", {}, nan, {"pearson": (float("nan"), 1.0)})
    for path in (tmp_path / "all/summary.json", tmp_path / "scores.json"):
        json.loads(path.read_text(), parse_constant=pytest.fail)


@pytest.fixture(scope="module")
def stopped(folder):
    """Its accuracies are best after step 4, and it has a patience of two evaluations."""
    config = config_of(
        folder, "stopped", steps=20, evaluation=EvaluationConfig(every=2, patience=2)
    )
    with accuracies(0.5, 0.75, 0.75, 0.625, 0.9):
        return said(finetune, config)


def test_early_stopping_says_when_and_why(folder, stopped):
    summary, page = stopped
    line = (
        "stopped early after step 8: accuracy has not improved in 2 evaluations in a row; the best was 0.7500 after "
        "step 4"
    )
    assert summary["stopped_early"] == line
    assert line in page
    assert line in run_folder.closing_lines(summary)
    assert summary["steps"] == 8
    # killed between its last checkpoint and its summary: not a step more
    (folder / "stopped/summary.json").unlink()
    config = config_of(
        folder, "stopped", steps=20, evaluation=EvaluationConfig(every=2, patience=2)
    )
    again = finetune(config)
    assert again["steps"] == 8
    assert again["stopped_early"] == line


def test_every_command_knows_the_best_step(folder, stopped, tmp_path, capsys):
    run = folder / "stopped"
    assert sorted(int(p.name) for p in (run / "checkpoints").iterdir()) == [4, 8]
    best = restore(run, step="best")
    assert best.step == 4
    np.testing.assert_array_equal(
        best.params["head"]["classes"]["kernel"], stored_params(run, 4)["head/classes/kernel"]
    )
    assert "of step 4 of" in convert(run, tmp_path / "out", step="best")
    source = str(folder / "labelled.jsonl")
    assert main(["evaluate", str(run), "--step", "best", "--data", source]) == 0
    assert "step 4, 60 examples" in capsys.readouterr().out
    assert main(["predict", str(run), "--data", source, "--step", "best"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 60
    assert main(["convert", str(run), str(tmp_path / "two"), "--step", "best"]) == 0
    assert main(["evaluate", str(run), "--step", "beast"]) == 2
    assert "--step beast: not a whole number or best" in capsys.readouterr().err
    # without evaluation there is no best one
    with pytest.raises(ValueError, match="no checkpoint has the validation metric loss"):
        jaxlm.load(make_unevaluated(folder), step="best")


def make_unevaluated(folder):
    config = tiny(folder, "unevaluated", steps=1)
    data = dataclasses.replace(config.data, validation_fraction=0.0)
    pretrain(dataclasses.replace(config, data=data))
    return folder / "unevaluated"


def test_a_value_that_is_not_finite_is_never_the_best():
    for lower in (True, False):
        progress = Progress()
        assert not progress.evaluated(1, {"x": float("nan")}, "x", lower)
        # there was nothing to compute it from
        assert not progress.evaluated(1, {"y": 1.0}, "x", lower)
        assert progress.evaluated(2, {"x": 1.0}, "x", lower)
        infinite = -float("inf") if lower else float("inf")
        assert not progress.evaluated(3, {"x": infinite}, "x", lower)
        assert (progress.best, progress.best_step, progress.stale) == (1.0, 2, 1)


@pytest.mark.slow
def test_gradual_unfreezing_begins_at_the_head_and_resumes(folder):
    config = config_of(
        folder, "gradual", unfreeze_over=0.5, optimizer=OptimizerConfig(warmup_steps=0)
    )
    with interrupted_after(2):
        finetune(config)
    _, page = said(finetune, config)
    assert "phase 4 of 4 begins" in page
    keep = CheckpointConfig(every=1, keep=9)
    other = str(folder / "gradual_2")
    finetune(dataclasses.replace(config, run_dir=other, name="gradual_2", checkpoint=keep))
    assert losses(folder / "gradual") == losses(folder / "gradual_2")
    start = stored_params(folder / "base")
    embedding, block = "backbone/embed/token/embedding", "backbone/stack/blocks/mlp/up"
    for step in (1, 2, 3, 4):
        now = stored_params(folder / "gradual_2", step)
        blocks = [not np.array_equal(a, b) for a, b in zip(now[block], start[block])]
        assert blocks == [step >= 3, step >= 2], step
        assert (not np.array_equal(now[embedding], start[embedding])) == (step >= 4), step


def abstract(has_head=True):
    """Shapes of the parameters of a classifier, or of a backbone, with five blocks."""
    model = jaxlm.DecoderConfig(vocab_size=32, dim=16, num_layers=5, num_heads=2)
    model = jaxlm.Classifier(model, 2, "last") if has_head else heads.Headless(model)
    return jax.eval_shape(lambda: jaxlm.init_params(model, jax.random.key(0)))


def test_the_phases_of_gradual_unfreezing(folder):
    config = config_of(
        folder, "x", unfreeze_over=0.5, unfreeze_blocks=2, steps=80, optimizer=OptimizerConfig()
    )
    config = dataclasses.replace(config, optimizer=OptimizerConfig(warmup_steps=5))
    made = phases.make_phases(config, (), abstract())
    assert [str(phase) for phase in made] == [
        "steps 1 to 10: trains head; freezes blocks 3 to 4, blocks 1 to 2, block 0, rest",
        "steps 11 to 20: trains head, blocks 3 to 4; freezes blocks 1 to 2, block 0, rest",
        "steps 21 to 30: trains head, blocks 3 to 4, blocks 1 to 2; freezes block 0, rest",
        "steps 31 to 40: trains head, blocks 3 to 4, blocks 1 to 2, block 0; freezes rest",
        "steps 41 to 80: trains head, blocks 3 to 4, blocks 1 to 2, block 0, rest",
    ]
    # the schedule of a group begins where it is unfrozen, and goes on through the later phases
    own = [phase.trained.get("blocks 1 to 2") for phase in made]
    assert [x and (x.continues, x.steps, x.steps_before) for x in own] == [
        None,
        None,
        (False, 60, 0),
        (True, 60, 10),
        (True, 60, 20),
    ]
    names = {n.split("/")[1] for n in taken(made[0], abstract(), "head")}
    assert names == {"classes", "final_norm"}
    # without a head the last blocks come first
    made = phases.make_phases(config, (), abstract(has_head=False))
    assert list(made[0].trained) == ["blocks 3 to 4"]
    assert any("final_norm" in n for n in taken(made[0], abstract(False), "blocks 3 to 4"))


def taken(phase, params, group):
    """The paths of the parameters of a group."""
    part = jax.eval_shape(lambda params: phase.split.take(params, group), params)
    return [path_name(path) for path, _ in jax.tree.leaves_with_path(part)]


def test_epochs_are_steps_and_a_long_warmup_is_shortened(folder):
    config = config_of(
        folder, "epochs", epochs=1.5, optimizer=OptimizerConfig(warmup_steps=50), dry_run=True
    )
    kind = task_class(config.task)
    config, data = prepare.read_data(config, kind)
    config = dataclasses.replace(config, model=init_from.find(config).model)
    tokenizer = tokenizers.load(folder / "base/tokenizer.json")
    (resolved, plan), page = said(prepare.make_plan, config, kind, tokenizer, data)
    rows = len(data.train)
    assert resolved.steps == -(-int(1.5 * rows) // 8) == plan.stages[-1].last
    assert plan.task.config.steps == resolved.steps
    assert resolved.optimizer.warmup_steps == resolved.steps // 10
    assert f"1.5 epochs of {rows} rows: {resolved.steps} steps" in page
    assert "instead of the 50 of optimizer.warmup_steps" in page
    again, _ = prepare.make_plan(resolved, kind, tokenizer, data)
    assert again == resolved


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(unfreeze_over=0.9, steps=3), "is 3 steps for 3 phases, and 0 for the last one"),
        (dict(unfreeze_over=0.5, train_only="head"), "cannot be combined with train_only"),
        (dict(unfreeze_over=0.5, lora=LoraConfig(rank=2)), "cannot be combined with lora.rank=2"),
        (dict(unfreeze_blocks=2), "unfreeze_blocks has no effect without unfreeze_over"),
        (dict(unfreeze_over=1.0), "unfreeze_over=1.0 is not in"),
        (dict(seeds=0), "seeds=0 must be at least 1"),
        (dict(epochs=0.0), "epochs=0.0 must be positive"),
        (dict(export="{folder}"), "exists and is not empty"),
        (
            dict(export="{folder}/no", checkpoint=CheckpointConfig(keep_best=False)),
            "do not set checkpoint.keep_best=False",
        ),
        (
            dict(export="{folder}/no", task=ClassificationConfig(pooling="mean")),
            "does not support task.pooling=mean",
        ),
    ],
)
def test_what_cannot_be_done_is_said_before_the_first_step(folder, changes, message):
    if "export" in changes:
        changes = changes | {"export": changes["export"].format(folder=folder)}
    with pytest.raises(ValueError, match=message) as e:
        finetune(config_of(folder, "refused", **changes))
    assert "\n" not in str(e.value)
    assert not (folder / "refused/checkpoints").exists()
