"""Human-readable numbers: counts, sizes, durations, metrics."""

from __future__ import annotations


def count(n: float) -> str:
    """A count to three digits: 950, 41.2k, 12.3M, 1.5B, 300T."""
    for unit in ("", "k", "M", "B", "T"):
        if abs(n) < 999.5 or unit == "T":
            return f"{n:.0f}{unit}" if abs(n) >= 99.95 else f"{n:.3g}{unit}"
        n /= 1000
    raise AssertionError("the last unit takes everything")


def size(num_bytes: float) -> str:
    """A number of bytes: 512 B, 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(num_bytes) < 1023.5 or unit == "TiB":
            return f"{num_bytes:.0f} {unit}" if num_bytes >= 99.95 else f"{num_bytes:.3g} {unit}"
        num_bytes /= 1024
    raise AssertionError("the last unit takes everything")


def duration(seconds: float) -> str:
    """A duration in its two largest units: 42s, 1m12s, 2h05m, 3d04h."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days}d{h:02d}h"
    if hours:
        return f"{hours}h{m:02d}m"
    return f"{m}m{s:02d}s" if minutes else f"{s}s"


def number(x: float, digits: int = 4) -> str:
    """A metric to `digits` significant digits: 2.310, 0.01200, 431.2, 54321, 1.2e+08; an int is not rounded."""
    if isinstance(x, int):
        return str(x)
    if 10**digits <= abs(x) < 10**6:
        return f"{x:.0f}"
    return f"{x:#.{digits}g}".removesuffix(".").replace(".e", "e")
