"""URLs where a path is needed: run folders and token shards may be in a bucket, everything else is local.

A local path of that name would be a folder called `gs:`, so that what is not supported is refused by name.
"""

from __future__ import annotations

import os
import re

# gs://bucket/run, and gs:/bucket/run, which pathlib makes of it; a single letter is a drive, and some words begin names
# of sources of our own
_URL = re.compile(r"(?!(?:builtin|hub|parallel|shards):)[A-Za-z][A-Za-z0-9+.-]+:/")
_BUCKET = re.compile(r"(gs|s3)://?([^/]+)/*(.*)", re.DOTALL)


def is_url(path: str | os.PathLike) -> bool:
    """Whether a path is a URL such as gs://bucket/run."""
    return _URL.match(os.fspath(path)) is not None


def bucket_url(path: str | os.PathLike) -> str | None:
    """A path in a bucket as gs://bucket/folder or s3://bucket/folder, without a slash at its end; None: it is none.

    Raises:
        ValueError: it names no folder of the bucket, or has parts like `..` or characters of patterns.
    """
    match = _BUCKET.fullmatch(os.fspath(path))
    if match is None:
        return None
    scheme, bucket, rest = match.groups()
    parts = [part for part in rest.split("/") if part]
    # such characters mean something else to the packages that read buckets
    if not parts or {".", ".."} & set(parts) or re.search(r"[*?\[\]#\s]", rest):
        raise ValueError(
            f"{os.fspath(path)}: name a folder in the bucket, as in {scheme}://{bucket}/runs/first"
        )
    return f"{scheme}://{bucket}/{'/'.join(parts)}"


def refuse_url(path: str | os.PathLike | None, what: str = "") -> None:
    """Raises ValueError if a path is a URL; `what` names the option, such as "export="."""
    if path is not None and is_url(path):
        raise ValueError(
            f"{what}{os.fspath(path)}: a URL, and only local files and folders are read and written here: copy it to "
            "or from a local one, or mount its bucket"
        )


def refuse_other_url(path: str | os.PathLike | None, what: str = "") -> None:
    """Raises ValueError if a path is a URL other than gs:// and s3://, where run folders and token shards may be."""
    if path is not None and bucket_url(path) is None and is_url(path):
        raise ValueError(
            f"{what}{os.fspath(path)}: a URL of a kind that is not supported: use gs://, s3:// or a local path"
        )
