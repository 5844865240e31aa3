"""Errors of a full disk, which say where it is full."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterator

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Adds what is written to the error of a full disk, which Python does not name once a file is open."""
    try:
        yield
    except OSError as e:
        if e.errno in _FULL and e.filename is None:
            e.filename = str(path)
        raise


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file; the error of a full disk names it."""
    with naming(path):
        path.write_text(text, encoding="utf-8")
