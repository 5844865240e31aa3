"""Tokenized text on disk, memory-mapped for training; `shard_writer` writes it.

A folder contains `manifest.json`, `tokenizer.json` and, for each of the splits train and validation,

- `<split>-00000.tokens` and so on: ids as uint16 or uint32 in the machine's byte order, without control tokens;
- `<split>.ends`: the exclusive end of each document in the concatenated tokens of the split, int64.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import hashlib
import pathlib
from typing import Any, Literal

import numpy as np

from jaxlm.config import json_text
from jaxlm.config.data import DataConfig
from jaxlm.data.documents import TokenDocuments
from jaxlm.data.reading import Split, is_shards, shard_folder
from jaxlm.data.token_files import TokenFiles
from jaxlm.data.tokenizer import Tokenizer, TwoTokenizers

VERSION = 1
SPLITS: tuple[Split, ...] = ("train", "validation")
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
            ValueError: they were written with another one, or it has two vocabularies.
        """
        if isinstance(tokenizer, TwoTokenizers):
            raise ValueError(
                f"{self.folder}: shards hold the tokens of one tokenizer, but encoder and decoder have different ones: "
                "give the text itself"
            )
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
    return file_hash(path)


def file_hash(path: pathlib.Path) -> str:
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
    check_splits(json_text.member(manifest, "splits", dict, path), path)
    return manifest


def check_splits(entries: dict[str, Any], path: pathlib.Path) -> None:
    """Checks the lists of files; no name leads out of the folder.

    Raises:
        ValueError: something is missing, of another type, or not a name that `write` gives.
    """
    for split, entry in entries.items():
        if split not in SPLITS:
            raise ValueError(f"{path}: splits.{split[:40]} is not {' or '.join(SPLITS)}")
        json_text.member(entry, f"splits.{split}.documents", int, path)
        for i, file in enumerate(json_text.member(entry, f"splits.{split}.files", list, path)):
            where = f"splits.{split}.files[{i}]"
            json_text.member(file, f"{where}.tokens", int, path)
            name = json_text.member(file, f"{where}.name", str, path)
            if name != file_name(split, i):
                raise ValueError(
                    f"{path}: {where}.name is {name[:60]!r}, expected {file_name(split, i)!r}"
                )


def file_name(split: Split, number: int) -> str:
    """Of the tokens with this number of a split."""
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
