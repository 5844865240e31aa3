"""Metrics in wandb, MLflow or trackio, through their own packages, which are imported only if a run asks for them.

They get what TensorBoard gets: scalars and samples by step, and the config and the summary of the run besides. Where
they send it is up to their own settings (`WANDB_MODE=offline`, `MLFLOW_TRACKING_URI`, `TRACKIO_DIR`).
"""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from jaxlm.config import RunConfig, files, json_text

# the modules, and what to install
PACKAGES = {"wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio"}
# beside config.json: the ids under which a run goes on after a stop
_IDS = "trackers.json"
_PROJECT = "jaxlm"


class Tracker(Protocol):
    """Where metrics are sent; every method may raise what its package raises."""

    # under which the run goes on
    id: str

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Records one point per name."""

    def text(self, step: int, name: str, text: str) -> None:
        """Records a generated text."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """Records the results of the run."""

    def close(self, failed: bool) -> None:
        """Sends what is left and ends the run."""


def check(names: Sequence[str]) -> None:
    """Raises ValueError if the package of a tracker is not installed, or a tracker is named twice."""
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"log={' '.join(names)}: {name} is there twice")
        if importlib.util.find_spec(name) is None:
            raise ValueError(
                f"log={name}: the package is not installed: pip install {PACKAGES[name]}"
            )


def start(config: RunConfig, folder: pathlib.Path, step: int) -> dict[str, Tracker]:
    """The trackers of a run by name, in which a run that was stopped goes on.

    Args:
        config: of the run.
        folder: of the run.
        step: steps done before, 0 for a new run.

    Raises:
        ValueError: a tracker cannot be reached or refuses the run.
    """
    path = folder / _IDS
    ids = json_text.read_object(path) if step and path.is_file() else {}
    trackers: dict[str, Tracker] = {}
    for tracker in config.log:
        try:
            found = _KINDS[tracker](folder, config.name, files.to_dict(config), ids.get(tracker))
        except Exception as e:  # each package has types of its own
            for begun in trackers.values():
                begun.close(failed=True)
            raise ValueError(f"log={tracker}: {_reason(e)}") from e
        trackers[tracker] = found
        ids[tracker] = found.id
    if trackers:
        path.write_text(json.dumps(ids) + "\n", encoding="utf-8")
    return trackers


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


class _Wandb:
    """Weights & Biases: a run whose files are in the run folder."""

    def __init__(self, folder: pathlib.Path, name: str, config: Mapping[str, Any], id: str | None):
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=name,
            config=dict(config),
            dir=str(folder),
            id=id,
            resume="allow" if id else None,
        )
        self.id: str = self._run.id

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def text(self, step: int, name: str, text: str) -> None:
        import wandb

        self._run.log({name: wandb.Html(f"<pre>{_escaped(text)}</pre>")}, step=step)

    def summary(self, values: Mapping[str, Any]) -> None:
        self._run.summary.update(dict(values))

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class _MLflow:
    """MLflow: a run of the experiment that MLFLOW_EXPERIMENT_NAME names."""

    def __init__(self, folder: pathlib.Path, name: str, config: Mapping[str, Any], id: str | None):
        from mlflow import MlflowClient

        self._client = MlflowClient()
        if id is None:
            project = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
            found = self._client.get_experiment_by_name(project)
            experiment = found.experiment_id if found else self._client.create_experiment(project)
            id = self._client.create_run(experiment, run_name=name).info.run_id
            for field, value in _flat(config).items():
                self._client.log_param(id, field, str(value)[:500])
        else:
            self._client.update_run(id, status="RUNNING")
        self.id: str = id

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._client.log_metric(self.id, name, value, step=step)

    def text(self, step: int, name: str, text: str) -> None:
        self._client.log_text(self.id, text, f"{name}/{step:09d}.txt")

    def summary(self, values: Mapping[str, Any]) -> None:
        self._client.log_dict(self.id, dict(values), "summary.json")

    def close(self, failed: bool) -> None:
        self._client.set_terminated(self.id, status="FAILED" if failed else "FINISHED")


class _Trackio:
    """trackio: a run of its local dashboard; a name is its id."""

    def __init__(self, folder: pathlib.Path, name: str, config: Mapping[str, Any], id: str | None):
        import trackio

        # runs of the same name would be one
        self.id = id or f"{name}-{os.urandom(3).hex()}"
        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", _PROJECT),
            name=self.id,
            config=dict(config),
            resume="must" if id else "never",
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def text(self, step: int, name: str, text: str) -> None:
        import trackio

        self._run.log({name: trackio.Markdown(f"```\n{text}\n```")}, step=step)

    def summary(self, values: Mapping[str, Any]) -> None:
        results = {k: v for k, v in _flat(values).items() if isinstance(v, (int, float))}
        self._run.log({f"summary/{k}": v for k, v in results.items()})

    def close(self, failed: bool) -> None:
        self._run.finish()


_KINDS: dict[str, Any] = {"wandb": _Wandb, "mlflow": _MLflow, "trackio": _Trackio}


def _flat(value: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """{"optimizer.name": "adamw", ...} of nested objects."""
    out: dict[str, Any] = {}
    for name, part in value.items():
        full = f"{where}.{name}" if where else name
        out |= _flat(part, full) if isinstance(part, Mapping) else {full: part}
    return out


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
