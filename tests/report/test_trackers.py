"""wandb, MLflow and trackio, in place of whose packages there are modules that write down how they are called."""

import io
import json
import re

import pytest
from rich.console import Console

from jaxlm.config import TrainConfig
from jaxlm.report import trackers
from jaxlm.report.run_log import RunLog
from jaxlm.run import pretrain
from jaxlm.tasks import CausalLMConfig

WANDB = """
calls = []

class Run:
    def __init__(self, id):
        self.id, self.summary = id, self
    def log(self, values, step=None):
        calls.append(("log", step, values))
    def update(self, values):
        calls.append(("summary", values))
    def finish(self, exit_code):
        calls.append(("finish", exit_code))

def init(**options):
    calls.append(("init", options))
    return Run(options["id"] or "new")

Html = str
"""
TRACKIO = """
calls = []

class Run:
    def log(self, values, step=None):
        calls.append(("log", step, values))
    def finish(self):
        calls.append(("finish",))

def init(**options):
    calls.append(("init", options))
    return Run()

Markdown = str
"""
MLFLOW = """
import types

calls = []

class MlflowClient:
    def get_experiment_by_name(self, name):
        return None
    def create_experiment(self, name):
        return name
    def create_run(self, experiment, run_name):
        calls.append(("create", experiment, run_name))
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id="abc"))
    def __getattr__(self, name):
        return lambda *args, **named: calls.append((name, *args, *named.values()))
"""
NAMES = ("wandb", "mlflow", "trackio")


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Stubs of the packages, as files, because the check looks for what can be imported."""
    folder = tmp_path / "packages"
    folder.mkdir()
    for name, code in zip(NAMES, (WANDB, MLFLOW, TRACKIO)):
        (folder / f"{name}.py").write_text(code)
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)
    monkeypatch.syspath_prepend(folder)
    yield lambda name: __import__(name).calls
    for name in NAMES:
        __import__("sys").modules.pop(name, None)


def config_of(*names):
    return TrainConfig(task=CausalLMConfig(), name="small", log=names)


def open_log(config, folder, step=0):
    text = io.StringIO()
    log = RunLog(
        folder,
        total_steps=10,
        is_main=True,
        start_step=step,
        console=Console(file=text, width=200),
        trackers=trackers.start(config, folder, step),
    )
    return log, text


def test_a_run_sends_what_it_logs_and_goes_on_under_its_id(packages, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxlm.report.curves.curves", lambda *_: None)
    config, folder = config_of(*NAMES), tmp_path / "run"
    folder.mkdir()
    log, _ = open_log(config, folder)
    log.step(1, {"loss": 2.5, "mfu": None})
    log.evaluation(1, {"loss": 2.0})
    log.sample(1, "a < b")
    log.close()  # stopped before its end
    assert packages("wandb")[1:] == [
        ("log", 1, {"train/loss": 2.5}),
        ("log", 1, {"eval/loss": 2.0}),
        ("log", 1, {"sample": "<pre>a &lt; b</pre>"}),
        ("finish", 1),
    ]
    kind, options = packages("wandb")[0]
    assert (kind, options["project"], options["name"]) == ("init", "jaxlm", "small")
    assert (options["id"], options["dir"]) == (None, str(folder))
    assert options["config"]["optimizer"]["name"] == "adamw"
    assert ("create", "jaxlm", "small") in packages("mlflow")
    assert ("log_param", "abc", "optimizer.name", "adamw") in packages("mlflow")
    assert ("log_metric", "abc", "train/loss", 2.5, 1) in packages("mlflow")
    assert packages("mlflow")[-1] == ("set_terminated", "abc", "FAILED")
    assert packages("trackio")[1] == ("log", 1, {"train/loss": 2.5})
    for name in NAMES:
        packages(name).clear()

    log, _ = open_log(config, folder, step=1)
    log.step(2, {"loss": 2.25})
    log.finish({"evaluation": {"loss": 2.0}, "steps": 2})
    log.close()
    log.close()
    assert packages("wandb")[0][1]["id"] == "new"
    assert packages("wandb")[0][1]["resume"] == "allow"
    assert packages("wandb")[-2:] == [
        ("summary", {"evaluation": {"loss": 2.0}, "steps": 2}),
        ("finish", 0),
    ]
    assert packages("mlflow")[0] == ("update_run", "abc", "RUNNING")
    assert packages("mlflow")[-1] == ("set_terminated", "abc", "FINISHED")
    ids = json.loads((folder / "trackers.json").read_text())
    assert packages("trackio")[0][1]["name"] == ids["trackio"]
    assert packages("trackio")[0][1]["resume"] == "must"
    assert packages("trackio")[-2][2] == {"summary/evaluation.loss": 2.0, "summary/steps": 2}


def test_a_new_run_in_the_folder_has_a_new_id(packages, tmp_path):
    (tmp_path / "trackers.json").write_text('{"wandb": "old"}')
    open_log(config_of("wandb"), tmp_path)[0].close()
    assert packages("wandb")[0][1]["id"] is None


def test_a_tracker_that_fails_gives_a_warning_and_gets_nothing_more(packages, tmp_path):
    log, text = open_log(config_of("wandb", "trackio"), tmp_path)

    def fail(step, values):
        raise ConnectionError("no\nroute")

    log._trackers["wandb"].scalars = fail
    log.step(1, {"loss": 2.5})
    log.step(2, {"loss": 2.0})
    log.close()
    warning = (
        "warning: nothing more is sent to wandb: ConnectionError: no route; training continues"
    )
    assert text.getvalue().count(warning) == 1
    assert len(packages("wandb")) == 1
    assert len(packages("trackio")) == 4


def test_a_tracker_that_cannot_start_is_one_line(packages, tmp_path):
    import wandb

    def refuse(**_):
        raise RuntimeError("api_key not\nconfigured")

    wandb.init = refuse
    with pytest.raises(ValueError, match=r"^log=wandb: RuntimeError: api_key not configured$"):
        trackers.start(config_of("trackio", "wandb"), tmp_path, 0)
    assert packages("trackio")[-1] == ("finish",)


def test_a_missing_package_is_named_before_anything_is_read(monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=re.escape("log=wandb: the package is not installed: pip")):
        pretrain.pretrain(config_of("wandb"))


def test_a_tracker_twice_or_of_another_name_is_refused():
    with pytest.raises(ValueError, match="wandb is there twice"):
        trackers.check(("wandb", "wandb"))
    with pytest.raises(ValueError, match=re.escape("log[0]: 'neptune' is not one of wandb,")):
        config_of("neptune")


def test_a_run_without_trackers_writes_no_file(tmp_path):
    open_log(config_of(), tmp_path)[0].close()
    assert not (tmp_path / "trackers.json").exists()
