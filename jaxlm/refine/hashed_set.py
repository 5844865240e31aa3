"""A set of strings on disk: a sorted array of 64-bit hashes that all workers of a machine share.

A Python set of the 4.6 million blocked domains takes 770 MB a worker; this takes 36 MB once, as pages of a file. A
string that is not in the set is taken for a member with a probability of (size of the set) / 2^64: 2.5e-13 here.
"""

from __future__ import annotations

import bisect
import hashlib
import mmap
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import xxhash

# environment variable that moves the cache
CACHE_VARIABLE = "JAXLM_CACHE"
# of the format of the files
_VERSION = 1
# strings that are hashed before they are added to the array
_BATCH = 1 << 16


def cache_folder(folder: str | None = None) -> pathlib.Path:
    """The folder of the cache: the given one, $JAXLM_CACHE, or `jaxlm` in the user's cache."""
    if folder:
        return pathlib.Path(folder)
    if moved := os.environ.get(CACHE_VARIABLE):
        return pathlib.Path(moved)
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "jaxlm"


def hash_of(text: str) -> int:
    """The 64-bit hash of a string; lone surrogates are allowed."""
    return xxhash.xxh64_intdigest(text.encode("utf-8", "surrogatepass"))


class HashedSet:
    """`text in HashedSet(path)` by binary search in a memory-mapped file of `write`."""

    def __init__(self, path: pathlib.Path):
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            # an empty file cannot be mapped
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        self._hashes = memoryview(mapped).cast("Q")

    def __len__(self) -> int:
        return len(self._hashes)

    def __contains__(self, text: str) -> bool:
        value = hash_of(text)
        index = bisect.bisect_left(self._hashes, value)
        return index < len(self._hashes) and self._hashes[index] == value


def build(
    name: str,
    sources: Sequence[pathlib.Path],
    lines: Callable[[pathlib.Path], Iterable[str]],
    folder: pathlib.Path,
) -> HashedSet:
    """The set of the lines of some files, from the cache if the same content was read before.

    Args:
        name: what the lines are, part of the file's name.
        sources: files; their content decides whether the cached set is used.
        lines: reads the members of the set from one of them.
        folder: of the cache. Several processes may ask at once: one writes, the others wait.

    Raises:
        ValueError: a file cannot be read, or the folder cannot be written.
    """
    import fasteners

    path = folder / f"{name}-{_fingerprint(sources)}.v{_VERSION}.u64"
    if path.is_file():
        return HashedSet(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with fasteners.InterProcessLock(path.with_suffix(".lock")):
            if not path.is_file():
                _write(path, (line for source in sources for line in lines(source)))
    except OSError as e:
        raise ValueError(
            f"{folder}: the list of {name} cannot be cached there ({e.strerror or e}); "
            f"set the field cache or the variable {CACHE_VARIABLE} to another folder"
        ) from e
    return HashedSet(path)


def _fingerprint(sources: Sequence[pathlib.Path]) -> str:
    total = hashlib.blake2b(digest_size=16)
    for source in sources:
        try:
            with open(source, "rb") as file:
                total.update(hashlib.file_digest(file, "blake2b").digest())
        except OSError as e:
            raise ValueError(f"{source}: cannot be read: {e.strerror or e}") from e
    return total.hexdigest()


def _write(path: pathlib.Path, members: Iterable[str]) -> None:
    """Writes the sorted hashes; the file has its name only when it is whole."""
    parts, part = [], []
    for member in members:
        part.append(hash_of(member))
        if len(part) == _BATCH:
            parts.append(np.array(part, np.uint64))
            part = []
    parts.append(np.array(part, np.uint64))
    hashes = np.concatenate(parts)
    hashes.sort()  # np.unique takes ten times the memory
    hashes = hashes[np.append(True, hashes[1:] != hashes[:-1])] if len(hashes) else hashes
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}")
    try:
        with open(descriptor, "wb") as file:
            hashes.tofile(file)
            file.flush()
            os.fsync(file.fileno())
        # other users of the machine may share it, unlike most temporary files
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
