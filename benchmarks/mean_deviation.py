"""Mean ± standard deviation of several runs, as the tables of the benchmarks have it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def mean_deviation(values: Sequence[float], form: str = ".1f") -> str:
    """Mean and sample standard deviation in this format; a single value has no deviation."""
    mean = f"{statistics.fmean(values):{form}}"
    unsigned = form.removeprefix("+")
    return f"{mean} ± {statistics.stdev(values):{unsigned}}" if len(values) > 1 else mean
