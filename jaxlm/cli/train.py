"""`jaxlm train`: pretraining."""

from __future__ import annotations

from jaxlm.cli.arguments import read_config
from jaxlm.config import TrainConfig


def run(argv: list[str]) -> None:
    """Pretrains as a config file and overrides say; without a file, a small run on built-in text."""
    from jaxlm.run import quickstart

    config = read_config(argv, TrainConfig, quickstart.pretraining, "jaxlm train")
    from jaxlm.run.folder import print_result
    from jaxlm.run.pretrain import pretrain
    from jaxlm.training import host_memory

    host_memory.keep_freed()
    print_result(pretrain(config))
