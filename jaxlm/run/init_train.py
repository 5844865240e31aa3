"""The starting point of pretraining: a model that is trained further, or pretrained sides of a text VAE."""

from __future__ import annotations

from collections.abc import Sequence

from jaxlm.config import TrainConfig
from jaxlm.run import folder as run_folder
from jaxlm.run import init_from, init_vae
from jaxlm.run.init_from import Start
from jaxlm.tasks import Task


def find(config: TrainConfig, tasks: Sequence[type[Task]] = ()) -> Start | None:
    """What `init`, `init_encoder` and `init_decoder` name; None: all weights are random.

    Raises:
        ValueError: there is no such model, or it does not fit the config.
    """
    if config.init is None:
        return init_vae.find(config, tasks)
    source = init_from.of_name(config.init, tasks)
    if source.folder.resolve() == run_folder.folder_of(config).resolve():
        raise ValueError(
            f"--run-dir {source.folder} is the folder of --init: choose another one, or leave --init out to go on there"
        )
    kind = type(source.model).__name__
    if not isinstance(source.model, type(config.model)):
        raise ValueError(
            f"--init {config.init} has a {kind}, and task {type(config.task).__name__} is set up for a "
            f"{type(config.model).__name__}: choose a model or a task of the other kind"
        )
    description = f"model: {kind} of {source.folder}, with its weights and tokenizer"
    return Start(source.model, source.tokenizer, source.load, description)
