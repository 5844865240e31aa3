"""URLs where a local path is needed: refused by name, because a path of that name is a folder called `gs:`."""

from __future__ import annotations

import os
import re

# gs://bucket/run, and gs:/bucket/run, which pathlib makes of it; a single letter is a drive, and some words begin names
# of sources of our own
_URL = re.compile(r"(?!(?:builtin|hub|parallel|shards):)[A-Za-z][A-Za-z0-9+.-]+:/")


def is_url(path: str | os.PathLike) -> bool:
    """Whether a path is a URL such as gs://bucket/run."""
    return _URL.match(os.fspath(path)) is not None


def refuse_url(path: str | os.PathLike | None, what: str = "") -> None:
    """Raises ValueError if a path is a URL; `what` names the option, such as "export="."""
    if path is not None and is_url(path):
        raise ValueError(
            f"{what}{os.fspath(path)}: a URL, and only local files and folders are read and written: copy it to or "
            "from a local one, or mount its bucket"
        )
