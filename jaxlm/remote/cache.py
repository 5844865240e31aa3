"""Token shards in a bucket, as a local copy: rows are read in random order, which a bucket answers too slowly for.

A copy is kept in `~/.cache/jaxlm/shards` (or below XDG_CACHE_HOME) for the next run; other contents under the same URL
get another copy. Nothing is written but files with the names that shards have.
"""

from __future__ import annotations

import concurrent.futures
import fcntl
import functools
import hashlib
import os
import pathlib
import re
import shutil

from jaxlm.remote import objects

_NAMES = re.compile(r"(train|validation)(-\d{5,}\.tokens|\.ends)|tokenizer\.json|[\w-]+\.jinja")
_MANIFEST = "manifest.json"
# files that are fetched at the same time
_THREADS = 8


def shards(url: str) -> pathlib.Path:
    """The local copy of a folder of token shards, which is made if it is not there.

    Raises:
        ValueError: there are no shards, they cannot be read, or there is no room for them.
    """
    manifest = objects.read(f"{url}/{_MANIFEST}")
    if manifest is None:
        raise ValueError(
            f"{url}: no token shards (there is no {_MANIFEST}); other data is not read from a bucket: tokenize it with "
            "`jaxlm tokenize` and copy the folder there, or copy the data from there"
        )
    return _copy(url, manifest)


@functools.cache
def _copy(url: str, manifest: bytes) -> pathlib.Path:
    name = hashlib.sha256(f"{url}\n".encode() + manifest).hexdigest()[:16]
    root = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    folder = root / "jaxlm" / "shards" / f"{url.rpartition('/')[2]}-{name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "w") as lock:
            # other processes of this machine wait for the copy
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / _MANIFEST).is_file():
                _fetch(url, folder)
                (folder / f"{_MANIFEST}.part").write_bytes(manifest)
                os.replace(folder / f"{_MANIFEST}.part", folder / _MANIFEST)
    except OSError as e:
        raise ValueError(
            f"{folder}: the shards of {url} cannot be copied here: {e.strerror}"
        ) from e
    return folder


def _fetch(url: str, folder: pathlib.Path) -> None:
    """Copies the files that are not there in their whole size."""
    names = [name for name in objects.names(url) if _NAMES.fullmatch(name)]
    sizes = {name: objects.size(f"{url}/{name}") or 0 for name in names}
    missing = [name for name in names if _size(folder / name) != sizes[name]]
    needed, free = sum(sizes[name] for name in missing), shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"{folder}: the shards of {url} need {needed / 1e9:.1f} GB here, and {free / 1e9:.1f} GB are free: set "
            "XDG_CACHE_HOME to a folder with more room"
        )

    def fetch(name: str) -> None:
        part = folder / f"{name}.part"
        objects.fetch(f"{url}/{name}", part)
        os.replace(part, folder / name)

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(fetch, missing))


def _size(path: pathlib.Path) -> int:
    return path.stat().st_size if path.is_file() else -1
