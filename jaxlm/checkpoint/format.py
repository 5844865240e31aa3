"""One checkpoint on disk: what is written, and reading it back with every array and JSON item verified.

A checkpoint is a folder with one folder an item, written by orbax, and a `manifest` of our own that lists every array
(shape, dtype, checksum) and every JSON item (checksum): orbax itself loads an array with a flipped bit silently.
`store.py` decides when to save, what to keep and which one to read.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import pathlib
import sys
import warnings
import zlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from jaxlm.checkpoint.fingerprint import fingerprint, names

_VERSION = 1
_MANIFEST = "manifest"


class CheckpointError(ValueError):
    """Something about a checkpoint that a person has to act on, in one line."""


class Damaged(Exception):
    """A checkpoint's files are not what was written; the message says how."""


def content(step: int, items: dict[str, Any], metrics: dict[str, float]) -> dict[str, Any]:
    """What is written: trees of arrays, JSON values as copies, and the manifest of both."""
    arrays: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    for name, item in items.items():
        leaves = jax.tree.leaves(item)
        if any(hasattr(x, "dtype") for x in leaves):
            arrays[name] = jax.tree.map(_as_array, item)
        elif leaves or isinstance(item, dict):
            plain[name] = json.loads(json.dumps(item))
    body = {
        "version": _VERSION,
        "step": step,
        "metrics": {k: float(v) for k, v in metrics.items()},
        # an optimizer state without arrays is listed, and there is nothing to store
        "arrays": {name: _listing(arrays.get(name)) for name in items if name not in plain},
        "json": {name: _crc(value) for name, value in plain.items()},
    }
    return {**arrays, **plain, _MANIFEST: {"body": body, "crc": _crc(body)}}


def _as_array(x: Any) -> jax.Array | np.ndarray:
    # orbax refuses NumPy scalars, and keeps Python ones apart from arrays
    if isinstance(x, jax.Array):
        return x
    x = np.asarray(x)
    return x.astype(jax.dtypes.canonicalize_dtype(x.dtype))


def _listing(tree: Any) -> dict[str, Any]:
    sums = fingerprint(tree)
    return {
        name: {"shape": list(x.shape), "dtype": str(x.dtype), "sum": sums[name]}
        for name, x in names(tree).items()
    }


def _crc(value: Any) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def start_saving(path: pathlib.Path, content: dict[str, Any]) -> ocp.AsyncResponse:
    """Copies the arrays to the host and writes in the background; the folder appears when all of it is on disk."""
    _silence()
    context = ocp.Context()
    # by name, or orbax stores a dict of numbers as arrays and one with a string as JSON
    registry = ocp.handlers.local_registry()
    for name in (*content[_MANIFEST]["body"]["json"], _MANIFEST):
        registry.add(ocp.handlers.JsonHandler, checkpointable_name=name)
    context.checkpointables_options.registry = registry
    # in the background, a folder that cannot be made leaves the writers waiting for minutes
    context.async_options.create_directories_asynchronously = False
    with context:
        return ocp.save_checkpointables_async(path, content)


def read_manifest(path: pathlib.Path) -> dict[str, Any]:
    """What the checkpoint holds: version, step, metrics, arrays and json; raises Damaged or CheckpointError."""
    stored = _json_file(path, _MANIFEST)
    if not isinstance(stored, dict) or stored.get("crc") != _crc(stored.get("body")):
        raise Damaged(f"{_MANIFEST} has changed since it was written")
    if stored["body"]["version"] != _VERSION:
        raise CheckpointError(
            f"{path}: written by another version of jaxlm (format {stored['body']['version']}, not {_VERSION})"
        )
    return stored["body"]


def read_json(path: pathlib.Path, item: str, manifest: dict[str, Any]) -> Any:
    """A JSON item, checked against the manifest; raises Damaged or CheckpointError."""
    if item not in manifest["json"]:
        known = ", ".join(manifest["json"])
        raise CheckpointError(f"{path}: no JSON item {item!r} is stored; there are {known}")
    value = _json_file(path, item)
    if _crc(value) != manifest["json"][item]:
        raise Damaged(f"{item} has changed since it was written")
    return value


def _json_file(path: pathlib.Path, item: str) -> Any:
    # Not through orbax, whose reads count as steps of all processes together.
    try:
        return json.loads((path / item / "data.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise Damaged(f"{item} cannot be read ({reason(e)})") from e


def read(path: pathlib.Path, target: dict[str, Any], *, subtree: bool = False) -> dict[str, Any]:
    """The items of a checkpoint; raises Damaged on all processes if it is so for one of them."""
    problem, items = "", {}
    try:
        manifest = read_manifest(path)
        trees = {name: wanted for name, wanted in target.items() if wanted is not None}
        for name, wanted in trees.items():
            _compare(path, name, manifest, wanted, subtree=subtree)
        for name in target:
            if name in trees:
                items[name] = _read_arrays(path, name, trees[name], subtree=subtree)
            else:
                items[name] = read_json(path, name, manifest)
    except Damaged as e:
        problem = str(e)
    if _anywhere(bool(problem)):
        raise Damaged(problem or "another process cannot read it")
    for name in trees:
        stored = manifest["arrays"].get(name, {})
        if wrong := [k for k, v in fingerprint(items[name]).items() if v != stored[k]["sum"]]:
            raise Damaged(f"checksums of {name} differ: {_some(wrong)}")
    return items


def _compare(path, item: str, manifest: dict[str, Any], wanted: Any, *, subtree: bool) -> None:
    """Raises CheckpointError with the first few arrays in which the stored item is not the wanted one."""
    if item not in manifest["arrays"] and item not in manifest["json"]:
        raise CheckpointError(f"{path}: no item {item!r} is stored")
    stored = {
        k: f"{tuple(v['shape'])} {v['dtype']}" for k, v in manifest["arrays"].get(item, {}).items()
    }
    wants = {k: f"{tuple(v.shape)} {v.dtype}" for k, v in names(wanted).items()}
    both = dict.fromkeys([*wants, *([] if subtree else stored)])
    differ = [
        f"{k}: stored {stored.get(k, 'nothing')}, wanted {wants.get(k, 'nothing')}"
        for k in both
        if stored.get(k) != wants.get(k)
    ]
    if differ:
        raise CheckpointError(
            f"{path}: {item} does not fit this run in {len(differ)} of {len(both)} arrays: {_some(differ)}; "
            "use the configuration it was saved with"
        )


def _read_arrays(path: pathlib.Path, item: str, wanted: Any, *, subtree: bool) -> Any:
    if not jax.tree.leaves(wanted):
        return wanted
    alone = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or alone), wanted
    )
    problem = None
    with _quiet(), _reading(subtree):
        try:
            return ocp.load(path, target, checkpointable_name=item)
        except Exception as e:  # orbax and tensorstore raise anything; shapes were compared before
            problem = reason(e)
        gc.collect()  # what orbax left behind goes now, and says so now
    raise Damaged(f"{item} cannot be read ({problem})")


def _reading(subtree: bool) -> ocp.Context:
    """Orbax's settings for a load: each process by itself, so that one that fails leaves none waiting."""
    _silence()
    context = ocp.Context()
    context.pytree_options.loading.partial_load = subtree
    me = jax.process_index()
    context.multiprocessing_options.primary_host = me
    context.multiprocessing_options.active_processes = {me}
    context.multiprocessing_options.barrier_sync_key_prefix = f"read{me}"
    return context


def _not_orbax(record: logging.LogRecord) -> bool:
    return f"{os.sep}orbax{os.sep}" not in record.pathname


def _silence() -> None:
    # orbax logs through absl, with a traceback for errors that it raises as well; we report those
    logging.getLogger("absl").addFilter(_not_orbax)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the complaints, pages long, of the tasks that orbax abandons when one of them fails."""
    log, hook = logging.getLogger("asyncio"), sys.unraisablehook
    nothing = lambda record: False
    log.addFilter(nothing)
    sys.unraisablehook = nothing
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            yield
    finally:
        sys.unraisablehook = hook
        log.removeFilter(nothing)


def _anywhere(value: bool) -> bool:
    """Whether it is true on any process."""
    if jax.process_count() == 1:
        return value
    return bool(np.any(multihost_utils.process_allgather(np.bool_(value))))


def _some(lines: list[str]) -> str:
    rest = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
    return "; ".join(lines[:3]) + rest


def reason(error: BaseException) -> str:
    """The innermost cause in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or [type(error).__name__]
    line = lines[0].split(" [tensorstore_spec")[0].split(" [source locations")[0]
    return line if len(line) <= 240 else f"{line[:70]} ... {line[-165:]}"
