"""The one thread that owns the engine: it starts waiting jobs, steps, and hands results to the event loop."""

from __future__ import annotations

import asyncio
import collections
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from jaxlm.serve.queue import FairQueue, Full, Job, Order
from jaxlm.serve.refusal import Refusal

_LOG = logging.getLogger("jaxlm.serve")
# of scores and embeddings: sequences of one forward pass
BATCH = 8


class Worker:
    """Runs jobs on a thread of its own.

    `submit`, `cancel` and `drain` are called in the event loop; the engine and `embed` are used by the thread only.
    Without an engine, `warm_up` is called in the thread before anything else, with what is to be told its progress:
    the shapes that are compiled, and all there are.
    """

    def __init__(
        self,
        engine: Any,
        embed: Any,
        *,
        slots: int,
        queue: int,
        warm_up: Callable[[Callable[[int, int], None]], None] = lambda progress: None,
    ):
        self._engine = engine
        self._embed = embed
        self._warm_up = warm_up if engine is None else engine.warm_up
        self._slots = slots
        self._changed = threading.Condition()
        # what follows is guarded by the condition's lock
        self._queue = FairQueue(queue)
        self._cancelled: list[Job] = []
        self._state = "warming up"
        self._finished: collections.deque[float] = collections.deque(maxlen=64)
        # the thread's own
        self._running: dict[int, Job] = {}
        self._taken: list[Job] = []
        self._loop: Any = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        # called in the event loop if the engine fails, after which nothing runs any more
        self.on_failure: Callable[[], None] = lambda: None
        # called in the thread with the progress of the warm-up, and when it is over
        self.on_warming: Callable[[int, int], None] = lambda done, total: None
        self.on_ready: Callable[[], None] = lambda: None
        # shapes that the warm-up has compiled, and all there are
        self.warmed = (0, 0)

    @property
    def state(self) -> str:
        """warming up, ok, draining, or failed."""
        return self._state

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._queue)

    @property
    def active(self) -> int:
        """Sequences that are being generated."""
        return len(self._running)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Starts the thread, which warms up first; called in the event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def submit(self, order: Order) -> None:
        """Puts a request into the queue.

        Raises:
            Refusal: 429 if the queue is full, 503 if the server is stopping or broken.
        """
        with self._changed:
            if self._state not in ("ok", "warming up"):
                raise Refusal(503, f"the server is {self._state}", retry_after=5)
            if len(order.jobs) > self._queue.size:
                raise Refusal(
                    400,
                    f"the request has {len(order.jobs)} answers, more than the {self._queue.size} that may wait",
                    param="n",
                )
            try:
                displaced = self._queue.put(order)
            except Full:
                raise self._busy() from None
            refusal = self._busy() if displaced else None
            self._changed.notify()
        for other in displaced:
            for job in other.jobs:
                job.deliver(refusal)

    def _busy(self) -> Refusal:
        return Refusal(
            429,
            f"the queue is full ({len(self._queue)} answers are waiting): try again later",
            code="queue_full",
            retry_after=self._wait(),
        )

    def _wait(self) -> int:
        """Seconds until the queue is likely to be empty, from 1 to 60."""
        if len(self._finished) < 2:
            return 1
        per_second = len(self._finished) / max(1e-3, time.monotonic() - self._finished[0])
        return int(min(60, max(1, round(len(self._queue) / per_second))))

    def cancel(self, order: Order) -> None:
        """Ends the jobs of a request wherever they are; results already under way may still be delivered."""
        with self._changed:
            self._queue.remove(order)
            self._cancelled.extend(order.jobs)
            self._changed.notify()

    def cancel_job(self, job: Job) -> None:
        """Ends a job that runs."""
        with self._changed:
            self._cancelled.append(job)
            self._changed.notify()

    def drain(self) -> None:
        """Refuses what waits and what comes from now on; what runs is finished."""
        with self._changed:
            if self._state == "failed":
                return
            self._state = "draining"
            orders = self._queue.drain()
            self._changed.notify()
        refusal = Refusal(503, "the server is stopping", retry_after=5)
        for order in orders:
            for job in order.jobs:
                job.deliver(refusal)

    def stop(self, seconds: float = 10.0) -> None:
        """Ends the thread after its present step."""
        with self._changed:
            self._state = "stopped" if self._state != "failed" else "failed"
            self._changed.notify()
        self._thread.join(seconds)

    # ---- in the thread

    def _run(self) -> None:
        try:
            self._warm_up(self._note_warming)
            with self._changed:
                if self._state == "warming up":
                    self._state = "ok"
            self.on_ready()
            while self._turn():
                pass
        except Exception:
            _LOG.exception("the engine failed; the server stops")
            self._fail()

    def _note_warming(self, done: int, total: int) -> None:
        self.warmed = (done, total)
        self.on_warming(done, total)

    def _turn(self) -> bool:
        """One round: cancels, starts, steps; False at the end."""
        with self._changed:
            while (
                not (self._queue or self._cancelled or self._running) and self._state != "stopped"
            ):
                self._changed.wait()
            if self._state == "stopped":
                return False
            cancelled, self._cancelled = self._cancelled, []
        for job in cancelled:
            if job.number is not None and self._running.get(job.number) is job:
                self._engine.cancel(job.number)
                self._end(job)
        generate, batch = self._next()
        results: list[tuple[Job, Any]] = []
        for job in generate:
            try:
                job.number = self._engine.add(job.work)
            except ValueError as e:
                about = "response_format" if "constraint" in str(e) else None
                results.append((job, Refusal(400, " ".join(str(e).split()), param=about)))
                self._end(job)
            else:
                self._running[job.number] = job
        if batch:
            results += self._compute(batch)
        if self._running:
            for token in self._engine.step():
                owner = self._running.get(token.request)
                if owner is None:
                    continue
                if token.reason == "error":
                    refusal = Refusal(500, "the constraint failed while the answer was written")
                    results.append((owner, refusal))
                else:
                    results.append((owner, token))
                if token.reason is not None:
                    self._end(owner)
        self._taken = []
        if results:
            self._hand_over(results)
        return True

    def _next(self) -> tuple[list[Job], list[Job]]:
        """Jobs to generate, as many as slots are free, and jobs of one other kind for one forward pass."""
        generate: list[Job] = []
        batch: list[Job] = []

        def fits(job: Job) -> bool:
            if job.kind == "generate":
                return len(self._running) + len(generate) < self._slots
            return len(batch) < BATCH and all(_alike(job, other) for other in batch)

        with self._changed:
            while (job := self._queue.pop(fits)) is not None:
                (generate if job.kind == "generate" else batch).append(job)
        self._taken = generate + batch
        return generate, batch

    def _compute(self, batch: list[Job]) -> list[tuple[Job, Any]]:
        """The scores or vectors of a batch; if one is refused, the others are computed without it."""
        try:
            if batch[0].kind == "score":
                top = batch[0].work[1]
                values = self._engine.score([job.work[0] for job in batch], top=top)
            else:
                values = self._embed([job.work for job in batch])
        except ValueError as e:
            if len(batch) > 1:
                return [result for job in batch for result in self._compute([job])]
            values = [Refusal(400, " ".join(str(e).split()))]
        for job in batch:
            self._end(job)
        return list(zip(batch, values))

    def _end(self, job: Job) -> None:
        if job.number is not None:
            self._running.pop(job.number, None)
        with self._changed:
            self._queue.finish(job)
            self._finished.append(time.monotonic())

    def _hand_over(self, results: list[tuple[Job, Any]]) -> None:
        def deliver() -> None:
            for job, result in results:
                job.deliver(result)

        try:
            self._loop.call_soon_threadsafe(deliver)
        except RuntimeError:  # the loop was closed by a second signal
            return

    def _fail(self) -> None:
        with self._changed:
            self._state = "failed"
            waiting = self._queue.drain()
        jobs = [
            *self._running.values(),
            *self._taken,
            *(job for order in waiting for job in order.jobs),
        ]
        self._running.clear()
        self._hand_over([(job, Refusal(500, "the engine failed")) for job in jobs])
        try:
            self._loop.call_soon_threadsafe(self.on_failure)
        except RuntimeError:
            return


def _alike(a: Job, b: Job) -> bool:
    """Whether two jobs can share a forward pass."""
    return a.kind == b.kind and (a.kind != "score" or a.work[1] == b.work[1])
