"""Steps a second of two sides that take turns in one process, for the benchmarks: the ratio holds on a busy machine."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any


def measure(
    sides: Mapping[str, Callable[[], Any]], *, rounds: int, steps: int
) -> dict[str, float | list[float]]:
    """Medians over the rounds of both sides and of their ratio, with the ratio of each round.

    Args:
        sides: what takes a step of "ours" and of "theirs", and waits for it.
        rounds: measurements of each side, every other time in reverse order.
        steps: steps of a measurement.
    """
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds):
        for name in list(sides)[:: -1 if turn % 2 else 1]:
            time.sleep(0.3)  # the threads of the other side go to sleep
            start = time.perf_counter()
            for _ in range(steps):
                sides[name]()
            speeds[name].append(steps / (time.perf_counter() - start))
    ratios = [a / b for a, b in zip(speeds["ours"], speeds["theirs"])]
    return {
        **{name: round(statistics.median(x), 3) for name, x in speeds.items()},
        "ratio": round(statistics.median(ratios), 3),
        "rounds": [round(ratio, 3) for ratio in ratios],
    }


def machine() -> dict[str, Any]:
    """Versions and machine, as they stand behind a result."""
    return {
        "versions": {package: version(package) for package in ("jax", "torch", "transformers")},
        "machine": {"cpus": os.cpu_count(), "system": platform.platform()},
    }
