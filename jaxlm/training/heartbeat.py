"""A heartbeat of the processes of a run: one that hangs ends it, instead of keeping all others waiting.

A lost process is noticed by its connection (`peers`). One that hangs, for instance in a read from a file system that
does not answer, keeps its connection, and the others wait for it within a collective. So every process tells process 0
which step it begins and how long it waited for its data, and process 0 sees who has not begun the step of the others.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from jaxlm.config import DistributedConfig
from jaxlm.training import peers
from jaxlm.training.pace import Pace

# seconds between two looks
_INTERVAL = 1.0
# instead of a step: the process is between steps, where it may take as long as it likes
RESTS = -1
# steps whose waits are remembered
_REMEMBERED = 4
# process 0 knows who hangs: the others wait this many times as long for its word before they end the run themselves
_PATIENCE = 2.0


class Heartbeat:
    """What is known of the steps of some processes.

    Args:
        config: how long a step may take.
        names: of the processes.
        patience: how many times as long as the config says a step may take.
        clock: seconds.
    """

    def __init__(
        self,
        config: DistributedConfig,
        names: Sequence[str],
        patience: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._config, self._names, self._patience, self._clock = config, names, patience, clock
        self._steps = [RESTS] * len(names)
        # by process: step -> seconds that it waited for its data
        self._waits: list[dict[int, float]] = [{} for _ in names]
        self._changed = clock()

    def heard(self, index: int, step: int, waited: float = 0.0) -> None:
        """A process begins a step, after so many seconds of waiting for its data, or rests."""
        self._steps[index] = step
        self._changed = self._clock()
        waits = self._waits[index]
        waits[step] = waited
        for old in list(waits)[:-_REMEMBERED]:
            del waits[old]

    def verdict(self, median: float | None) -> str | None:
        """Which processes hang, in a line; None: none does, or too few steps are done to know how long one takes.

        A step hangs after `hang_factor` times the median, and at least `hang_minutes`.
        """
        c, waited = self._config, self._clock() - self._changed
        if median is None:
            return None
        if waited <= self._patience * max(c.hang_factor * median, 60 * c.hang_minutes):
            return None
        if RESTS in self._steps:
            return None
        since = f"for {waited / 60:.1f} minutes, where a step takes {median:.2g} s"
        last = max(self._steps)
        late = [name for name, step in zip(self._names, self._steps) if step < last]
        if not late:
            return f"no process has ended step {last} {since}: devices or their network hang"
        verb = "hangs" if len(late) == 1 else "hang"
        return f"{', '.join(late)} {verb}: step {last} has not begun there {since}"

    def cause(self, step: int, seconds: float) -> str:
        """Why a step took so long: the process that waited most for its data, if that is most of the time."""
        # the data of the next step are prepared before a step is seen to have ended
        waits = [max(own.get(step, 0.0), own.get(step + 1, 0.0)) for own in self._waits]
        longest = max(waits)
        if longest > seconds / 2:
            name = self._names[waits.index(longest)]
            return f"{name} waited {longest:.1f} s for its data"
        where = self._names[0] if len(self._names) == 1 else f"one of {len(self._names)} processes"
        return f"not for data: a device or the network of {where} was slow"


class Pulse:
    """The heartbeat of this process, and on process 0 the watch over all.

    Args:
        config: how long a step may take; `hang_minutes` 0: nothing is watched.
        pace: of the steps of this process.
    """

    def __init__(self, config: DistributedConfig, pace: Pace):
        self._pace = pace
        self._is_over = threading.Event()
        names = peers.names()
        self.index = peers.index()
        # of all processes on process 0; on others of this one, in case process 0 hangs as a whole
        if self.index == 0:
            self.heartbeat = Heartbeat(config, names)
        else:
            self.heartbeat = Heartbeat(config, names[:1], _PATIENCE)
        if len(names) < 2:
            return
        peers.listen(self._heard)
        if config.hang_minutes:
            threading.Thread(target=self._watch, daemon=True).start()

    def begin(self, step: int, waited: float) -> None:
        """This process begins a step, after so many seconds of waiting for its data."""
        self._tell(step, waited)

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """Within it nothing is expected of this process: evaluations, checkpoints, the start."""
        self._tell(RESTS, 0.0)
        yield

    def close(self) -> None:
        """There are no more steps."""
        self._tell(RESTS, 0.0)
        self._is_over.set()

    def _tell(self, step: int, waited: float) -> None:
        self.heartbeat.heard(0, step, waited)
        if self.index:
            peers.tell(f"{step} {waited:.3f}")

    def _heard(self, index: int, line: str) -> None:
        step, waited = line.split()
        self.heartbeat.heard(index, int(step), float(waited))

    def _watch(self) -> None:
        while not self._is_over.wait(_INTERVAL):
            line = self.heartbeat.verdict(self._pace.median)
            if line is not None:
                peers.end(line if self.index == 0 else f"process 0 does not answer, and {line}")
