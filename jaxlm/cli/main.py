"""The `jaxlm` command. Heavy modules are imported by the command that needs them, so that help is instant.

Exit codes: 0 done, 2 something that the caller can mend (one line on stderr says what), 143 or 130 stopped by a signal
after saving, 1 anything else.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import json
import os
import pathlib
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal

import tyro

from jaxlm.config import DataConfig, FinetuneConfig, MeshConfig, TrainConfig, files, quickstart

_Place = tyro.conf.Positional[pathlib.Path]
_RunDir = Annotated[_Place, tyro.conf.arg(metavar="RUN_DIR")]
_OutDir = Annotated[_Place, tyro.conf.arg(metavar="OUT_DIR")]
_OutFile = Annotated[_Place, tyro.conf.arg(metavar="OUT.json")]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage())
        return 0
    name, rest = argv[0], argv[1:]
    if name not in COMMANDS:
        return _fail(f"no command {name!r}; there are {', '.join(COMMANDS)}")
    try:
        COMMANDS[name](rest)
    except ValueError as e:
        return _fail(str(e))
    except KeyboardInterrupt:
        return 130
    except Exception as e:
        code = getattr(e, "exit_code", None)
        if code is not None:
            # above 128: stopped by a signal, as it was asked to
            print("" if code > 128 else "error: ", e, sep="", file=sys.stderr)
            return code
        if "RESOURCE_EXHAUSTED" in str(e):
            print(
                f"error: out of memory: {_one_line(e)}; lower batch_size, raise accumulate or mesh.fsdp, or "
                "set compute.remat",
                file=sys.stderr,
            )
            return 1
        raise
    return 0


def _usage() -> str:
    lines = ["usage: jaxlm COMMAND [arguments]    (jaxlm COMMAND --help tells more)", ""]
    for name, command in COMMANDS.items():
        lines.append(f"  {name:<10} {(command.__doc__ or '').splitlines()[0]}")
    return "\n".join(lines)


def _fail(message: str) -> int:
    print(f"error: {_one_line(message)}", file=sys.stderr)
    return 2


def _one_line(message: object) -> str:
    return " ".join(str(message).split())


def _train(argv: list[str]) -> None:
    """Pretrain a model: [CONFIG.py] [--dotted.overrides]."""
    config = read_config(argv, TrainConfig, quickstart.pretraining, "jaxlm train")
    from jaxlm.run.pretrain import pretrain
    from jaxlm.training import host_memory

    host_memory.keep_freed()
    _report(pretrain(config))


def _finetune(argv: list[str]) -> None:
    """Fine-tune a model: [CONFIG.py] [--init RUN_DIR_OR_HF_DIR] [--dotted.overrides]."""
    config = read_config(argv, FinetuneConfig, quickstart.finetuning, "jaxlm finetune")
    from jaxlm.run.finetune import finetune
    from jaxlm.training import host_memory

    host_memory.keep_freed()
    _report(finetune(config))


def read_config(argv: list[str], cls: type, default: Callable[[], Any], prog: str) -> Any:
    """The config of a file (first argument, if it is no flag) or the default, with the overrides that follow.

    Raises:
        ValueError: the file or the result is not a valid config. Unknown flags end the process with code 2.
    """
    base = default()
    if argv and not argv[0].startswith("-"):
        base, argv = files.load_python(argv[0]), argv[1:]
        if not isinstance(base, cls):
            other = "finetune" if isinstance(base, FinetuneConfig) else "train"
            raise ValueError(
                f"{prog} needs a {cls.__name__}, not a {type(base).__name__}: use jaxlm {other}"
            )
    config = parse(cls, argv, f"{prog} [CONFIG.py]", default=base)
    if isinstance(config, FinetuneConfig) and config.init == "none" and config.init_like is None:
        # from scratch: the model that the config would have started from, without its weights
        config = dataclasses.replace(config, init_like=base.init if base.init != "none" else None)
    return config


def parse(what: Any, argv: list[str], prog: str, **options: Any) -> Any:
    """`tyro.cli`, with its framed page of complaint turned into the one line of a ValueError."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                what, args=argv, prog=prog, config=(tyro.conf.AvoidSubcommands,), **options
            )
    except SystemExit as e:
        if not e.code:  # --help
            raise
        raise ValueError(_complaint(complaint.getvalue(), prog)) from None


def _complaint(page: str, prog: str) -> str:
    """What a page of tyro's complains of, as one line; a kind of page that is not known here in its own words."""
    words = _one_line(re.sub("[─━│╭╮╰╯-]{2,}(?![a-z])|[│╭╮╰╯]", " ", page))
    words = words.split(" For full helptext")[0]
    listed = f"`{prog.split(' [')[0]} --help` lists them"
    if found := re.search(r"Unrecognized options: (\S+?)(?:,|$| )", words):
        word = found[1]
        # tyro shows the nearest with its help, which may name other options
        near = re.search(r"(?:Perhaps you meant|Arguments similar to [^:]+): (--\S+)", words)
        if not word.startswith("-"):
            return f"{word}: not expected here; options begin with --, {listed}"
        return f"{word}: no such option; " + (f"did you mean {near[1]}?" if near else listed)
    if found := re.search(r"invalid choice '(.*)' for argument '(.*)'\. .*?\((.*)\)", words):
        return f"{found[2]} {found[1]}: not one of {found[3].replace(chr(39), '').rstrip(',')}"
    if found := re.search(r"Missing value for argument '(.*?)'", words):
        return f"{found[1]} needs a value"
    if found := re.search(r"Error parsing (-\S+): (.*) Argument helptext: (?:-\S+) (.*)", words):
        flag, reason, text = found.groups()
        kind = {"INT": "a whole number", "FLOAT": "a number"}.get(text.split("|")[-1].split()[0])
        value = re.search(r"'([^']*)'$", reason)
        return f"{flag} {value[1]}: not {kind}" if kind and value else f"{flag}: {reason}"
    if found := re.search(r"Missing from .*?: (.*)", words):
        names = re.findall(r"([A-Z][\w.]+) .*?\(required\)", found[1])
        return f"{', '.join(names)} missing; `{prog} --help` tells more"
    return re.sub(r"^(Value error )?(Error parsing [\w.]+: )?", "", words)


def _report(summary: dict[str, Any]) -> None:
    """The last lines of a run: what it reached and where it lies."""
    import jax

    if jax.process_index() == 0:
        from jaxlm.run import folder as run_folder

        print(run_folder.closing_lines(summary))


def _evaluate(argv: list[str]) -> None:
    """Score a run: RUN_DIR [--data SOURCE ...] [--step N]."""
    parse(evaluate_run, argv, "jaxlm evaluate")


def evaluate_run(
    run_dir: _RunDir,
    /,
    data: tuple[str, ...] = (),
    step: int | None = None,
    batch_size: int | None = None,
    mesh: MeshConfig = MeshConfig(),
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    out: pathlib.Path | None = None,
) -> None:
    """Computes the metrics of a run's task over all of some data.

    Args:
        run_dir: folder of the run.
        data: sources; nothing: the run's validation data.
        step: of the checkpoint; nothing: the newest.
        batch_size: rows at a time; nothing: the run's.
        mesh: shape of the device mesh.
        text_column: column of the text; nothing, here and below: as in the run's own data.
        pair_column: column of the second text of a pair.
        label_column: column of the class.
        out: also write the metrics to this JSON file.
    """
    from jaxlm.run.evaluate import evaluate, opened

    if out is not None and not out.parent.is_dir():
        raise ValueError(f"{out}: the folder {out.parent} does not exist")
    given = dict(text_column=text_column, pair_column=pair_column, label_column=label_column)
    columns = {name: column for name, column in given.items() if column is not None}
    scores = evaluate(
        opened(run_dir, sources=data, step=step, batch_size=batch_size, mesh=mesh, columns=columns)
    )
    if scores.rendered:
        print(scores.rendered)
    print(f"{run_dir}, step {scores.step:,}, {scores.examples:,} examples")
    print(", ".join(f"{name} {value:.4f}" for name, value in scores.metrics.items()))
    if out is not None:
        about = {"run_dir": str(run_dir), "step": scores.step, "examples": scores.examples}
        out.write_text(json.dumps(about | scores.metrics, indent=2) + "\n")


def _env(argv: list[str]) -> None:
    """Versions, devices, and which optional parts are missing."""
    parse(_no_arguments, argv, "jaxlm env")
    from jaxlm.run import environment

    print(environment.describe())


def _convert(argv: list[str]) -> None:
    """Write a run as a folder that transformers loads: RUN_DIR OUT_DIR."""
    parse(convert, argv, "jaxlm convert")


def convert(
    run_dir: _RunDir,
    out_dir: _OutDir,
    /,
    max_shard_size: str = "5GB",
    dtype: Literal["float32", "bfloat16"] = "float32",
    step: int | None = None,
) -> None:
    """Writes config.json, model.safetensors, tokenizer.json and a model card.

    Args:
        run_dir: folder of a run.
        out_dir: folder to write; must not exist, or be empty.
        max_shard_size: a larger model is split into several files.
        dtype: of the numbers in the file.
        step: checkpoint to take; nothing: the newest.
    """
    from jaxlm.run import convert as converting

    print(
        converting.convert(run_dir, out_dir, max_shard_size=max_shard_size, dtype=dtype, step=step)
    )


def _no_arguments() -> None:
    """Prints versions of everything that matters, the devices, and what is not installed."""


def _tokenizer(argv: list[str]) -> None:
    """Train a tokenizer: train OUT.json [--data.train SOURCE ...] [--data.tokenizer.kind KIND]."""
    if not argv or argv[0] not in ("train", "-h", "--help"):
        raise ValueError("usage: jaxlm tokenizer train OUT.json [--data.train SOURCE ...]")
    rest = argv[1:] if argv[0] == "train" else ["--help"]
    parse(train_tokenizer, rest, "jaxlm tokenizer train")


def train_tokenizer(out: _OutFile, /, data: DataConfig = DataConfig()) -> None:
    """Trains a tokenizer on the training sources and writes it as a tokenizer.json.

    Args:
        out: file to write.
        data: sources, and under `tokenizer` the kind, size and cleaning.
    """
    from jaxlm.data import sources, tokenizer

    if data.tokenizer.path is not None:
        raise ValueError(
            "data.tokenizer.path names a tokenizer that exists: leave it out to train one"
        )
    if not out.parent.is_dir():
        raise ValueError(f"{out}: the folder {out.parent} does not exist")
    documents = sources.load_texts(dataclasses.replace(data, validation_fraction=0.0), "train")
    print(f"{len(documents):,} documents ({documents.counts})")
    trained = tokenizer.train(documents.texts, data.tokenizer)
    trained.save(out)
    sample = " ".join(documents.texts[0][:2000].split())[:200]
    pieces = [trained.decode([i], skip_special=False) for i in trained.encode(sample)]
    print("for example:", "|".join(pieces))
    print(f"{trained.vocab_size:,} entries in {out}")


def _data(argv: list[str]) -> None:
    """Look at the data of a pretraining run: inspect [CONFIG.py] [--out DIR] [--dotted.overrides]."""
    usage = "jaxlm data inspect [CONFIG.py] [--out DIR] [--examples N] [--dotted.overrides]"
    if not argv or argv[0] not in ("inspect", "-h", "--help"):
        raise ValueError(f"usage: {usage}")
    if argv[0] != "inspect" or {"-h", "--help"} & set(argv):
        print(f"usage: {usage}\n\n{_INSPECT_HELP}")
        return
    own, rest = {"--out": "", "--examples": "3"}, argv[1:]
    for flag in own:
        if flag in rest:
            place = rest.index(flag)
            if place + 1 == len(rest):
                raise ValueError(f"{flag} needs a value; usage: {usage}")
            own[flag] = rest[place + 1]
            rest = rest[:place] + rest[place + 2 :]
    if not own["--examples"].isdigit():
        raise ValueError(f"--examples {own['--examples']} is not a whole number")
    config = read_config(rest, TrainConfig, quickstart.pretraining, "jaxlm data inspect")
    from jaxlm.run.inspect import inspect

    inspect(
        config,
        pathlib.Path(own["--out"] or f"data_{config.name}"),
        examples=int(own["--examples"]),
    )


_INSPECT_HELP = """\
Prints rows of the first batch as the model is to see them, and writes figures of the text.

  --out DIR       folder for data.json and data.png, made if it is not there (default: data_NAME, of the config's name)
  --examples N    rows to print (default: 3)

All other options are those of `jaxlm train`."""


def _tokenize(argv: list[str]) -> None:
    """Write token shards: SOURCE ... OUT_DIR [--data.tokenizer.path FILE] [--processes N]."""
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
    out: _OutDir,
    /,
    data: DataConfig = DataConfig(),
    processes: int | None = None,
    shard_tokens: int = 1 << 28,
) -> None:
    """Tokenises text into a folder that training reads by memory map; the same command again goes on where it stopped.

    Without data.tokenizer.path a tokenizer is trained first, on the first 100,000 documents. SOURCE ... are what
    data.train is elsewhere.

    Args:
        out: folder to write.
        data: sources and how to read them, tokenizer, and the share to hold out for validation.
        processes: how many encode. 0: this one, by threads on all cores, which is as fast up to some eight cores;
            if not given, one for each core where there are more.
        shard_tokens: a file that has so many tokens is followed by another.
    """
    from jaxlm.data import shards

    cores = os.cpu_count() or 1
    if processes is None:
        processes = cores if cores > 8 else 0
    if processes < 0 or shard_tokens < 1:
        raise ValueError(
            f"processes={processes} must not be negative, shard_tokens={shard_tokens} not below 1"
        )
    finished = shards.is_finished(out)
    tokenizer = _shard_tokenizer(out, data)
    with progress_bar() as report:
        manifest = shards.write(
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
    left_out = "; ".join(f"{n:,} left out: {why}" for why, n in manifest["left_out"].items())
    print(f"{manifest['rows_read']:,} rows read" + (f"; {left_out}" if left_out else ""))
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


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "train": _train,
    "finetune": _finetune,
    "evaluate": _evaluate,
    "tokenizer": _tokenizer,
    "convert": _convert,
    "tokenize": _tokenize,
    "data": _data,
    "env": _env,
}
