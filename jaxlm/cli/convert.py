"""`jaxlm convert`: a run as a folder that transformers loads."""

from __future__ import annotations

from typing import Literal

from jaxlm.cli.arguments import OutDir, RunDir, Step, parse


def run(argv: list[str]) -> None:
    """Converts the run that the arguments name."""
    parse(convert, argv, "jaxlm convert")


def convert(
    run_dir: RunDir,
    out_dir: OutDir,
    /,
    max_shard_size: str = "5GB",
    dtype: Literal["float32", "bfloat16"] = "float32",
    step: Step = None,
    adapter: bool = False,
) -> None:
    """Writes config.json, model.safetensors, tokenizer.json and a model card.

    Args:
        run_dir: folder of a run.
        out_dir: folder to write; must not exist, or be empty.
        max_shard_size: a larger model is split into several files.
        dtype: of the numbers in the file.
        step: of the checkpoint, or best (by the validation metric); default: the newest.
        adapter: of a run with adapters: write these alone, in the layout of peft, and not the model with them.
    """
    from jaxlm.run import convert

    line = convert.convert(
        run_dir,
        out_dir,
        max_shard_size=max_shard_size,
        dtype=dtype,
        step=step,
        adapter=adapter,
    )
    print(line)
