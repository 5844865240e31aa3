"""Where the checkpoints of a run are: in a local folder, or in a bucket, which knows no folders and renames nothing.

Orbax writes a local checkpoint beside its name and renames it once everything is there. In a bucket it writes at the
name itself, and a file with the name `commit_success.txt` at the end: what lacks it is no checkpoint. It has a driver
for gs:// only; with s3:// it writes and reads a local temporary folder, which is sent, and marked at last, or fetched.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jaxlm.config.urls import bucket_url
from jaxlm.remote import mirror, objects
from jaxlm.remote.objects import RemoteError

# as orbax writes it
_COMMITTED = "commit_success.txt"
_CORRUPT = ".corrupt"
_LEFTOVERS = ("*.orbax-checkpoint-tmp*", "*.deleting")
# files that are sent or fetched at the same time
_THREADS = 8


class LocalPlace:
    """Checkpoints in a local folder; errors are OSError."""

    def __init__(self, folder: pathlib.Path):
        """A folder, which `make` creates if necessary."""
        self.folder = folder

    def make(self) -> None:
        """Creates the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def steps(self) -> list[int]:
        """The steps for which there is a whole checkpoint, ascending."""
        if not self.folder.is_dir():
            return []
        return sorted(
            int(p.name) for p in self.folder.iterdir() if p.name.isdecimal() and p.is_dir()
        )

    def has_any(self) -> bool:
        """Whether there is a checkpoint, even a corrupt one."""
        saved = (path.name.split(_CORRUPT)[0] for path in self.folder.glob("[0-9]*"))
        return any(name.isdecimal() for name in saved)

    def path(self, step: int) -> pathlib.Path:
        """Where the checkpoint of a step is, or will be."""
        return self.folder / str(step)

    def target(self, step: int) -> pathlib.Path:
        """Where orbax writes the checkpoint of a step."""
        return self.path(step)

    def commit(self, step: int) -> None:
        """Called when orbax has written everything."""

    def remove(self, step: int) -> None:
        """Removes a checkpoint."""
        # renamed first, so that a partly deleted folder is never mistaken for a checkpoint
        self.path(step).rename(self.path(step).with_suffix(".deleting"))

    def set_aside(self, step: int) -> None:
        """Renames a corrupt checkpoint to `<step>.corrupt`."""
        names = (f"{_CORRUPT}{n or ''}" for n in itertools.count())
        folder = self.path(step)
        folder.rename(next(p for s in names if not (p := folder.with_suffix(s)).exists()))

    def sweep(self, report: Callable[[str, Exception], Any]) -> None:
        """Removes leftovers of unfinished saves and deletions."""
        for path in itertools.chain(*(self.folder.glob(p) for p in _LEFTOVERS)):
            try:
                shutil.rmtree(path)
            except OSError as e:
                report(str(path), e)

    def room(self) -> str:
        """How much space is left, for messages."""
        return f"; {shutil.disk_usage(self.folder).free / 1e9:.1f} GB free in {self.folder}"


class BucketPlace:
    """Checkpoints in a bucket; errors are RemoteError."""

    def __init__(self, url: str):
        """A folder of a bucket."""
        from etils import epath

        self.url = url
        self.folder = epath.Path(url)
        self._is_direct = url.startswith("gs://")
        self._staging: pathlib.Path | None = None

    def check_processes(self, count: int) -> None:
        """Raises ValueError if several processes cannot write here."""
        if count > 1 and not self._is_direct:
            raise ValueError(
                f"{self.url}: orbax writes to gs:// and to local folders only; what it writes for s3:// goes by way of "
                f"a local folder, which the {count} processes do not share: use gs:// or a shared file system"
            )

    def make(self) -> None:
        """A bucket has no folders to create."""

    def steps(self) -> list[int]:
        """The steps for which there is a whole checkpoint, ascending."""
        found = (int(name) for name in objects.names(self.url) if name.isdecimal())
        return sorted(step for step in found if self._is_whole(step))

    def _is_whole(self, step: int) -> bool:
        return objects.size(f"{self.url}/{step}/{_COMMITTED}") is not None

    def has_any(self) -> bool:
        """Whether there is a checkpoint, even a corrupt one."""
        if self.steps():
            return True
        saved = (name.split(_CORRUPT) for name in objects.names(self.url))
        return any(len(parts) > 1 and parts[0].isdecimal() for parts in saved)

    def path(self, step: int) -> Any:
        """Where the checkpoint of a step is, or will be."""
        return self.folder / str(step)

    def target(self, step: int) -> Any:
        """Where orbax writes the checkpoint of a step."""
        if self._is_direct:
            return self.path(step)
        self._drop_staging()
        self._staging = pathlib.Path(tempfile.mkdtemp(prefix="jaxlm-"))
        return self._staging / str(step)

    def commit(self, step: int) -> None:
        """Called when orbax has written everything: sends it, the mark at last, if orbax could not write there."""
        if self._staging is None:
            return
        try:
            root = self._staging / str(step)
            files = [path for path in root.rglob("*") if path.is_file()]
            names = [path.relative_to(root).as_posix() for path in files]
            with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
                sent = pool.map(
                    lambda name, path: objects.send(path, f"{self.url}/{step}/{name}"), names, files
                )
                list(sent)
            objects.write(f"{self.url}/{step}/{_COMMITTED}", b"as by orbax\n")
        finally:
            self._drop_staging()

    def _drop_staging(self) -> None:
        if self._staging is not None:
            shutil.rmtree(self._staging, ignore_errors=True)
            self._staging = None

    def remove(self, step: int) -> None:
        """Removes a checkpoint: the mark first, so that a partly deleted one is never mistaken for a checkpoint."""
        objects.remove(f"{self.url}/{step}/{_COMMITTED}")
        objects.remove_folder(f"{self.url}/{step}")

    def set_aside(self, step: int) -> None:
        """Copies a corrupt checkpoint to `<step>.corrupt`, and removes it."""
        taken = set(objects.names(self.url))
        names = (f"{step}{_CORRUPT}{n or ''}" for n in itertools.count())
        new = next(name for name in names if name not in taken)
        objects.copy_folder(f"{self.url}/{step}", f"{self.url}/{new}")
        self.remove(step)

    def sweep(self, report: Callable[[str, Exception], Any]) -> None:
        """Removes leftovers of unfinished saves and deletions."""
        self._drop_staging()
        for name in objects.names(self.url):
            if name.isdecimal() and not self._is_whole(int(name)):
                try:
                    objects.remove_folder(f"{self.url}/{name}")
                except RemoteError as e:
                    report(f"{self.url}/{name}", e)

    def room(self) -> str:
        """Buckets do not fill up."""
        return ""


Place = LocalPlace | BucketPlace


def of(folder: str | os.PathLike) -> Place:
    """The checkpoints in a folder: a local one, one in a mirror of a bucket, or a URL."""
    url = mirror.url_of(folder)
    return LocalPlace(pathlib.Path(os.path.abspath(folder))) if url is None else BucketPlace(url)


def read(path: Any) -> bytes:
    """A file of a checkpoint.

    Raises:
        OSError: it cannot be read.
        RemoteError: the bucket cannot be reached.
    """
    url = bucket_url(path)
    if url is None:
        return pathlib.Path(path).read_bytes()
    data = objects.read(url)
    if data is None:
        raise FileNotFoundError(f"{url} is not there")
    return data


@contextlib.contextmanager
def readable(path: Any, items: Iterable[str]) -> Iterator[Any]:
    """The path of a checkpoint from which orbax can read these items."""
    url = bucket_url(path)
    if url is None or url.startswith("gs://"):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="jaxlm-") as temporary:
        local = pathlib.Path(temporary) / url.rpartition("/")[2]
        _fetch(url, local, {*items})
        yield local


def _fetch(url: str, local: pathlib.Path, items: set[str]) -> None:
    """Copies these items of a checkpoint, and the files beside them."""
    wanted = [
        name for name in objects.all_names(url) if "/" not in name or name.split("/")[0] in items
    ]
    for name in wanted:
        (local / name).parent.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(lambda name: objects.fetch(f"{url}/{name}", local / name), wanted))
