"""NumPy's array files, .npy and .npz: row i of a file has item i of each array."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping

import numpy as np

from jaxlm.data.values import Kind


def load(path: str, wanted: Mapping[str, Kind]) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """The names of all arrays of a file, and those that are wanted; no Python objects are unpickled.

    The array of a .npy file has no name: it is taken for the first that is wanted as lists of numbers.

    Args:
        path: of the file.
        wanted: kind of column by name.

    Raises:
        ValueError: the file cannot be read, or an array does not fit its kind.
    """
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            names = tuple(name for name, kind in wanted.items() if kind == "numbers")[:1]
            arrays = dict.fromkeys(names, file)
        else:
            with file:
                names = tuple(file.files)
                arrays = {name: file[name] for name in names if name in wanted}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as e:
        if "allow_pickle" in str(e):
            raise ValueError(
                f"{path}: not an array file, or one with Python objects, which are not read"
            ) from e
        raise ValueError(f"{path}: damaged array file: {' '.join(str(e).split())}") from e
    for name, array in arrays.items():
        _check(path, name, array, wanted[name])
    if len({len(array) for array in arrays.values()}) > 1:
        listed = ", ".join(f"{name!r} has {len(array):,}" for name, array in arrays.items())
        raise ValueError(f"{path}: its arrays have different numbers of rows: {listed}")
    return names, arrays


def _check(path: str, name: str, array: np.ndarray, kind: Kind) -> None:
    """Raises ValueError unless the array has an item of this kind in each row."""
    rank, expected = (2, "[rows, numbers]") if kind == "numbers" else (1, "[rows]")
    if array.ndim != rank:
        raise ValueError(
            f"{path}: array {name!r} has the shape {list(array.shape)}, expected {expected}: reshape it"
        )
    if kind == "numbers" and array.dtype.kind not in "buif":
        raise ValueError(f"{path}: array {name!r} is of dtype {array.dtype}, expected numbers")
