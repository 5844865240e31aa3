"""The documents in a folder that `jaxlm refine` wrote: those that were kept, and those that were dropped."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from jaxlm.refine.readers import decompressed
from jaxlm.refine.samples import EDITED

_FILES = re.compile(r"\.jsonl(\.\w+)?$|\.parquet$")


def funnel(folder: pathlib.Path) -> dict[str, Any]:
    """The account of a folder with all dropped documents.

    Raises:
        ValueError: it is not finished, or the dropped documents are not all in it.
    """
    path = folder / "funnel.json"
    if not path.is_file():
        raise ValueError(
            f"{folder}: there is no funnel.json; name what `jaxlm refine` has finished"
        )
    out = json.loads(path.read_text(encoding="utf-8"))
    if not out["kept_dropped"]:
        raise ValueError(f"{folder}: refine again with --keep-dropped, every document is needed")
    return out


def kept(folder: pathlib.Path) -> Iterator[dict[str, Any]]:
    """The documents that were kept, in the order of their files."""
    for path in _files(folder / "documents"):
        yield from records(path)


def dropped(folder: pathlib.Path) -> Iterator[dict[str, Any]]:
    """The documents that were dropped."""
    for path in _files(folder / "dropped"):
        yield from (record for record in records(path) if record["rule"] != EDITED)


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.rglob("*") if _FILES.search(path.name))


def records(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    """The records of a JSONL or parquet file."""
    if path.suffix == ".parquet":
        import pyarrow.parquet

        for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    else:
        with path.open("rb") as raw:
            yield from map(json.loads, decompressed(raw, path.name))
