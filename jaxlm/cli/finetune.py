"""`jaxlm finetune`: fine-tuning."""

from __future__ import annotations

from jaxlm.cli.arguments import read_config
from jaxlm.config import FinetuneConfig


def run(argv: list[str]) -> None:
    """Fine-tunes as a config file and overrides say; without a file, a small run on the model of `jaxlm train`."""
    from jaxlm.run import quickstart

    config = read_config(argv, FinetuneConfig, quickstart.finetuning, "jaxlm finetune")
    from jaxlm.run.finetune import finetune
    from jaxlm.run.folder import print_result
    from jaxlm.training import host_memory

    host_memory.keep_freed()
    print_result(finetune(config))
