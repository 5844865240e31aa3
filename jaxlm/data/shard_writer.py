"""Tokenizes text into a folder of shards, in several processes, and goes on where an interrupted call stopped.

During writing, `progress.json` records the number of finished documents. `shards` says what the folder contains.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import itertools
import json
import multiprocessing
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from jaxlm.config import json_text
from jaxlm.config.data import DataConfig
from jaxlm.config.disk import check_no_link
from jaxlm.config.urls import refuse_url
from jaxlm.data import shards, splits, vocabulary
from jaxlm.data import tokenizer as tokenizers
from jaxlm.data.bad_rows import RowCounts
from jaxlm.data.reading import Split, read
from jaxlm.data.sources import text_columns
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.data.workers import end_with_parent

# characters that a worker encodes at a time
_CHUNK = 1 << 21


@dataclasses.dataclass
class _Output:
    """The files of one split while they are being written."""

    folder: pathlib.Path
    split: Split
    dtype: np.dtype
    shard_tokens: int
    # name and token count of each file so far
    files: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    documents: int = 0

    @property
    def tokens(self) -> int:
        """Number of tokens written so far."""
        return sum(f["tokens"] for f in self.files)

    def truncate(self) -> None:
        """Truncates the files to the recorded lengths, which discards data written after the last record."""
        for f in self.files:
            _truncate(self.folder / f["name"], f["tokens"] * self.dtype.itemsize)
        _truncate(self.folder / f"{self.split}.ends", 8 * self.documents)

    def add(self, tokens: np.ndarray, lengths: np.ndarray) -> None:
        """Appends documents."""
        if not len(lengths):
            return
        ends = np.cumsum(lengths, dtype=np.int64) + self.tokens
        if not self.files or self.files[-1]["tokens"] >= self.shard_tokens:
            name = shards.file_name(self.split, len(self.files))
            _new_file(self.folder / name)
            self.files.append({"name": name, "tokens": 0})
        _append(self.folder / self.files[-1]["name"], tokens)
        _append(self.folder / f"{self.split}.ends", ends)
        self.files[-1]["tokens"] += len(tokens)
        self.documents += len(lengths)


def _new_file(path: pathlib.Path) -> None:
    path.unlink(missing_ok=True)
    path.touch(exist_ok=False)


def _append(path: pathlib.Path, values: np.ndarray) -> None:
    check_no_link(path)
    with open(path, "ab") as file:
        file.write(values.tobytes())


def _truncate(path: pathlib.Path, size: int) -> None:
    check_no_link(path)
    path.touch()
    if path.stat().st_size < size:
        raise ValueError(f"{path}: shorter than recorded; delete {path.parent} and start again")
    os.truncate(path, size)


def write(
    folder: pathlib.Path,
    config: DataConfig,
    tokenizer: Tokenizer,
    *,
    command: str,
    processes: int,
    shard_tokens: int = 1 << 28,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Tokenizes the training sources of `config` into `folder`, resuming an interrupted call; returns the manifest.

    `validation_fraction` of the documents are held out by the same hash as when text is read directly. The result does
    not depend on the number of processes or on interruptions. A folder that the same call has finished is not changed.

    Args:
        folder: where to write; new, empty, or left by an interrupted call with the same settings.
        config: sources and how to read them.
        tokenizer: the tokenizer.
        command: command line, recorded in the manifest.
        processes: number of worker processes; 0: encode in this process.
        shard_tokens: a new file is started when the current one has at least this many tokens.
        progress: called with the numbers of documents and tokens written so far.

    Raises:
        ValueError: the folder has other contents, or there is no text.
    """
    refuse_url(folder)
    folder.mkdir(parents=True, exist_ok=True)
    recipe = _recipe(config, tokenizer, shard_tokens)
    if shards.is_finished(folder):
        manifest = shards.read_manifest(folder)
        _check_recipe(folder, "has finished shards with", manifest, recipe)
        return manifest
    outputs = {s: _Output(folder, s, tokenizer.dtype, shard_tokens) for s in shards.SPLITS}
    done = _resume(folder, recipe, outputs)
    tokenizer.save(folder / "tokenizer.json")
    counts = RowCounts()
    records = itertools.islice(_records(config, counts), done, None)
    for held_out, tokens, lengths in _encoded(records, tokenizer, processes):
        owners = np.repeat(held_out, lengths)
        outputs["train"].add(tokens[~owners], lengths[~held_out])
        outputs["validation"].add(tokens[owners], lengths[held_out])
        done += len(lengths)
        _record(folder, recipe, outputs, done)
        if progress is not None:
            progress(done, sum(o.tokens for o in outputs.values()))
    if not outputs["train"].tokens:
        raise ValueError(f"{', '.join(config.train)}: no text to tokenize; {counts}")
    return _finish(folder, recipe, outputs, command, counts)


def _recipe(config: DataConfig, tokenizer: Tokenizer, shard_tokens: int) -> dict[str, Any]:
    """Everything that the result depends on; a call can only be resumed with the same recipe."""
    settings = config.tokenizer
    return {
        "version": shards.VERSION,
        "tokenizer": tokenizer.text_fingerprint,
        # training settings of the tokenizer; None if it was loaded
        "tokenizer_settings": None if settings.path else dataclasses.asdict(settings),
        "vocab_size": tokenizer.vocab_size,
        "dtype": tokenizer.dtype.name,
        "shard_tokens": shard_tokens,
        "sources": list(config.train),
        "text_column": config.text_column,
        "text_unit": config.text_unit,
        "columns": None if config.columns is None else list(config.columns),
        "on_bad_row": config.on_bad_row,
        "validation_fraction": config.validation_fraction,
        "max_documents": config.max_documents,
        "decontaminate": list(config.decontaminate),
    }


def _records(config: DataConfig, counts: RowCounts) -> Iterator[tuple[str, bool]]:
    """Every document and whether it is held out, in the order of the sources."""
    columns = text_columns(config)
    overlap = splits.evaluation_overlap(config, columns)

    def documents() -> Iterator[tuple[str, bool]]:
        for source in config.train:
            for record in read(source, config, columns=columns, counts=counts):
                text, where = record["text"], record["id"]
                if overlap is not None and text in overlap:
                    counts.skip(splits.IN_EVALUATION, where)
                else:
                    yield text, splits.is_held_out(text, where, source, config)

    return itertools.islice(documents(), config.max_documents)


def _encoded(
    records: Iterable[tuple[str, bool]], tokenizer: Tokenizer, processes: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each chunk of documents, in order: held out [p], concatenated tokens [t], and lengths [p]."""
    chunks = _chunks(records)
    if processes < 1:
        for texts, held_out in chunks:
            yield held_out, *_encode(tokenizer, texts)
        return
    backend = tokenizer.backend.to_str()
    pool = concurrent.futures.ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), _start_worker, (backend,)
    )
    with pool:
        pending: collections.deque = collections.deque()
        for texts, held_out in chunks:
            pending.append((held_out, pool.submit(_encode_in_worker, texts)))
            # limits how many chunks are in memory
            if len(pending) > 2 * processes:
                held_out, result = pending.popleft()
                yield held_out, *result.result()
        for held_out, result in pending:
            yield held_out, *result.result()


def _chunks(records: Iterable[tuple[str, bool]]) -> Iterator[tuple[list[str], np.ndarray]]:
    flags: collections.deque[bool] = collections.deque()

    def texts() -> Iterator[str]:
        for text, held_out in records:
            flags.append(held_out)
            yield text

    for chunk in vocabulary.chunks(texts(), _CHUNK):
        yield chunk, np.array([flags.popleft() for _ in chunk])


def _encode(tokenizer: Tokenizer, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    encoded = tokenizer.encode_batch(texts)
    return np.concatenate(encoded), np.array([len(ids) for ids in encoded], np.int64)


# set in worker processes
_tokenizer: Tokenizer | None = None


def _start_worker(backend: str) -> None:
    global _tokenizer
    end_with_parent()
    # the worker processes already use all cores
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _tokenizer = tokenizers.from_json(backend)


def _encode_in_worker(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    assert _tokenizer is not None
    return _encode(_tokenizer, texts)


def _resume(folder: pathlib.Path, recipe: dict, outputs: dict[Split, _Output]) -> int:
    """Number of documents finished by an earlier call; truncates the files to that state."""
    path = folder / "progress.json"
    if not path.is_file():
        # what a first call left that could not write its first file, such as on a full disk
        others = [p.name for p in folder.iterdir() if p.name != "progress.json.tmp"]
        if others:
            raise ValueError(f"{folder}: not empty, it contains {', '.join(sorted(others)[:5])}")
        _record(folder, recipe, outputs, 0)
        return 0
    state = json_text.read_object(path)
    started = json_text.member(state, "recipe", dict, path)
    _check_recipe(folder, "was started with", started, recipe)
    entries = json_text.member(state, "splits", dict, path)
    shards.check_splits(entries, path)
    for split, output in outputs.items():
        entry = json_text.member(entries, f"splits.{split}", dict, path)
        output.files = entry["files"]
        output.documents = entry["documents"]
        output.truncate()
    done: int = json_text.member(state, "done", int, path)
    return done


def _check_recipe(folder: pathlib.Path, what: str, old: dict, recipe: dict) -> None:
    changed = [k for k in recipe if old.get(k) != recipe[k]]
    if changed:
        raise ValueError(
            f"{folder}: {what} different {', '.join(changed)}: use the same settings, or another folder"
        )


def _state(outputs: dict[Split, _Output]) -> dict[str, Any]:
    return {
        split: {"documents": o.documents, "tokens": o.tokens, "files": o.files}
        for split, o in outputs.items()
    }


def _record(folder: pathlib.Path, recipe: dict, outputs: dict[Split, _Output], done: int) -> None:
    _write_json(
        folder / "progress.json", {"recipe": recipe, "done": done, "splits": _state(outputs)}
    )


def _finish(
    folder: pathlib.Path,
    recipe: dict,
    outputs: dict[Split, _Output],
    command: str,
    counts: RowCounts,
) -> dict[str, Any]:
    """Adds checksums and writes the manifest."""
    for output in outputs.values():
        for f in output.files:
            f["sha256"] = shards.file_hash(folder / f["name"])
            f["bytes"] = (folder / f["name"]).stat().st_size
    written = _state(outputs)
    for split, entry in written.items():
        if (ends := folder / f"{split}.ends").is_file():
            entry["ends_sha256"] = shards.file_hash(ends)
    skipped = {"rows_read": counts.read, "left_out": dict(counts.skipped)}
    manifest = {**recipe, "command": command, **skipped, "splits": written}
    _write_json(folder / "manifest.json", manifest)
    (folder / "progress.json").unlink()
    return manifest


def _write_json(path: pathlib.Path, value: dict[str, Any]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    _new_file(temporary)
    temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)
