"""The folder of a run and its files."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import math
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import IO, Any, Literal

from jaxlm import hf
from jaxlm.checkpoint import store
from jaxlm.config import FinetuneConfig, RunConfig, TrainConfig, files
from jaxlm.config.disk import check_no_link, naming
from jaxlm.data import tokenizer as tokenizers
from jaxlm.data.tokenizer import Tokenizer, TwoTokenizers
from jaxlm.remote import lease, mirror
from jaxlm.report import seeds
from jaxlm.tasks import Task, config_classes
from jaxlm.training import processes

# a checkpoint: that of a step, the one with the best validation metric, or (None) the newest
Step = int | Literal["best"] | None

# beside tokenizer.json, which is that of the decoder, if the encoder of a text VAE has another one
ENCODER_TOKENIZER = "encoder_tokenizer/tokenizer.json"
# what a run writes directly in its folder
_WRITTEN = (
    ".lock",
    "config.json",
    "curves.png",
    "metrics.jsonl",
    "privacy.json",
    "privacy.key",
    "summary.json",
    "trackers.json",
)


def folder_of(config: RunConfig) -> pathlib.Path:
    """The folder of a run: `run_dir`, or runs/<name>; of one in a bucket the mirror, which `lock` fills.

    Raises:
        ValueError: it is a URL of a kind that is not supported, or its package is missing.
    """
    folder = mirror.of(config.run_dir or f"runs/{config.name or 'run'}")
    return pathlib.Path(os.path.abspath(folder))


def seed_folders(folder: pathlib.Path) -> list[pathlib.Path]:
    """The runs of several seeds in a folder."""
    return sorted(path.parent for path in folder.glob("seed_*/config.json"))


def has_begun(folder: pathlib.Path) -> bool:
    """Whether the folder contains what a run has trained: a checkpoint, even a corrupt one, or a summary."""
    return (folder / "summary.json").is_file() or store.has_any(folder)


@contextlib.contextmanager
def lock(folder: pathlib.Path, config: RunConfig) -> Iterator[None]:
    """Locks the folder against other runs on this machine; the lock is released when its process ends.

    Of several processes the first makes and locks it. Folders that are created for it are removed if the run fails
    before it writes anything there. A dry run neither writes nor locks anything.

    Raises:
        ValueError: it cannot be written, another run has locked it, or not all processes see the same folder.
    """
    if (url := mirror.url_of(folder)) is not None:
        with _locked_in_bucket(folder, url, config):
            yield
        return
    if config.dry_run:
        yield
        return
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    handle, problem = None, None
    if processes.is_main():
        try:
            handle = _locked(folder)
        except ValueError as e:
            problem = e
    try:
        processes.check_shared(folder, is_ready=problem is None)
        if problem is not None:
            raise problem
        with naming(folder):
            yield
    except BaseException:
        if handle is not None:
            _remove_unused(folder, missing)
        raise
    finally:
        if handle is not None:
            handle.close()


@contextlib.contextmanager
def _locked_in_bucket(folder: pathlib.Path, url: str, config: RunConfig) -> Iterator[None]:
    """As `lock`, for the mirror of a folder in a bucket, which is filled; process 0 sends what it writes there."""
    report = functools.partial(print, flush=True)
    with contextlib.ExitStack() as held:
        problem = None
        if processes.is_main() and not config.dry_run:
            try:
                held.enter_context(lease.held(url, report))
            except ValueError as e:
                problem = e
        if not config.dry_run:
            processes.check_shared(folder, is_ready=problem is None)
        if problem is not None:
            raise problem
        mirror.pull(folder)
        if processes.is_main() and not config.dry_run:
            held.enter_context(mirror.sending(folder, report))
        yield


def _locked(folder: pathlib.Path) -> IO:
    """The folder's lock file, which keeps the lock while it is open."""
    for name in _WRITTEN:
        check_no_link(folder / name)
        check_no_link(folder / f"{name}.tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.fdopen(os.open(folder / ".lock", os.O_CREAT | os.O_WRONLY), "w")
    except OSError as e:
        raise ValueError(f"{folder}: cannot be used as a run folder: {e.strerror}") from e
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        handle.close()
        raise ValueError(f"{folder}: another process is writing this run") from e
    return handle


def _remove_unused(folder: pathlib.Path, created: Sequence[pathlib.Path]) -> None:
    """Removes the lock file of a run that has written nothing else, and the folders that were created for it."""
    if os.listdir(folder) != [".lock"]:
        return
    with contextlib.suppress(OSError):  # another process may have begun to use them
        (folder / ".lock").unlink()
        for path in created:
            path.rmdir()


def write(folder: pathlib.Path, config: RunConfig, tokenizer: Tokenizer | None) -> None:
    """Writes config and tokenizer, if there is one, on process 0."""
    if processes.is_main():
        if tokenizer is not None:
            tokenizer.save(folder / "tokenizer.json")
        if isinstance(tokenizer, TwoTokenizers):
            # a folder of its own, because files beside tokenizer.json belong to it
            (folder / ENCODER_TOKENIZER).parent.mkdir(exist_ok=True)
            tokenizer.encoder.save(folder / ENCODER_TOKENIZER)
        temporary = folder / "config.json.tmp"
        files.save(config, temporary)
        os.replace(temporary, folder / "config.json")


def read_config(folder: str | os.PathLike, tasks: Sequence[type[Task]] = ()) -> Any:
    """The config of a finished or running run.

    Raises:
        ValueError: the folder has none.
    """
    folder = mirror.local(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such run folder; train first, or name another one")
    if not (folder / "config.json").is_file():
        if runs := seed_folders(folder):
            raise ValueError(
                f"{folder}: contains the runs of {len(runs)} seeds: name one, such as {runs[0]}"
            )
        raise ValueError(f"{folder}: has no config.json, so it is not a run folder")
    if hf.is_model(folder):
        raise ValueError(
            f"{folder}: a Hugging Face model, not a run folder; `jaxlm finetune --init {folder}` starts a run from it"
        )
    return files.load(
        folder / "config.json", TrainConfig, FinetuneConfig, tasks=config_classes(tasks)
    )


def read_tokenizer(folder: pathlib.Path, task: type[Task]) -> Tokenizer | None:
    """The tokenizer of a run, or those of its decoder and its encoder; None if its task does not read text.

    Raises:
        ValueError: it cannot be read, or is not the one that the run was trained with.
    """
    if not task.reads_text:
        return None
    tokenizer = tokenizers.load(folder / "tokenizer.json")
    if (folder / ENCODER_TOKENIZER).is_file():
        tokenizer = TwoTokenizers.of(tokenizer, tokenizers.load(folder / ENCODER_TOKENIZER))
    trained_with = None
    # without a checkpoint there is nothing that it could not fit
    with contextlib.suppress(store.CheckpointError):
        trained_with = store.load_json(folder, "progress").get("tokenizer")
    if trained_with not in (None, tokenizer.fingerprint):
        raise ValueError(
            f"{folder / 'tokenizer.json'}: not the tokenizer that the run was trained with: restore it"
        )
    return tokenizer


def step_of(folder: pathlib.Path, step: Step, task: Task) -> int | None:
    """The step of a checkpoint; None is the newest.

    Raises:
        ValueError: "best" is asked for, and no checkpoint has the task's metric, or the best one was not kept.
    """
    if step != "best":
        return step
    scores: dict[int, float] = {}
    for saved in store.describe(folder)["steps"]:
        # another one may be corrupt
        with contextlib.suppress(store.CheckpointError):
            value = store.describe(folder, step=saved)["metrics"].get(task.metric, math.nan)
            if math.isfinite(value):
                scores[saved] = value if task.lower_is_better else -value
    progress = store.load_json(folder, "progress")
    best = min(scores, key=lambda saved: (scores[saved], saved), default=None)
    if best is None and progress["best"] is None:
        raise ValueError(
            f"{folder}: no checkpoint has the validation metric {task.metric}, by which the best one is chosen: "
            "train with validation data, or name a step"
        )
    wanted = progress["best"] if task.lower_is_better else -progress["best"]
    if best is None or scores[best] > wanted:
        raise ValueError(
            f"{folder}: the checkpoint of step {progress['best_step']}, the best by {task.metric}, was not kept "
            f"(checkpoint.keep_best); there are {', '.join(map(str, store.describe(folder)['steps']))}"
        )
    return best


def print_result(summary: dict[str, Any]) -> None:
    """Prints the results and the folder of a run, on the main process."""
    if processes.is_main():
        print(closing_lines(summary))


def closing_lines(summary: dict[str, Any]) -> str:
    """The results and the folder of a run, for the end of its output."""
    if summary.get("dry_run"):
        return "dry run: the step compiles; nothing was written"
    if "runs" in summary:
        return seeds.closing_lines(summary)
    lines = [f"{summary['name']}: {summary['steps']:,} steps in {summary['wall_seconds']:.0f} s"]
    if summary["evaluation"]:
        lines.append(_scores("validation", summary["evaluation"]))
    if summary["best"]:
        lines.append(_scores("best", summary["best"]))
    if summary.get("stopped_early"):
        lines.append(summary["stopped_early"])
    if summary["skipped_steps"]:
        lines.append(f"skipped because not finite: {summary['skipped_steps']} steps")
    lines.append(f"outputs are in {summary['run_dir']} (summary.json, curves.png, checkpoints)")
    return "\n".join(lines)


def _scores(name: str, values: dict[str, float]) -> str:
    shown = (f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())
    return f"{name}: {', '.join(shown)}"
