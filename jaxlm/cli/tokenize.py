"""`jaxlm tokenize`: text as token shards on disk."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import pathlib
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from jaxlm.cli.arguments import OutDir, check_folder, parse
from jaxlm.config import DataConfig
from jaxlm.config.data import MOST_PROCESSES
from jaxlm.config.disk import naming


def run(argv: list[str]) -> None:
    """Writes shards of the sources, given before the output folder, which is the last positional argument."""
    plain = list(itertools.takewhile(lambda word: not word.startswith("-"), argv))
    if argv and not plain and argv[0] not in ("-h", "--help"):
        raise ValueError("usage: jaxlm tokenize SOURCE ... OUT_DIR [--flags]: the flags come last")
    if len(plain) == 1:
        raise ValueError(
            f"jaxlm tokenize {plain[0]}: name the sources first and the folder to write last"
        )
    rest = [*plain[-1:], "--data.train", *plain[:-1], *argv[len(plain) :]] if plain else argv
    parse(write_shards, rest, "jaxlm tokenize SOURCE ...")


def write_shards(
    out: OutDir,
    /,
    data: DataConfig = DataConfig(),
    processes: int | None = None,
    shard_tokens: int = 1 << 28,
) -> None:
    """Tokenizes text into a folder that training memory-maps; the same command resumes where it was interrupted.

    Without data.tokenizer.path a tokenizer is trained first, on the first 100,000 documents. SOURCE ... correspond to
    data.train of other commands.

    Args:
        out: folder to write.
        data: sources and how to read them, tokenizer, and the fraction to hold out for validation.
        processes: number of encoding processes. 0: only this one, with threads on all cores, which is as fast up to
            about eight cores; default: 0 with up to eight cores, otherwise one per core.
        shard_tokens: a new file is started once a file has this many tokens.
    """
    from jaxlm.data import shard_writer, shards

    cores = os.cpu_count() or 1
    if processes is None:
        processes = cores if cores > 8 else 0
    if processes < 0:
        raise ValueError(f"processes={processes} must not be negative")
    if processes > MOST_PROCESSES:
        raise ValueError(f"processes={processes} must be at most {MOST_PROCESSES:,}")
    if shard_tokens < 1:
        raise ValueError(f"shard_tokens={shard_tokens} must be at least 1")
    check_folder(out)
    finished = shards.is_finished(out)
    tokenizer = _shard_tokenizer(out, data)
    with naming(out), progress_bar() as report:
        manifest = shard_writer.write(
            out,
            data,
            tokenizer,
            command=shlex.join(["jaxlm", *sys.argv[1:]]),
            processes=processes,
            shard_tokens=shard_tokens,
            progress=report,
        )
    if finished:
        print(f"{out}: was finished before; nothing to do")
    for split, entry in manifest["splits"].items():
        print(f"{split}: {entry['documents']:,} documents, {entry['tokens']:,} tokens")
    skipped = "; ".join(f"{n:,} skipped: {why}" for why, n in manifest["left_out"].items())
    print(f"{manifest['rows_read']:,} rows read" + (f"; {skipped}" if skipped else ""))
    print(f"train with: python train.py CONFIG.py --data.train {out}")


def _shard_tokenizer(out: pathlib.Path, data: DataConfig) -> Any:
    """The tokenizer named, that of a folder that was begun, or a new one."""
    from jaxlm.data import sources, tokenizer

    if data.tokenizer.path is not None:
        return tokenizer.load(data.tokenizer.path)
    if (out / "tokenizer.json").is_file():
        return tokenizer.load(out / "tokenizer.json")
    most = min(100_000, data.max_documents or 100_000)
    some = dataclasses.replace(data, max_documents=most, validation=(), validation_fraction=0.0)
    print(f"training a {data.tokenizer.kind} tokenizer on up to {most:,} documents ...", flush=True)
    return tokenizer.train(sources.load_texts(some, "train").texts, data.tokenizer)


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[int, int], None]]:
    """A line with documents, tokens and their rate, on a terminal only; the function takes the first two."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    began = time.perf_counter()
    columns = (BarColumn(16), TextColumn("{task.fields[line]}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        number = bar.add_task("", total=None, line="reading")

        def report(documents: int, tokens: int) -> None:
            rate = tokens / max(time.perf_counter() - began, 1e-6)
            line = f"{documents:,} documents, {tokens:,} tokens, {rate:,.0f} a second"
            bar.update(number, line=line)

        yield report
