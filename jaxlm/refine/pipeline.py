"""From a recipe and inputs to jobs, and what happens after the last of them."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import importlib.metadata
import importlib.util
import json
import pathlib
import re
import shutil
from collections.abc import Sequence
from typing import Any

from datatrove.pipeline.base import PipelineStep

from jaxlm.refine import report, shards, timing
from jaxlm.refine.accounts import Amount, StageAccount, add_up, check
from jaxlm.refine.duplicate_urls import DropDuplicateUrls, DuplicateUrls
from jaxlm.refine.executors import Job
from jaxlm.refine.near_duplicates import DropNearDuplicates, NearDuplicates
from jaxlm.refine.phase import Files, Phase
from jaxlm.refine.readers import Inputs
from jaxlm.refine.recipe import Recipe
from jaxlm.refine.repeated import Find, partition_bits
from jaxlm.refine.rule import Rule
from jaxlm.refine.substrings import CutSubstrings, Substrings

# fewest bytes of input for which there is one window of words
_BYTES_PER_WINDOW = 4
_BYTES_PER_URL = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refinement:
    """Everything that the result depends on.

    Args:
        recipe: stages.
        inputs: files.
        out: folder to write.
        tasks: parts into which the work is divided.
        form: of the documents that are written.
        keep_dropped: write all dropped documents, not only some of each rule.
        tokenizer: tokenizer.json with which token shards are written at the end.
        keep_work: leave the files between the phases.
        name: of the recipe.
        recipe_file: Python file that it comes from.
    """

    recipe: Recipe
    inputs: Inputs
    out: pathlib.Path
    tasks: int
    form: shards.Format = "jsonl"
    keep_dropped: bool = False
    tokenizer: pathlib.Path | None = None
    keep_work: bool = False
    name: str = "custom"
    recipe_file: pathlib.Path | None = None

    def describe(self) -> dict[str, Any]:
        """For recipe.json: a folder is only gone on with by the same settings."""
        stages = {}
        for field in dataclasses.fields(self.recipe):
            stages[field.name] = _plain(getattr(self.recipe, field.name))
        # the file may be another one the next time
        stages["thresholds"] = self.recipe.read_thresholds()
        return {
            "version": 1,
            "recipe": self.name,
            "stages": stages,
            "inputs": [path for path, _ in self.inputs.files],
            "input_versions": self.inputs.versions(),
            "recipe_file": None if self.recipe_file is None else _plain(self.recipe_file),
            "text_column": self.inputs.text_column,
            "most_bytes": self.inputs.most_bytes,
            "tasks": self.tasks,
            "output": self.form,
            "keep_dropped": self.keep_dropped,
            "tokenizer": None if self.tokenizer is None else _plain(self.tokenizer),
        }


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"class": type(value).__name__, **_code(type(value).__module__), **fields}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (str, pathlib.Path)) and 0 < len(str(value)) < 1000:
        # what a file says is a setting too
        path = pathlib.Path(value)
        if "\0" not in str(value) and path.is_file():
            return f"{value} {_hash(path)}"
        if re.fullmatch(r"[A-Za-z_][\w.]*:\w+", str(value)) and (
            code := _code(str(value).split(":")[0])
        ):
            return f"{value} {code['code']}"
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _code(module: str) -> dict[str, str]:
    """The hash of a module that is not part of jaxlm: a rule or an extractor of the user's may change."""
    if module.split(".")[0] == "jaxlm":
        return {}
    with contextlib.suppress(ImportError, ValueError, AttributeError):
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.origin is not None and pathlib.Path(spec.origin).is_file():
            return {"code": _hash(pathlib.Path(spec.origin))}
    return {}


def _hash(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def jobs(refinement: Refinement) -> list[Job]:
    """All jobs, in order; the last one balances the accounts and writes the report."""
    work = refinement.out / "work"
    size = refinement.inputs.bytes()
    result: list[Job] = []
    phases: list[Files] = []
    source: Inputs | pathlib.Path = refinement.inputs
    rules: list[Rule] = []

    def phase(steps: Sequence[PipelineStep], last: bool) -> None:
        nonlocal source
        name = f"{len(result) + 1:02d}-stages"
        files = Files(
            work / name,
            refinement.out / "documents" if last else work / name / "documents",
            refinement.out / "dropped" / name,
        )
        step = Phase(
            source, rules, files, refinement.form if last else "jsonl", refinement.keep_dropped
        )
        label = ", ".join(rule.name for rule in rules) or "read"
        result.append(Job(label, [step, *steps], refinement.tasks, files.logs))
        phases.append(files)
        source = files.documents

    def other(name: str, step: PipelineStep, tasks: int) -> None:
        result.append(Job(name, [step], tasks, work / f"{len(result) + 1:02d}-find" / "logs"))

    for stage in refinement.recipe.stages():
        if isinstance(stage, Rule):
            rules.append(stage)
            continue
        folder = work / stage.name
        match stage:
            case NearDuplicates():
                phase([stage.sign(folder)], last=False)
                other("near_duplicates: match", stage.match(folder), stage.buckets)
                other("near_duplicates: cluster", stage.cluster(folder), 1)
                rules = [DropNearDuplicates(settings=stage, folder=folder)]
            case Substrings():
                bits = partition_bits(size // _BYTES_PER_WINDOW, stage.memory)
                phase([stage.hash(folder, bits)], last=False)
                find = Find(folder, bits, stage.keep)
                other("substrings: find", find, min(refinement.tasks, 1 << bits))
                rules = [CutSubstrings(settings=stage, folder=folder, bits=bits)]
            case DuplicateUrls():
                bits = partition_bits(size // _BYTES_PER_URL, stage.memory)
                phase([stage.hash(folder, bits)], last=False)
                find = Find(folder, bits, "first")
                other("duplicate_urls: find", find, min(refinement.tasks, 1 << bits))
                rules = [DropDuplicateUrls(folder=folder, bits=bits)]
    phase([], last=True)
    other("report", Finish(refinement, tuple(phases)), 1)
    return result


class Finish(PipelineStep):
    """Balances the accounts, writes the report and, if asked for, token shards; removes the files between phases."""

    type = "refine"
    name = "finish"

    def __init__(self, refinement: Refinement, phases: tuple[Files, ...]) -> None:
        super().__init__()
        self.refinement, self.phases = refinement, phases

    def run(self, data=None, rank: int = 0, world_size: int = 1):  # type: ignore[no-untyped-def]
        """Yields nothing."""
        del data, rank, world_size
        refinement = self.refinement
        stages, written = _balance(self.phases, refinement.tasks)
        for stage in stages:
            stage.seconds += timing.total(refinement.out / "work" / stage.name)
        if refinement.tokenizer is not None and written.documents:
            _tokenize(refinement)
        funnel = {
            "recipe": refinement.name,
            "inputs": [path for path, _ in refinement.inputs.files],
            "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "seconds": round(sum(stage.seconds for stage in stages), 3),
            "versions": _versions(),
            "stages": [stage.as_json() for stage in stages],
            "output": {**dataclasses.asdict(written), "files": refinement.tasks},
            "kept_dropped": refinement.keep_dropped,
        }
        shards.write_text(refinement.out / "funnel.json", json.dumps(funnel, indent=2) + "\n")
        report.write(refinement.out)
        if not refinement.keep_work:
            _clean(refinement.out / "work")


def _balance(phases: Sequence[Files], tasks: int) -> tuple[list[StageAccount], Amount]:
    """The accounts of all stages, checked, and what was written at the end."""
    everything: list[StageAccount] = []
    stages: list[StageAccount] = []
    written = Amount()
    for i, files in enumerate(phases):
        told = [json.loads(files.account(task).read_text("utf-8")) for task in range(tasks)]
        account = add_up([[StageAccount.of_json(e) for e in t["stages"]] for t in told])
        written = Amount()
        for each in told:
            written.add(each["written"]["documents"], each["written"]["bytes"])
        check(account, written)
        everything += account
        # reading what an earlier phase wrote is no stage
        stages += account if i == 0 else account[1:]
    check(everything, written)
    return stages, written


def _tokenize(refinement: Refinement) -> None:
    from jaxlm.config import DataConfig, TokenizerConfig
    from jaxlm.data import shard_writer, tokenizer

    source = str(refinement.out / "documents" / f"*{shards.SUFFIXES[refinement.form]}")
    path = str(refinement.tokenizer)
    data = DataConfig(train=(source,), tokenizer=TokenizerConfig(path=path))
    shard_writer.write(
        refinement.out / "tokens",
        data,
        tokenizer.load(path),
        command="jaxlm refine",
        processes=0,
    )


def _versions() -> dict[str, str]:
    names = ("jaxlm", "datatrove", "trafilatura", "pycld2")
    return {name: importlib.metadata.version(name) for name in names}


def _clean(work: pathlib.Path) -> None:
    for path in work.iterdir():
        if path.name.endswith("-stages"):
            shutil.rmtree(path / "documents", ignore_errors=True)
        elif not path.name.endswith("-find"):
            shutil.rmtree(path, ignore_errors=True)
