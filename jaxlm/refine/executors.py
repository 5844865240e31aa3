"""Where the jobs of a refinement run: on this machine, on a Slurm cluster, or on a Ray cluster, by datatrove."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import fcntl
import io
import logging
import multiprocessing
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import dill
from datatrove.executor import LocalPipelineExecutor, SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from loguru import logger

from jaxlm.data.workers import end_with_parent


@dataclasses.dataclass(frozen=True)
class Job:
    """One executor's work: `tasks` tasks that each run the steps for their part.

    Args:
        name: for people.
        steps: of datatrove.
        tasks: how many; all of them must be done before the next job begins.
        logs: folder for datatrove's logs and marks of finished tasks.
    """

    name: str
    steps: Sequence[PipelineStep]
    tasks: int
    logs: pathlib.Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slurm:
    """Options of `--executor slurm`; the jobs are submitted, and the command returns.

    Args:
        partition: of the cluster; needed.
        time: limit for a task, hours:minutes:seconds.
        memory: GB for a task.
        qos: quality of service.
        environment: command that activates the Python environment on a node.
        max_array: largest array job that the cluster allows.
    """

    partition: str | None = None
    time: str = "10:00:00"
    memory: int = 4
    qos: str = ""
    environment: str | None = None
    max_array: int = 1001


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ray:
    """Options of `--executor ray`.

    Args:
        address: of the cluster; default: the one that this machine belongs to, or a new one on this machine.
        memory: GB for a task.
    """

    address: str | None = None
    memory: float = 4


class TaskFailed(RuntimeError):
    """Tasks that did not finish; the message is for people."""

    exit_code = 1


# job, tasks that are done
Progress = Callable[[Job, int], None]


def run_local(
    jobs: Sequence[Job], workers: int, progress: Progress, lock: pathlib.Path | None = None
) -> None:
    """Runs the jobs one after another in `workers` processes; 0: in this process, one task at a time.

    The workers end when this process does, however it ends, and hold the lock as long as they live.

    Raises:
        ValueError: a task met input that it cannot read, or workers of an earlier call still run.
        TaskFailed: tasks failed or a process died; the others were finished.
    """
    logger.disable("datatrove")
    try:
        if workers == 0:
            for job in jobs:
                for task in (executor := _Local(job)).todo():
                    executor.task(task)
                    progress(job, task + 1)
            return
        _wait_for_workers(lock)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["jaxlm.refine.pipeline"])
        with ProcessPoolExecutor(workers, context, _begin_worker, (lock,)) as pool:
            for job in jobs:
                _run_job(pool, job, progress)
    finally:
        logger.enable("datatrove")


# seconds that workers of a call that was killed get to end
_PATIENCE = 20
# the lock that a worker holds, as a file that stays open
_held: list[Any] = []


def _wait_for_workers(lock: pathlib.Path | None) -> None:
    """Waits until no worker of an earlier call writes here any more."""
    if lock is None:
        return
    with open(lock, "a") as file:
        for _ in range(10 * _PATIENCE):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(0.1)
    raise ValueError(f"{lock.parent}: workers of an earlier call still run; end them first")


def _begin_worker(lock: pathlib.Path | None) -> None:
    """In a worker: holds the lock, and ends with the process that started it."""
    if lock is not None:
        file = open(lock, "a")  # noqa: SIM115
        fcntl.flock(file, fcntl.LOCK_SH)
        _held.append(file)
    end_with_parent()


def _run_job(pool: ProcessPoolExecutor, job: Job, progress: Progress) -> None:
    executor = _Local(job)
    tasks = executor.todo()
    # dill also pickles classes of a config file, which no worker can import
    pickled = dill.dumps(executor)
    waiting = {pool.submit(_run_task, pickled, task): task for task in tasks}
    failed: dict[int, BaseException] = {}
    done = job.tasks - len(tasks)
    try:
        while waiting:
            finished, _ = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in finished:
                task = waiting.pop(future)
                if error := future.exception():
                    failed[task] = error
                else:
                    done += 1
            progress(job, done)
    except BaseException:
        for future in waiting:
            future.cancel()
        raise
    if failed:
        _explain(job, failed, executor.logging_dir.path)


def _run_task(pickled: bytes, task: int) -> None:
    dill.loads(pickled).task(task)


def _explain(job: Job, failed: dict[int, BaseException], logs: str) -> None:
    task, error = min(failed.items())
    for each in failed.values():
        if isinstance(each, ValueError):
            raise each
    if isinstance(error, BrokenProcessPool):
        why = "a worker process died: killed, or out of memory (fewer --workers need less)"
    elif isinstance(error, OSError):
        why = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    else:
        why = f"{type(error).__name__}: {error}"
    raise TaskFailed(
        f"{job.name}: {len(failed)} of {job.tasks} tasks did not finish: {why}. What is done stays: the same command "
        f"goes on from there. Task {task} has its log in {logs}/logs/task_{task:05d}.log"
    ) from error


class _Local(LocalPipelineExecutor):
    """datatrove's executor for one task at a time, without its pool, which waits forever for a process that died."""

    def __init__(self, job: Job) -> None:
        super().__init__(list(job.steps), tasks=job.tasks, workers=1, logging_dir=str(job.logs))

    def todo(self) -> list[int]:
        """Tasks that are not done."""
        return self.get_incomplete_ranks()  # type: ignore[no-any-return]

    def task(self, task: int) -> None:
        """Runs one task; its log goes to a file only."""
        # each task with steps of its own, as in a process of its own
        executor = copy.deepcopy(self)
        with contextlib.redirect_stderr(io.StringIO()):
            executor._run_for_rank(task, local_rank=1)


def run_ray(jobs: Sequence[Job], workers: int, options: Ray, progress: Progress) -> None:
    """Runs the jobs one after another on a Ray cluster; folders must be shared by its machines."""
    try:
        import ray
        from datatrove.executor import RayPipelineExecutor
    except ImportError as e:
        raise ValueError("--executor ray needs Ray: pip install ray") from e

    if not ray.is_initialized():
        ray.init(address=options.address, log_to_driver=False, logging_level=logging.WARNING)
    for job in jobs:
        executor = RayPipelineExecutor(
            list(job.steps),
            tasks=job.tasks,
            workers=min(workers, job.tasks),
            logging_dir=str(job.logs),
            mem_per_cpu_gb=options.memory,
        )
        logger.disable("datatrove")
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                executor.run()
        finally:
            logger.enable("datatrove")
        if missing := executor.get_incomplete_ranks():
            raise TaskFailed(
                f"{job.name}: {len(missing)} of {job.tasks} tasks did not finish on Ray: "
                f"{_last_line(job, missing[0])}. What is done stays: the same command goes on from there. Logs: "
                f"{job.logs}/logs"
            )
        progress(job, job.tasks)


def _last_line(job: Job, task: int) -> str:
    """What the log of a task that failed ends with: the exception."""
    log = job.logs / "logs" / f"task_{task:05d}.log"
    if not log.is_file():
        return "a task has no log, so it did not begin or its machine was lost"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "its log is empty")[
        :500
    ]


def submit_slurm(jobs: Sequence[Job], workers: int, options: Slurm) -> str:
    """Submits the jobs, each waiting for the one before; returns the number of the last one."""
    before: Any = None
    for job in jobs:
        before = SlurmPipelineExecutor(
            list(job.steps),
            tasks=job.tasks,
            workers=min(workers, job.tasks),
            time=options.time,
            partition=options.partition,
            mem_per_cpu_gb=options.memory,
            qos=options.qos,
            env_command=options.environment,
            max_array_size=options.max_array,
            job_name=f"refine-{job.logs.parent.name}",
            logging_dir=str(job.logs),
            depends=before,
        )
    try:
        before.run()
    except FileNotFoundError as e:
        raise ValueError(
            f"--executor slurm: {e.filename or 'sbatch'} is not on this machine"
        ) from e
    return str(before.job_id)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
