"""Tokenized text on disk: written once by several processes, memory-mapped for training.

A folder contains `manifest.json`, `tokenizer.json` and, for each of the splits train and validation,

- `<split>-00000.tokens` and so on: ids as uint16 or uint32 in the machine's byte order, without control tokens;
- `<split>.ends`: the exclusive end of each document in the concatenated tokens of the split, int64.

During writing, `progress.json` records the number of finished documents.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
import hashlib
import itertools
import json
import multiprocessing
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import numpy as np

from jaxlm.config import json_text
from jaxlm.config.data import DataConfig
from jaxlm.config.disk import check_no_link
from jaxlm.config.urls import refuse_url
from jaxlm.data import splits, vocabulary
from jaxlm.data import tokenizer as tokenizers
from jaxlm.data.bad_rows import RowCounts
from jaxlm.data.documents import TokenDocuments
from jaxlm.data.reading import Split, is_shards, read, shard_folder
from jaxlm.data.sources import text_columns
from jaxlm.data.token_files import TokenFiles
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.data.workers import end_with_parent

VERSION = 1
# characters that a worker encodes at a time
_CHUNK = 1 << 21
# bytes of a split that are hashed at every start
_MOST_VERIFIED = 2 << 30


@dataclasses.dataclass(frozen=True)
class ShardedText:
    """One split of a folder of shards."""

    folder: pathlib.Path
    split: Split
    docs: TokenDocuments
    # fingerprint of the tokenizer that it was written with
    fingerprint: str

    def describe(self) -> str:
        """One line: number of documents and tokens."""
        return f"{len(self.docs):,} documents, {self.docs.num_tokens:,} tokens in {self.folder}"

    def token_documents(self, tokenizer: Tokenizer) -> TokenDocuments:
        """The documents, which must have been written with this tokenizer.

        Raises:
            ValueError: they were written with another one.
        """
        if tokenizer.text_fingerprint != self.fingerprint:
            raise ValueError(
                f"{self.folder}: written with tokenizer {self.fingerprint[:12]}, but this run uses "
                f"{tokenizer.text_fingerprint[:12]}: tokenize the text again, or use the folder's tokenizer.json"
            )
        return self.docs


def load(
    source: str, split: Split, verify: Literal["auto", "always"] = "auto"
) -> ShardedText | None:
    """One split of a folder of shards; None if the split is empty.

    Args:
        source: the folder.
        split: which.
        verify: compare every byte with the hashes of the manifest; auto: if it is at most 2 GB, which takes seconds.

    Raises:
        ValueError: the folder has no shards or is incomplete, or its files do not match the manifest.
    """
    folder = shard_folder(source)
    manifest = read_manifest(folder)
    entry = manifest["splits"].get(split)
    if entry is None or not entry["documents"]:
        return None
    files = entry["files"]
    tokens = TokenFiles(
        [folder / f["name"] for f in files],
        [f["tokens"] for f in files],
        np.dtype(manifest["dtype"]),
        manifest["vocab_size"],
    )
    path = folder / f"{split}.ends"
    count = entry["documents"]
    if not path.is_file() or path.stat().st_size != 8 * count:
        raise ValueError(
            f"{path}: missing, or not {8 * count:,} bytes, as the manifest says; copy it again"
        )
    ends = np.memmap(path, np.int64, "r", shape=(count,))
    if int(ends[-1]) != len(tokens):
        raise ValueError(
            f"{path}: ends at token {int(ends[-1]):,} of {len(tokens):,}: copy it again"
        )
    if count and (int(ends[0]) < 0 or (np.diff(ends) < 0).any()):
        raise ValueError(f"{path}: the ends of the documents are not in order: copy it again")
    hashes = {folder / f["name"]: f.get("sha256") for f in files}
    hashes[path] = entry.get("ends_sha256")
    if verify == "always" or sum(p.stat().st_size for p in hashes) <= _MOST_VERIFIED:
        _verify(hashes)
    docs = TokenDocuments(tokens, np.asarray(ends))
    return ShardedText(folder, split, docs, manifest["tokenizer"])


def _verify(hashes: dict[pathlib.Path, Any]) -> None:
    """Raises ValueError if a file does not have its hash; files without one are left out."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        known = {path: wanted for path, wanted in hashes.items() if wanted is not None}
        found = pool.map(lambda path: _known_hash(path, path.stat().st_mtime_ns), known)
        for (path, wanted), given in zip(known.items(), found):
            if given != wanted:
                raise ValueError(
                    f"{path}: not what was written (its hash is not that of the manifest): copy it again"
                )


@functools.lru_cache(maxsize=4096)
def _known_hash(path: pathlib.Path, _: int) -> str:
    """The hash of a file, computed once for each time at which it was changed."""
    return _file_hash(path)


def _file_hash(path: pathlib.Path) -> str:
    """SHA-256 of the contents of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_finished(folder: pathlib.Path) -> bool:
    """Whether the folder has complete shards."""
    return (folder / "manifest.json").is_file()


def read_manifest(folder: pathlib.Path) -> dict[str, Any]:
    """The manifest of a complete folder of shards."""
    path = folder / "manifest.json"
    if not is_finished(folder):
        unfinished = (folder / "progress.json").is_file()
        what = "unfinished: run the same `jaxlm tokenize` again" if unfinished else "no shards"
        raise ValueError(f"{folder}: {what} (there is no manifest.json)")
    manifest = json_text.read_object(path)
    version = json_text.member(manifest, "version", int, path)
    if version != VERSION:
        raise ValueError(
            f"{path}: version {version} is not supported; this version of jaxlm reads {VERSION}"
        )
    json_text.member(manifest, "tokenizer", str, path)
    json_text.member(manifest, "vocab_size", int, path, least=1)
    dtype = json_text.member(manifest, "dtype", str, path)
    if dtype not in ("uint16", "uint32"):
        raise ValueError(f"{path}: dtype={dtype[:40]!r} is not uint16 or uint32")
    _check_splits(json_text.member(manifest, "splits", dict, path), path)
    return manifest


def _check_splits(entries: dict[str, Any], path: pathlib.Path) -> None:
    """Checks the lists of files; no name leads out of the folder.

    Raises:
        ValueError: something is missing, of another type, or not a name that `write` gives.
    """
    for split, entry in entries.items():
        if split not in _SPLITS:
            raise ValueError(f"{path}: splits.{split[:40]} is not {' or '.join(_SPLITS)}")
        json_text.member(entry, f"splits.{split}.documents", int, path)
        for i, file in enumerate(json_text.member(entry, f"splits.{split}.files", list, path)):
            where = f"splits.{split}.files[{i}]"
            json_text.member(file, f"{where}.tokens", int, path)
            name = json_text.member(file, f"{where}.name", str, path)
            if name != _file_name(split, i):
                raise ValueError(
                    f"{path}: {where}.name is {name[:60]!r}, expected {_file_name(split, i)!r}"
                )


def _file_name(split: Split, number: int) -> str:
    return f"{split}-{number:05d}.tokens"


def tokenizer_path(config: DataConfig) -> pathlib.Path | None:
    """The tokenizer file of the training shards; None if the training sources are not shards.

    Raises:
        ValueError: the shards were written with different tokenizers.
    """
    folders = [shard_folder(source) for source in config.train if is_shards(source)]
    if not folders:
        return None
    prints = {folder: read_manifest(folder)["tokenizer"] for folder in folders}
    if len(set(prints.values())) > 1:
        raise ValueError(
            f"{', '.join(map(str, folders))}: written with different tokenizers, cannot be mixed; tokenize again"
        )
    return folders[0] / "tokenizer.json"


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
            name = _file_name(self.split, len(self.files))
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
    if is_finished(folder):
        manifest = read_manifest(folder)
        _check_recipe(folder, "has finished shards with", manifest, recipe)
        return manifest
    outputs = {s: _Output(folder, s, tokenizer.dtype, shard_tokens) for s in _SPLITS}
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


_SPLITS: tuple[Split, ...] = ("train", "validation")


def _recipe(config: DataConfig, tokenizer: Tokenizer, shard_tokens: int) -> dict[str, Any]:
    """Everything that the result depends on; a call can only be resumed with the same recipe."""
    settings = config.tokenizer
    return {
        "version": VERSION,
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
    _check_splits(entries, path)
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
            f["sha256"] = _file_hash(folder / f["name"])
            f["bytes"] = (folder / f["name"]).stat().st_size
    written = _state(outputs)
    for split, entry in written.items():
        if (ends := folder / f"{split}.ends").is_file():
            entry["ends_sha256"] = _file_hash(ends)
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
