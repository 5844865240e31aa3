"""One checkpoint on disk: its contents, and reading it back with every array and JSON item verified.

A checkpoint is a folder with one folder per item, written by orbax, and a `manifest` that we add, which lists every
array (shape, dtype, checksum) and every JSON item (checksum): orbax itself loads an array with a flipped bit silently.
`store.py` decides when to save, which checkpoints to keep and which one to read.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import sys
import warnings
import zlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from jaxlm.checkpoint import places
from jaxlm.checkpoint.fingerprint import fingerprint, names
from jaxlm.config.urls import bucket_url
from jaxlm.remote.objects import RemoteError

_VERSION = 1
_MANIFEST = "manifest"


class CheckpointError(ValueError):
    """A problem with a checkpoint that the user has to resolve; the message is one line."""


class Corrupt(Exception):
    """The files of a checkpoint differ from what was written; the message says how."""


def content(step: int, items: dict[str, Any], metrics: dict[str, float]) -> dict[str, Any]:
    """The items to write: trees of arrays, copies of JSON values, and the manifest of both."""
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
        # an optimizer state without arrays is listed, but there is nothing to store
        "arrays": {name: _listing(arrays.get(name)) for name in items if name not in plain},
        "json": {name: _crc(value) for name, value in plain.items()},
    }
    return {**arrays, **plain, _MANIFEST: {"body": body, "crc": _crc(body)}}


def _as_array(x: Any) -> jax.Array | np.ndarray:
    # orbax rejects NumPy scalars, and stores Python scalars differently from arrays
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


def start_saving(path: Any, content: dict[str, Any]) -> ocp.AsyncResponse:
    """Copies the arrays to the host and writes in the background; the folder appears once everything is on disk."""
    _silence()
    context = ocp.Context()
    # by name, because orbax would store a dict of numbers as arrays and one with a string as JSON
    registry = ocp.handlers.local_registry()
    for name in (*content[_MANIFEST]["body"]["json"], _MANIFEST):
        registry.add(ocp.handlers.JsonHandler, checkpointable_name=name)
    context.checkpointables_options.registry = registry
    # if a folder cannot be created in the background, the writers wait for minutes
    context.async_options.create_directories_asynchronously = False
    with context:
        return ocp.save_checkpointables_async(path, content)


def read_manifest(path: Any) -> dict[str, Any]:
    """The contents of the checkpoint: version, step, metrics, arrays and json; raises Corrupt or CheckpointError."""
    stored = _json_file(path, _MANIFEST)
    if not isinstance(stored, dict) or stored.get("crc") != _crc(stored.get("body")):
        raise Corrupt(f"{_MANIFEST} has changed since it was written")
    if stored["body"]["version"] != _VERSION:
        raise CheckpointError(
            f"{path}: written by another version of jaxlm (format {stored['body']['version']}, not {_VERSION})"
        )
    return stored["body"]


def read_json(path: Any, item: str, manifest: dict[str, Any]) -> Any:
    """A JSON item, checked against the manifest; raises Corrupt or CheckpointError."""
    if item not in manifest["json"]:
        known = ", ".join(manifest["json"])
        raise CheckpointError(f"{path}: no JSON item {item!r} is stored; there are {known}")
    value = _json_file(path, item)
    if _crc(value) != manifest["json"][item]:
        raise Corrupt(f"{item} has changed since it was written")
    return value


def _json_file(path: Any, item: str) -> Any:
    # Not with orbax, whose reads synchronize all processes.
    try:
        return json.loads(places.read(path / item / "data.json"))
    except RemoteError as e:
        # a bucket that cannot be reached says nothing about the checkpoint
        raise CheckpointError(str(e)) from e
    except (OSError, ValueError, RecursionError) as e:
        raise Corrupt(f"{item} cannot be read ({reason(e)})") from e


def read(path: Any, target: dict[str, Any], *, subtree: bool = False) -> dict[str, Any]:
    """The items of a checkpoint; raises Corrupt on all processes if any of them cannot read it."""
    problem, items = "", {}
    try:
        manifest = read_manifest(path)
        trees = {name: wanted for name, wanted in target.items() if wanted is not None}
        for name, wanted in trees.items():
            _compare(path, name, manifest, wanted, subtree=subtree)
        with places.readable(path, trees) as source:
            for name in target:
                if name in trees:
                    items[name] = _read_arrays(source, name, trees[name], subtree=subtree)
                else:
                    items[name] = read_json(path, name, manifest)
    except RemoteError as e:
        raise CheckpointError(str(e)) from e
    except Corrupt as e:
        problem = str(e)
    if _on_any_process(bool(problem)):
        raise Corrupt(problem or "another process cannot read it")
    for name in trees:
        stored = manifest["arrays"].get(name, {})
        if wrong := [k for k, v in fingerprint(items[name]).items() if v != stored[k]["sum"]]:
            raise Corrupt(f"checksums of {name} differ: {_some(wrong)}")
    return items


def _compare(path, item: str, manifest: dict[str, Any], wanted: Any, *, subtree: bool) -> None:
    """Raises CheckpointError with the first few arrays whose stored shape or dtype is not the expected one."""
    if item not in manifest["arrays"] and item not in manifest["json"]:
        raise CheckpointError(f"{path}: no item {item!r} is stored")
    stored = {
        k: f"{tuple(v['shape'])} {v['dtype']}" for k, v in manifest["arrays"].get(item, {}).items()
    }
    expected = {k: f"{tuple(v.shape)} {v.dtype}" for k, v in names(wanted).items()}
    compared = dict.fromkeys([*expected, *([] if subtree else stored)])
    differ = [
        f"{k}: stored {stored.get(k, 'nothing')}, expected {expected.get(k, 'nothing')}"
        for k in compared
        if stored.get(k) != expected.get(k)
    ]
    if differ:
        raise CheckpointError(
            f"{path}: {len(differ)} of {len(compared)} arrays of {item} do not match this run: {_some(differ)}; "
            "use the configuration it was saved with"
        )


def _read_arrays(path: Any, item: str, wanted: Any, *, subtree: bool) -> Any:
    if not jax.tree.leaves(wanted):
        return wanted
    single = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or single), wanted
    )
    problem = None
    with _quiet(), _load_context(subtree):
        # a bucket that answers now may not have answered before
        for _ in range(1 if bucket_url(path) is None else 2):
            try:
                return ocp.load(path, target, checkpointable_name=item)
            except (
                Exception
            ) as e:  # orbax and tensorstore raise many types; shapes were compared before
                problem = reason(e)
            gc.collect()  # abandoned coroutines are collected, and warn, while warnings are filtered
            if bucket_url(path) is not None:
                # raises CheckpointError if the bucket does not answer
                _json_file(path, _MANIFEST)
    raise Corrupt(f"{item} cannot be read ({problem})")


def _load_context(subtree: bool) -> ocp.Context:
    """Orbax's settings for a load: processes do not synchronize, so that a failing one does not block the others."""
    _silence()
    context = ocp.Context()
    context.pytree_options.loading.partial_load = subtree
    process = jax.process_index()
    context.multiprocessing_options.primary_host = process
    context.multiprocessing_options.active_processes = {process}
    context.multiprocessing_options.barrier_sync_key_prefix = f"read{process}"
    return context


def _not_orbax(record: logging.LogRecord) -> bool:
    return f"{os.sep}orbax{os.sep}" not in record.pathname


def _silence() -> None:
    # orbax logs errors with a traceback through absl and raises them as well; we report the raised ones
    logging.getLogger("absl").addFilter(_not_orbax)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses the long warnings about tasks that orbax abandons when one of them fails."""
    log, hook = logging.getLogger("asyncio"), sys.unraisablehook
    discard = lambda record: False
    log.addFilter(discard)
    sys.unraisablehook = discard
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            yield
    finally:
        sys.unraisablehook = hook
        log.removeFilter(discard)


def _on_any_process(value: bool) -> bool:
    """Whether the value is true on any process."""
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
