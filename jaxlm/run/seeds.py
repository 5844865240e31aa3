"""Fine-tuning with several seeds: a run for each in a folder of its own, and a summary of them all."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from typing import Any

from jaxlm.config import FinetuneConfig
from jaxlm.remote import mirror, objects
from jaxlm.report import run_log
from jaxlm.report import seeds as report
from jaxlm.run import folder as run_folder
from jaxlm.run import prepare
from jaxlm.training import processes


def run(config: FinetuneConfig, one: Callable[[FinetuneConfig], dict[str, Any]]) -> dict[str, Any]:
    """Runs `one` for each seed, one after another; returns the summary of all, which is also written.

    A seed whose run is complete is not run again, and one that was stopped goes on.

    Args:
        config: of all; its seed is the first one.
        one: fine-tunes with a single seed.

    Raises:
        ValueError: the folder contains a single run.
    """
    folder = run_folder.folder_of(config)
    url = mirror.url_of(folder)
    mirror.pull(folder)
    if (folder / "config.json").exists():
        raise ValueError(
            f"{folder} contains a single run: choose another --run-dir for {config.seeds} seeds"
        )
    summaries = []
    for seed in range(config.seed, config.seed + config.seeds):
        prepare.say(f"seed {seed}, the last is {config.seed + config.seeds - 1}")
        own = dataclasses.replace(
            config,
            seeds=1,
            seed=seed,
            name=f"{config.name or folder.name}_seed_{seed}",
            run_dir=f"{url or folder}/seed_{seed}",
            export=None,
        )
        summaries.append(one(own))
        if config.dry_run:
            return summaries[0]
    name = config.name or folder.name
    summary = report.summarise(name, url or str(folder), summaries)
    if processes.is_main():
        text = json.dumps(run_log.strict(summary), indent=2, ensure_ascii=False) + "\n"
        if url is not None:
            objects.write(f"{url}/summary.json", text.encode())
            return summary
        temporary = folder / "summary.json.tmp"
        temporary.write_text(text)
        os.replace(temporary, folder / "summary.json")
    return summary
