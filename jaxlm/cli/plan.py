"""`jaxlm plan`: what a run needs on machines that are not here."""

from __future__ import annotations

import json
import os
import pathlib
import sys
from typing import Any

from jaxlm.cli.arguments import check_page, read_config
from jaxlm.config import files
from jaxlm.config.disk import write_text

_USAGE = "jaxlm plan [CONFIG.py] --topology NAME [--mesh auto] [options] [--dotted.overrides]"
_HELP = """\
Compiles the training step of a config for machines that are not here, and prints memory, time, collectives and costs.

  --topology NAME    v5p:4x4x4, v5e:4x8 or v6e:4x8 (chips of a slice), h100:8 or h200:2x8 (nodes x GPUs), cpu:8
  --mesh auto        the best mesh of all that fit; default: that of the config or of --mesh.*
  --meshes N         with --mesh auto: meshes to compile, at most (default: 3)
  --trials N         changed options to compile, to see what helps (default: 1)
  --price X          of a chip for an hour: costs of a billion tokens
  --efficiency X     fraction of the speed on paper that is reached; default: that of known runs on such chips
  --json             print one line of JSON and nothing else
  --out FILE.html    also write a page, and the JSON beside it

All other options are those of `jaxlm train` or `jaxlm finetune`, as the config is of one or the other. Text is not
read: rows of the same shape stand in for it. TPUs need the package libtpu, GPUs jax-cuda13-plugin, jax-cuda13-pjrt and
nvidia-cuda-nvcc; none needs a device. A large model takes minutes."""

_DEFAULTS = {
    "--topology": None,
    "--mesh": None,
    "--meshes": "3",
    "--trials": "1",
    "--price": None,
    "--efficiency": None,
    "--out": None,
}

# axes that --mesh auto chooses: `plan.arithmetic.KNOWN_AXES`
_CHOSEN = ("--mesh.data", "--mesh.fsdp", "--mesh.tensor")


def run(argv: list[str]) -> None:
    """Plans the run that the arguments describe."""
    if {"-h", "--help"} & set(argv):
        print(f"usage: {_USAGE}\n\n{_HELP}")
        return
    own, as_json, rest = split(argv)
    out = None if own["--out"] is None else pathlib.Path(own["--out"])
    check_page(out)
    if own["--mesh"] not in (None, "auto"):
        raise ValueError(f"--mesh {own['--mesh']}: say auto, or give the axes, as in --mesh.fsdp 8")
    if own["--mesh"] == "auto":
        _refuse_chosen(rest)
    # nothing is run, so no accelerator of this machine is taken
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from jaxlm.plan import topology
    from jaxlm.plan.options import Options

    if own["--topology"] is None:
        raise ValueError(f"--topology is missing: {_USAGE}")
    place = topology.parse(own["--topology"])
    topology.simulate_cpus(place)
    options = Options(
        topology=place,
        any_mesh=own["--mesh"] == "auto",
        most_meshes=_number("--meshes", own, int, 1),
        trials=_number("--trials", own, int, 0),
        price=_number("--price", own, float, 0),
        efficiency=_number("--efficiency", own, float, 0.01, 1),
    )
    config = config_of(rest)
    from jaxlm.plan import lines, page, planner

    say = lambda line: print(f"{line} ...", file=sys.stderr, flush=True)
    result = planner.plan(config, options, say)
    if out is not None:
        write_text(out, page.page(result))
        beside = out.with_suffix(".json")
        write_text(beside, json.dumps(result, indent=2) + "\n")
    if as_json:
        print(json.dumps(result))
        return
    print("\n".join(lines.lines(result)))
    if out is not None:
        print(f"the plan is in {out} and {beside}")


def split(argv: list[str]) -> tuple[dict[str, Any], bool, list[str]]:
    """The options of this command, whether JSON is asked for, and the arguments of the config.

    Raises:
        ValueError: an option has no value.
    """
    own: dict[str, Any] = dict(_DEFAULTS)
    rest: list[str] = []
    words = iter(argv)
    as_json = False
    for word in words:
        name, equals, value = word.partition("=")
        if word == "--json":
            as_json = True
        elif name in own:
            own[name] = value if equals else next(words, None)
            if own[name] is None:
                raise ValueError(f"{name} needs a value; usage: {_USAGE}")
        else:
            rest.append(word)
    return own, as_json, rest


def config_of(argv: list[str]) -> Any:
    """The config of a pretraining or fine-tuning run with its overrides."""
    from jaxlm.config import FinetuneConfig, TrainConfig
    from jaxlm.run import quickstart

    kind: type = TrainConfig
    if (
        argv
        and not argv[0].startswith("-")
        and isinstance(files.load_python(argv[0]), FinetuneConfig)
    ):
        kind = FinetuneConfig
    return read_config(argv, kind, quickstart.pretraining, "jaxlm plan")


def _refuse_chosen(argv: list[str]) -> None:
    """Raises ValueError for the size of an axis that `--mesh auto` chooses."""
    for name in (word.partition("=")[0] for word in argv):
        if name in _CHOSEN:
            raise ValueError(
                f"{name} has no effect with --mesh auto, which chooses {', '.join(_CHOSEN)}: leave one of them out"
            )


def _number(name: str, own: dict[str, Any], kind: type, least: float, most: float = 1e9) -> Any:
    """The value of an option as a number; None if it is not given."""
    if own[name] is None:
        return None
    try:
        value = kind(own[name])
    except ValueError:
        word = "a whole number" if kind is int else "a number"
        raise ValueError(f"{name} {own[name]}: not {word}") from None
    if not least <= value <= most:
        raise ValueError(f"{name} {own[name]}: must be from {least:g} to {most:g}")
    return value
