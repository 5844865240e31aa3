"""`jaxlm refine`: from web pages to training text."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import itertools
import json
import os
import pathlib
import sys
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import tyro

from jaxlm.cli.arguments import OutDir, OutFile, check_file, check_folder, check_not_read, parse
from jaxlm.config import files, json_text
from jaxlm.config.disk import write_text

try:
    from jaxlm.refine import executors, pipeline, report, shards, thresholds
    from jaxlm.refine import recipe as recipes
    from jaxlm.refine.executors import Job, Ray, Slurm
    from jaxlm.refine.pipeline import Refinement
    from jaxlm.refine.readers import Inputs
    from jaxlm.refine.recipe import Recipe
except ImportError as e:
    raise ValueError(f"jaxlm refine needs {e.name or e}: pip install 'jaxlm[refine]'") from e

_USAGE = (
    "usage: jaxlm refine RECIPE INPUT ... OUT_DIR [--flags]: the flags come last; RECIPE is refinedweb, fineweb, or a "
    "Python file with get_config(); jaxlm refine thresholds SAMPLE ... OUT.json --language CODE; "
    "jaxlm refine report OUT_DIR"
)


def run(argv: list[str]) -> None:
    """Reads the recipe first, because it decides which flags there are."""
    words = list(itertools.takewhile(lambda word: not word.startswith("-"), argv))
    if words[:1] == ["thresholds"]:
        if len(words) < 3:
            raise ValueError(_USAGE)
        rest = [words[-1], "--samples", *words[1:-1], *argv[len(words) :]]
        return parse(derive_thresholds, rest, "jaxlm refine thresholds SAMPLE ...")
    if words[:1] == ["report"]:
        return parse(write_report, argv[1:], "jaxlm refine report")
    asked = "-h" in argv or "--help" in argv
    if len(words) < 3 and not asked:
        raise ValueError(_USAGE)
    flags = argv[len(words) :]
    if not words:
        print(_USAGE)
    name, paths = (words[0], words[1:]) if words else ("refinedweb", [])
    rest = [paths[-1], "--inputs", *paths[:-1], *flags] if len(paths) > 1 else flags
    file = None if name in recipes.RECIPES else pathlib.Path(name)
    label, recipe = name if file is None else file.stem, _recipe(name)
    for stage, kind in recipes.ADDABLE.items():
        # a flag of a stage asks for it
        if getattr(recipe, stage) is None and any(w.startswith(f"--{_flag(stage)}.") for w in argv):
            recipe = dataclasses.replace(recipe, **{stage: kind()})
    return parse(_command(label, recipe, file), rest, f"jaxlm refine {name} INPUT ...")


def _flag(name: str) -> str:
    return name.replace("_", "-")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to write, and how.

    Args:
        add: stages to use with their default settings that the recipe leaves out, such as personal_data.
        decontaminate: evaluation files; documents that share a run of 13 words with them are dropped.
        classifier: run or model folder of a classifier or regression that scores documents.
        classifier_label: class whose probability is the score; None: the value of a regression is.
        classifier_threshold: documents that score less are dropped.
        tasks: parts of the work, which is also the number of files; default: as many as input files, at least one a
            core.
        workers: tasks at the same time; 0: one, in this process; default: one a core.
        output: format of the documents.
        keep_dropped: write all dropped documents, not only 20 of each rule and task.
        tokenize: tokenizer.json with which token shards for training are written to OUT_DIR/tokens.
        text_column: column of the text in JSONL and parquet files.
        most_bytes: larger pages are dropped.
        executor: where the tasks run.
        keep_work: leave the files between the phases.
    """

    add: tuple[str, ...] = ()
    decontaminate: tuple[str, ...] = ()
    classifier: str | None = None
    classifier_label: str | None = None
    classifier_threshold: float | None = None
    tasks: int | None = None
    workers: int | None = None
    output: Literal["jsonl", "parquet"] = "jsonl"
    keep_dropped: bool = False
    tokenize: pathlib.Path | None = None
    text_column: str = "text"
    most_bytes: int = 1 << 24
    executor: Literal["local", "slurm", "ray"] = "local"
    keep_work: bool = False

    def __post_init__(self) -> None:
        for name, least in (("tasks", 1), ("workers", 0), ("most_bytes", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}={value} must be at least {least}")
        if (self.classifier is None) != (self.classifier_threshold is None):
            raise ValueError("classifier and classifier_threshold: give both or neither")
        if self.classifier is None and self.classifier_label is not None:
            raise ValueError("classifier_label has no effect without classifier")
        if self.tokenize is not None and not self.tokenize.exists():
            raise ValueError(f"tokenize={self.tokenize}: no such file")


def _command(name: str, recipe: Recipe, file: pathlib.Path | None) -> Callable[..., None]:
    """The command whose flags are the fields of a recipe."""

    def refine(
        out: OutDir,
        /,
        inputs: tuple[str, ...],
        recipe: Annotated[Recipe, tyro.conf.arg(name="")] = recipe,
        options: Annotated[Options, tyro.conf.arg(name="")] = Options(),
        slurm: Slurm = Slurm(),
        ray: Ray = Ray(),
    ) -> None:
        """Refines pages to text, with every removal accounted for; the same command goes on where it stopped.

        Args:
            out: folder to write: documents/, dropped/, funnel.json, funnel.svg, report.html.
            inputs: INPUT ...: files, folders or patterns of WARC, HTML, JSONL and parquet, also on remote file systems.
            recipe: stages and their thresholds.
            options: what to write, and how.
            slurm: for --executor slurm.
            ray: for --executor ray.
        """
        refine_files(name, recipe, inputs, out, options, slurm, ray, file)

    # tyro needs the annotations as objects, and this module has them as text
    refine.__annotations__ = typing.get_type_hints(refine, globals(), include_extras=True)
    return refine


def _recipe(name: str) -> Recipe:
    if name in recipes.RECIPES:
        return recipes.RECIPES[name]()
    if not name.endswith(".py"):
        raise ValueError(f"{name}: no such recipe; {_USAGE}")
    recipe = files.result_of(pathlib.Path(name))
    if not isinstance(recipe, Recipe):
        raise ValueError(
            f"{name}: get_config() gives {type(recipe).__name__}, not a jaxlm.refine.recipe.Recipe"
        )
    return recipe


def refine_files(
    name: str,
    recipe: Recipe,
    inputs: tuple[str, ...],
    out: pathlib.Path,
    options: Options,
    slurm: Slurm = Slurm(),
    ray: Ray = Ray(),
    recipe_file: pathlib.Path | None = None,
) -> None:
    """Runs, or goes on with, a refinement."""
    recipe = _with_added(recipe, options)
    if options.executor == "slurm" and slurm.partition is None:
        raise ValueError("--executor slurm needs --slurm.partition")
    check_folder(out)
    for given in inputs:
        if "://" not in given and out.resolve().is_relative_to(pathlib.Path(given).resolve()):
            raise ValueError(
                f"{out}: lies in the input {given}, where it would be read the next time"
            )
    found = Inputs.of(inputs, options.text_column, options.most_bytes)
    workers = executors.cores() if options.workers is None else options.workers
    refinement = pipeline.Refinement(
        recipe=recipe,
        inputs=found,
        out=out.absolute(),
        tasks=options.tasks or _begun_tasks(out) or max(len(found.files), workers, 1),
        form=options.output,
        keep_dropped=options.keep_dropped,
        tokenizer=options.tokenize,
        keep_work=options.keep_work,
        name=name,
        recipe_file=recipe_file,
    )
    # what is wrong with the settings shows before anything is written
    jobs = pipeline.jobs(refinement)
    with _locked(out):
        _begin(out, refinement)
        if (jobs[-1].logs / "completions" / "00000").exists():
            print(f"{out}: was finished before; nothing to do")
        elif options.executor == "slurm":
            number = executors.submit_slurm(jobs, workers, slurm)
            print(f"submitted {len(jobs)} jobs; the last is {number}: it writes {out}/report.html")
            return
        else:
            with _progress(len(jobs)) as tell:
                if options.executor == "ray":
                    executors.run_ray(jobs, workers, ray, tell)
                else:
                    try:
                        executors.run_local(jobs, workers, tell, out.absolute() / ".workers")
                    except KeyboardInterrupt:
                        print(f"{out}: stopped; the same command goes on", file=sys.stderr)
                        raise
    funnel = json_text.read_object(out / "funnel.json")
    print(report.table(funnel))
    kept = funnel["output"]["documents"]
    print(f"{out}/documents: {kept:,} documents; look at {out}/report.html")
    if not kept:
        dropped = [
            (amount["documents"], f"{stage['name']}: {rule}")
            for stage in funnel["stages"]
            for rule, amount in stage["dropped"].items()
        ]
        count, most = max(dropped, default=(0, "nothing was there"))
        print(f"warning: no document is kept; most by {most} ({count:,})", file=sys.stderr)


def _with_added(recipe: Recipe, options: Options) -> Recipe:
    """The recipe with the stages that the options add."""
    added: dict[str, Any] = {}
    for name in options.add:
        if name in recipe.skip:
            raise ValueError(f"--add {name} --skip {name}: one of them")
        if name not in recipes.ADDABLE:
            raise ValueError(f"--add {name}: not one of {', '.join(recipes.ADDABLE)}")
        if getattr(recipe, name) is None:
            added[name] = recipes.ADDABLE[name]()
    if options.decontaminate:
        added["decontamination"] = recipes.Decontamination(files=options.decontaminate)
    if options.classifier is not None:
        assert options.classifier_threshold is not None
        added["classifier"] = recipes.Classifier(
            model=options.classifier,
            label=options.classifier_label,
            threshold=options.classifier_threshold,
        )
    return dataclasses.replace(recipe, **added)


def _begun_tasks(out: pathlib.Path) -> int | None:
    """The number of tasks of a folder that was begun, which another machine would choose otherwise."""
    path = out / "recipe.json"
    return (
        json_text.member(json_text.read_object(path), "tasks", int, path) if path.exists() else None
    )


def _begin(out: pathlib.Path, refinement: Refinement) -> None:
    """Writes recipe.json, or compares it with the one that is there."""
    path = out / "recipe.json"
    described = refinement.describe()
    if path.exists():
        old = json_text.read_object(path)
        # a recipe may be called something else
        changed = [key for key in described if key != "recipe" and old.get(key) != described[key]]
        if "stages" in changed:
            now, then = described["stages"], old["stages"]
            changed.remove("stages")
            changed += [name for name in now if now[name] != then.get(name)]
        if changed:
            raise ValueError(
                f"{out}: was begun with different {', '.join(changed)}: use the same settings, or another folder"
            )
        return
    if rest := [name for name in os.listdir(out) if name not in (".lock", ".workers")]:
        raise ValueError(f"{out}: has other files ({rest[0]}); name a new or empty folder")
    shards.write_text(path, json.dumps(described, indent=2) + "\n")


@contextlib.contextmanager
def _locked(out: pathlib.Path) -> Iterator[None]:
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = os.open(out / ".lock", os.O_CREAT | os.O_WRONLY)
    except OSError as e:
        raise ValueError(f"{out}: cannot be written: {e.strerror}") from e
    with os.fdopen(lock, "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise ValueError(f"{out}: another process is refining into this folder") from e
        yield


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Any]:
    """A line about the job that runs, on a terminal only."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.fields[line]}"), BarColumn(16), TimeElapsedColumn())
    numbers: dict[str, int] = {}
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        shown = bar.add_task("", total=None, line="starting")

        def tell(job: Job, done: int) -> None:
            number = numbers.setdefault(str(job.logs), len(numbers) + 1)
            documents = _read_so_far(job)
            rate = f", {documents:,} documents" if documents else ""
            line = f"{number}/{total} {job.name[:60]}: {done}/{job.tasks} tasks{rate}"
            bar.update(shown, line=line, completed=done, total=job.tasks)

        yield tell


def _read_so_far(job: Job) -> int:
    folder = job.logs.parent / "progress"
    count = 0
    for path in folder.glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            count += int(path.read_text().split()[0])
    return count


def derive_thresholds(
    out: OutFile,
    /,
    samples: tuple[str, ...],
    language: str,
    method: Literal["quantile", "mean_std", "tail"] = "quantile",
    text_column: str = "text",
    most_documents: int = 10_000,
) -> None:
    """Thresholds for a language from the statistics of clean text, for `--thresholds` of a recipe.

    Args:
        out: file to write.
        samples: SAMPLE ...: files with clean text of the language.
        language: its code, such as zh.
        method: how thresholds follow from the statistics (FineWeb2).
        text_column: column of the text.
        most_documents: number of documents that are read.
    """
    check_file(out)
    check_not_read(out, *samples)
    records = Inputs.of(samples, text_column).records(0, 1)
    texts = (record.document.text for record in records if record.document is not None)
    table = thresholds.derive(itertools.islice(texts, most_documents), language, method=method)
    write_text(out, json.dumps(table, indent=2, ensure_ascii=False) + "\n")
    print(f"{out}: use it with jaxlm refine RECIPE ... --thresholds {out}")


def write_report(out: OutDir, /) -> None:
    """Writes the report of a finished folder again.

    Args:
        out: folder of `jaxlm refine`.
    """
    print(report.write(out))
