"""Command-line arguments: parsed by tyro, with its errors as one line, and configs from files with overrides."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import difflib
import functools
import glob
import inspect
import io
import os
import pathlib
import re
import typing
import warnings
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import tyro
from tyro import _errors as tyro_errors
from tyro import constructors

from jaxlm.config import FinetuneConfig, TrainConfig, files
from jaxlm.config.urls import is_url, refuse_url
from jaxlm.config.values import MOST, MOST_SEED

_Path = tyro.conf.Positional[pathlib.Path]

# what a run or a model is read from or resumed with, and its record
_OF_MODELS = {
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "modules.json",
    "metrics.jsonl",
    "summary.json",
    "privacy.json",
    "privacy.key",
    "trackers.json",
    ".lock",
}


def _folder(words: list[str]) -> pathlib.Path:
    """A local folder as it is; the mirror of a run in a bucket."""
    if not is_url(words[0]):
        return pathlib.Path(words[0])
    from jaxlm.remote import mirror

    return mirror.local(words[0])


# a folder that is read, which may be a run in a bucket
_READ = constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="PATH",
    instance_from_str=_folder,
    is_instance=lambda value: isinstance(value, pathlib.Path),
    str_from_instance=lambda value: [str(value)],
)
RunDir = Annotated[_Path, _READ, tyro.conf.arg(metavar="RUN_DIR")]
ModelDir = Annotated[_Path, _READ, tyro.conf.arg(metavar="RUN_OR_MODEL_DIR")]
OutDir = Annotated[_Path, tyro.conf.arg(metavar="OUT_DIR")]
# a checkpoint, as `run.folder.Step`
Step = int | Literal["best"] | None
OutFile = Annotated[_Path, tyro.conf.arg(metavar="OUT.json")]


_REGISTRY = constructors.ConstructorRegistry()


@_REGISTRY.primitive_rule
def _optional(info: constructors.PrimitiveTypeInfo) -> constructors.PrimitiveConstructorSpec | None:
    """A value that may be None is INT|None in the help, instead of {None}|INT as tyro writes it."""
    if type(None) not in typing.get_args(info.type) or _inside_optional:
        return None
    _inside_optional.append(True)
    try:
        spec = constructors.ConstructorRegistry.get_primitive_spec(info)
    finally:
        _inside_optional.pop()
    if not isinstance(spec, constructors.PrimitiveConstructorSpec):
        return None
    name = re.sub(r"^\{None\}\|", "", re.sub(r"^\{None,", "{", spec.metavar))
    name = re.sub(r"^\{(\[.*\])\}$", r"\1", name)
    return dataclasses.replace(spec, metavar=f"{name}|None")


@_REGISTRY.primitive_rule
def _path(info: constructors.PrimitiveTypeInfo) -> constructors.PrimitiveConstructorSpec | None:
    """A path is no URL, whose slashes pathlib would merge."""
    if info.type is not pathlib.Path:
        return None

    def read(words: list[str]) -> pathlib.Path:
        refuse_url(words[0])
        return pathlib.Path(words[0])

    return constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, pathlib.Path),
        str_from_instance=lambda value: [str(value)],
    )


# not empty while the rule asks tyro for its own answer
_inside_optional: list[bool] = []


def parse(what: Any, argv: list[str], prog: str, **options: Any) -> Any:
    """`tyro.cli`, whose framed error messages become the one line of a ValueError.

    A function is called after parsing, because tyro's messages are caught where it would print its own.
    """

    def stop(event: tyro_errors.ParseErrorEvent) -> None:
        if line := _describe(event, lambda: _flags(what, prog, options)):
            raise ValueError(line)

    page = io.StringIO()
    parsed = _deferred(what) if inspect.isfunction(what) else what
    try:
        with contextlib.redirect_stderr(page), tyro_errors.on_parse_error(stop):
            result = tyro.cli(
                parsed,
                args=argv,
                prog=prog,
                config=(tyro.conf.AvoidSubcommands,),
                registry=_REGISTRY,
                **options,
            )
    except SystemExit as e:
        if not e.code:  # --help
            raise
        # an error of a kind that is not known here, in tyro's words without the frame
        words = re.sub("[─━│╭╮╰╯]", " ", page.getvalue())
        raise ValueError(" ".join(words.split())) from None
    return result() if inspect.isfunction(what) else result


def _deferred(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function with the same signature that returns the call instead of making it."""

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        return functools.partial(function, *args, **named)

    return call


def _describe(event: tyro_errors.ParseErrorEvent, flags: Callable[[], list[str]]) -> str | None:
    """An error as one line; None for a kind that is not known here."""
    prog = event.prog.split(" [")[0]
    match event:
        case tyro_errors.UnrecognizedArgs(tokens=[word, *_]):
            listed = f"`{prog} --help` lists them"
            if not word.startswith("-"):
                return f"{word}: not expected here; options begin with --, {listed}"
            near = difflib.get_close_matches(word, flags(), 1, cutoff=0.75)
            return f"{word}: no such option; " + (f"did you mean {near[0]}?" if near else listed)
        case tyro_errors.InvalidChoice():
            choices = ", ".join(event.choices)
            return f"{event.argument.display_name()} {event.value}: not one of {choices}"
        case tyro_errors.BadValue(reason="too_few_values"):
            return f"{event.argument.display_name()} needs a value"
        case tyro_errors.MissingArgs():
            names = [_name(missing.arg) for missing in event.missing_arguments]
            return f"{', '.join(names)} missing; `{event.prog} --help` tells more"
        case tyro_errors.InstantiationFailure():
            return _bad_value(event)
    return None


def _name(argument: Any) -> str:
    """The flags of an option, or what a positional argument is called in the help."""
    metavar = getattr(argument.lowered, "metavar", None)
    return metavar if argument.is_positional() and metavar else argument.display_name()


def _bad_value(event: tyro_errors.InstantiationFailure) -> str:
    """A value that is not of its option's type, or that the config refuses in its own words."""
    message = " ".join(event.message.split())
    if event.argument is None:
        return message
    name = event.argument.display_name()
    if found := re.search(
        r"(?:could not convert string to float|invalid literal .*?): '(.*?)'", message
    ):
        kind = "a number" if "float" in message else "a whole number"
        kind += " or best" if "Literal['best']" in message else ""
        return f"{name} {found[1]}: not {kind}"
    # a URL is refused in words of our own
    if "a URL" not in message and (
        found := re.search(r"(?:instantiated from|for arguments:) (\[.*?\])", message)
    ):
        words = " ".join(re.findall(r"'(.*?)'", found[1]))
        return f"{name} {words}: must be {event.argument.lowered.metavar}"
    return f"{name}: {message}"


def _flags(what: Any, prog: str, options: dict[str, Any]) -> list[str]:
    """All options, from the help text."""
    page = io.StringIO()
    with contextlib.redirect_stdout(page), contextlib.suppress(SystemExit):
        tyro.cli(what, args=["--help"], prog=prog, config=(tyro.conf.AvoidSubcommands,), **options)
    return sorted(set(re.findall(r"--[\w.-]+", page.getvalue())))


def read_config(argv: list[str], cls: type, default: Callable[[], Any], prog: str) -> Any:
    """The config of a file (first argument, if it is no flag) or the default, with the overrides that follow.

    Raises:
        ValueError: the file or the result is not a valid config.
    """
    base: Any
    if argv and not argv[0].startswith("-"):
        base, argv = files.load_python(argv[0], _option(argv, "--init")), argv[1:]
    else:
        base = _named_after_its_folder(default(), argv)
    if type(base) is not cls:
        other = "finetune" if isinstance(base, FinetuneConfig) else "train"
        raise ValueError(
            f"{prog} needs a {cls.__name__}, not a {type(base).__name__}: use jaxlm {other}"
        )
    options: Any = base
    given = {word.partition("=")[0] for word in argv}
    if {"--steps", "--epochs"} <= given:
        raise ValueError("--steps and --epochs: give one of them")
    if "--steps" in given and options.epochs is not None:
        base = dataclasses.replace(options, epochs=None)
    config = parse(cls, argv, f"{prog} [CONFIG.py]", default=base)
    if cls is TrainConfig and config.init is not None:
        fixed = ("--model", "--data.tokenizer")
        if own := sorted(name for name in given if name.startswith(fixed)):
            raise ValueError(
                f"{own[0]} has no effect with --init {config.init}, which brings its own: leave it out"
            )
    if isinstance(config, FinetuneConfig) and config.init == "none" and config.init_like is None:
        # from scratch: the model that the config would have started from, without its weights
        assert isinstance(base, FinetuneConfig)
        started = base.init
        config = dataclasses.replace(config, init_like=started if started != "none" else None)
    return config


def read_columns(pairs: Sequence[str], **named: str | None) -> dict[str, str]:
    """Column of the file by role, from arguments such as "text=sentence" and from options of their own."""
    found = {role: column for role, column in named.items() if column is not None}
    for pair in pairs:
        role, equals, column = pair.partition("=")
        if not (role and equals and column):
            raise ValueError(f"--columns {pair}: write role=name, as in text=sentence")
        if found.get(role, column) != column:
            raise ValueError(f"--columns {pair}: the column of {role} is also {found[role]}")
        found[role] = column
    return found


def read_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Values by name, from arguments such as "num_beams=1", as Python writes them; anything else is a text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        name = name.replace("-", "_")
        if not (name and equals):
            raise ValueError(f"--settings {pair}: write name=value, as in num_beams=1")
        if name in found:
            raise ValueError(f"--settings {pair}: {name} is given twice")
        try:
            with warnings.catch_warnings():
                # of texts that are nearly Python, such as "1or 2 words"
                warnings.simplefilter("ignore", SyntaxWarning)
                found[name] = ast.literal_eval(value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            found[name] = value
    return found


def _option(argv: list[str], *names: str) -> str | None:
    """The value of an option, by any of its spellings, that is needed before the arguments can be parsed."""
    for word, following in zip(argv, [*argv[1:], None]):
        name, equals, value = word.partition("=")
        if name in names:
            return value if equals else following
    return None


def _named_after_its_folder(config: Any, argv: list[str]) -> Any:
    """The default config; with --run-dir it is named after that folder, and so are its summary and its model card."""
    folder = pathlib.Path(_option(argv, "--run-dir", "--run_dir") or "").name
    return dataclasses.replace(config, name=folder) if folder else config


# of options whose work or memory grows with them
_MOST = {"seed": MOST_SEED, "bootstrap": 10**6, "beams": 1000, "integration_steps": 10_000}


def check_numbers(least: int, **options: int | None) -> None:
    """Raises ValueError for an option that is given and below `least` or absurdly large, before a model is loaded."""
    for name, value in options.items():
        flag, most = f"--{name.replace('_', '-')}", _MOST.get(name, MOST)
        if value is not None and value < least:
            bound = "not be negative" if least == 0 else f"be at least {least}"
            raise ValueError(f"{flag} {value}: must {bound}")
        if value is not None and value > most:
            raise ValueError(f"{flag} {value}: must be at most {most}")


def check_file(path: pathlib.Path | None) -> None:
    """Raises ValueError if a file cannot be written, for instance because it is a folder; leaves nothing behind."""
    refuse_url(path)
    if path is None or path.is_fifo():
        return
    if not path.parent.is_dir():
        raise ValueError(f"{path}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise ValueError(f"{path}: a folder: name the file to write")
    if path.is_char_device() or path.is_block_device():
        # a file that is written as a whole would take its place
        raise ValueError(f"{path}: a device: name the file to write")
    is_new = not path.exists()
    try:
        with open(path, "ab"):
            pass
    except OSError as e:
        raise ValueError(f"{path}: cannot be written: {e.strerror}") from e
    if is_new:
        path.unlink()


def check_page(path: pathlib.Path | None) -> None:
    """As `check_file`, for a page with a JSON file of the same name beside it."""
    if path is not None and path.suffix != ".html":
        raise ValueError(
            f"--out {path}: name a file that ends in .html; the JSON file is beside it"
        )
    check_file(path)
    check_file(path and path.with_suffix(".json"))


def read_text(path: pathlib.Path, encoding: str = "utf-8") -> str:
    """The text of a file.

    Raises:
        ValueError: it cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding=encoding)
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "not UTF-8 text"
        raise ValueError(f"{path}: cannot be read: {reason}") from None


def check_not_read(path: pathlib.Path | None, *sources: str | os.PathLike | None) -> None:
    """Raises ValueError if the file to write is one that is read, which would be lost."""
    if path is None or not path.is_file():
        return
    for source in sources:
        if source is not None and os.path.isdir(source) and _is_of_model(path, source):
            raise ValueError(
                f"{path}: belongs to {os.fspath(source)}, and would be overwritten: name another file"
            )
        for found in _files_of(source) if source is not None else ():
            if os.path.samefile(found, path):
                raise ValueError(f"{path}: is read, and would be overwritten: name another file")


def _is_of_model(path: pathlib.Path, folder: str | os.PathLike) -> bool:
    """Whether a file is one that the model or the run of a folder consists of; results beside it may be replaced."""
    try:
        inner = path.resolve().relative_to(pathlib.Path(folder).resolve())
    except ValueError:
        return False
    if len(inner.parts) > 1:
        return inner.parts[0] in ("checkpoints", "encoder_tokenizer")
    return inner.name in _OF_MODELS or inner.suffix in (".safetensors", ".gguf", ".model")


def _files_of(source: str | os.PathLike) -> list[str]:
    """The files of a source that are there: a path, a pattern, or parallel files."""
    names = os.fspath(source)
    if os.path.exists(names):
        # brackets in the name of a file are no pattern
        return [names]
    parts = names.removeprefix("parallel:").split(",") if names.startswith("parallel:") else [names]
    return [
        path
        for part in parts
        for path in glob.glob(part, recursive=True) or [part]
        if os.path.exists(path)
    ]


def beside(out: pathlib.Path | None, folder: pathlib.Path, name: str) -> pathlib.Path:
    """The file to write: `out`, or one of this name in the folder of a run.

    Raises:
        ValueError: the run is in a bucket, and `out` is not given; or it cannot be written.
    """
    from jaxlm.remote import mirror

    if out is None and (url := mirror.url_of(folder)) is not None:
        raise ValueError(f"{url}: is in a bucket: name a local file with --out")
    check_file(out)
    check_not_read(out, folder)
    return out or folder / name


def check_folder(path: pathlib.Path) -> None:
    """Raises ValueError if a folder cannot be written because it, or a folder that it is in, is a file."""
    refuse_url(path)
    for part in (path, *path.parents):
        if part.exists() and not part.is_dir():
            raise ValueError(f"{path}: {part} is a file: name a folder to write")
