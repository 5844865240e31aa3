"""A run folder in a bucket, as a local folder with copies of its small files.

A run writes its files (config, tokenizer, metrics, events, summary) to the mirror, from where they are sent as a whole:
at intervals, before every checkpoint and at the end. So metrics.jsonl in the bucket has the steps up to its newest
checkpoint. Checkpoints themselves are not in the mirror: `url_of` tells where they are.

A mirror is in the temporary folder and is removed when the process ends. Only the process that holds the lease of
the folder sends; all others read.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pathlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator

from jaxlm.config.urls import bucket_url, refuse_other_url
from jaxlm.remote import objects

# in the folder of a run, but not needed to read it or to go on with it
_NOT_COPIED = ("checkpoints", ".lock", ".shared-", "events.", "curves.png")
_MODELS = (".safetensors", ".gguf", ".bin")
# folders of small files
_FOLDERS = ("encoder_tokenizer", "seed_")
# whose presence says that everything else is there
_LAST = "summary.json"
# seconds between transfers of what has changed
_EVERY = 30.0


class _Mirror:
    """The local copy of a folder at `url`."""

    def __init__(self, url: str):
        self.url = url
        # named as the folder of the run, which runs are called after
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="jaxlm-"))
        self.folder = self.root / url.rpartition("/")[2]
        self.folder.mkdir()
        atexit.register(shutil.rmtree, self.root, ignore_errors=True)
        self.is_held = False
        # file -> time and size when it was the same as in the bucket
        self._same: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def pull(self) -> bool:
        """Makes the mirror like the folder; whether there is anything in the folder."""
        with self._lock:
            there = objects.names(self.url)
            if model := next((name for name in there if name.endswith(_MODELS)), None):
                raise ValueError(
                    f"{self.url}: contains {model}: only run folders are read from a bucket, copy models from there"
                )
            wanted = [name for name in there if not name.startswith(_NOT_COPIED)]
            for folder in [name for name in wanted if name.startswith(_FOLDERS)]:
                wanted.remove(folder)
                inside = objects.names(f"{self.url}/{folder}")
                wanted += [f"{folder}/{name}" for name in inside if name.endswith(".json")]
            for name in set(self._files()) - set(wanted):
                (self.folder / name).unlink()
            self._same = {}
            for name in wanted:
                data = objects.read(f"{self.url}/{name}")
                if data is None:
                    # a folder of another kind, or removed since it was listed
                    continue
                path = self.folder / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(data)
                self._same[name] = _signature(path)
            return bool(there)

    def push(self) -> None:
        """Sends what has changed since it was sent last, and removes what is gone."""
        with self._lock:
            files = self._files()
            for name in set(self._same) - set(files):
                objects.remove(f"{self.url}/{name}")
                del self._same[name]
            for name in sorted(files, key=lambda name: (name == _LAST, name)):
                path = self.folder / name
                with contextlib.suppress(FileNotFoundError):
                    # before reading: what is written meanwhile is sent again
                    now = _signature(path)
                    if self._same.get(name) != now:
                        objects.write(f"{self.url}/{name}", path.read_bytes())
                        self._same[name] = now

    def _files(self) -> list[str]:
        inside = [p for name in _FOLDERS for p in self.folder.glob(f"{name}*/*")]
        # the trace of `--profile`
        inside += self.folder.glob("plugins/profile/*/*")
        found = (path for path in (*self.folder.iterdir(), *inside) if path.is_file())
        names = (path.relative_to(self.folder).as_posix() for path in found)
        return [name for name in names if not name.endswith(".tmp")]


def _signature(path: pathlib.Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size


_mirrors: dict[str, _Mirror] = {}


def _mirror(url: str) -> _Mirror:
    if url not in _mirrors:
        _mirrors[url] = _Mirror(url)
    return _mirrors[url]


def of(folder: str | os.PathLike) -> pathlib.Path:
    """The folder itself if it is local; of one in a bucket the mirror, which may not have been filled yet.

    Raises:
        ValueError: a URL of another kind, or its package is missing.
    """
    url = bucket_url(folder)
    if url is None:
        refuse_other_url(folder)
        return pathlib.Path(folder)
    objects.check(url)
    return _mirror(url).folder


def local(folder: str | os.PathLike) -> pathlib.Path:
    """The folder itself if it is local; of a run in a bucket the mirror, with its files as they are there now.

    Raises:
        ValueError: there is nothing at the URL, or it cannot be read.
    """
    path = of(folder)
    if (url := bucket_url(folder)) is not None:
        mirror = _mirror(url)
        if not mirror.is_held and not mirror.pull():
            raise ValueError(f"{url}: no such folder; name the folder of a run")
    return path


def url_of(path: str | os.PathLike) -> str | None:
    """Where a path is in a bucket: of a URL itself, and of a mirror or a path in it; None: it is local."""
    if (url := bucket_url(path)) is not None:
        return url
    absolute = pathlib.Path(os.path.abspath(path))
    for mirror in _mirrors.values():
        if absolute.is_relative_to(mirror.folder):
            inside = absolute.relative_to(mirror.folder).as_posix()
            return mirror.url if inside == "." else f"{mirror.url}/{inside}"
    return None


def named(path: str | os.PathLike) -> str:
    """A path as people know it: the URL of a mirror."""
    return url_of(path) or os.fspath(path)


def shown(text: str) -> str:
    """A message with the URLs of mirrors instead of their temporary paths."""
    for mirror in _mirrors.values():
        text = text.replace(str(mirror.folder), mirror.url)
    return text


def pull(folder: pathlib.Path) -> None:
    """Fetches the files of a run in a bucket again; nothing for a local folder."""
    if (mirror := _held_by(folder)) is not None:
        mirror.pull()


def push(folder: pathlib.Path) -> None:
    """Sends the files of a run that have changed to its bucket; nothing for a local folder, or if another one sends.

    Raises:
        RemoteError: they cannot be sent.
    """
    mirror = _held_by(folder)
    if mirror is not None and mirror.is_held:
        mirror.push()


def _held_by(folder: pathlib.Path) -> _Mirror | None:
    return next((m for m in _mirrors.values() if m.folder == folder), None)


@contextlib.contextmanager
def sending(folder: pathlib.Path, report: Callable[[str], object]) -> Iterator[None]:
    """Sends what changes in a mirror at intervals and at the end; the caller holds the lease of the folder.

    Raises:
        RemoteError: at the end, if what is left cannot be sent; only reported if there is another error.
    """
    mirror = _held_by(folder)
    assert mirror is not None
    stop = threading.Event()

    def send() -> None:
        while not stop.wait(_EVERY):
            try:
                mirror.push()
            except objects.RemoteError as e:
                report(f"warning: {e}; tried again in {_EVERY:.0f} s")

    mirror.is_held = True
    thread = threading.Thread(target=send, name="remote", daemon=True)
    thread.start()
    failed = True
    try:
        yield
        failed = False
    finally:
        stop.set()
        thread.join()
        try:
            mirror.push()
        except objects.RemoteError as e:
            line = f"{e}: run the same command again when it can be reached"
            if not failed:
                raise objects.RemoteError(line) from e
            report(line)
        finally:
            mirror.is_held = False
