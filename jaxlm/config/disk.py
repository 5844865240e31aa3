"""What is written: errors of a full disk say where it is full, and no link leads elsewhere."""

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


def check_no_link(path: pathlib.Path) -> None:
    """Raises ValueError for a file to write that somebody has made a link."""
    if path.is_symlink():
        raise ValueError(f"{path}: is a link, and links are not followed when writing: remove it")
