"""The data of few_labels.py: unlabelled texts, labelled texts to choose from, and a balanced test set."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import pathlib

import numpy as np

# texts of validation, to follow the training by
HELD_OUT = 1000


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Texts with their classes, 0 and 1."""

    texts: list[str]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: np.ndarray) -> Labelled:
        """Some of them."""
        return Labelled([self.texts[i] for i in indices], self.labels[indices])

    def draw(self, count: int, seed: int) -> Labelled:
        """`count` texts, half of them of each class."""
        rng = np.random.default_rng(seed)
        halves = [rng.permutation(np.flatnonzero(self.labels == c))[: count // 2] for c in (0, 1)]
        return self.take(np.concatenate(halves))


@dataclasses.dataclass(frozen=True)
class Data:
    """One data set."""

    # texts without labels, those of `pool` among them: a file with one in each line
    unlabelled: pathlib.Path
    held_out: pathlib.Path
    # labels are drawn from here
    pool: Labelled
    test: Labelled


def yelp(source: pathlib.Path, folder: pathlib.Path) -> Data:
    """Sentences of Yelp reviews: dev.0.txt, dev.1.txt, test.0.txt and test.1.txt of Shen et al. (2017, 1705.09655).

    Their training files are not among them, so all are divided anew by a hash of the text, without duplicates.
    """
    labels: dict[str, int] = {}
    both = set()
    for part in ("dev", "test"):
        for label in (0, 1):
            for line in (source / f"{part}.{label}.txt").read_text().splitlines():
                if labels.setdefault(line, label) != label:
                    both.add(line)
    texts = sorted((t for t in labels if t.strip() and t not in both), key=_hash)
    whole = Labelled(texts, np.array([labels[t] for t in texts]))
    order = [np.flatnonzero(whole.labels == label) for label in (0, 1)]
    test = whole.take(np.concatenate([x[:5000] for x in order]))
    pool = whole.take(np.concatenate([x[5000:7500] for x in order]))
    rest = [texts[i] for x in order for i in x[7500:]]
    return _write(folder, sorted(rest + pool.texts, key=_hash), pool, test)


def chnsenticorp(source: pathlib.Path, extra: pathlib.Path, folder: pathlib.Path) -> Data:
    """Chinese reviews of hotels, books and computers (ChnSentiCorp), cut to LONGEST characters.

    Unlabelled texts are the training part and, in `extra`, the titles of unlabelled news (unlabeled.json of FewCLUE's
    tnews), which are not of this kind.
    """
    parts = {}
    for part in ("train", "dev", "test"):
        with open(source / f"{part}.tsv", encoding="utf-8") as f:
            rows = list(csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE))
        texts = [" ".join(row["text_a"].split())[:LONGEST] for row in rows]
        parts[part] = Labelled(texts, np.array([int(row["label"]) for row in rows]))
    with open(extra / "unlabeled.json", encoding="utf-8") as f:
        titles = [json.loads(line)["sentence"] for line in f]
    test = Labelled(
        parts["dev"].texts + parts["test"].texts,
        np.concatenate([parts["dev"].labels, parts["test"].labels]),
    )
    used = set(test.texts)
    train = parts["train"]
    pool = train.take(np.array([i for i, t in enumerate(train.texts) if t and t not in used]))
    texts = {*pool.texts, *(t for t in titles if t.strip())}
    return _write(folder, sorted(texts, key=_hash), pool, test)


# characters of a Chinese text: a row of 128 tokens has room for them
LONGEST = 126


def _write(folder: pathlib.Path, texts: list[str], pool: Labelled, test: Labelled) -> Data:
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / "unlabelled.txt", folder / "held_out.txt"
    for file, lines in zip(files, (texts[HELD_OUT:], texts[:HELD_OUT])):
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return Data(*files, pool, test)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
