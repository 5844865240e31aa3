"""Folders that are written as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from jaxlm.config.disk import naming
from jaxlm.config.urls import refuse_url


def check_new(folder: str | os.PathLike) -> None:
    """Raises ValueError unless the folder is empty or does not exist, or for a URL."""
    refuse_url(folder)
    folder = pathlib.Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: exists and is not empty; choose another folder")


@contextlib.contextmanager
def new_folder(folder: str | os.PathLike) -> Iterator[pathlib.Path]:
    """A temporary folder to write to, which becomes `folder` if nothing is raised.

    Raises:
        ValueError: the folder is not empty, or cannot be written.
    """
    check_new(folder)
    folder = pathlib.Path(folder)
    parent = folder.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        temporary = pathlib.Path(tempfile.mkdtemp(dir=parent, prefix=".export-"))
    except OSError as e:
        raise ValueError(f"{folder}: cannot be written: {e.strerror}") from e
    try:
        with naming(folder):
            yield temporary
        temporary.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        os.replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
