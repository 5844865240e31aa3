"""Reads and writes the safetensors files of a model, one part of a tensor at a time.

Files are not memory-mapped, because mapped pages count as memory of the process and would double a model's footprint.
Names in a file are checked before they are used. The library writes a file only from tensors that are all in memory, so
that writing, too, is done here; a hash of the values is added, which other readers ignore.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import safetensors

from jaxlm.config import json_text
from jaxlm.hf.table import Tensor

_DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
# in the metadata of a file: SHA-256 of everything behind the header
HASH = "jaxlm_sha256"
_NAME = re.compile(r"[\w.\-]+")


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor in a file."""

    path: pathlib.Path
    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    # offset of its first byte in the file
    start: int

    def read(self, rows: slice = slice(None)) -> np.ndarray:
        """The tensor, or some of its rows (indices of the first dim), C-contiguous."""
        if not self.shape:
            return self._bytes(0, self.shape)
        first, stop, _ = rows.indices(self.shape[0])
        return self._bytes(first, (stop - first, *self.shape[1:]))

    def _bytes(self, first: int, shape: tuple[int, ...]) -> np.ndarray:
        array = aligned(shape, self.dtype)
        row = self.dtype.itemsize * int(np.prod(self.shape[1:]))
        with open(self.path, "rb", buffering=0) as file:
            file.seek(self.start + first * row)
            left = memoryview(array.reshape(-1).view(np.uint8).data)
            while left:
                count = file.readinto(left)
                if not count:
                    raise ValueError(f"{self.path}: {self.name} ends early: the file is truncated")
                left = left[count:]
        return array

    def equals(self, other: Stored) -> bool:
        """Whether both hold the same values, compared 1,024 rows at a time."""
        if (self.shape, self.dtype) != (other.shape, other.dtype):
            return False
        starts = range(0, self.shape[0], 1024)
        parts = (slice(i, min(i + 1024, self.shape[0])) for i in starts)
        return all(np.array_equal(self.read(p), other.read(p)) for p in parts)


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An empty array that JAX can use without a copy on a CPU, since it is aligned to 64 bytes."""
    size = int(np.prod(shape)) * dtype.itemsize
    buffer = np.empty(size + 64, np.uint8)
    start = -buffer.ctypes.data % 64
    return buffer[start : start + size].view(dtype).reshape(shape)


def find(folder: pathlib.Path) -> dict[str, Stored]:
    """The tensors in a folder by name; checks the headers and reads no values.

    Raises:
        ValueError: no safetensors file, a damaged or missing one, or a duplicate name.
    """
    if (folder / INDEX).is_file():
        return _sharded(folder)
    if (folder / SINGLE).is_file():
        return {x.name: x for x in header(folder / SINGLE)}
    others = sorted(
        p.name
        for p in folder.iterdir()
        if p.suffix in (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".msgpack", ".h5")
    )
    if others:
        raise ValueError(
            f"{folder / others[0]}: only safetensors files are read, because opening a pickle runs arbitrary code; "
            "to convert it, install transformers and run CLASS.from_pretrained(DIR).save_pretrained(DIR), where CLASS "
            "is the entry of architectures in config.json"
        )
    raise ValueError(f"{folder}: has neither {SINGLE} nor {INDEX}")


def _sharded(folder: pathlib.Path) -> dict[str, Stored]:
    path = folder / INDEX
    weight_map = json_text.read_object(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{path}: has no weight_map")
    for name, file in weight_map.items():
        if not isinstance(file, str) or not _NAME.fullmatch(file) or ".." in file:
            raise ValueError(f"{path}: {name} is in {file!r}, which is not a plain file name")
    tensors: dict[str, Stored] = {}
    for file in sorted(set(weight_map.values())):
        if not (folder / file).is_file():
            name = next(name for name, other in weight_map.items() if other == file)
            raise ValueError(f"{folder / file}: this file is missing; {path} lists {name} in it")
        for tensor in header(folder / file):
            if tensor.name in tensors:
                raise ValueError(
                    f"{folder / file}: {tensor.name} is also in {tensors[tensor.name].path.name}"
                )
            tensors[tensor.name] = tensor
    for name, file in weight_map.items():
        if name not in tensors or tensors[name].path.name != file:
            raise ValueError(
                f"{folder / file}: {name} is missing, although {path} lists it in this file"
            )
    return tensors


def header(path: pathlib.Path) -> Iterator[Stored]:
    """The tensors listed in the header of a file; the library checks offsets, sizes and shapes, this function names."""
    try:
        with safetensors.safe_open(path, "numpy"):
            pass
    except (safetensors.SafetensorError, OSError) as e:
        reason = " ".join(str(e).split())
        raise ValueError(
            f"{path}: not a complete safetensors file ({reason}); download or write it again"
        ) from e
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entries = json.loads(file.read(length), object_pairs_hook=lambda pairs: pairs)
    seen = set()
    for name, entry in entries:
        if name == "__metadata__":
            continue
        entry = dict(entry)
        if name in seen:
            raise ValueError(f"{path}: duplicate tensor name {name}")
        seen.add(name)
        if not _NAME.fullmatch(name) or ".." in name:
            raise ValueError(f"{path}: {name!r} is not a valid tensor name")
        if entry["dtype"] not in _DTYPES:
            raise ValueError(f"{path}: {name} has dtype {entry['dtype']}, which is not supported")
        start = 8 + length + entry["data_offsets"][0]
        dtype = np.dtype(_DTYPES[entry["dtype"]])
        yield Stored(path, name, dtype, tuple(entry["shape"]), start)


def write(path: pathlib.Path, tensors: Sequence[Tensor], dtype: np.dtype) -> None:
    """Writes a file, one tensor in memory at a time, with the hash of the values in its metadata."""
    name = next(name for name, of in _DTYPES.items() if np.dtype(of) == dtype)
    entries: dict[str, Any] = {"__metadata__": {"format": "pt", HASH: "0" * 64}}
    start = 0
    for tensor in tensors:
        end = start + int(np.prod(tensor.shape)) * dtype.itemsize
        entries[tensor.name] = {
            "dtype": name,
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        start = end
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        file.write(_header(entries))
        for tensor in tensors:
            values = np.ascontiguousarray(tensor.make().astype(dtype, copy=False))
            data = values.reshape(-1).view(np.uint8).data
            digest.update(data)
            file.write(data)
        entries["__metadata__"][HASH] = digest.hexdigest()
        file.seek(0)
        file.write(_header(entries))


def _header(entries: dict[str, Any]) -> bytes:
    text = json.dumps(entries, separators=(",", ":")).encode()
    # the values begin at a multiple of 8 bytes
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def verify(paths: Iterable[pathlib.Path]) -> None:
    """Compares the values of files that have a hash, as those of `write`, with it; each file once in a process.

    Raises:
        ValueError: a file was damaged after it had been written.
    """
    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(lambda path: _verify(path, path.stat().st_mtime_ns), sorted(set(paths))))


@functools.lru_cache(maxsize=256)
def _verify(path: pathlib.Path, _: int) -> None:
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        wanted = json.loads(file.read(length)).get("__metadata__", {}).get(HASH)
        if wanted is None:
            return
        digest = hashlib.sha256()
        while part := file.read(1 << 22):
            digest.update(part)
    if digest.hexdigest() != wanted:
        raise ValueError(
            f"{path}: its values are not those that were written (their hash differs from the one in the file): the "
            "file is damaged, export or download it again"
        )
