"""`jaxlm data inspect`: a look at the data of a pretraining run."""

from __future__ import annotations

import pathlib
import re

from jaxlm.cli.arguments import check_folder, read_config
from jaxlm.config import TrainConfig

_HELP = """\
Prints rows of the first batch as the model is to see them, and writes figures of the text.

  --out DIR       folder for data.json and data.png, made if it is not there (default: data_NAME, of the config's name)
  --examples N    rows to print (default: 3)

All other options are those of `jaxlm train`."""

# rows of one batch, which are in memory
_MOST_EXAMPLES = 10_000


def run(argv: list[str]) -> None:
    """Prints rows of a run's first batch and writes figures of its text."""
    usage = "jaxlm data inspect [CONFIG.py] [--out DIR] [--examples N] [--dotted.overrides]"
    if not argv or argv[0] not in ("inspect", "-h", "--help"):
        raise ValueError(f"usage: {usage}")
    if argv[0] != "inspect" or {"-h", "--help"} & set(argv):
        print(f"usage: {usage}\n\n{_HELP}")
        return
    own, rest = {"--out": "", "--examples": "3"}, argv[1:]
    for flag in own:
        if flag in rest:
            index = rest.index(flag)
            if index + 1 == len(rest):
                raise ValueError(f"{flag} needs a value; usage: {usage}")
            own[flag] = rest[index + 1]
            rest = rest[:index] + rest[index + 2 :]
    if not re.fullmatch("[0-9]+", own["--examples"]):
        raise ValueError(f"--examples {own['--examples']} is not a whole number")
    examples = int(own["--examples"][:10])
    if examples > _MOST_EXAMPLES:
        raise ValueError(f"--examples {examples}: at most {_MOST_EXAMPLES:,} are printed")
    from jaxlm.run import inspect, quickstart

    config = read_config(rest, TrainConfig, quickstart.pretraining, "jaxlm data inspect")
    out = pathlib.Path(own["--out"] or f"data_{config.name}")
    check_folder(out)
    inspect.inspect(
        config,
        out,
        examples=examples,
    )
