"""Objects of a bucket, read and written whole through fsspec; every error is one line.

An object appears and changes as a whole, and cannot be appended to. There are no folders, only names with slashes.
gcsfs and s3fs repeat requests that fail for a moment, for about half a minute.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import os
from collections.abc import Iterator
from typing import Any

# by scheme: the package that reads and writes it, and its name in fsspec
_PACKAGES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}


class RemoteError(ValueError):
    """An object cannot be read or written; the message is one line."""


def check(url: str) -> None:
    """Raises ValueError if the package for this kind of URL is missing; names the command that installs it."""
    package = _PACKAGES[url.partition(":")[0]][0]
    if importlib.util.find_spec(package) is None:
        raise RemoteError(
            f"{url}: needs the package {package}: pip install 'jaxlm[remote]', or pip install {package}"
        )


def read(url: str) -> bytes | None:
    """The contents of an object; None if there is none."""
    with _errors(url, "read"):
        try:
            return _files(url).cat_file(url)
        except FileNotFoundError:
            return None


def fetch(url: str, path: str | os.PathLike) -> None:
    """Copies an object to a local file."""
    with _errors(url, "read"):
        _files(url).get_file(url, os.fspath(path))


def send(path: str | os.PathLike, url: str) -> None:
    """Copies a local file to an object."""
    with _errors(url, "written"):
        _files(url).put_file(os.fspath(path), url)


def size(url: str) -> int | None:
    """Bytes of an object; None if there is none."""
    with _errors(url, "read"):
        try:
            return int(_files(url).info(url)["size"])
        except FileNotFoundError:
            return None


def write(url: str, data: bytes) -> None:
    """Writes an object, in the place of one of that name."""
    with _errors(url, "written"):
        _files(url).pipe_file(url, data)


def create(url: str, data: bytes) -> bool:
    """Writes an object unless there is one of that name; whether it was written. Of several callers one succeeds."""
    with _errors(url, "written"):
        try:
            _files(url).pipe_file(url, data, mode="create")
        except OSError as e:
            # s3fs has no class for it
            if isinstance(e, FileExistsError) or "PreconditionFailed" in str(e):
                return False
            raise
        return True


def names(url: str) -> list[str]:
    """The names of the objects and folders in a folder, in order; empty if there is no such folder."""
    with _errors(url, "listed"):
        try:
            found = _files(url).ls(url, detail=False, refresh=True)
        except FileNotFoundError:
            return []
    root = url.partition("://")[2]
    inside = (str(name).removesuffix("/") for name in found)
    # a placeholder of a folder is listed as the folder itself
    return sorted({name.rpartition("/")[2] for name in inside if name != root})


def all_names(url: str) -> list[str]:
    """The names of all objects in a folder and the folders in it, relative to it."""
    with _errors(url, "listed"):
        found = _files(url).find(url)
    root = f"{url.partition('://')[2]}/"
    return sorted(str(name).removeprefix(root) for name in found)


def remove(url: str) -> None:
    """Removes an object if there is one."""
    with _errors(url, "removed"), contextlib.suppress(FileNotFoundError):
        _files(url).rm_file(url)


def remove_folder(url: str) -> None:
    """Removes everything whose name begins with that of the folder."""
    with _errors(url, "removed"), contextlib.suppress(FileNotFoundError):
        _files(url).rm(url, recursive=True)


def copy_folder(url: str, new: str) -> None:
    """Copies everything in a folder to another one in the same bucket."""
    for name in all_names(url):
        with _errors(f"{url}/{name}", "copied"):
            _files(url).cp_file(f"{url}/{name}", f"{new}/{name}")


def list_fresh() -> None:
    """Has fsspec ask the server each time: other processes write to the same folders, and orbax reads them."""
    import fsspec.config

    for scheme in ("gcs", "gs", "s3"):
        fsspec.config.conf.setdefault(scheme, {}).setdefault("use_listings_cache", False)
    for package in ("gcsfs", "s3fs"):
        # logged with a traceback, and raised as well
        logging.getLogger(package).setLevel(logging.CRITICAL + 1)


@functools.cache
def _file_system(scheme: str) -> Any:
    import fsspec

    list_fresh()
    return fsspec.filesystem(_PACKAGES[scheme][1], skip_instance_cache=True)


def _files(url: str) -> Any:
    return _file_system(url.partition(":")[0])


@contextlib.contextmanager
def _errors(url: str, verb: str) -> Iterator[None]:
    check(url)
    try:
        yield
    except (
        Exception
    ) as e:  # each package has types of its own, for the network, credentials and missing buckets
        raise RemoteError(f"{url}: cannot be {verb}: {_reason(e)}") from e


def _reason(error: BaseException) -> str:
    """The innermost cause in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    words = " ".join(str(error).split())[:200]
    if isinstance(error, FileNotFoundError):
        return f"not found ({words}): is the name of the bucket right?"
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
